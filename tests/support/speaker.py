"""A small client that speaks protocol.md: the requests of both dialects, one method each.

Rule of this file: field names and values are spelled here by hand, from protocol.md, and not taken from the
package under test, so that a wrong constant there is seen.
"""

import base64
import hashlib
import re
from types import TracebackType
from typing import Any

import blake3
import google_crc32c
import xxhash

from tests.support.wire import Answer, Connection, ConnectionLostError, Fields

GRANULE = 65536
CHUNK = "application/vnd.holdfast.chunk"
TUS = {"Tus-Resumable": "1.0.0"}
TUS_BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}

Ranges = list[tuple[int, int]]
"""`(offset, length)` in ascending order, as on the wire."""


def raw_digest(algorithm: str, data: bytes) -> bytes:
    """The digest of `data`, by its RFC 9530 name or one of those of V-DIGEST-2."""
    match algorithm:
        case "xxh3-128":
            return xxhash.xxh3_128_digest(data)
        case "xxh3-64":
            return xxhash.xxh3_64_digest(data)
        case "xxh64":
            return xxhash.xxh64_digest(data)
        case "crc32c":
            return int(google_crc32c.value(data)).to_bytes(4, "big")
        case "blake3":
            return blake3.blake3(data).digest()
        case "sha":
            return hashlib.sha1(data, usedforsecurity=False).digest()
        case _:
            return hashlib.new(algorithm.replace("sha-", "sha"), data, usedforsecurity=False).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def digest(data: bytes, algorithm: str = "sha-256") -> str:
    """A member of an RFC 9530 dictionary: `sha-256=:BASE64:`."""
    return f"{algorithm}=:{b64(raw_digest(algorithm, data))}:"


def missing(answer: Answer) -> Ranges:
    """What `Upload-Missing` says; [] if the field is not there."""
    value = answer.get("upload-missing")
    if value is None:
        return []
    members = [re.fullmatch(r"\((\d+) (\d+)\)(;more)?", part) for part in value.split(", ")]
    assert all(members), f"Upload-Missing does not follow V-MISSING-1: {value!r}"
    return [(int(m[1]), int(m[2])) for m in members if m]


def has_more(answer: Answer) -> bool:
    """`Upload-Missing` says that there are other ranges behind the last one."""
    return (answer.get("upload-missing") or "").endswith(";more")


def chunk_fields(offset: int, data: bytes, algorithm: str = "xxh3-128", **other: str) -> dict[str, str]:
    """The fields of a chunk. `other` replaces or adds some: `Content_Length="7"`; an empty value leaves
    the field out.
    """
    fields = {
        "Content-Type": CHUNK,
        "Upload-Offset": str(offset),
        "Content-Length": str(len(data)),
        "Content-Digest": digest(data, algorithm),
    }
    fields.update({name.replace("_", "-"): value for name, value in other.items()})
    return {name: value for name, value in fields.items() if value}


def at_rest(state: dict[str, Any]) -> dict[str, Any]:
    """The JSON of an upload but for its progress, which says what time it is."""
    return {name: value for name, value in state.items() if name != "progress"}


class Speaker:
    """One keep-alive connection to the server at `url` (scheme, host and port), opened again when it is
    gone.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files = url + "/files"
        self._connection: Connection | None = None

    def __enter__(self) -> "Speaker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connection(self) -> Connection:
        """The connection of the next request."""
        if self._connection is not None and self._connection.stale:
            self.close()
        if self._connection is None:
            self._connection = Connection(self.url)
        return self._connection

    def request(self, method: str, target: str, fields: Fields = (), body: bytes | None = None) -> Answer:
        """Send a whole request and read the answer. Raises OSError or ConnectionLostError when the server
        is gone.
        """
        try:
            answer = self.connection.request(method, target, fields, body)
        except (OSError, ConnectionLostError):
            self.close()
            raise
        if (answer.get("connection") or "").lower() == "close":
            self.close()
        return answer

    def post(self, length: int | None, *, parallel: bool = False, body: bytes | None = None, **other: str) -> Answer:
        """Create an upload. `other` are fields with `_` for `-`."""
        fields = dict(TUS)
        if length is not None:
            fields["Upload-Length"] = str(length)
        if parallel:
            fields["Upload-Parallel"] = "?1"
        if body is not None:
            fields.update(TUS_BODY)
        fields.update({name.replace("_", "-"): value for name, value in other.items()})
        return self.request("POST", self.files, fields, body if body is not None else b"")

    def create(self, length: int, *, parallel: bool = True, **other: str) -> str:
        """Create an upload that must succeed; its URL."""
        answer = self.post(length, parallel=parallel, body=None, **other)
        assert answer.status == 201, answer
        return self.url + answer["location"]

    def head(self, url: str) -> Answer:
        return self.request("HEAD", url, TUS)

    def chunk(self, url: str, offset: int, data: bytes, algorithm: str = "xxh3-128", **other: str) -> Answer:
        return self.request("PATCH", url, chunk_fields(offset, data, algorithm, **other), data)

    def hole(self, url: str, offset: int, length: int, **other: str) -> Answer:
        """Say that bytes are zeros (P-HOLE-1)."""
        fields = {"Content-Type": CHUNK, "Upload-Offset": str(offset), "Upload-Hole": str(length)}
        fields.update({name.replace("_", "-"): value for name, value in other.items()})
        return self.request("PATCH", url, fields, b"")

    def patch(self, url: str, offset: int, data: bytes, **other: str) -> Answer:
        """A tus PATCH."""
        fields = {**TUS_BODY, "Upload-Offset": str(offset)}
        fields.update({name.replace("_", "-"): value for name, value in other.items()})
        return self.request("PATCH", url, fields, data)

    def complete(self, url: str, upload_digest: str | None = None) -> Answer:
        """Ask to verify and publish (P-COMPLETE-1)."""
        fields = {"Content-Type": CHUNK, "Upload-Complete": "?1"}
        if upload_digest is not None:
            fields["Upload-Digest"] = upload_digest
        return self.request("PATCH", url, fields, b"")

    def delete(self, url: str) -> Answer:
        return self.request("DELETE", url, TUS)

    def get(self, url: str, **other: str) -> Answer:
        return self.request("GET", url, {name.replace("_", "-"): value for name, value in other.items()})

    def status(self, upload: str, query: str = "") -> Any:
        """The JSON state of an upload, by its URL or id (D-JSON-1)."""
        answer = self.request("GET", f"/api/uploads/{upload.rsplit('/', 1)[-1]}{query}")
        assert answer.status == 200, answer
        return answer.json()

    def stored(self, upload: str) -> Ranges:
        """All stored ranges, from every page of the JSON state."""
        ranges: Ranges = []
        after: int | None = 0
        while after is not None:
            page = self.status(upload, f"?after={after}&limit=10000")
            ranges += [(offset, length) for offset, length in page["ranges"]]
            after = page["next"]
        return ranges
