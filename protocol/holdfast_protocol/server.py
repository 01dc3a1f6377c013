"""The server's side of the protocol: a request head and a view of the upload in, a decision out.

Rule of this file: it holds what all dialects share: the decisions, the reading of common fields, the fields of the
answers. `dialects` finds out which one is spoken and turns a head into a decision, before a byte of the body is
read and without any I/O.

Every function raises `ProblemError` for a request that is to be refused.
"""

from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from holdfast_protocol import fields, headers
from holdfast_protocol.concat import PARTIAL, Concat
from holdfast_protocol.digest import Digest, available
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import FieldError, ProblemError

SMALLEST_GRANULE = 64 * 1024
MAX_GRANULES = 1 << 20
LONGEST = 999_999_999_999_999
"""The largest upload that can be spoken of: structured fields end at 15 digits (RFC 9651, section 3.3.1)."""
MISSING_ON_HEAD = 100
"""How many ranges `Upload-Missing` carries at most (P-STATE-1)."""

RECEIVING = "receiving"
VERIFYING = "verifying"
COMPLETE = "complete"
FAILED = "failed"


class Limits(Struct, frozen=True):
    """What this server takes. Sizes in bytes."""

    max_size: int
    """The largest upload, at most `LONGEST`."""
    max_chunk: int
    """The largest chunk of the parallel dialect."""
    max_age: float | None = None
    """Seconds for which an unfinished upload is kept after it was touched; None: for ever."""
    trailers: bool = False
    """Fields that follow a body can be read (T-TRAILER-1)."""
    max_metadata: int | None = None
    """The longest `Upload-Metadata`, as it came (V-META-2); None: any."""


class View(Protocol):
    """What the rules need to know of an upload."""

    @property
    def state(self) -> str: ...
    @property
    def length(self) -> int | None: ...
    @property
    def prefix(self) -> int: ...
    @property
    def parallel(self) -> bool: ...
    @property
    def concat(self) -> str | None: ...
    @property
    def granule(self) -> int: ...
    @property
    def metadata(self) -> str | None: ...
    @property
    def expires(self) -> float | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def computed(self) -> tuple[Digest, ...]: ...


class Append(Struct, frozen=True):
    """Store the body at `offset`, where the prefix ends: what came stays, also if the body is cut off."""

    offset: int
    content_length: int | None
    checksum: Digest | None = None
    """If given, the whole body or nothing (T-CHECKSUM-1)."""
    digests: tuple[Digest, ...] = ()
    """The same, as RFC 9530 digests of the body (I-DIGEST-1)."""
    trailer: bool = False
    """The checksum follows the body: the whole body or nothing, too (T-TRAILER-1)."""
    length: int | None = None
    """The length of the upload, if the request says it (T-DEFER-2)."""
    most: int = LONGEST
    """How far the body may go while the length is not known: the largest upload."""
    completes: bool | None = None
    """Whether this body completes the upload, and so its end is the length if that is not known by then
    (I-LENGTH-4); None: it does if it reaches the length, as tus has it."""
    fails_beyond: bool = False
    """A body that goes beyond the length makes the upload fail (I-LENGTH-3)."""
    wait: int | None = None
    """As in Complete."""

    @property
    def atomic(self) -> bool:
        """All of the body, verified, or nothing."""
        return self.checksum is not None or self.trailer or bool(self.digests)


class StoreChunk(Struct, frozen=True):
    """Store the body at `[start, end)`, whole and verified, or not at all."""

    start: int
    end: int
    digests: tuple[Digest, ...]


class StoreHole(Struct, frozen=True):
    """`[start, end)` is zeros: store that, without a body (P-HOLE-1)."""

    start: int
    end: int


class Complete(Struct, frozen=True):
    """Everything was sent: verify and publish."""

    digests: tuple[Digest, ...]
    wait: int | None = None
    """Seconds for which the client would wait for the answer, if it said so (P-COMPLETE-4)."""


class Acknowledge(Struct, frozen=True):
    """Nothing is to be done: the upload is complete, and the request asks for no more (T-PATCH-2)."""


