"""Parallel chunks: Holdfast's own dialect (protocol.md, section 3).

Rule of this file: a head that speaks of chunks becomes a decision here. `FieldError` is raised for a malformed
field, `ProblemError` for anything else that is wrong.
"""

from holdfast_protocol import fields, headers
from holdfast_protocol.digest import first_computable, hasher
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_protocol.server import (
    Complete,
    Create,
    Limits,
    StoreChunk,
    StoreHole,
    View,
    is_part,
    length_unknown,
    read_content_length,
    read_digests,
    read_length,
    read_metadata,
    reads_deferred,
)


def speaks_create(fields_: Headers) -> bool:
    """Does this POST ask for an upload in parallel chunks?"""
    raw = fields_.one(headers.UPLOAD_PARALLEL)
    return raw is not None and fields.parse_boolean(headers.UPLOAD_PARALLEL, raw)


def create(fields_: Headers, limits: Limits) -> Create:
    """A POST on the collection (P-CREATE-1, P-DIGEST-1, P-DIGEST-2)."""
    if reads_deferred(fields_):
        raise ProblemError(
            "conflicting-fields",
            "An upload in parallel chunks is created with Upload-Length. To say the length later, create it with tus.",
        )
    if headers.UPLOAD_CONCAT in fields_:
        raise ProblemError(
            "conflicting-fields", "Parallel chunks need no concatenation: send either Upload-Parallel or Upload-Concat."
        )
    length = read_length(fields_, limits)
    metadata, filename = read_metadata(fields_, limits)
    if read_content_length(fields_) or headers.TRANSFER_ENCODING in fields_:
        raise ProblemError(
            "conflicting-fields", "An upload in parallel chunks is created without a body; send the bytes as chunks."
        )
    raw = fields_.get(headers.WANT_REPR_DIGEST)
    wants = () if raw is None else fields.parse_wants(headers.WANT_REPR_DIGEST, raw)
    expected = read_digests(headers.UPLOAD_DIGEST, fields_)
    return Create(length, True, metadata, filename, expected, first_computable(wants), None)


def patch(fields_: Headers, view: View, limits: Limits) -> StoreChunk | StoreHole | Complete:
    """A PATCH with the chunk media type: a chunk, a hole, or the request to complete."""
    raw = fields_.one(headers.UPLOAD_COMPLETE)
    length = read_content_length(fields_)
    if raw is not None and fields.parse_boolean(headers.UPLOAD_COMPLETE, raw):
        if headers.UPLOAD_HOLE in fields_:
            raise ProblemError("conflicting-fields", "A hole never completes an upload: ask for that by itself.")
        if length or headers.TRANSFER_ENCODING in fields_:
            raise ProblemError(
                "conflicting-fields", "Complete with an empty body; send the last bytes as a chunk before."
            )
        if is_part(view):
            raise ProblemError(
                "conflicting-fields", "A part is whole with its last byte. Create the final upload, with Upload-Concat."
            )
        return Complete(read_digests(headers.UPLOAD_DIGEST, fields_), fields.parse_wait(fields_.get(headers.PREFER)))
    if headers.UPLOAD_HOLE in fields_:
        return _hole(fields_, view, length)
    return _chunk(fields_, view, limits, length)


def _chunk(fields_: Headers, view: View, limits: Limits, length: int | None) -> StoreChunk:
    """P-CHUNK-1 and P-CHUNK-2."""
    start = _start(fields_)
    if length is None:
        raise ProblemError("length-required", "Send a chunk with Content-Length.")
    if length == 0:
        raise ProblemError("malformed-field", "A chunk has at least one byte.", {"field": headers.CONTENT_LENGTH})
    end = start + length
    _check_place(start, end, view)
    largest = max(view.granule, limits.max_chunk // view.granule * view.granule)
    if length > largest:
        raise ProblemError("chunk-too-large", f"A chunk has at most {largest} bytes.", {"max-chunk": largest})
    digests = read_digests(headers.CONTENT_DIGEST, fields_)
    if not digests:
        raise ProblemError(
            "missing-field", "Send the digest of the chunk, with Content-Digest.", {"field": headers.CONTENT_DIGEST}
        )
    return StoreChunk(start, end, digests)


def _hole(fields_: Headers, view: View, content_length: int | None) -> StoreHole:
    """P-HOLE-1 and P-HOLE-2."""
    start = _start(fields_)
    raw = fields_.one(headers.UPLOAD_HOLE)
    assert raw is not None  # that it is there is how a hole is told from a chunk
    length = fields.parse_integer(headers.UPLOAD_HOLE, raw)
    if length == 0:
        raise ProblemError("malformed-field", "A hole has at least one byte.", {"field": headers.UPLOAD_HOLE})
    if content_length or headers.TRANSFER_ENCODING in fields_:
        raise ProblemError("conflicting-fields", "Tell of a hole with an empty body; its bytes are not sent.")
    _check_place(start, start + length, view)
    for digest in read_digests(headers.CONTENT_DIGEST, fields_):
        # It is the digest of the content (RFC 9530, section 2), and there is none.
        if hasher(digest.algorithm).digest() != digest.value:
            raise ProblemError(
                "digest-mismatch",
                f"The {digest.algorithm} is not that of an empty body. A hole needs no Content-Digest.",
                {"algorithm": digest.algorithm},
            )
    return StoreHole(start, start + length)


def _start(fields_: Headers) -> int:
    raw = fields_.one(headers.UPLOAD_OFFSET)
    if raw is None:
        raise ProblemError(
            "missing-field", "Say where the chunk begins, with Upload-Offset.", {"field": headers.UPLOAD_OFFSET}
        )
    return fields.parse_integer(headers.UPLOAD_OFFSET, raw)


def _check_place(start: int, end: int, view: View) -> None:
    """P-CHUNK-2, for holes too."""
    if view.length is None:
        raise length_unknown()
    if end > view.length:
        raise ProblemError(
            "out-of-bounds",
            f"The chunk [{start}, {end}) goes beyond the {view.length} bytes of the upload.",
            {"length": view.length},
        )
    if start % view.granule or (end % view.granule and end != view.length):
        raise ProblemError(
            "misaligned-chunk",
            f"Offset and length of a chunk are multiples of {view.granule}; only the last chunk may be short.",
            {"granule": view.granule},
        )
