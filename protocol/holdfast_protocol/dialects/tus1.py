"""tus 1.0.0 and its extensions.

Rule of this file: a head that speaks tus becomes a decision here (protocol.md, section 2). `FieldError` is raised
for a malformed field, `ProblemError` for anything else that is wrong.
"""

from typing import Final

from holdfast_protocol import fields, headers
from holdfast_protocol.concat import Concat, parse_concat
from holdfast_protocol.digest import Digest, UnknownAlgorithm, available, first_computable, tus_name
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_protocol.server import (
    COMPLETE,
    VERIFYING,
    Acknowledge,
    Append,
    Create,
    Limits,
    View,
    check_length,
    read_content_length,
    read_digests,
    read_length,
    read_metadata,
    reads_deferred,
    too_large,
    unknown_algorithm,
    version_problem,
)

EXTENSIONS: Final = (
    "creation",
    "creation-defer-length",
    "creation-with-upload",
    "expiration",
    "checksum",
    "termination",
    "concatenation",
    "concatenation-unfinished",
)

CHECKSUM_TRAILER: Final = "checksum-trailer"
"""Offered only where trailers can be read (T-TRAILER-1)."""


def require_version(fields_: Headers) -> None:
    """T-VERSION-1: here the field has to be there; `server.check_version` has looked at its value."""
    if headers.TUS_RESUMABLE not in fields_:
        raise version_problem("Send Tus-Resumable: 1.0.0 with every tus request.")


def options(limits: Limits) -> dict[str, str]:
    return {
        headers.TUS_VERSION: headers.TUS_PROTOCOL_VERSION,
        headers.TUS_EXTENSION: ",".join((*EXTENSIONS, CHECKSUM_TRAILER) if limits.trailers else EXTENSIONS),
        headers.TUS_CHECKSUM_ALGORITHM: ",".join(tus_name(name) for name in available()),
        headers.TUS_MAX_SIZE: str(limits.max_size),
    }


def create(fields_: Headers, limits: Limits) -> Create:
    """A POST on the collection (T-CREATE-1 to T-CREATE-4, T-DEFER-1, T-CONCAT-1, T-CONCAT-3)."""
    require_version(fields_)
    raw = fields_.one(headers.UPLOAD_CONCAT)
    concat = None if raw is None else parse_concat(raw)
    if concat is not None and concat.urls is not None:
        return _create_final(fields_, concat, limits)
    length = None if reads_deferred(fields_) else read_length(fields_, limits)
    metadata, filename = read_metadata(fields_, limits)
    expected = read_digests(headers.UPLOAD_DIGEST, fields_)
    if expected and concat is not None:
        raise ProblemError("conflicting-fields", "A part is not verified by itself; give the digest with the final.")
    body = None
    if fields.media_type(fields_.get(headers.CONTENT_TYPE)) == headers.MEDIA_OFFSET:
        content_length = read_content_length(fields_)
        most = limits.max_size if length is None else length
        if content_length is not None and content_length > most:
            if length is None:
                raise too_large(most)
            raise ProblemError(
                "length-exceeded", f"The upload has {length} bytes; the body has {content_length}.", {"length": length}
            )
        if content_length != 0:
            checksum, trailer = _checksum(fields_, limits)
            body = Append(0, content_length, checksum, trailer=trailer, most=limits.max_size)
    wanted = None if concat is not None else _wanted(fields_)
    return Create(length, False, metadata, filename, expected, wanted, body, concat)


def _create_final(fields_: Headers, concat: Concat, limits: Limits) -> Create:
    """T-CONCAT-3."""
    for name in (headers.UPLOAD_LENGTH, headers.UPLOAD_DEFER_LENGTH):
        if name in fields_:
            raise ProblemError("conflicting-fields", f"The length of a final is that of its parts; leave {name} out.")
    if read_content_length(fields_) or headers.TRANSFER_ENCODING in fields_:
        raise ProblemError("conflicting-fields", "A final takes its bytes from its parts; send it without a body.")
    metadata, filename = read_metadata(fields_, limits)
    expected = read_digests(headers.UPLOAD_DIGEST, fields_)
    return Create(None, False, metadata, filename, expected, _wanted(fields_), None, concat)


def _wanted(fields_: Headers) -> str | None:
    """P-DIGEST-2."""
    raw = fields_.get(headers.WANT_REPR_DIGEST)
    wants = () if raw is None else fields.parse_wants(headers.WANT_REPR_DIGEST, raw)
    return first_computable(wants)


def patch(fields_: Headers, view: View, limits: Limits) -> Append | Acknowledge:
    """A PATCH with the tus media type (T-PATCH-1, T-PATCH-2, T-DEFER-2)."""
    require_version(fields_)
    raw = fields_.one(headers.UPLOAD_OFFSET)
    if raw is None:
        raise ProblemError(
            "missing-field", "Say where the body begins, with Upload-Offset.", {"field": headers.UPLOAD_OFFSET}
        )
    offset = fields.parse_integer(headers.UPLOAD_OFFSET, raw)
    content_length = read_content_length(fields_)
    checksum, trailer = _checksum(fields_, limits)
    length = read_length(fields_, limits) if headers.UPLOAD_LENGTH in fields_ else None
    wait = fields.parse_wait(fields_.get(headers.PREFER))
    wanted = Append(offset, content_length, checksum, trailer=trailer, length=length, most=limits.max_size, wait=wait)
    check_length(wanted, view)
    if view.state in (VERIFYING, COMPLETE):
        if offset == view.length and content_length == 0:
            return Acknowledge()
        raise ProblemError(
            "final-upload",
            "All bytes of this upload are here; it takes no more.",
            headers={headers.UPLOAD_OFFSET: str(view.prefix)},
        )
    return wanted


def _checksum(fields_: Headers, limits: Limits) -> tuple[Digest | None, bool]:
    """The checksum in the head, and whether the head says that one follows the body."""
    announced = (fields_.get(headers.TRAILER) or "").split(",")
    follows = headers.UPLOAD_CHECKSUM.lower() in (name.strip().lower() for name in announced)
    if follows and headers.UPLOAD_CHECKSUM in fields_:
        raise ProblemError("conflicting-fields", "Send Upload-Checksum before the body or after it, not both.")
    if follows and not limits.trailers:
        raise ProblemError("conflicting-fields", "Trailers cannot be read here; send Upload-Checksum before the body.")
    return read_checksum(fields_), follows


def read_checksum(fields_: Headers) -> Digest | None:
    """`Upload-Checksum` of a head or of trailers, None if it is not there. Raises FieldError and ProblemError."""
    raw = fields_.one(headers.UPLOAD_CHECKSUM)
    if raw is None:
        return None
    try:
        return fields.parse_checksum(raw)
    except UnknownAlgorithm:
        raise unknown_algorithm(headers.UPLOAD_CHECKSUM, (tus_name(name) for name in available())) from None
