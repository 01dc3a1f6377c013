"""The server under test, as far as the suite knows it: one URL to create uploads at.

    Offer     what OPTIONS said
    Subject   the requests of tus 1.0.0, one connection each, with nothing mended on the way

Rule of this file: nothing is known of a server but the creation URL that was given, what OPTIONS answers there, and
the Location of each upload. Whether bytes can be read back with GET is tried and never required: tus has no GET.
"""

import base64
import contextlib
import hashlib
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from tests.support.wire import Answer, Connection, ConnectionLostError, Fields

TUS: Final = {"Tus-Resumable": "1.0.0"}
MEDIA: Final = "application/offset+octet-stream"
BODY: Final = {**TUS, "Content-Type": MEDIA}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def checksum(algorithm: str, data: bytes) -> str:
    """A value of Upload-Checksum, with an algorithm of hashlib."""
    return f"{algorithm} {b64(hashlib.new(algorithm, data, usedforsecurity=False).digest())}"


def listed(value: str | None) -> tuple[str, ...]:
    """The members of a comma-separated list."""
    return () if value is None else tuple(member.strip() for member in value.split(",") if member.strip())


@dataclass(frozen=True)
class Offer:
    """What a server says of itself: extensions, names of checksums, and the longest upload in bytes if there is
    a limit.
    """

    extensions: frozenset[str]
    algorithms: tuple[str, ...]
    max_size: int | None

    @classmethod
    def of(cls, answer: Answer) -> "Offer":
        limit = answer.get("tus-max-size")
        return cls(
            frozenset(listed(answer.get("tus-extension"))),
            listed(answer.get("tus-checksum-algorithm")),
            int(limit) if limit is not None and limit.isascii() and limit.isdigit() else None,
        )


class Subject:
    """Speaks tus to the server at `url`, an absolute http URL. Every request raises TimeoutError after 20 s
    (scaled), ConnectionLostError if no whole answer came.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{url} is not the http URL of a server")
        port = f":{parts.port or 80}"
        self.url = parts._replace(netloc=parts.hostname + port, path=parts.path or "/").geturl()
        self.offer = Offer.of(self.request("OPTIONS", self.url))

    def offers(self, *extensions: str) -> bool:
        return self.offer.extensions >= set(extensions)

    def connect(self) -> Connection:
        return Connection(self.url)

    def request(self, method: str, url: str, fields: Fields = (), body: bytes | None = None) -> Answer:
        with Connection(self.url) as connection:
            return connection.request(method, url, fields, body)

    def post(self, **fields: str) -> Answer:
        """POST at the creation URL without a body; `Upload_Length` becomes Upload-Length."""
        return self.request("POST", self.url, {**TUS, **spelled(fields)}, b"")

    def where(self, answer: Answer) -> str:
        """The URL of the upload that a 201 tells of."""
        assert answer.status == 201, f"a creation was answered {answer.status}, not 201"
        location = answer.get("location")
        assert location, "a 201 came without Location"
        return urljoin(self.url, location)

    def create(self, length: int, **fields: str) -> str:
        """A new upload; its URL."""
        return self.where(self.post(Upload_Length=str(length), **fields))

    def head(self, upload: str) -> Answer:
        return self.request("HEAD", upload, TUS)

    def patch(self, upload: str, offset: int | str, body: bytes, **fields: str) -> Answer:
        return self.request("PATCH", upload, {**BODY, "Upload-Offset": str(offset), **spelled(fields)}, body)

    def delete(self, upload: str) -> Answer:
        return self.request("DELETE", upload, TUS)

    def uploaded(self, data: bytes, **fields: str) -> str:
        """A new upload with all of `data`; its URL."""
        upload = self.create(len(data), **fields)
        if data:
            answer = self.patch(upload, 0, data)
            assert answer.status == 204, f"PATCH was answered {answer.status}, not 204"
        return upload

    def offset(self, upload: str) -> int:
        """The offset that HEAD tells."""
        answer = self.head(upload)
        assert answer.status in (200, 204), f"HEAD on an upload was answered {answer.status}"
        value = answer.get("upload-offset")
        assert value is not None, "HEAD came without Upload-Offset"
        return int(value)

    def content(self, upload: str) -> bytes | None:
        """The bytes of a finished upload, or None if the server does not give them out."""
        with contextlib.suppress(ConnectionLostError):
            answer = self.request("GET", upload, TUS)
            if answer.status == 200:
                return answer.body
        return None

    def nobody(self, upload: str) -> str:
        """The URL of an upload that never was, of the same shape as that of `upload`."""
        head, slash, tail = upload.rstrip("/").rpartition("/")
        turned = str.maketrans("0123456789abcdefghijklmnopqrstuvwxyz", "1234567890bcdefahijklmnopqrstuvwxyzg")
        return head + slash + tail.translate(turned)


def spelled(fields: dict[str, str]) -> dict[str, str]:
    """Names of arguments as names of fields."""
    return {name.replace("_", "-"): value for name, value in fields.items()}


IMF_FIXDATE: Final = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-3]\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} "
    r"[0-2]\d:[0-5]\d:[0-6]\d GMT"
)
"""RFC 9110, section 5.6.7."""
