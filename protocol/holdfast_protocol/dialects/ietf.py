"""The server's side of the IETF draft, in the versions of `drafts.DRAFTS`.

Rule of this file: where versions differ, the table is asked, and no version number is compared. What the versions
share, and what their text leaves open, is protocol.md, section 6.

`ProblemError` is raised for what is to be refused; `refusal` turns any problem into one that the version knows.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from holdfast_protocol import fields, headers
from holdfast_protocol.drafts import DRAFTS, NEWEST, Draft, integer_in
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_protocol.server import (
    COMPLETE,
    VERIFYING,
    Append,
    Complete,
    Create,
    Limits,
    View,
    check_size,
    check_takes_bytes,
    inconsistent_length,
    offset_mismatch,
    read_content_length,
    read_digests,
    read_metadata,
)

_INACTIVE: Final = ("upload-failed", "data-lost", "gone")
"""With these nothing more can be done, so no answer says where to go on."""


class Spoken(Struct, frozen=True):
    """The version that a request is to be understood in."""

    draft: Draft
    named: bool
    """The request names it, so the client understands interim answers of status 104 (I-INTERIM-1)."""


def spoken(fields_: Headers) -> Spoken:
    """The version that the request names; the newest if it names none that is known (I-VERSION-1)."""
    named = DRAFTS.get(integer_in(fields_, headers.UPLOAD_DRAFT_INTEROP_VERSION) or 0)
    return Spoken(NEWEST, False) if named is None else Spoken(named, True)


def create(fields_: Headers, limits: Limits, draft: Draft) -> Create:
    """A POST on the collection (I-CREATE-1 to I-CREATE-4)."""
    complete = draft.complete_in(fields_)
    if complete is None:
        raise _missing(draft.complete_field, "Say whether this is the whole file")
    body = _body_length(fields_)
    said = integer_in(fields_, headers.UPLOAD_LENGTH)
    length = body if said is None and complete else said
    for size in (length, body):
        if size is not None:
            check_size(size, limits)
    if length is not None and body is not None and (body > length or (complete and body != length)):
        raise inconsistent_length(length, body)
    metadata, filename = read_metadata(fields_, limits)
    disposition = fields_.get(headers.CONTENT_DISPOSITION)
    if filename is None and disposition is not None:
        filename = fields.parse_disposition(disposition)
    digests = read_digests(headers.CONTENT_DIGEST, fields_)
    expected = read_digests(headers.UPLOAD_DIGEST, fields_)
    if complete:
        # Of a part it would be the digest of that part (RFC 9530, section 3).
        expected += read_digests(headers.REPR_DIGEST, fields_)
    append = Append(0, body, digests=digests, most=limits.max_size, completes=complete, fails_beyond=draft.beyond_fails)
    return Create(length, False, metadata, filename, expected, None, None if body == 0 else append)


def patch(fields_: Headers, view: View, limits: Limits, draft: Draft) -> Append | Complete:
    """A PATCH on an upload (I-APPEND-1 to I-APPEND-4, I-LENGTH-1, I-LENGTH-4)."""
    media = fields.media_type(fields_.get(headers.CONTENT_TYPE))
    if media != headers.MEDIA_PARTIAL and draft.media_required:
        raise ProblemError(
            "unsupported-media-type", f"A PATCH here is {headers.MEDIA_PARTIAL}, not {media or 'without a type'}."
        )
    check_takes_bytes(view)
    offset = integer_in(fields_, headers.UPLOAD_OFFSET)
    if offset is None:
        raise _missing(headers.UPLOAD_OFFSET, "Say where the body begins")
    complete = draft.complete_in(fields_)
    if complete is None and draft.complete_unless_said:
        complete = True
    if complete is None:
        raise _missing(draft.complete_field, "Say whether the upload is complete with this body")
    said = integer_in(fields_, headers.UPLOAD_LENGTH)
    if said is not None and view.length is not None and said != view.length:
        raise inconsistent_length(view.length, said)
    if said is not None and view.length is None:
        check_size(said, limits)
    body = _body_length(fields_)
    if said is None and complete and view.length is None and body is not None and offset + body <= limits.max_size:
        said = offset + body  # the last bytes say how many there are (I-LENGTH-4)
    digests = read_digests(headers.CONTENT_DIGEST, fields_)
    append = Append(
        offset,
        body,
        digests=digests,
        length=said,
        most=limits.max_size,
        completes=complete,
        fails_beyond=draft.beyond_fails,
        wait=fields.parse_wait(fields_.get(headers.PREFER)),
    )
    return _again(append, view, draft) if view.state in (VERIFYING, COMPLETE) else append


def _again(append: Append, view: View, draft: Draft) -> Complete:
    """An append to an upload that has all its bytes: most likely its last answer was lost (I-APPEND-4)."""
    if view.state == COMPLETE and not draft.replays:
        raise ProblemError("completed-upload", "This upload is complete; nothing can be added to it.")
    if append.offset != view.length:
        raise offset_mismatch(append, view)
    if append.content_length != 0:
        raise ProblemError("final-upload", "All bytes of this upload are here; it takes no more.")
    return Complete((), append.wait)


def check_asking(fields_: Headers, draft: Draft) -> None:
    """Refuses a HEAD or DELETE with fields that the version does not allow there (I-HEAD-3)."""
    wrong = [name for name in draft.asking_refuses if name in fields_]
    if wrong:
        raise ProblemError("conflicting-fields", f"Leave {' and '.join(wrong)} out of this request.")


def limit_fields(draft: Draft, limits: Limits, expires_in: float | None) -> dict[str, str]:
    """`Upload-Limit`, where the version has it. `expires_in` is in seconds; None: never (I-LIMIT-1)."""
    if draft.age_limit is None:
        return {}
    found = {"max-size": limits.max_size}
    if expires_in is not None:
        found[draft.age_limit] = max(0, int(expires_in))
    return {headers.UPLOAD_LIMIT: fields.format_limits(found)}


def offered_limits(draft: Draft, limits: Limits) -> dict[str, str]:
    """`Upload-Limit` of an upload that is yet to be made, in whole seconds that it will surely have (I-LIMIT-3)."""
    return limit_fields(draft, limits, None if limits.max_age is None else limits.max_age - 1)


def upload_limits(draft: Draft, view: View, limits: Limits, now: float) -> dict[str, str]:
    """`Upload-Limit` of an upload. `now` is in seconds since the epoch (I-LIMIT-1)."""
    return limit_fields(draft, limits, None if view.expires is None else view.expires - now)


def upload_fields(draft: Draft, view: View, limits: Limits, now: float) -> dict[str, str]:
    """Where an upload is, for every answer of success. `now` is in seconds since the epoch (I-ANSWER-1)."""
    return {
        headers.UPLOAD_OFFSET: str(view.prefix),
        draft.complete_field: draft.format_complete(view.state == COMPLETE),
        **upload_limits(draft, view, limits, now),
    }


def state_fields(draft: Draft, view: View, limits: Limits, now: float) -> dict[str, str]:
    """The answer to HEAD (I-HEAD-1)."""
    known = {} if view.length is None else {headers.UPLOAD_LENGTH: str(view.length)}
    return {**upload_fields(draft, view, limits, now), **known, headers.CACHE_CONTROL: "no-store"}


def interim_fields(draft: Draft, others: Mapping[str, str]) -> dict[str, str]:
    """The fields of a 104 (I-INTERIM-1)."""
    return {headers.UPLOAD_DRAFT_INTEROP_VERSION: str(draft.version), **others}


def refusal(problem: ProblemError, draft: Draft, limits: Limits, view: View | None, now: float) -> ProblemError:
    """The problem as the draft knows it, with the fields that belong to it (I-ANSWER-2). `view`: as it is `now`."""
    code = "inconsistent-upload-length" if problem.code in ("length-exceeded", "out-of-bounds") else problem.code
    if code in _INACTIVE:
        code, view = draft.inactive or code, None
    # `true` with an error would say that the file was taken in and turned down for good.
    found = {draft.complete_field: draft.format_complete(code == "upload-digest-mismatch")}
    if view is not None:
        found[headers.UPLOAD_OFFSET] = str(view.prefix)  # unless the problem knows better
    if code == "upload-too-large":
        found |= offered_limits(draft, limits) if view is None else upload_limits(draft, view, limits, now)
    return ProblemError(code, problem.detail, problem.members, {**found, **problem.headers})


def _body_length(fields_: Headers) -> int | None:
    """None: there is a body, and nobody knows how long it is."""
    length = read_content_length(fields_)
    return 0 if length is None and headers.TRANSFER_ENCODING not in fields_ else length


def _missing(name: str, why: str) -> ProblemError:
    return ProblemError("missing-field", f"{why}, with {name}.", {"field": name})
