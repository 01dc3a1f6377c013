"""A small real HTTP server on the loopback that speaks the IETF draft and nothing else, and misbehaves on order.

Rule of this file: it speaks the versions that it was given, by hand from the table of protocol.md, section 6, and
refuses all others; orders and records are those of `Loopback`. What a draft server may leave out (offset, limits,
whether the upload is complete) it leaves out when it is told to.
"""

import hashlib
from pathlib import Path

from holdfast import UploadResult
from holdfast_protocol.digest import digest
from holdfast_protocol.fields import parse_digests
from holdfast_protocol.problem import ProblemError
from holdfast_protocol.ranges import RangeSet
from tests.client.loopback import Handler, Kept, Loopback, Seen

VERSIONS = ("3", "5", "6", "8", "9")


class DraftLoopback(Loopback):
    """`versions` are those that it understands. `limits` is its `Upload-Limit`, if it has one, `options` its answer
    to OPTIONS where that is not just the limits, `interim` the fields of each 104 that it sends with a creation.
    """

    def __init__(
        self,
        *,
        versions: tuple[str, ...] = VERSIONS,
        limits: str | None = "max-size=1000000000",
        options: dict[str, str] | None = None,
        interim: tuple[dict[str, str], ...] = (),
        silent: bool = False,
    ) -> None:
        super().__init__(parallel=False, handler=DraftHandler)
        self.versions = versions
        self.limits = limits
        self.options = options
        self.interim = interim
        self.silent = silent
        """Says in the answer to an append neither the offset nor whether the upload is complete."""


class DraftHandler(Handler):
    @property
    def draft(self) -> DraftLoopback:
        assert isinstance(self.loopback, DraftLoopback)
        return self.loopback

    def _version(self, seen: Seen) -> str:
        version = seen.fields.get("upload-draft-interop-version", "")
        if version not in self.draft.versions:
            raise ProblemError("malformed-field", "Of this version nothing is known here.")
        return version

    def _completeness(self, seen: Seen, complete: bool) -> dict[str, str]:
        if self._version(seen) == "3":
            return {"Upload-Incomplete": "?0" if complete else "?1"}
        return {"Upload-Complete": "?1" if complete else "?0"}

    def _says_complete(self, seen: Seen) -> bool:
        if self._version(seen) == "3":
            return seen.fields["upload-incomplete"] == "?0"
        return seen.fields["upload-complete"] == "?1"

    def _limit(self) -> dict[str, str]:
        return {} if self.draft.limits is None else {"Upload-Limit": self.draft.limits}

    def _common(self) -> dict[str, str]:
        return {}

    def _is_append(self, seen: Seen) -> bool:
        return seen.method == "PATCH"

    def _options(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.draft.options is None:
            return 204, self._limit(), b""
        return 204, self.draft.options, b""

    def _post(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        complete = self._says_complete(seen)
        said = seen.fields.get("upload-length")
        length = 0 if said is None else int(said)
        kept = Kept(length, seen.fields.get("content-disposition"), bytearray(length))
        kept.deferred = said is None
        kept.complete = complete
        key = f"{next(self.loopback.numbers):032x}"
        self.loopback.uploads[key] = kept
        for fields in self.draft.interim:
            self.send_response_only(104)
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
        fields = {"Location": f"/files/{key}", "Upload-Offset": "0"}
        return 201, fields | self._completeness(seen, complete) | self._limit(), b""

    def _head(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        kept = self._kept(seen)
        fields = {"Upload-Offset": str(kept.stored.prefix), **self._completeness(seen, kept.complete)}
        if not kept.deferred:
            fields["Upload-Length"] = str(kept.length)
        return 204, fields | self._limit() | {"Cache-Control": "no-store"}, b""

    def _append(self, seen: Seen, body: bytes) -> Kept:
        """Also for a body that was cut off: what came is kept."""
        kept = self._kept(seen)
        with self.loopback.guard:
            if seen.offset != kept.stored.prefix:
                at = {"Upload-Offset": str(kept.stored.prefix), **self._completeness(seen, False)}
                raise ProblemError("offset-mismatch", "Not here.", headers=at)
            if seen.length and "content-digest" in seen.fields:
                (proof,) = parse_digests("Content-Digest", seen.fields["content-digest"])
                if digest(proof.algorithm, body) != proof:
                    raise ProblemError("digest-mismatch", "Damaged.")
            if body:
                kept.data[seen.offset : seen.offset + len(body)] = body
                kept.stored.add(seen.offset, seen.offset + len(body))
            said = seen.fields.get("upload-length")
            if kept.deferred and said is not None:
                kept.length, kept.deferred = int(said), False
        return kept

    def _patch(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if seen.fields.get("content-type") != "application/partial-upload":
            raise ProblemError("unsupported-media-type", "Not this.")
        kept = self._append(seen, body)
        if self._says_complete(seen):
            assert kept.stored == RangeSet([(0, kept.length)] if kept.length else [])
            kept.complete = True
        if self.draft.silent:
            return 204, {}, b""
        fields = {"Upload-Offset": str(kept.stored.prefix), **self._completeness(seen, kept.complete)}
        return 204, fields | self._limit(), b""


def same(result: UploadResult, loopback: Loopback, path: Path) -> bool:
    content = path.read_bytes()
    kept = loopback.uploads[result.url.rpartition("/")[2]]
    whole = bytes(kept.data) == content and result.digest.value == hashlib.sha256(content).digest()
    return whole and kept.complete and result.protocol == "ietf"


def methods(loopback: Loopback) -> list[str]:
    return [seen.method for seen in loopback.seen]


def lengths(loopback: Loopback) -> list[int]:
    return [seen.length for seen in loopback.requests("PATCH")]


def completeness(seen: Seen) -> str | None:
    """In the words of all versions but 3."""
    return seen.fields.get("upload-complete")
