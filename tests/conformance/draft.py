"""The IETF draft "Resumable Uploads for HTTP", spoken to the server under test in one of its interop versions.

    Offered   which versions a server speaks, and whether it has interim answers
    Draft     the requests of one version, and what its answers say

Rule of this file: what a version says on the wire is here, from the text of that version. A version is offered if a
creation in it is answered with the fields of the draft. Where a server has interim answers, it is also told that way
which versions it knows: it must not send them in others. Where it has none, a version that is answered like one that
does not exist is what the server takes for its own, and that is the newest of them.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

from tests.conformance.subject import Subject, spelled
from tests.support.waiting import scaled
from tests.support.wire import Answer, Connection, ConnectionLostError

VERSIONS: Final = (3, 4, 5, 6, 7, 8, 9)
NO_VERSION: Final = 2_000_001
"""A version that does not exist."""
PARTIAL: Final = "application/partial-upload"
RESUMPTION_SUPPORTED: Final = 104

LENGTHS: Final = 6
"""The version since which Upload-Length may be sent..."""
LIMITS: Final = 6
"""...there is Upload-Limit, and an append has a media type of its own..."""
FINALS: Final = 7
"""...each final answer says whether the upload is complete."""

SUCCESS: Final = range(200, 300)
REDIRECTS: Final = (301, 302, 303)
REFUSAL: Final = range(400, 500)


@dataclass(frozen=True)
class Offered:
    versions: frozenset[int]
    interim: bool

    @classmethod
    def by(cls, subject: Subject) -> "Offered":
        """Tries all versions: one small upload each."""
        found = {
            version: answer
            for version in (*VERSIONS, NO_VERSION)
            if _speaks(answer := Draft(subject, version).post(False, b"hello", length=10))
        }
        told = {version for version, answer in found.items() if RESUMPTION_SUPPORTED in answer.interim}
        if told:
            return cls(frozenset(told & set(VERSIONS)), True)
        default = found.pop(NO_VERSION, None)
        alike = {version for version, answer in found.items() if default and _shape(answer) == _shape(default)}
        return cls(frozenset(found.keys() - alike | set(sorted(alike)[-1:])), False)


def _speaks(answer: Answer) -> bool:
    """With a field that tus does not have, or an interim answer."""
    fields = ("upload-complete", "upload-incomplete", "upload-limit", "upload-draft-interop-version")
    told = any(field in answer for field in fields) or RESUMPTION_SUPPORTED in answer.interim
    return answer.status in SUCCESS and told


def _shape(answer: Answer) -> tuple[int, list[str], list[str]]:
    names = sorted({name for name, _ in answer.fields})
    return answer.status, names, re.findall(r"[a-z-]+(?==)", answer.get("upload-limit") or "")


class Draft:
    """One version. Requests raise as those of Subject."""

    def __init__(self, subject: Subject, version: int) -> None:
        self.subject = subject
        self.version = version

    def named(self, **other: str) -> dict[str, str]:
        """The fields of any request."""
        return {"Upload-Draft-Interop-Version": str(self.version), **spelled(other)}

    def completeness(self, complete: bool) -> dict[str, str]:
        if self.version == 3:
            return {"Upload-Incomplete": "?0" if complete else "?1"}
        return {"Upload-Complete": "?1" if complete else "?0"}

    def creating(self, complete: bool, length: int | None = None, **other: str) -> dict[str, str]:
        """The fields of a creation; the length is left out where the version has no field for it."""
        said = {} if length is None or self.version < LENGTHS else {"Upload-Length": str(length)}
        return {**self.named(**other), **self.completeness(complete), **said}

    def appending(self, offset: int, complete: bool, **other: str) -> dict[str, str]:
        """The fields of an append."""
        media = {"Content-Type": PARTIAL} if self.version >= LIMITS else {}
        return {**media, **self.named(**other), **self.completeness(complete), "Upload-Offset": str(offset)}

    def post(self, complete: bool, body: bytes = b"", length: int | None = None, **other: str) -> Answer:
        return self.subject.request("POST", self.subject.url, self.creating(complete, length, **other), body)

    def append(self, upload: str, offset: int, body: bytes = b"", complete: bool = False, **other: str) -> Answer:
        return self.subject.request("PATCH", upload, self.appending(offset, complete, **other), body)

    def head(self, upload: str) -> Answer:
        return self.subject.request("HEAD", upload, self.named())

    def delete(self, upload: str) -> Answer:
        return self.subject.request("DELETE", upload, self.named())

    def options(self) -> Answer:
        return self.subject.request("OPTIONS", self.subject.url, self.named())

    def create(self, length: int | None = 10, body: bytes = b"") -> str:
        """A new upload with its first bytes, if any; its URL."""
        answer = self.post(False, body, length)
        assert answer.status in SUCCESS, f"a creation was answered {answer.status}"
        return self.where(answer)

    def where(self, answer: Answer) -> str:
        """The URL of the upload that a final answer, or an interim one before it, tells of."""
        for each in (answer, *answer.before):
            if location := each.get("location"):
                return urljoin(self.subject.url, location)
        raise AssertionError("no answer to the creation has Location")

    def whole(self, data: bytes) -> str:
        """A complete upload; its URL."""
        upload = self.create(len(data))
        answer = self.append(upload, 0, data, complete=True)
        assert answer.status in SUCCESS, f"an append of all bytes was answered {answer.status}"
        return upload

    def measured(self) -> tuple[str, int]:
        """An unfinished upload whose length the server knows to be 10, and its offset.

        Versions without Upload-Length know it from an append that was to be the last one, and broke off.
        """
        if self.version >= LENGTHS:
            return self.create(10), 0
        upload = self.create()
        self.cut_off(upload, 10, b"0123")
        return upload, self.offset(upload)

    def cut_off(self, upload: str, promised: int, sent: bytes) -> None:
        """An append at 0 that is to be the last one and breaks off; it is over for the server, too."""
        with under_way(self, upload, promised) as connection:
            connection.send(sent)
            hang_up(connection)

    def offset(self, upload: str) -> int:
        return self.state(upload)[0]

    def state(self, upload: str) -> tuple[int, bool | None]:
        """The offset that HEAD tells, and whether the upload is complete."""
        answer = self.head(upload)
        assert answer.status in SUCCESS, f"HEAD on an upload was answered {answer.status}"
        assert re.fullmatch("[0-9]{1,15}", answer.get("upload-offset") or ""), "HEAD came without Upload-Offset"
        return answer.offset, self.complete(answer)

    def complete(self, answer: Answer) -> bool | None:
        """What an answer says; None if it says nothing."""
        if self.version == 3:
            return {"?0": True, "?1": False, None: None}[answer.get("upload-incomplete")]
        return {"?1": True, "?0": False, None: None}[answer.get("upload-complete")]

    @contextlib.contextmanager
    def sending(
        self, method: str, target: str, fields: dict[str, str], promised: int, sent: bytes
    ) -> Iterator[Connection]:
        """A request under way: its head, and of the `promised` bytes those that are `sent`. Closed with the block."""
        with self.subject.connect() as connection:
            connection.begin(method, target, {**fields, "Content-Length": str(promised)})
            if sent:
                connection.send(sent)
            yield connection


def limits(answer: Answer) -> dict[str, int] | None:
    """Upload-Limit, a dictionary (RFC 9651) of which only members that are integers are known; None if it is not
    there. Raises AssertionError if it is malformed or empty.
    """
    value = ", ".join(answer.all("upload-limit")) if "upload-limit" in answer else None
    if value is None:
        return None
    found = {}
    for member in value.split(","):
        match = re.fullmatch(r"[ \t]*([a-z*][a-z0-9_.*-]*)=(-?[0-9]{1,15})[ \t]*", member)
        assert match, f"Upload-Limit is no dictionary of integers: {value!r}"
        found[match[1]] = int(match[2])
    return found


def hang_up(connection: Connection) -> None:
    """Send no more, and wait until the server has hung up as well: who asks for the offset before may end a request
    whose bytes are still on their way, and that is no fault of the server.
    """
    connection.half_close()
    with contextlib.suppress(ConnectionLostError, OSError):
        while True:
            connection.read()


@contextlib.contextmanager
def under_way(draft: Draft, upload: str, promised: int | None = 10, offset: int = 0) -> Iterator[Connection]:
    """An append of which nothing has come but the head; None: it does not say how long it is. The server has
    asked for the body, if it ever answers Expect: 100-continue.
    """
    size = {"Transfer-Encoding": "chunked"} if promised is None else {"Content-Length": str(promised)}
    with draft.subject.connect() as connection:
        connection.begin("PATCH", upload, {**draft.appending(offset, True), **size, "Expect": "100-continue"})
        connection.socket.settimeout(scaled(2))
        with contextlib.suppress(TimeoutError):
            while (status := connection.read_head().status) != 100:
                assert status < 200, f"an append was answered {status} before its body came"
        connection.socket.settimeout(scaled(20))
        yield connection


def ended(connection: Connection, patience: float) -> bool:
    """A request that was under way was refused, or its connection closed, in so many seconds (scaled)."""
    connection.socket.settimeout(scaled(patience))
    try:
        return connection.read().status >= 400
    except TimeoutError:
        return False
    except (ConnectionLostError, OSError):
        return True
