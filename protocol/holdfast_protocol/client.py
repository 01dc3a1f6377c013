"""The client's side of the protocol: what to send, and what an answer means.

Rule of this file: each exchange is a generator that yields requests, is sent the answers, and returns what they
say. It raises `Refusal` for an answer that is no success (with the reaction that it calls for) and
`ViolationError` for one from which nothing can be concluded. It waits for nothing and tries nothing twice.
"""

import enum
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, TypeVar
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from holdfast_protocol import fields, headers
from holdfast_protocol.digest import Digest
from holdfast_protocol.fields import ParallelOffer
from holdfast_protocol.messages import Request, Response, Span
from holdfast_protocol.problem import FieldError, code_of
from holdfast_protocol.size_limits import SizeLimits, size_limits

Result = TypeVar("Result")
Exchange: TypeAlias = Generator[Request, Response, Result]
"""Yields requests, receives their answers, returns what came of it."""


class Reaction(enum.Enum):
    """What a client does after a refusal."""

    RETRY = "retry"
    """Wait (Retry-After, or back off), ask what is stored, go on (P-RETRY-1)."""
    RESYNC = "resync"
    """The state is another one than was thought: ask what is stored, go on."""
    REPEAT = "repeat"
    """The bytes arrived damaged: send the same once more, then give up."""
    SMALLER = "smaller"
    """Send less at a time."""
    RECREATE = "recreate"
    """This upload cannot be continued: forget its URL and begin a new one, once."""
    FAIL = "fail"
    """Nothing that the client can do by itself helps."""


_BY_CODE: Final[Mapping[str, Reaction]] = {
    "digest-mismatch": Reaction.REPEAT,
    "checksum-mismatch": Reaction.REPEAT,
    "body-too-short": Reaction.RETRY,
    "offset-mismatch": Reaction.RESYNC,
    "missing-ranges": Reaction.RESYNC,
    "fenced": Reaction.RESYNC,
    "final-upload": Reaction.RESYNC,
    "completed-upload": Reaction.RESYNC,
    "chunk-conflict": Reaction.RECREATE,
    "upload-failed": Reaction.RECREATE,
    "not-found": Reaction.RECREATE,
    "gone": Reaction.RECREATE,
    "not-finished": Reaction.FAIL,
    "chunk-too-large": Reaction.SMALLER,
    "upload-too-large": Reaction.FAIL,
    "length-exceeded": Reaction.FAIL,
    "insufficient-storage": Reaction.RETRY,
}
_BY_STATUS: Final[Mapping[int, Reaction]] = {
    404: Reaction.RECREATE,
    408: Reaction.RETRY,
    409: Reaction.RESYNC,
    410: Reaction.RECREATE,
    413: Reaction.SMALLER,
    423: Reaction.RETRY,
    425: Reaction.RETRY,
    429: Reaction.RETRY,
    headers.STATUS_CHECKSUM_MISMATCH: Reaction.REPEAT,
    501: Reaction.FAIL,
    505: Reaction.FAIL,
}


class ViolationError(Exception):
    """An answer does not follow the protocol: a field is missing or malformed, or the status has no meaning."""


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - the word of the protocol
    """An answer that is no success. `code` and `members` come from its problem document, if it had one."""

    status: int
    reaction: Reaction
    code: str | None = None
    detail: str = ""
    retry_after: float | None = None
    """Seconds from now, if the server said so."""
    members: Mapping[str, object] = field(default_factory=dict)
    missing: "Missing | None" = None
    """What is missing, if the answer said so (P-COMPLETE-2)."""
    offset: int | None = None
    """The prefix, if the answer said so."""
    limits: SizeLimits | None = None
    """What the server takes, if the answer said so."""
    state: "State | None" = None
    """Where to go on, if the answer said it so that nobody has to ask (the IETF draft, 409)."""
    final: bool = False
    """All bytes were taken in, and then the file was turned down: nothing can be resumed (the IETF draft)."""

    def __post_init__(self) -> None:
        super().__init__(f"{self.status} {self.code or ''}: {self.detail}")

    @property
    def throttled(self) -> bool:
        """The server asks for fewer requests."""
        return self.status in (429, 503)


class Missing(Struct, frozen=True):
    """Ranges of an upload that are not stored, ascending; `more` if there are others behind the last one."""

    spans: tuple[Span, ...] = ()
    more: bool = False


