"""Which kind of server a URL is of."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from holdfast._transport import Transport
from holdfast.errors import UsageError
from holdfast.http_remote import HttpRemote
from holdfast.remote import Remote


def remote_of(url: str, transport: Transport, headers: Mapping[str, str]) -> Remote:
    """The file at `url`; `headers` are for its origin. Raises UsageError for what is no URL of a file."""
    if urlsplit(url).scheme.lower() in ("ftp", "ftps"):
        raise UsageError("not yet")
    return HttpRemote(transport.session(url, headers, "down"))