class Create(Struct, frozen=True):
    """Make a new upload, and store the body that came with it, if one did."""

    length: int | None
    """None: it is said later (T-DEFER-1)."""
    parallel: bool
    metadata: str | None
    filename: str | None
    """From the metadata, as the client said it: not safe for anything yet."""
    expected: tuple[Digest, ...]
    wanted: str | None
    body: Append | None
    concat: Concat | None = None
    """A part, or a final over parts (T-CONCAT-1, T-CONCAT-3)."""
    key: str | None = None
    """By which this creation is known again if it comes twice (K-KEY-1)."""

    def without_body(self) -> "Create":
        """The same, for whoever appends the body in a second step."""
        return replace(self, body=None)


def is_part(view: View) -> bool:
    """Only to be put together with others: it is never complete, and never published (T-CONCAT-2)."""
    return view.concat == PARTIAL


def is_final(view: View) -> bool:
    """Put together from parts: it takes no bytes from anybody (T-CONCAT-5)."""
    return view.concat is not None and view.concat != PARTIAL


def granule(length: int) -> int:
    """The granule of an upload of this length, in bytes: a power of two from 64 KiB (P-CREATE-2)."""
    size = SMALLEST_GRANULE
    while length > size * MAX_GRANULES:
        size *= 2
    return size


def effective_method(method: str, fields_: Headers) -> str:
    """The method that counts (T-METHOD-1)."""
    override = fields_.get(headers.METHOD_OVERRIDE)
    return override.strip().upper() if override else method


def check_version(method: str, fields_: Headers) -> None:
    """T-VERSION-1, the part that concerns a field that is there. Raises ProblemError 412."""
    said = fields_.get(headers.TUS_RESUMABLE)
    if method != "OPTIONS" and said is not None and said != headers.TUS_PROTOCOL_VERSION:
        raise version_problem(f"Tus-Resumable: {said} is not spoken here; send 1.0.0.")


def version_problem(detail: str) -> ProblemError:
    return ProblemError("version-not-supported", detail, headers={headers.TUS_VERSION: headers.TUS_PROTOCOL_VERSION})


def check_takes_bytes(view: View) -> None:
    """Refuses a PATCH on a final and on an upload that has failed (T-PATCH-1, T-CONCAT-5, P-COMPLETE-3)."""
    if is_final(view):
        raise ProblemError("final-upload", "This upload is put together from parts. Send the bytes to those.")
    check_not_failed(view)


def check_not_failed(view: View) -> None:
    """Refuses what an upload that has failed is of no more use for (P-COMPLETE-3, I-HEAD-1)."""
    if view.state == FAILED and view.error == "data-lost":
        raise ProblemError("data-lost", "The server lost bytes of this upload. DELETE it and send the file again.")
    if view.state == FAILED and view.error == "length-exceeded":
        raise ProblemError("upload-failed", "More bytes came than this upload has. DELETE it and send the file again.")
    if view.state == FAILED:
        raise ProblemError(
            "upload-failed", "The file did not pass its verification. DELETE this upload and send the file again."
        )


def admit(append: Append, view: View) -> None:
    """Is this where the upload goes on, and does the body fit? To be asked once nobody else writes there."""
    if append.offset != view.prefix:
        raise offset_mismatch(append, view)
    check_length(append, view)
    if append.content_length is not None:
        end, length = append.offset + append.content_length, reach(append, view)
        if end > length:
            raise length_exceeded(append, view)
        if append.completes and end < length and (view.length, append.length) != (None, None):
            raise inconsistent_length(length, end)


def offset_mismatch(append: Append, view: View) -> ProblemError:
    return ProblemError(
        "offset-mismatch",
        f"The upload goes on at {view.prefix}, not at {append.offset}. Ask with HEAD and continue from there.",
        {"expected-offset": view.prefix, "provided-offset": append.offset},
        {headers.UPLOAD_OFFSET: str(view.prefix)},
    )


def inconsistent_length(length: int, said: int) -> ProblemError:
    return ProblemError(
        "inconsistent-upload-length",
        f"The upload has {length} bytes; this request speaks of {said}. The length of an upload never changes.",
        {"length": length},
    )