class Created(Struct, frozen=True):
    """A new upload. Without an `offer` the server does not speak the parallel dialect (P-OFFER-1)."""

    url: str
    offset: int = 0
    offer: ParallelOffer | None = None
    wants: tuple[str, ...] = ()
    """Digest algorithms that the server wants for chunks, the most wanted first."""
    expires: float | None = None
    """When the server removes it if it is not finished: seconds since the epoch by the client's clock."""
    said_offset: bool = False
    """The answer had an offset; if not, a body that went with the creation may be stored or not."""
    complete: bool = False
    """The answer said that nothing is missing (the IETF draft)."""
    limits: SizeLimits | None = None


class State(Struct, frozen=True):
    """What a server says of an upload. Sizes in bytes."""

    offset: int
    length: int | None
    complete: bool
    failed: bool = False
    missing: Missing | None = None
    """None if the server does not speak the parallel dialect, and so cannot say."""
    offer: ParallelOffer | None = None
    wants: tuple[str, ...] = ()
    digests: tuple[Digest, ...] = ()
    """Of the whole file, as far as the server has computed them."""
    expires: float | None = None
    """As in Created."""
    limits: SizeLimits | None = None
    retry_after: float | None = None
    """Seconds after which to ask again, if the server said so: it still verifies."""
    step: str | None = None
    """As in Completed."""


class Stored(Struct, frozen=True):
    """The answer to bytes that were taken: the contiguous bytes from 0 that are stored, if it said so."""

    offset: int | None
    expires: float | None = None
    """As in Created."""
    complete: bool | None = None
    """Whether the upload is complete; None where that follows from the offset (tus)."""
    limits: SizeLimits | None = None
    retry_after: float | None = None
    """As in State."""
    step: str | None = None
    """As in Completed."""


class Completed(Struct, frozen=True):
    """The answer to a completing request. If not `done`, the work goes on: ask again after `retry_after`."""

    done: bool
    retry_after: float | None = None
    digests: tuple[Digest, ...] = ()
    step: str | None = None
    """What the server is at, if it said so: `verifying` or `publishing` (P-STATE-2)."""


class Speech(Protocol):
    """What a client has to be able to say to send a file in order. This module is one (tus), `ietf_client.Guest`
    another.
    """

    def query(self, url: str, *, now: float = 0.0) -> Exchange[State]:
        """Ask what is stored."""
        ...

    def append(
        self,
        url: str,
        span: Span,
        *,
        checksum: Digest | None = None,
        length: int | None = None,
        wait: int | None = None,
        now: float = 0.0,
    ) -> Exchange[Stored]:
        """Send bytes where the prefix ends. `length` and `wait` as in `append` below."""
        ...

    def terminate(self, url: str, *, now: float = 0.0) -> Exchange[None]:
        """Remove an upload. One that is gone already is no error."""
        ...


