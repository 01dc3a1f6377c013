"""A complete file, whole or in ranges.

Rule of this file: RFC 9110 sections 13 (preconditions, in the order of 13.2.2) and 14 (ranges). The file is never
shown by a browser as part of this site: it is an attachment, and its type is not guessed (D-GET-1). One of a type that
the operator has listed may be shown, in a sandbox in which nothing of it runs (D-INLINE-1).
"""

import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

from starlette.types import Scope, Send

from holdfast_protocol import fields, headers
from holdfast_protocol import server as rules
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_server.http.answers import NOSNIFF, answer, head_of, start
from holdfast_server.http.pace import Pace, pace_of
from holdfast_server.storage.base import Reader
from holdfast_server.uploads import types
from holdfast_server.uploads.service import Uploads
from holdfast_server.uploads.upload import Upload

SENDING: Final = "holdfast.response.socket"
"""The extension of a scope by which a server says that it lends the connection for a part of the answer's body:
`await send(size, transmit)` calls `transmit` with a socket that does not block, and that sends so many bytes by it."""


SAVED: Final = "default-src 'none'; sandbox"
SHOWN: Final = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
"""What a browser itself needs to show a picture or a film, and nothing else: no script, no form, no other origin."""

LAST: Final = 16 * 1024
"""Bytes that are never sent so; few enough for a server to take them without waiting."""


def entity_tag(upload: Upload) -> fields.EntityTag:
    """Strong: the bytes of a complete upload never change, and its id is never used again."""
    return fields.EntityTag(upload.id, weak=False)


def file_fields(upload: Upload, inline_types: Collection[str]) -> dict[str, str]:
    """What is said of a complete file on GET and HEAD. Files of `inline_types` may be shown."""
    media = types.media_type(upload.name)
    shown = bool(inline_types) and types.matches(media, inline_types)
    return {
        headers.CONTENT_TYPE: media if shown else headers.MEDIA_BYTES,
        headers.CONTENT_DISPOSITION: fields.format_disposition(upload.name, "inline" if shown else "attachment"),
        headers.CONTENT_SECURITY_POLICY: SHOWN if shown else SAVED,
        headers.ACCEPT_RANGES: "bytes",
        headers.ETAG: str(entity_tag(upload)),
        headers.LAST_MODIFIED: fields.format_http_date(upload.updated),
        **rules.digest_fields(upload),
        **NOSNIFF,
    }


async def download(
    uploads: Uploads, upload: Upload, scope: Scope, send: Send, others: Mapping[str, str] | None = None
) -> None:
    """Answers a GET, with the fields `others` beside those of the file."""
    head = head_of(scope)
    pace = pace_of(scope, uploads.settings)
    async with uploads.open(upload) as reader:
        found = file_fields(upload, uploads.settings.inline_types) | dict(others or {})
        _check_match(upload, head)
        if _is_known(upload, head):
            await answer(send, 304, found)
            return
        ranges = _ranges(upload, head)
        if ranges is None:
            await start(send, 200, {**found, headers.CONTENT_LENGTH: str(upload.reach)})
            await _send(reader, 0, upload.reach, pace, scope, send)
            await send({"type": "http.response.body"})
        elif not ranges:
            raise ProblemError(
                "range-not-satisfiable",
                f"The file has {upload.reach} bytes.",
                {"length": upload.reach},
                {
                    **{name: value for name, value in found.items() if name != headers.CONTENT_TYPE},
                    headers.CONTENT_RANGE: fields.format_unsatisfied_range(upload.reach),
                },
            )
        elif len(ranges) == 1:
            (first, end) = ranges[0]
            found[headers.CONTENT_RANGE] = fields.format_content_range(first, end, upload.reach)
            await start(send, 206, {**found, headers.CONTENT_LENGTH: str(end - first)})
            await _send(reader, first, end, pace, scope, send)
            await send({"type": "http.response.body"})
        else:
            await _send_parts(reader, ranges, found, pace, scope, send)


def _ranges(upload: Upload, head: Headers) -> Sequence[tuple[int, int]] | None:
    """The ranges to send, or None for the whole file (D-GET-2, D-GET-3)."""
    asked = head.get(headers.RANGE)
    if asked is None:
        return None
    condition = head.get(headers.IF_RANGE)
    if condition is not None and condition.strip() != str(entity_tag(upload)):
        # A date is no strong validator here (RFC 9110, section 13.1.5), so only our own tag will do.
        return None
    return fields.parse_byte_ranges(asked, upload.reach)


def _check_match(upload: Upload, head: Headers) -> None:
    tags = _tags(head, headers.IF_MATCH)
    if tags is not None and tags != "*" and entity_tag(upload) not in tags:
        raise ProblemError("precondition-failed", "This is not the file that was asked for; its ETag is another one.")


def _is_known(upload: Upload, head: Headers) -> bool:
    tags = _tags(head, headers.IF_NONE_MATCH)
    return tags is not None and (tags == "*" or any(tag.value == entity_tag(upload).value for tag in tags))


def _tags(head: Headers, name: str) -> list[fields.EntityTag] | Literal["*"] | None:
    raw = head.get(name)
    if raw is None:
        return None
    try:
        return fields.parse_entity_tags(raw, name)
    except FieldError as error:
        raise error.as_problem() from None


async def _send(reader: Reader, start_: int, end: int, pace: Pace, scope: Scope, send: Send) -> None:
    """Bytes of the file: straight out of it into the connection, where the server lends that.

    The last ones take the plain way even then: who has them has the whole answer, and may send the next request before
    this server would know that it has answered.
    """
    lending = scope.get("extensions", {}).get(SENDING)
    tail = end - LAST
    if lending is not None and start_ < tail:

        async def transmit(connection: socket.socket) -> None:
            position = start_
            while position < tail:
                count = await reader.send(connection, position, tail)
                if not count:
                    await pace.writable(connection)
                await pace.passed(count)
                position += count

        await lending["send"](tail - start_, transmit)
        start_ = tail
    async for data in reader.read(start_, end):
        await pace.passed(len(data))
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def _send_parts(
    reader: Reader,
    ranges: Sequence[tuple[int, int]],
    found: dict[str, str],
    pace: Pace,
    scope: Scope,
    send: Send,
) -> None:
    """RFC 9110, section 14.6."""
    boundary = secrets.token_hex(16)
    media = found[headers.CONTENT_TYPE]
    parts = [
        (
            f"--{boundary}\r\n{headers.CONTENT_TYPE}: {media}\r\n"
            f"{headers.CONTENT_RANGE}: {fields.format_content_range(first, end, reader.size)}\r\n\r\n".encode(),
            first,
            end,
        )
        for first, end in ranges
    ]
    closing = f"--{boundary}--\r\n".encode()
    length = sum(len(part) + end - first + 2 for part, first, end in parts) + len(closing)
    await start(
        send,
        206,
        {
            **found,
            headers.CONTENT_TYPE: f"multipart/byteranges; boundary={boundary}",
            headers.CONTENT_LENGTH: str(length),
        },
    )
    for part, first, end in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await _send(reader, first, end, pace, scope, send)
        await send({"type": "http.response.body", "body": b"\r\n", "more_body": True})
    await send({"type": "http.response.body", "body": closing})
