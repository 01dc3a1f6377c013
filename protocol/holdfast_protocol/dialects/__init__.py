"""What differs between the dialects that share one URL: `tus1` (tus 1.0.0) and `parallel` (Holdfast's own).

Rule of this file: it finds out from the head which dialect a request speaks, and nothing else.
"""

from holdfast_protocol import fields, headers
from holdfast_protocol.dialects import parallel, tus1
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
    View,
    check_takes_bytes,
    offer_fields,
)


def decide_create(fields_: Headers, limits: Limits) -> Create:
    """What a POST on the collection asks for."""
    try:
        if parallel.speaks_create(fields_):
            return parallel.create(fields_, limits)
        return tus1.create(fields_, limits)
    except FieldError as error:
        raise error.as_problem() from None


def decide_patch(fields_: Headers, view: View, limits: Limits) -> Append | StoreChunk | Complete | Acknowledge:
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
                    f"A PATCH here is {headers.MEDIA_OFFSET} (tus) or {headers.MEDIA_CHUNK} (parallel chunks), "
                    f"not {other or 'without a Content-Type'}.",
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


def options_fields(limits: Limits) -> dict[str, str]:
    """The answer to OPTIONS (T-OPTIONS-1)."""
    return tus1.options(limits) | offer_fields(limits)
