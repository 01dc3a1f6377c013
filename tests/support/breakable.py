"""Good requests of every dialect on uploads of every kind, and which of their fields may be broken.

    Pieces          the uploads of the server under test
    Request         a request, and what breaks it
    make_request    one of them, from a source of random choices

Rule of this file: whatever field is broken, alone or with others, the request is refused, and changes nothing. Field
names and values are spelled by hand here, and not taken from the package under test.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.support import bad_values as bad
from tests.support.drafts import VERSIONS, append, completeness, version_field
from tests.support.speaker import CHUNK, GRANULE, TUS, TUS_BODY, b64, digest, raw_digest

BLOCK: Final = random.Random(20).randbytes(1 << 16)
"""A body."""

Rng = random.Random
Fields = list[tuple[str, str]]


@dataclass(frozen=True)
class Piece:
    path: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class Pieces:
    """The uploads that no case may change. `file` are the bytes of `complete`."""

    receiving: Piece
    deferred: Piece
    partial: Piece
    final: Piece
    holes: Piece
    complete: Piece
    failed: Piece
    draft: Piece
    file: bytes
    host: str

    def open(self) -> list[Piece]:
        """Those that take bytes."""
        return [self.receiving, self.deferred, self.partial, self.holes, self.draft]

    def all(self) -> list[Piece]:
        return [*self.open(), self.final, self.complete, self.failed]


@dataclass(frozen=True)
class Request:
    """A good request, and which of its fields may be broken, each so that it is refused for certain."""

    method: str
    target: str
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    breaks: tuple[tuple[str, "Callable[[Rng], list[str]]"], ...] = ()
    """Names of fields and what makes values for them: no value leaves the field out, two send it twice."""

    def wire(self, host: str) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in self.fields)]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


def make_request(rng: Rng, pieces: Pieces) -> Request:
    """A good request of any dialect on any upload, and what makes it a bad one."""
    return rng.choice(
        (_tus_patch, _tus_create, _chunk, _complete, _draft_create, _draft_patch, _draft_ask, _get, _api, _ask)
    )(rng, pieces)


def pairs(*fields: dict[str, str]) -> Fields:
    return [pair for each in fields for pair in each.items()]


def _tus_patch(rng: Rng, pieces: Pieces) -> Request:
    piece = rng.choice(pieces.open())
    body = rng.randbytes(rng.choice((1, 10, 200)))
    fields = pairs(TUS_BODY, {"Upload-Offset": str(piece.offset), "Content-Length": str(len(body))})
    fields.append(("Upload-Checksum", f"sha1 {b64(raw_digest('sha', body))}"))

    def elsewhere(rng: Rng) -> list[str]:
        return [str(piece.offset + rng.choice((1, 7, 65536, 10**15)))]

    def length(rng: Rng) -> list[str]:
        return [bad.malformed_integer(rng)] if piece.length is None else [str(piece.length + 1)]

    breaks = (
        ("Upload-Offset", bad.integer_or_none),
        ("Upload-Offset", elsewhere),
        ("Tus-Resumable", bad.tus_version),
        ("Upload-Checksum", bad.checksum),
        ("Content-Type", bad.media_type),
        ("Upload-Length", length),
        ("Upload-Length", bad.integer),
        ("X-HTTP-Method-Override", bad.override),
    )
    return Request("PATCH", piece.path, fields, body, breaks)


def _tus_create(rng: Rng, pieces: Pieces) -> Request:
    fields = pairs(TUS, {"Upload-Length": str(rng.randrange(1, 10**6)), "Content-Length": "0"})

    def huge(rng: Rng) -> list[str]:
        return [str(rng.randrange(10**15, 10**18))]

    def deferred(rng: Rng) -> list[str]:
        return rng.choice((["1", "1"], ["0"], ["2"], ["?1"], [""], ["01"]))

    breaks = (
        ("Upload-Length", bad.integer_or_none),
        ("Upload-Length", huge),
        ("Upload-Defer-Length", deferred),
        ("Tus-Resumable", bad.tus_version),
        ("Upload-Metadata", bad.metadata),
        ("Upload-Concat", bad.concat),
        ("Upload-Digest", bad.malformed_digests),
        ("Upload-Parallel", bad.boolean),
        ("X-HTTP-Method-Override", bad.override),
    )
    return Request("POST", rng.choice(("/files", "/files/")), fields, b"", breaks)


def _chunk(rng: Rng, pieces: Pieces) -> Request:
    piece = pieces.holes
    body = rng.choice((BLOCK[:GRANULE], BLOCK[:10]))
    fields = pairs(
        {
            "Content-Type": CHUNK,
            "Upload-Offset": str(GRANULE if len(body) == GRANULE else 4 * GRANULE),
            "Content-Length": str(len(body)),
            "Content-Digest": digest(body),
        }
    )

    def elsewhere(rng: Rng) -> list[str]:
        return [str(rng.choice((1, 65535, GRANULE + 512, 50 * GRANULE, 10**17)))]

    def version(rng: Rng) -> list[str]:
        return ["2.0.0"]

    breaks = (
        ("Upload-Offset", bad.integer_or_none),
        ("Upload-Offset", elsewhere),
        ("Content-Digest", bad.digests_or_none),
        ("Content-Type", bad.media_type),
        ("Tus-Resumable", version),
        ("X-HTTP-Method-Override", bad.override),
    )
    return Request("PATCH", piece.path, fields, body, breaks)


def _complete(rng: Rng, pieces: Pieces) -> Request:
    """Refused as it is, where bytes are missing or nothing can be completed."""
    piece = rng.choice((pieces.holes, pieces.receiving, pieces.partial, pieces.final, pieces.failed, pieces.deferred))
    fields = pairs({"Content-Type": CHUNK, "Upload-Complete": "?1", "Content-Length": "0"})
    return Request(
        "PATCH",
        piece.path,
        fields,
        b"",
        (("Upload-Digest", bad.malformed_digests), ("Upload-Complete", bad.boolean), ("X-Nothing", bad.integer)),
    )


def _draft_create(rng: Rng, pieces: Pieces) -> Request:
    version = rng.choice(VERSIONS)
    said = completeness(False, version)
    fields = pairs(version_field(version), said, {"Upload-Length": "1000", "Content-Length": "0"})
    # No length, or one that is no structured field (I-FIELD-1), makes an upload of unknown length.
    breaks = (
        (next(iter(said)), bad.boolean),
        ("Upload-Metadata", bad.metadata),
        ("Upload-Digest", bad.malformed_digests),
        ("Content-Digest", bad.malformed_digests),
        ("Tus-Resumable", lambda rng: ["1.0"]),
        ("X-HTTP-Method-Override", bad.override),
    )
    return Request("POST", "/files", fields, b"", breaks)


def _draft_patch(rng: Rng, pieces: Pieces) -> Request:
    version = rng.choice(VERSIONS)
    body = rng.randbytes(rng.choice((1, 10, 200)))
    piece = rng.choice((pieces.draft, pieces.receiving))
    fields = pairs(
        append(piece.offset, False, version), {"Content-Length": str(len(body)), "Content-Digest": digest(body)}
    )

    def elsewhere(rng: Rng) -> list[str]:
        return [str(piece.offset + rng.choice((1, 7, 65536)))]

    breaks: list[tuple[str, Callable[[Rng], list[str]]]] = [
        ("Upload-Offset", bad.integer_or_none),
        ("Upload-Offset", elsewhere),
        ("Content-Digest", bad.wrong_digests),
        ("Upload-Length", lambda rng: [str((piece.length or 0) + 1)]),
        ("Tus-Resumable", lambda rng: ["1.0"]),
        ("X-HTTP-Method-Override", bad.override),
    ]
    if version != 3:
        breaks.append(("Upload-Complete", bad.boolean))
    if version not in (3, 5):
        breaks.append(("Content-Type", bad.media_type))
    return Request("PATCH", piece.path, fields, body, tuple(breaks))


def _draft_ask(rng: Rng, pieces: Pieces) -> Request:
    """HEAD and DELETE with fields that these versions do not allow there."""
    version = rng.choice((3, 5, 6))
    piece = rng.choice(pieces.all())
    fields = pairs(version_field(version))

    def anything(rng: Rng) -> list[str]:
        return [rng.choice(("0", "?1", "", "\xff", "10"))]

    return Request(rng.choice(("HEAD", "DELETE")), piece.path, fields, b"", (("Upload-Offset", anything),))


def _get(rng: Rng, pieces: Pieces) -> Request:
    if rng.random() < 0.5:
        piece = rng.choice([each for each in pieces.all() if each is not pieces.complete and each is not pieces.final])
        return Request(
            "GET",
            piece.path,
            [],
            b"",
            (("Range", bad.ranges_beyond), ("If-Range", bad.foreign_tags), ("X-Nothing", bad.integer)),
        )
    breaks = (("If-Match", bad.foreign_tags), ("If-None-Match", bad.malformed_tags), ("Range", bad.ranges_beyond))
    return Request("GET", pieces.complete.path, [], b"", breaks)


def _ask(rng: Rng, pieces: Pieces) -> Request:
    """Requests that a wrong version of tus stops, the harmful one too."""
    piece = rng.choice(pieces.all())

    def wrong(rng: Rng) -> list[str]:
        return rng.choice((["2.0.0"], ["1.0"], [""], ["1.0.0", "1.0.0"], ["\xff"]))

    return Request(rng.choice(("HEAD", "DELETE", "GET", "PATCH")), piece.path, [], b"", (("Tus-Resumable", wrong),))


def _api(rng: Rng, pieces: Pieces) -> Request:
    """Refused as it is: a bad query, an id that is none, a method that is not offered."""
    some = rng.choice(pieces.all()).path.rsplit("/", 1)[1]
    query = rng.choice(
        ("limit=0", "limit=x", "limit=-1", "limit=1&limit=2", "limit=%ff", "limit=" + "9" * 400, "limit=%2b1")
    )
    state = rng.choice((query, "after=-1", "after=1_0", "after=1e3", "after=" + "8" * 19))
    listed = rng.choice((query, "state=sleeping", "before=x", "before=~~", "state=", "state=a&state=b"))
    nobody = rng.choice(
        ("0" * 32, some[:-1], some.upper() + "A", some + "%00", "..", "%2e%2e%2f", "%ff", "a" * 4000, "%")
    )
    method, target = rng.choice(
        (
            ("GET", f"/api/uploads/{some}?{state}"),
            ("GET", f"/api/uploads?{listed}"),
            ("GET", f"/api/uploads/{nobody}"),
            (rng.choice(("GET", "HEAD", "DELETE", "PATCH")), f"/files/{nobody}"),
            (rng.choice(("PUT", "POST", "DELETE", "TRACE", "PATCH")), f"/api/uploads/{some}"),
            (rng.choice(("PUT", "POST", "TRACE", "LOCK", "SOURCE")), f"/files/{some}"),
            (rng.choice(("PUT", "DELETE", "PATCH", "GET", "HEAD", "M-SEARCH")), "/files"),
            (
                "GET",
                rng.choice(("/nothing", "//", "/files//", "/..", "/%", "/files/a/b", "*", "/api", "/api/uploads/")),
            ),
        )
    )
    return Request(method, target, pairs(TUS), b"", (("X-Nothing", bad.integer),))
