"""What differs for a server between the dialects that share one URL: `tus1` (tus 1.0.0), `ietf` (the IETF draft) and
`parallel` (Holdfast's own).

Rule of this file: it finds out from the head which dialect a request speaks, and nothing else.
"""

from msgspec.structs import replace

from holdfast_protocol import fields, headers
from holdfast_protocol.dialects import ietf, parallel, tus1
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_protocol.server import (
    Acknowledge,
    Append,
    Complete,
    Create,
    Limits,
    StoreChunk,
    StoreHole,
    View,
    check_takes_bytes,
    offer_fields,
    read_key,
)

_DRAFT_FIELDS = (headers.UPLOAD_COMPLETE, headers.UPLOAD_INCOMPLETE)


def draft_spoken(method: str, fields_: Headers) -> ietf.Spoken | None:
    """The version of the IETF draft that a request speaks; None if it speaks something else (I-VERSION-2)."""
    if method == "GET":
        asked = ietf.spoken(fields_)
        return asked if asked.named and asked.draft.asks_by_get else None
    media = fields.media_type(fields_.get(headers.CONTENT_TYPE))
    if media in (headers.MEDIA_CHUNK, headers.MEDIA_OFFSET):
        return None
    named = headers.UPLOAD_DRAFT_INTEROP_VERSION in fields_ or media == headers.MEDIA_PARTIAL
    hinted = headers.TUS_RESUMABLE not in fields_ and any(name in fields_ for name in _DRAFT_FIELDS)
    return ietf.spoken(fields_) if named or hinted else None


def decide_create(fields_: Headers, limits: Limits) -> Create:
    """What a POST on the collection asks for."""
    try:
        create = parallel.create if parallel.speaks_create(fields_) else tus1.create
        wanted, key = create(fields_, limits), read_key(fields_)
    except FieldError as error:
        raise error.as_problem() from None
    return wanted if key is None else replace(wanted, key=key)


def decide_patch(
    fields_: Headers, view: View, limits: Limits
) -> Append | StoreChunk | StoreHole | Complete | Acknowledge:
    """What a PATCH on an upload asks for. Where the prefix is, is looked at later, by `admit`."""
    check_takes_bytes(view)
    try:
        match fields.media_type(fields_.get(headers.CONTENT_TYPE)):
            case headers.MEDIA_CHUNK:
                return parallel.patch(fields_, view, limits)
            case headers.MEDIA_OFFSET:
                return tus1.patch(fields_, view, limits)
            case other:
                raise ProblemError(
                    "unsupported-media-type",
                    f"A PATCH here is {headers.MEDIA_OFFSET} (tus), {headers.MEDIA_PARTIAL} (the IETF draft) or "
                    f"{headers.MEDIA_CHUNK} (parallel chunks), not {other or 'without a Content-Type'}.",
                )
    except FieldError as error:
        raise error.as_problem() from None


def decide_trailer(trailers: Headers) -> Digest:
    """The checksum that was announced to follow a body (T-TRAILER-2). Raises ProblemError 400."""
    try:
        found = tus1.read_checksum(trailers)
    except FieldError as error:
        raise error.as_problem() from None
    if found is None:
        raise ProblemError(
            "missing-field",
            "Upload-Checksum was announced as a trailer and did not come, so nothing of the body is stored.",
            {"field": headers.UPLOAD_CHECKSUM},
        )
    return found


def options_fields(limits: Limits, fields_: Headers) -> dict[str, str]:
    """The answer to OPTIONS (T-OPTIONS-1, I-LIMIT-2)."""
    found = tus1.options(limits) | offer_fields(limits)
    if headers.UPLOAD_COMPLETE not in fields_:
        found |= ietf.offered_limits(ietf.spoken(fields_).draft, limits)
    return found