def check_length(append: Append, view: View) -> None:
    """A length is said once and for all, and no stored byte lies beyond it (T-DEFER-2). Raises ProblemError 400."""
    if append.length is None:
        return
    if view.length is not None and view.length != append.length:
        if append.completes is not None:
            raise inconsistent_length(view.length, append.length)
        raise ProblemError(
            "conflicting-fields",
            f"The upload has {view.length} bytes, and a length never changes. Leave Upload-Length out.",
            {"length": view.length},
        )
    if append.length < view.prefix:
        raise ProblemError(
            "out-of-bounds",
            f"{view.prefix} bytes of the upload are stored; it cannot have {append.length}.",
            {"offset": view.prefix},
        )


def reach(append: Append, view: View) -> int:
    """Where the bytes have to end: at the length, also if only this request says it, or at the largest upload."""
    if view.length is not None:
        return view.length
    return append.most if append.length is None else append.length


def length_exceeded(append: Append, view: View) -> ProblemError:
    """T-PATCH-6."""
    end = reach(append, view)
    if view.length is None and append.length is None:
        return too_large(end)
    return ProblemError("length-exceeded", f"The upload has {end} bytes; the body goes beyond that.", {"length": end})


def too_large(most: int) -> ProblemError:
    """T-CREATE-2."""
    return ProblemError(
        "upload-too-large",
        f"Uploads of up to {most} bytes are taken here.",
        {"max-size": most},
        {headers.TUS_MAX_SIZE: str(most)},
    )


def read_metadata(fields_: Headers, limits: Limits) -> tuple[str | None, str | None]:
    """`Upload-Metadata` as it came, and the file name in it. Raises FieldError, and ProblemError 431 (V-META-2)."""
    raw = fields_.one(headers.UPLOAD_METADATA)
    if raw is None:
        return None, None
    if limits.max_metadata is not None and len(raw) > limits.max_metadata:
        raise ProblemError(
            "metadata-too-large",
            f"Upload-Metadata has {len(raw)} bytes; {limits.max_metadata} are taken here. Send less of it.",
            {"max-metadata": limits.max_metadata},
        )
    values = fields.parse_metadata(raw)
    name = values.get("filename") or values.get("name")
    return raw, None if name is None else name.decode("utf-8", "replace")


def read_length(fields_: Headers, limits: Limits) -> int:
    """`Upload-Length`, where it is needed. Raises FieldError and ProblemError."""
    raw = fields_.one(headers.UPLOAD_LENGTH)
    if raw is None:
        raise ProblemError(
            "missing-field", "Say how long the file is, with Upload-Length.", {"field": headers.UPLOAD_LENGTH}
        )
    length = fields.parse_integer(headers.UPLOAD_LENGTH, raw)
    check_size(length, limits)
    return length


def check_size(length: int, limits: Limits) -> None:
    """T-CREATE-2. Raises ProblemError 413."""
    if length > limits.max_size:
        raise too_large(limits.max_size)


def reads_deferred(fields_: Headers) -> bool:
    """Is the length to be said later (T-DEFER-1)? Raises FieldError and ProblemError."""
    raw = fields_.one(headers.UPLOAD_DEFER_LENGTH)
    if raw is None:
        return False
    if raw != "1":
        raise FieldError(headers.UPLOAD_DEFER_LENGTH, "its only value is 1")
    if headers.UPLOAD_LENGTH in fields_:
        raise ProblemError(
            "conflicting-fields", "Send either Upload-Length or Upload-Defer-Length: 1, not both of them."
        )
    return True


def length_unknown() -> ProblemError:
    """T-DEFER-4."""
    return ProblemError(
        "length-unknown",
        "Parallel chunks need the length. Send it first, with Upload-Length on a tus PATCH, which may be empty.",
    )


def read_key(fields_: Headers) -> str | None:
    """`Idempotency-Key` (K-KEY-1). Raises FieldError."""
    raw = fields_.one(headers.IDEMPOTENCY_KEY)
    return None if raw is None else fields.parse_key(raw)


def key_reused() -> ProblemError:
    """K-KEY-4."""
    return ProblemError(
        "key-reused",
        "Another creation, with another length or other metadata, has had this Idempotency-Key. "
        "Take a new key for each upload.",
    )


def read_content_length(fields_: Headers) -> int | None:
    raw = fields_.one(headers.CONTENT_LENGTH)
    return None if raw is None else fields.parse_integer(headers.CONTENT_LENGTH, raw)