def create(
    endpoint: str,
    length: int | None,
    *,
    metadata: Mapping[str, bytes] | None = None,
    parallel: bool = True,
    want: str | None = None,
    content: Span | None = None,
    checksum: Digest | None = None,
    partial: bool = False,
    final_of: Sequence[str] = (),
    digest: Digest | None = None,
    key: str | None = None,
    now: float = 0.0,
) -> Exchange[Created]:
    """Begin an upload of `length` bytes (T-CREATE-1, P-CREATE-1); None if that is not known yet (tus,
    creation-defer-length).

    `want` is the algorithm of the digest that will be asked for at the end (P-DIGEST-2). `content` goes with the
    creation (tus, creation-with-upload), `checksum` is that of its bytes. `partial` begins a part, and `final_of`
    puts parts, by their URLs, together (tus, concatenation). `digest` is that of the whole file (P-DIGEST-1), and by
    `key` a creation that comes twice is known again (K-KEY-1). `now` is the wall clock (seconds since the epoch),
    against which a date in Retry-After is read, here and below.
    """
    sent = _common() | {headers.CONTENT_LENGTH: str(content.length if content is not None else 0)}
    if final_of:
        # The length follows from the parts and must not be sent (tus, concatenation, Upload-Concat).
        sent[headers.UPLOAD_CONCAT] = "final;" + " ".join(final_of)
    elif length is None:
        sent[headers.UPLOAD_DEFER_LENGTH] = "1"
    else:
        sent[headers.UPLOAD_LENGTH] = str(length)
    if partial:
        sent[headers.UPLOAD_CONCAT] = "partial"
    if content is not None:
        sent[headers.CONTENT_TYPE] = headers.MEDIA_OFFSET
    if checksum is not None:
        sent[headers.UPLOAD_CHECKSUM] = fields.format_checksum(checksum)
    if metadata:
        sent[headers.UPLOAD_METADATA] = fields.format_metadata(metadata)
    if digest is not None:
        sent[headers.UPLOAD_DIGEST] = fields.format_digests([digest])
    if key is not None:
        sent[headers.IDEMPOTENCY_KEY] = fields.format_key(key)
    if parallel:
        sent[headers.UPLOAD_PARALLEL] = fields.format_boolean(True)
        if want is not None:
            sent[headers.WANT_REPR_DIGEST] = fields.format_wants([want])
    answer = yield Request("POST", endpoint, sent, content)
    if answer.status not in (200, 201):
        refusal = refused(answer, now)
        if content is not None and refusal.code == "upload-digest-mismatch":
            refusal.reaction = Reaction.REPEAT  # nothing of it has stayed (T-CREATE-4)
        if content is not None and refusal.reaction is Reaction.REPEAT:
            raise refusal
        if refusal.reaction is Reaction.RETRY and refusal.status not in (501, 505, 507):
            raise refusal
        # There is nothing yet that could be asked, sent smaller or begun again.
        refusal.reaction = Reaction.FAIL
        raise refusal
    location = answer.headers.get(headers.LOCATION)
    if not location:
        _check_no_page(answer, ", which ends in /files at a Holdfast server")
        raise ViolationError("the answer to the creation has no Location, so the new upload has no URL")
    url = urljoin(endpoint, location)
    if urlsplit(url).scheme not in ("http", "https"):
        raise ViolationError(f"the new upload's URL {url!r} is not one of HTTP")
    with _Reading():
        offer = _offer(answer) if parallel else None
        offset = _integer(answer, headers.UPLOAD_OFFSET)
        return Created(url, offset or 0, offer, _wants(answer), _expires(answer, now), offset is not None)


def query(url: str, *, now: float = 0.0) -> Exchange[State]:
    """Ask what is stored (T-HEAD-1, P-STATE-1)."""
    answer = yield Request("HEAD", url, _common())
    if answer.status not in (200, 204):
        raise refused(answer, now)
    with _Reading():
        offset = _integer(answer, headers.UPLOAD_OFFSET)
        if offset is None:
            raise ViolationError(f"the answer for {url} has no {headers.UPLOAD_OFFSET}; is this an upload?")
        length = _integer(answer, headers.UPLOAD_LENGTH)
        offer = _offer(answer)
        said = answer.headers.one(headers.UPLOAD_COMPLETE)
        complete = fields.parse_boolean(headers.UPLOAD_COMPLETE, said) if said is not None else offset == length
        return State(
            offset=offset,
            length=length,
            complete=complete,
            failed=answer.headers.get(headers.UPLOAD_STATE) == "failed",
            step=_step(answer),
            missing=(_missing(answer) or Missing()) if offer is not None else None,
            offer=offer,
            wants=_wants(answer),
            digests=_digests(answer),
            expires=_expires(answer, now),
        )


def query_final(url: str, *, now: float = 0.0) -> Exchange[tuple[int | None, bool]]:
    """Ask for the length of an upload that was put together, and whether it is done (tus, concatenation).

    As long as it is not done it has no offset, so `query` cannot be used.
    """
    answer = yield Request("HEAD", url, _common())
    if answer.status not in (200, 204):
        raise refused(answer, now)
    with _Reading():
        length = _integer(answer, headers.UPLOAD_LENGTH)
        offset = _integer(answer, headers.UPLOAD_OFFSET)
        return length, offset is not None and offset == length


def chunk(url: str, span: Span, digest: Digest, *, now: float = 0.0) -> Exchange[Stored]:
    """Send one chunk (P-CHUNK-1). `digest` is that of its bytes."""
    sent = _common() | {
        headers.CONTENT_TYPE: headers.MEDIA_CHUNK,
        headers.UPLOAD_OFFSET: str(span.start),
        headers.CONTENT_LENGTH: str(span.length),
        headers.CONTENT_DIGEST: fields.format_digests([digest]),
    }
    answer = yield Request("PATCH", url, sent, span)
    if answer.status not in (200, 204):
        raise refused(answer, now)
    with _Reading():
        return Stored(_integer(answer, headers.UPLOAD_OFFSET), _expires(answer, now))


