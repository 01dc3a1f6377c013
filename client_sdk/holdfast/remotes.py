"""Which kind of server a URL is of.

Rule of this file: what is not needed for a URL is not imported for it; FTP comes with an extra.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from holdfast._transport import Transport
from holdfast.errors import UsageError
from holdfast.http_remote import HttpRemote
from holdfast.remote import Remote


def remote_of(url: str, transport: Transport, headers: Mapping[str, str]) -> Remote:
    """The file at `url`; `headers` are for its origin. Raises UsageError for what is no URL of a file."""
    scheme = urlsplit(url).scheme.lower()
    if scheme not in ("ftp", "ftps"):
        return HttpRemote(transport.session(url, headers, "down"))
    try:
        from holdfast.ftp import FtpRemote
    except ImportError as error:
        raise UsageError(
            f'FTP needs the package aioftp, which is not installed ({error}); run: pip install "holdfast[ftp]"'
        ) from error
    return FtpRemote(url, transport.limiters, transport.timeouts, transport.tls() if scheme == "ftps" else None)