def read_digests(name: str, fields_: Headers) -> tuple[Digest, ...]:
    """The known digests of an RFC 9530 field; () if it is not there. Raises if none of those given is known."""
    raw = fields_.get(name)
    if raw is None:
        return ()
    found = fields.parse_digests(name, raw)
    if not found:
        raise unknown_algorithm(name, available())
    return found


def unknown_algorithm(name: str, offered: Iterable[str]) -> ProblemError:
    names = list(offered)
    return ProblemError(
        "unknown-algorithm",
        f"{name} names no algorithm that is known here; use one of {', '.join(names)}.",
        {"algorithms": names},
    )


def offer_fields(limits: Limits, granule_: int = SMALLEST_GRANULE) -> dict[str, str]:
    """What says that parallel chunks are spoken here (P-OFFER-1, P-OFFER-2)."""
    return {
        headers.UPLOAD_PARALLEL: fields.format_offer(
            fields.ParallelOffer(
                granule_, max(granule_, limits.max_chunk // granule_ * granule_), holes=True, keys=True
            )
        ),
        headers.WANT_CONTENT_DIGEST: fields.format_wants(available()),
    }


def progress_fields(view: View) -> dict[str, str]:
    """Fields of every answer that concerns a living upload: where it is and until when it is kept."""
    if is_final(view):  # no offset before it is whole (T-CONCAT-6), and no bytes that would put its end off
        return {headers.UPLOAD_OFFSET: str(view.prefix)} if view.state == COMPLETE else {}
    found = {headers.UPLOAD_OFFSET: str(view.prefix)}
    if view.expires is not None and view.state in (RECEIVING, FAILED):
        found[headers.UPLOAD_EXPIRES] = fields.format_http_date(view.expires)
    return found


def created_fields(view: View, limits: Limits) -> dict[str, str]:
    """Fields of the 201, beside `Location`."""
    found = progress_fields(view)
    return found | offer_fields(limits, view.granule) if view.parallel else found


def state_fields(
    view: View, missing: list[tuple[int, int]], more: bool, limits: Limits, step: str | None = None
) -> dict[str, str]:
    """Fields of the answer to HEAD (T-HEAD-1, P-STATE-1). `step` as in `working_fields`."""
    found = progress_fields(view)
    if not is_final(view):
        found |= offer_fields(limits, view.granule)
    if view.length is not None:
        found[headers.UPLOAD_LENGTH] = str(view.length)
    elif not is_final(view):
        found[headers.UPLOAD_DEFER_LENGTH] = "1"
    if view.concat is not None:
        found[headers.UPLOAD_CONCAT] = view.concat
    found[headers.UPLOAD_COMPLETE] = fields.format_boolean(view.state == COMPLETE)
    found[headers.UPLOAD_STATE] = view.state
    if view.state == VERIFYING:
        found[headers.UPLOAD_STEP] = step or VERIFYING
    found[headers.CACHE_CONTROL] = "no-store"
    if view.metadata is not None:
        found[headers.UPLOAD_METADATA] = view.metadata
    if missing and not is_final(view):
        found[headers.UPLOAD_MISSING] = fields.format_missing(missing, more)
    return found | digest_fields(view)


def completed_fields(view: View) -> dict[str, str]:
    """Fields of the answer to a completing request (P-COMPLETE-1)."""
    done = fields.format_boolean(view.state == COMPLETE)
    return progress_fields(view) | digest_fields(view) | {headers.UPLOAD_COMPLETE: done}


def working_fields(step: str | None, wait: int | None) -> dict[str, str]:
    """Fields of an answer that comes before the file is published, though all of it is here (P-COMPLETE-4).

    `step` is what the server is at (P-STATE-2), None at first. For how long the client would `wait` for an answer it
    need not wait before it asks again.
    """
    return {
        headers.UPLOAD_STATE: VERIFYING,
        headers.UPLOAD_STEP: step or VERIFYING,
        headers.RETRY_AFTER: "0" if wait else "1",
    }


def digest_fields(view: View) -> dict[str, str]:
    return {headers.REPR_DIGEST: fields.format_digests(view.computed)} if view.computed else {}
