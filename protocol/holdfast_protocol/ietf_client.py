"""The client's side of the IETF draft, in the versions of `drafts.DRAFTS`.

Rule of this file: an upload is begun without content ("careful creation"), so that the URL is known before a byte is
sent and interim answers are not needed. The newest version is tried first. One that the server does not understand
changes nothing there, and the next older one is tried; the first that is understood is spoken from then on.

Otherwise the rule is that of `holdfast_protocol.client`: it waits for nothing and tries nothing twice.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit

from holdfast_protocol import fields, headers
from holdfast_protocol.client import (
    Created,
    Exchange,
    Reaction,
    Refusal,
    State,
    Stored,
    ViolationError,
    refused,
)
from holdfast_protocol.digest import Digest
from holdfast_protocol.drafts import DRAFTS, Draft, integer_in
from holdfast_protocol.messages import Request, Response, Span
from holdfast_protocol.problem import FieldError
from holdfast_protocol.size_limits import size_limits

NOT_SPOKEN: Final = "draft-not-spoken"
"""Code of the refusal when no version is left to try."""
_NOT_UNDERSTOOD: Final = (400, 405, 412, 415, 501)
"""Statuses with which servers answer a version that they do not know."""
_AGES: Final = tuple({draft.age_limit for draft in DRAFTS.values() if draft.age_limit is not None})


def drafts_from(newest: Draft | None = None) -> tuple[Draft, ...]:
    """The versions to try, from `newest` on (None: all of them), the newest first."""
    found = tuple(DRAFTS[version] for version in sorted(DRAFTS, reverse=True))
    return found if newest is None else found[found.index(newest) :]


def hinted(answer: Response) -> Draft | None:
    """The newest version that fits what an answer says of the draft; None if it says nothing of it.

    A server that has the draft names a version, or has `Upload-Limit`, or takes `application/partial-upload`.
    """
    named = DRAFTS.get(integer_in(answer.headers, headers.UPLOAD_DRAFT_INTEROP_VERSION) or 0)
    if named is not None:
        return named
    limits = _limits(answer)
    fitting = [draft for draft in drafts_from() if draft.age_limit in limits]
    if fitting:
        return fitting[0]
    accepted = (fields.media_type(each) for each in (answer.headers.get(headers.ACCEPT_PATCH) or "").split(","))
    if headers.UPLOAD_LIMIT in answer.headers or headers.MEDIA_PARTIAL in accepted:
        return drafts_from()[0]
    return None


class Guest:
    """One upload, of `size` bytes (None: nobody knows yet), at a server that speaks one of `drafts`."""

    def __init__(self, size: int | None, drafts: Sequence[Draft] | None = None) -> None:
        self._size = size
        self._drafts = tuple(drafts or drafts_from())
        self.draft: Draft | None = None
        """The version that the server has shown to understand."""
        self._ends: float | None = None
        """When the server will have removed the upload, by the client's clock."""

    def create(self, endpoint: str, *, metadata: Mapping[str, bytes], now: float = 0.0) -> Exchange[Created]:
        """Begin an upload, without content. Raises Refusal, ViolationError."""
        complete = self._size == 0
        refusal: Refusal | None = None
        for draft in self._candidates():
            sent = self._common(draft) | {
                draft.complete_field: draft.format_complete(complete),
                headers.CONTENT_LENGTH: "0",
            }
            if self._size is not None:
                sent[headers.UPLOAD_LENGTH] = str(self._size)
            if metadata:
                sent[headers.UPLOAD_METADATA] = fields.format_metadata(metadata)
            if (name := metadata.get("filename")) is not None:
                sent[headers.CONTENT_DISPOSITION] = fields.format_disposition(name.decode("utf-8", "replace"), "inline")
            answer = yield Request("POST", endpoint, sent)
            location = answer.headers.get(headers.LOCATION)
            if 200 <= answer.status < 300 and location and _shown(answer, draft):
                self.draft = draft
                self._ends = _expires(answer, now)
                return _created(answer, draft, urljoin(endpoint, location), now)
            if answer.status >= 300 and answer.status not in _NOT_UNDERSTOOD:
                refusal = refused(answer, now)
                if refusal.reaction is not Reaction.RETRY or refusal.status in (505, 507):
                    refusal.reaction = Reaction.FAIL
                raise refusal
            refusal = self._not_spoken(answer)
        assert refusal is not None
        raise refusal

    def query(self, url: str, *, now: float = 0.0) -> Exchange[State]:
        """Ask what is stored; the server ends a request that is still writing."""
        self._check_time(now)
        refusal: Refusal | None = None
        for draft in self._candidates():
            answer = yield Request("HEAD", url, self._common(draft))
            success = 200 <= answer.status < 300
            complete = draft.complete_in(answer.headers)
            if not success and answer.status not in _NOT_UNDERSTOOD:
                raise refused(answer, now)
            if not success or complete is None:
                refusal = self._not_spoken(answer)
                continue
            self.draft = draft
            self._ends = _expires(answer, now)
            length = integer_in(answer.headers, headers.UPLOAD_LENGTH)
            offset = integer_in(answer.headers, headers.UPLOAD_OFFSET)
            if offset is None and complete:
                offset = self._size if length is None else length
            if offset is None:
                raise Refusal(answer.status, Reaction.RETRY, detail=f"it did not say {headers.UPLOAD_OFFSET}")
            return State(
                offset,
                length,
                complete,
                expires=_expires(answer, now),
                limits=size_limits(answer),
                retry_after=_retry_after(answer, now),
            )
        assert refusal is not None
        raise refusal

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
        """Send bytes where the prefix ends; with the last ones it says that they are the last.

        With `checksum` they are stored as a whole or not at all (I-DIGEST-1). `length` is that of the whole upload, to
        be said once if it was not known at the creation; `wait` as in `client.complete`, with the last bytes.
        """
        self._check_time(now)
        draft = self._candidates()[0]
        last = span.end == (self._size if length is None else length)
        sent = self._common(draft) | {
            headers.CONTENT_TYPE: headers.MEDIA_PARTIAL,
            headers.UPLOAD_OFFSET: str(span.start),
            headers.CONTENT_LENGTH: str(span.length),
            draft.complete_field: draft.format_complete(last),
        }
        if checksum is not None:
            sent[headers.CONTENT_DIGEST] = fields.format_digests([checksum])
        if length is not None:
            sent[headers.UPLOAD_LENGTH] = str(length)
        if wait is not None:
            sent[headers.PREFER] = f"wait={wait}"
        answer = yield Request("PATCH", url, sent, span)
        self._ends = _expires(answer, now) or self._ends
        said = draft.complete_in(answer.headers)
        offset = integer_in(answer.headers, headers.UPLOAD_OFFSET)
        if not 200 <= answer.status < 300:
            refusal = refused(answer, now)
            if said:
                refusal.reaction, refusal.final = Reaction.FAIL, True
            elif answer.status == 409 and offset is not None and refusal.reaction is Reaction.RESYNC:
                refusal.state = State(offset, None, complete=False, limits=size_limits(answer))
            raise refusal
        done = said if said is not None else last and answer.status != 202
        return Stored(
            span.end if done else offset,
            _expires(answer, now),
            done,
            size_limits(answer),
            None if done else _retry_after(answer, now),
            answer.headers.get(headers.UPLOAD_STEP),
        )

    def terminate(self, url: str, *, now: float = 0.0) -> Exchange[None]:
        """Cancel an upload. One that is gone already is no error."""
        if self._over(now):
            return
        answer = yield Request("DELETE", url, self._common(self._candidates()[0]))
        if not (200 <= answer.status < 300 or answer.status in (404, 410)):
            raise refused(answer, now)

    def _over(self, now: float) -> bool:
        """An upload whose time is over is not touched any more (`max-age`)."""
        return self._ends is not None and now >= self._ends

    def _check_time(self, now: float) -> None:
        if self._over(now):
            raise Refusal(410, Reaction.RECREATE, "gone", "the time that the server gave the upload is over")

    def _candidates(self) -> tuple[Draft, ...]:
        return self._drafts if self.draft is None else (self.draft,)

    def _common(self, draft: Draft) -> dict[str, str]:
        return {headers.UPLOAD_DRAFT_INTEROP_VERSION: str(draft.version)}

    def _not_spoken(self, answer: Response) -> Refusal:
        tried = ", ".join(str(draft.version) for draft in self._candidates())
        said = refused(answer).detail if answer.status >= 400 else "its answer was that of another protocol"
        return Refusal(
            answer.status,
            Reaction.FAIL,
            NOT_SPOKEN,
            f"it does not speak the IETF draft in interop version {tried} ({said or 'it did not say why'})",
        )