def hole(url: str, span: Span, *, now: float = 0.0) -> Exchange[Stored]:
    """Say that all bytes of a span are zeros, in the place of a chunk (P-HOLE-1); where it is offered."""
    sent = _common() | {
        headers.CONTENT_TYPE: headers.MEDIA_CHUNK,
        headers.UPLOAD_OFFSET: str(span.start),
        headers.UPLOAD_HOLE: str(span.length),
        headers.CONTENT_LENGTH: "0",
    }
    answer = yield Request("PATCH", url, sent)
    if answer.status not in (200, 204):
        raise refused(answer, now)
    with _Reading():
        return Stored(_integer(answer, headers.UPLOAD_OFFSET), _expires(answer, now))


def complete(
    url: str, digests: Iterable[Digest] = (), *, wait: int | None = None, now: float = 0.0
) -> Exchange[Completed]:
    """Everything was sent: have it verified and published (P-COMPLETE-1 to 5).

    `wait`: seconds after which the server shall say how far it is, rather than work on without a word.
    """
    sent = _common() | {
        headers.CONTENT_TYPE: headers.MEDIA_CHUNK,
        headers.UPLOAD_COMPLETE: fields.format_boolean(True),
        headers.CONTENT_LENGTH: "0",
    }
    given = tuple(digests)
    if given:
        sent[headers.UPLOAD_DIGEST] = fields.format_digests(given)
    if wait is not None:
        sent[headers.PREFER] = f"wait={wait}"
    answer = yield Request("PATCH", url, sent)
    if answer.status not in (200, 202, 204):
        raise refused(answer, now)
    with _Reading():
        return Completed(answer.status != 202, _retry_after(answer, now), _digests(answer), _step(answer))


def append(
    url: str,
    span: Span,
    *,
    checksum: Digest | None = None,
    length: int | None = None,
    wait: int | None = None,
    now: float = 0.0,
) -> Exchange[Stored]:
    """Send bytes where the prefix ends, as tus does; what arrives stays, also if the body is cut off.

    With `checksum`, that of its bytes, it is stored as a whole or not at all (T-CHECKSUM-1). `length` is that of the
    whole upload, to be said once if it was not known at the creation. With the last bytes `wait` is as in `complete`.
    """
    sent = _common() | {
        headers.CONTENT_TYPE: headers.MEDIA_OFFSET,
        headers.UPLOAD_OFFSET: str(span.start),
        headers.CONTENT_LENGTH: str(span.length),
    }
    if checksum is not None:
        sent[headers.UPLOAD_CHECKSUM] = fields.format_checksum(checksum)
    if length is not None:
        sent[headers.UPLOAD_LENGTH] = str(length)
    if wait is not None:
        sent[headers.PREFER] = f"wait={wait}"
    answer = yield Request("PATCH", url, sent, span)
    if answer.status not in (200, 204):
        raise refused(answer, now)
    with _Reading():
        offset = _integer(answer, headers.UPLOAD_OFFSET)
        if offset is None:
            raise ViolationError(f"the answer to a PATCH has no {headers.UPLOAD_OFFSET}")
        if answer.headers.get(headers.UPLOAD_STATE) != "verifying":
            return Stored(offset, _expires(answer, now))
        again = _retry_after(answer, now)
        return Stored(offset, complete=False, retry_after=1.0 if again is None else again, step=_step(answer))


def terminate(url: str, *, now: float = 0.0) -> Exchange[None]:
    """Remove an upload and its bytes (T-DELETE-1). One that is gone already is no error."""
    answer = yield Request("DELETE", url, _common())
    if answer.status not in (200, 202, 204, 404, 410):
        raise refused(answer, now)


def _step(answer: Response) -> str | None:
    return answer.headers.get(headers.UPLOAD_STEP)


def spans_of(length: int, start: int = 0) -> tuple[Span, ...]:
    """What is missing of a file of which the first `start` bytes are stored: one span, or none."""
    return (Span(start, length),) if start < length else ()


