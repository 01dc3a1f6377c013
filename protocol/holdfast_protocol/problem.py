"""What can go wrong, with one stable code each, as RFC 9457 problem details.

    ProblemError                 a request that is answered with a problem document
    FieldError (ValueError)      a field value that does not follow its grammar; fields.py raises it

Rule of this file: every code that either side may see is a row of `KINDS`. A code never changes its meaning;
the sentence may be improved. `protocol.md` lists the same rows, and a test holds them together.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

TYPE_PREFIX: Final = "urn:holdfast:problem:"
IANA_PREFIX: Final = "https://iana.org/assignments/http-problem-types#"
_IANA: Final = {
    "offset-mismatch": "mismatching-upload-offset",
    "inconsistent-upload-length": "inconsistent-upload-length",
    "completed-upload": "completed-upload",
}
"""Codes whose type the IETF draft has registered (the last one up to its version 8)."""


class Kind(Struct, frozen=True):
    """One row: the code, the status it is answered with, a title in words, and the type as a URL."""

    code: str
    status: int
    title: str
    type: str


def _kinds(*rows: tuple[str, int, str]) -> dict[str, Kind]:
    types = {code: IANA_PREFIX + name for code, name in _IANA.items()}
    return {code: Kind(code, status, title, types.get(code, TYPE_PREFIX + code)) for code, status, title in rows}


KINDS: Final[Mapping[str, Kind]] = _kinds(
    ("malformed-request", 400, "This is not a request of HTTP/1.1"),
    ("malformed-field", 400, "A header field does not follow its grammar"),
    ("missing-field", 400, "A header field that this request needs is missing"),
    ("conflicting-fields", 400, "Two header fields contradict each other"),
    ("unknown-algorithm", 400, "None of the digest algorithms given is known here"),
    ("misaligned-chunk", 400, "The chunk does not start or end on the granule of this upload"),
    ("out-of-bounds", 400, "The bytes lie beyond the end of the upload"),
    ("digest-mismatch", 400, "The body does not have the digest that was sent with it"),
    ("body-too-short", 400, "The body ended before the length that was announced"),
    ("body-too-long", 400, "The body is longer than the length that was announced"),
    ("inconsistent-upload-length", 400, "The length is not the one that this upload has"),
    ("completed-upload", 400, "This upload is complete"),
    ("unauthenticated", 401, "Who asks is not known"),
    ("credential-expired", 401, "The credential is no longer valid"),
    ("missing-scope", 403, "The credential does not reach so far"),
    ("not-permitted", 403, "The credential does not allow this"),
    ("given-up", 403, "Another upload was made in the place of this one"),
    ("final-upload", 403, "This upload takes no more bytes"),
    ("not-found", 404, "There is no upload here"),
    ("method-not-allowed", 405, "This method is not offered here"),
    ("request-timeout", 408, "No bytes came for too long"),
    ("offset-mismatch", 409, "The offset is not the one where this upload goes on"),
    ("chunk-conflict", 409, "Other bytes are stored in this range"),
    ("missing-ranges", 409, "Bytes are still missing"),
    ("fenced", 409, "Another request took over this upload"),
    ("data-lost", 409, "Bytes that were stored are gone from the disk of the server"),
    ("upload-failed", 409, "This upload has failed and takes no more bytes"),
    ("length-unknown", 409, "The length of this upload is not known yet"),
    ("not-finished", 409, "This upload is not finished, so there is nothing to download yet"),
    ("gone", 410, "This upload is no longer here"),
    ("length-required", 411, "This request needs a Content-Length"),
    ("precondition-failed", 412, "The file is not the one that was asked for"),
    ("version-not-supported", 412, "This version of tus is not spoken here"),
    ("upload-too-large", 413, "The upload is larger than this server takes"),
    ("chunk-too-large", 413, "The chunk is larger than this server takes"),
    ("length-exceeded", 413, "The body goes beyond the length of the upload"),
    ("unsupported-media-type", 415, "The Content-Type is not one that this upload takes"),
    ("range-not-satisfiable", 416, "None of the ranges lies within the file"),
    ("host-not-allowed", 421, "This server does not answer to this name"),
    ("key-reused", 422, "This key was used for another creation"),
    ("type-not-allowed", 422, "Files of this type are not taken here"),
    ("upload-digest-mismatch", 422, "The whole file does not have the digest that was given for it"),
    ("too-many-connections", 429, "This client has too many connections"),
    ("too-many-requests", 429, "This client sends too many requests"),
    ("too-many-uploads", 429, "There are too many uploads that are not finished"),
    ("headers-too-large", 431, "The header fields are too large"),
    ("metadata-too-large", 431, "The metadata of the upload are too large"),
    ("checksum-mismatch", 460, "The body does not have the checksum that was sent with it"),
    ("internal-error", 500, "The server failed"),
    ("range-busy", 503, "Another request is still writing to this range"),
    ("shutting-down", 503, "The server is shutting down"),
    ("overloaded", 503, "The server is busy"),
    ("insufficient-storage", 507, "There is not enough room to store this"),
    ("quota-exceeded", 507, "There may not be so many bytes here"),
)


@dataclass(eq=False)
class ProblemError(Exception):
    """A request is refused, or could not be carried out; `code` says which row of `KINDS` it is.

    `detail` is a sentence for people that says what to do. `members` are extension members of the problem
    document (JSON values). `headers` are fields that the answer carries beside it.
    """

    code: str
    detail: str
    members: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(f"{self.code}: {self.detail}")

    @property
    def kind(self) -> Kind:
        return KINDS[self.code]

    @property
    def status(self) -> int:
        return self.kind.status

    def to_json(self) -> bytes:
        """The RFC 9457 document, UTF-8."""
        document = {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.members,
        }
        return json.dumps(document, ensure_ascii=False).encode()


class FieldError(ValueError):
    """A value does not follow the grammar of its field. `field` is the header's name, the message says why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def as_problem(self) -> ProblemError:
        return ProblemError("malformed-field", f"{self.field}: {self.reason}", {"field": self.field})


def code_of(members: Mapping[str, object]) -> str | None:
    """What a problem is: its code, or the name that is registered for its type."""
    said, kind = members.get("code"), members.get("type")
    if isinstance(said, str):
        return said
    return kind.partition("#")[2] or None if isinstance(kind, str) and kind.startswith(IANA_PREFIX) else None
