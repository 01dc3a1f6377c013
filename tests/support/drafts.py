"""The IETF draft, spoken by hand in one of its versions.

Rule of this file: what a version says on the wire is spelled here once, by hand, from protocol.md section 6, and not
taken from the package under test.
"""

import pytest

from tests.support.speaker import Speaker
from tests.support.wire import Answer

VERSIONS = (3, 5, 6, 8, 9)
EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)
NEWEST = 9
LONGEST = 999_999_999_999_999
"""Bytes; the largest length that there is."""
PARTIAL = "application/partial-upload"
IANA = "https://iana.org/assignments/http-problem-types#"


def completeness(complete: bool, version: int = NEWEST) -> dict[str, str]:
    if version == 3:
        return {"Upload-Incomplete": "?0" if complete else "?1"}
    return {"Upload-Complete": "?1" if complete else "?0"}


def version_field(version: int | None) -> dict[str, str]:
    return {} if version is None else {"Upload-Draft-Interop-Version": str(version)}


def create(complete: bool, version: int | None = NEWEST, **other: str) -> dict[str, str]:
    """Fields of a creation; `other` with `_` for `-`, an empty value leaves the field out."""
    fields = {**version_field(version), **completeness(complete, version or NEWEST)}
    return _with(fields, other)


def append(offset: int, complete: bool, version: int | None = NEWEST, **other: str) -> dict[str, str]:
    """Fields of an append."""
    fields = {
        **version_field(version),
        "Content-Type": PARTIAL,
        "Upload-Offset": str(offset),
        **completeness(complete, version or NEWEST),
    }
    return _with(fields, other)


def is_complete(answer: Answer, version: int = NEWEST) -> bool:
    """What the answer says; the field must be there, and be one of its two values."""
    if version == 3:
        return {"?0": True, "?1": False}[answer["upload-incomplete"]]
    return {"?1": True, "?0": False}[answer["upload-complete"]]


def limits(answer: Answer) -> dict[str, int]:
    """`Upload-Limit` as a dictionary; the field must be there and not be empty."""
    return {name: int(value) for name, value in (part.split("=") for part in answer["upload-limit"].split(", "))}


def chunked(*pieces: bytes, last: bool = True) -> bytes:
    """A body of Transfer-Encoding: chunked, ended if it is the `last` of it."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if last else b"")


def _with(fields: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    fields.update({name.replace("_", "-"): value for name, value in other.items()})
    return {name: value for name, value in fields.items() if value}


def post(speaker: Speaker, complete: bool, body: bytes = b"", version: int | None = NEWEST, **other: str) -> Answer:
    return speaker.request("POST", speaker.files, create(complete, version, **other), body)


def careful(speaker: Speaker, length: int, version: int | None = NEWEST) -> str:
    """An upload created without a body, which must succeed; its URL."""
    answer = post(speaker, False, version=version, Upload_Length=str(length))
    assert answer.status == 201, answer
    return speaker.url + answer["location"]


def patch(
    speaker: Speaker,
    url: str,
    offset: int,
    body: bytes,
    complete: bool,
    version: int | None = NEWEST,
    **other: str,
) -> Answer:
    return speaker.request("PATCH", url, append(offset, complete, version, **other), body)


def ask(speaker: Speaker, url: str, version: int | None = NEWEST) -> Answer:
    return speaker.request("HEAD", url, version_field(version))