def _shown(answer: Response, draft: Draft) -> bool:
    """Whether an answer is one of this version: it says how complete the upload is, or names the version."""
    named = integer_in(answer.headers, headers.UPLOAD_DRAFT_INTEROP_VERSION)
    return draft.complete_in(answer.headers) is not None or named == draft.version


def _created(answer: Response, draft: Draft, url: str, now: float) -> Created:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ViolationError(f"the new upload's URL {url!r} is not one of HTTP")
    return Created(
        url,
        expires=_expires(answer, now),
        complete=draft.complete_in(answer.headers) is True,
        limits=size_limits(answer),
    )


def _limits(answer: Response) -> dict[str, int]:
    try:
        return fields.parse_limits(answer.headers.get(headers.UPLOAD_LIMIT) or "")
    except FieldError:
        return {}


def _expires(answer: Response, now: float) -> float | None:
    """When the upload will be removed, by the client's clock: the draft counts in seconds from the answer."""
    limits = _limits(answer)
    left = next((limits[name] for name in _AGES if name in limits), None)
    return None if left is None else now + left


def _retry_after(answer: Response, now: float) -> float | None:
    value = answer.headers.get(headers.RETRY_AFTER)
    try:
        return None if value is None else fields.parse_retry_after(value, now)
    except FieldError:
        return None
