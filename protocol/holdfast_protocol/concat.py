"""`Upload-Concat`: which uploads are put together to one (tus 1.0.0, Concatenation; T-CONCAT-1, T-CONCAT-3).

Rule of this file: the value is kept and echoed as it came, and each URL in it stands for an upload by its path. A
host is looked at only to refuse a foreign one; nothing is ever fetched.
"""

import re
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from holdfast_protocol import headers
from holdfast_protocol.problem import FieldError

PARTIAL: Final = "partial"

_UPLOAD: Final = re.compile(r"(?:/[^?#]*)?/files/([0-9a-f]{32})/?")
_PORTS: Final = {"http": 80, "https": 443}


class Concat(Struct, frozen=True):
    """The value as it came, and the URLs of the parts in it, at least one; None for a part itself."""

    raw: str
    urls: tuple[str, ...] | None


def parse_concat(value: str) -> Concat:
    """`partial`, or `final;` and URLs with one blank between them. Raises FieldError."""
    if value == PARTIAL:
        return Concat(value, None)
    kind, _, rest = value.partition(";")
    urls = tuple(rest.split(" "))
    if kind != "final" or not all(urls):
        raise FieldError(headers.UPLOAD_CONCAT, "send partial, or final;URL URL with one blank between two URLs")
    return Concat(value, urls)


def upload_ids(urls: Sequence[str], path: str, hosts: Collection[str]) -> tuple[str, ...]:
    """The ids of the uploads that the URLs name.

    Relative ones are resolved against `path`, that of the request (RFC 3986, section 5.2); absolute ones have to be
    on one of `hosts`, as `Host` spells them. A prefix before `/files/` may be there: a proxy may have put it there.
    Raises FieldError.
    """
    known = {host.lower().removesuffix(suffix) for host in hosts for suffix in ("", ":80", ":443")}
    return tuple(_upload_id(url, path, known) for url in urls)


def _upload_id(url: str, path: str, known: Collection[str]) -> str:
    try:
        parts = urlsplit(urljoin(path, url))
        host, port = parts.hostname, parts.port
    except ValueError:
        raise FieldError(headers.UPLOAD_CONCAT, f"{url!r} is not a URL") from None
    if parts.scheme not in ("", "http", "https") or (parts.scheme and not host):
        raise FieldError(headers.UPLOAD_CONCAT, f"{url!r} is not an http URL")
    if host is not None:
        spelled = f"[{host}]" if ":" in host else host
        if port is not None and port != _PORTS.get(parts.scheme):
            spelled += f":{port}"
        if spelled not in known:
            raise FieldError(headers.UPLOAD_CONCAT, f"{url!r} is not on this server")
    match = _UPLOAD.fullmatch(parts.path)
    if match is None or parts.query:
        raise FieldError(headers.UPLOAD_CONCAT, f"{url!r} is not the URL of an upload here")
    return match[1]