def refused(answer: Response, now: float = 0.0) -> Refusal:
    """What an answer that is no success means. Raises ViolationError for one that means nothing here."""
    status = answer.status
    if status < 300:
        _check_no_page(answer)
        raise ViolationError(f"the server answered {status}, which has no meaning for this request")
    if status < 400:
        place = answer.headers.get(headers.LOCATION) or "another place, which it does not name"
        hint = "give that URL instead" + ("" if status in (301, 308) else ", or credentials if one has to log in there")
        raise ViolationError(f"the server sends us elsewhere ({status}): {place} - {hint}")
    members = _problem(answer)
    code = code_of(members)
    detail = members.get("detail")
    if (reaction := _BY_CODE.get(code or "")) is None:
        fallback = Reaction.RETRY if status >= 500 else Reaction.FAIL
        reaction = _BY_STATUS.get(status, fallback)
    return Refusal(
        status=status,
        reaction=reaction,
        code=code,
        detail=detail if isinstance(detail, str) else _text(answer),
        retry_after=_lenient(lambda: _retry_after(answer, now)),
        members=members,
        missing=_lenient(lambda: _missing(answer)),
        offset=_lenient(lambda: _integer(answer, headers.UPLOAD_OFFSET)),
        limits=size_limits(answer),
    )


def _check_no_page(answer: Response, looks: str = "") -> None:
    """Raises ViolationError if this is a page for people, as servers of other things answer whatever they are asked."""
    if fields.media_type(answer.headers.get(headers.CONTENT_TYPE)) == "text/html":
        raise ViolationError(
            f"a web page came back ({answer.status}), not an answer of an upload server; check the URL{looks}, and"
            " whether one has to log in first"
        )


class _Reading:
    """Inside it a malformed field of an answer is a violation of the protocol."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FieldError):
            raise ViolationError(f"a field of the answer is malformed: {error}") from error


def _lenient(read: Callable[[], Result]) -> Result | None:
    """A refusal stands, also if a field that comes with it is malformed."""
    try:
        return read()
    except FieldError:
        return None


def _common() -> dict[str, str]:
    return {headers.TUS_RESUMABLE: headers.TUS_PROTOCOL_VERSION}


def _integer(answer: Response, name: str) -> int | None:
    value = answer.headers.one(name)
    return None if value is None else fields.parse_integer(name, value)


def _expires(answer: Response, now: float) -> float | None:
    """`Upload-Expires` by the client's clock: if the answer has a Date, clocks that differ do not matter."""
    said = answer.headers.get(headers.UPLOAD_EXPIRES)
    expires = fields.parse_http_date(said) if said is not None else None
    if expires is None:
        return None
    date = fields.parse_http_date(answer.headers.get(headers.DATE) or "")
    return expires if date is None else now + (expires - date)


def _offer(answer: Response) -> ParallelOffer | None:
    value = answer.headers.get(headers.UPLOAD_PARALLEL)
    return None if value is None else fields.parse_offer(value)


def _wants(answer: Response) -> tuple[str, ...]:
    value = answer.headers.get(headers.WANT_CONTENT_DIGEST)
    return () if value is None else fields.parse_wants(headers.WANT_CONTENT_DIGEST, value)


def _digests(answer: Response) -> tuple[Digest, ...]:
    value = answer.headers.get(headers.REPR_DIGEST)
    return () if value is None else fields.parse_digests(headers.REPR_DIGEST, value)


def _missing(answer: Response) -> Missing | None:
    value = answer.headers.get(headers.UPLOAD_MISSING)
    if value is None:
        return None
    ranges, more = fields.parse_missing(value)
    return Missing(tuple(Span(start, end) for start, end in ranges), more)


def _retry_after(answer: Response, now: float) -> float | None:
    value = answer.headers.get(headers.RETRY_AFTER)
    return None if value is None else fields.parse_retry_after(value, now)


def _text(answer: Response) -> str:
    """The first line of an answer in plain text, at most 200 characters: how other servers say why."""
    if fields.media_type(answer.headers.get(headers.CONTENT_TYPE)) != "text/plain":
        return ""
    line = answer.body[:1000].decode("utf-8", "replace").strip().partition("\n")[0][:200]
    return "".join(char if char.isprintable() else " " for char in line).strip()


def _problem(answer: Response) -> dict[str, object]:
    said = answer.headers.get(headers.UPLOAD_PROBLEM)
    if said is not None and (told := _lenient(lambda: fields.parse_problem(said))) is not None:
        return {"code": told[0], "detail": told[1]}  # an answer to HEAD (V-PROBLEM-2)
    kind = fields.media_type(answer.headers.get(headers.CONTENT_TYPE))
    if kind not in (headers.MEDIA_PROBLEM, "application/json"):
        return {}
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
