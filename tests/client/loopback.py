"""A small real HTTP server on the loopback that speaks the protocol and can be told to misbehave.

Rule of this file: it keeps uploads in memory, and it does on order what a good server does not: cut a connection in
the middle of a body, take no more bytes, lose an answer, refuse. Orders are carried out once each, in their order,
by the first request that fits; everything that was asked is written down.
"""

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from holdfast import UploadResult
from holdfast_protocol import fields, headers
from holdfast_protocol.digest import Digest, digest
from holdfast_protocol.fields import ParallelOffer
from holdfast_protocol.problem import ProblemError
from holdfast_protocol.ranges import RangeSet

PIECE = 64 * 1024
EARLY_LIMIT = 30.0
"""Seconds for which a connection stays that was answered early."""


@dataclass
class Order:
    """One misdeed: for the next `times` requests with this method (and for which `when` is true)."""

    method: str
    kind: str
    """cut, stall, lose (carry it out and send no answer), short (send `after` bytes of the answer's body), answer
    (with `status` and `code`), early (the same, and read no more of the body), hold (carry it out only when `until` is
    true).
    """
    times: int = 1
    after: int = 0
    """Bytes of the body to take first."""
    status: int = 503
    code: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    members: dict[str, object] = field(default_factory=dict)
    when: Callable[["Seen"], bool] = lambda seen: True
    until: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    fields: dict[str, str]

    @property
    def offset(self) -> int | None:
        value = self.fields.get(headers.UPLOAD_OFFSET.lower())
        return None if value is None else int(value)

    @property
    def length(self) -> int:
        return int(self.fields.get(headers.CONTENT_LENGTH.lower(), "0"))

    @property
    def hole(self) -> int:
        """Bytes that it says are zeros; 0 if it speaks of none."""
        return int(self.fields.get(headers.UPLOAD_HOLE.lower(), "0"))

    @property
    def is_chunk(self) -> bool:
        return self.fields.get(headers.CONTENT_TYPE.lower()) == headers.MEDIA_CHUNK and self.offset is not None


@dataclass
class Kept:
    """An upload in memory."""

    length: int
    metadata: str | None
    data: bytearray
    stored: RangeSet = field(default_factory=RangeSet)
    complete: bool = False
    failed: bool = False
    etag: str | None = '"one"'
    ranges: bool = True
    """Whether a GET with Range is answered with it."""
    digest: bool = True
    """Whether a GET says the digest,"""
    algorithm: str = "sha-256"
    """and which: that of the client's own, if it gave one."""
    verifying: int = 0
    """How many more times it says that it is still verifying."""
    concat: str | None = None
    """The Upload-Concat with which it was created."""
    deferred: bool = False
    """Its length is not known yet."""

    def verify(self) -> None:
        """One step on."""
        if self.verifying:
            self.verifying -= 1
            self.complete = self.verifying == 0

    def step(self) -> dict[str, str]:
        if not self.verifying:
            return {}
        return {headers.UPLOAD_STEP: "verifying" if self.verifying > 1 else "publishing"}


class Loopback:
    """The server, in threads; used with `with`. `parallel=False` makes it a plain tus server.

    `extensions` are those of tus that it says it has, `checksums` what it says of algorithms (by the names of tus), and
    `max_size` what it says of sizes, `lifetime` for how many seconds it says that an upload is kept.
    """

    def __init__(
        self,
        *,
        parallel: bool = True,
        granule: int = 64 * 1024,
        max_chunk: int = 1 << 30,
        holes: bool = False,
        missing_on_head: int = 100,
        wants: tuple[str, ...] = ("xxh3-128", "sha-256"),
        extensions: tuple[str, ...] = ("creation",),
        checksums: tuple[str, ...] = (),
        max_size: int | None = None,
        lifetime: float | None = None,
        handler: "type[Handler] | None" = None,
    ) -> None:
        self.parallel = parallel
        self.offer = ParallelOffer(granule, max_chunk, holes)
        self.missing_on_head = missing_on_head
        self.wants = wants
        self.extensions = extensions
        self.checksums = checksums
        self.max_size = max_size
        self.lifetime = lifetime
        self.verify_later = False
        self.shadowed = False
        """Something in between answers OPTIONS, and knows of no protocol."""
        self.uploads: dict[str, Kept] = {}
        self.orders: list[Order] = []
        self.seen: list[Seen] = []
        self.numbers = itertools.count()
        self.body_bytes = 0
        self.at_once = 0
        self.most_at_once = 0
        self.guard = threading.RLock()
        self.leaving = threading.Event()
        self.connections: set[socket.socket] = set()
        self._server = _Server(self, handler or Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/files"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leaving.set()
        with self.guard:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def order(self, method: str, kind: str, **more: Any) -> None:
        with self.guard:
            self.orders.append(Order(method, kind, **more))

    def requests(self, method: str) -> list[Seen]:
        with self.guard:
            return [each for each in self.seen if each.method == method]

    def chunks(self) -> list[Seen]:
        return [each for each in self.requests("PATCH") if each.is_chunk]

    def only(self) -> Kept:
        """The one upload that is there."""
        (kept,) = self.uploads.values()
        return kept

    def put(self, key: str, data: bytes, *, stored: list[tuple[int, int]]) -> str:
        """An upload that somebody began; its URL."""
        self.uploads[key] = Kept(len(data), None, bytearray(data), RangeSet(stored))
        return f"{self.url}/{key}"

    def take_order(self, seen: Seen) -> Order | None:
        with self.guard:
            self.seen.append(seen)
            for order in self.orders:
                if order.method == seen.method and order.times > 0 and order.when(seen):
                    order.times -= 1
                    return order
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, loopback: Loopback, handler: "type[Handler]") -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.loopback = loopback

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut on order is no error."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        assert isinstance(self.server, _Server)
        self.loopback = self.server.loopback
        with self.loopback.guard:
            self.loopback.connections.add(self.connection)

    def finish(self) -> None:
        with self.loopback.guard:
            self.loopback.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that is overridden
        """Nothing on standard error."""

    def do(self) -> None:
        said = {k.lower(): v for k, v in self.headers.items()}
        seen = Seen(said.get(headers.METHOD_OVERRIDE.lower(), self.command), urlsplit(self.path).path, said)
        order = self.loopback.take_order(seen)
        with self.loopback.guard:
            self.loopback.at_once += 1
            self.loopback.most_at_once = max(self.loopback.most_at_once, self.loopback.at_once)
        try:
            self._carry_out(seen, order)
        except ProblemError as problem:
            said = {headers.CONTENT_TYPE: headers.MEDIA_PROBLEM, **problem.headers}
            self._answer(problem.status, said, problem.to_json())
        finally:
            with self.loopback.guard:
                self.loopback.at_once -= 1

    do_POST = do_HEAD = do_PATCH = do_DELETE = do_GET = do_OPTIONS = do  # noqa: N815

    def _carry_out(self, seen: Seen, order: Order | None) -> None:
        if order is not None and order.kind in ("cut", "stall"):
            taken = self._read(min(order.after, seen.length))
            if self._is_append(seen) and seen.method == "PATCH" and headers.UPLOAD_CHECKSUM.lower() not in seen.fields:
                self._append(seen, taken)
            if order.kind == "stall":
                self.loopback.leaving.wait(30)
            self._hang_up()
            return
        if order is not None and order.kind == "hold":
            while not order.until() and not self.loopback.leaving.wait(0.01):
                pass
        body = self._read(seen.length if order is None or order.kind != "early" else order.after)
        if order is not None and order.kind in ("answer", "early"):
            said = {headers.CONTENT_TYPE: headers.MEDIA_PROBLEM} if order.code else {}
            document = {"code": order.code, "detail": "As it was ordered.", **order.members}
            self._answer(order.status, said | order.fields, json.dumps(document).encode() if order.code else b"")
            if order.kind == "early":
                self.loopback.leaving.wait(EARLY_LIMIT)
                self._hang_up()
            return
        status, fields_, content = getattr(self, f"_{seen.method.lower()}")(seen, body)
        if order is not None and order.kind == "lose":
            self._hang_up()
            return
        if order is not None and order.kind == "short":
            self._answer(status, {headers.CONTENT_LENGTH: str(len(content)), **fields_}, content[: order.after])
            self._hang_up()
            return
        self._answer(status, fields_ | (order.fields if order is not None else {}), content)

    def _read(self, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            piece = self.rfile.read1(min(PIECE, length - len(found)))
            if not piece:
                raise ConnectionError
            found += piece
            with self.loopback.guard:
                self.loopback.body_bytes += len(piece)
        return bytes(found)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, fields_: dict[str, str], content: bytes = b"") -> None:
        if headers.DATE in fields_:
            self.send_response_only(status)
        else:
            self.send_response(status)
        if self.loopback.lifetime is not None:
            fields_ = {headers.UPLOAD_EXPIRES: fields.format_http_date(time.time() + self.loopback.lifetime)} | fields_
        common = {} if self.command == "OPTIONS" else self._common()
        for name, value in {**common, **fields_}.items():
            self.send_header(name, value)
        if status != 204 and headers.CONTENT_LENGTH not in fields_:
            self.send_header(headers.CONTENT_LENGTH, str(len(content)))
        if status == 404 and self.command == "PATCH":
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _common(self) -> dict[str, str]:
        """Fields of every answer."""
        return {headers.TUS_RESUMABLE: headers.TUS_PROTOCOL_VERSION}

    def _kept(self, seen: Seen) -> Kept:
        kept = self.loopback.uploads.get(seen.path.rpartition("/")[2])
        if kept is None:
            raise ProblemError("not-found", "There is no upload here.")
        return kept

    def _is_append(self, seen: Seen) -> bool:
        return seen.fields.get(headers.CONTENT_TYPE.lower()) == headers.MEDIA_OFFSET

    def _append(self, seen: Seen, body: bytes) -> Kept:
        kept = self._kept(seen)
        assert seen.offset is not None
        self._check(seen, body)
        if kept.concat is not None and kept.concat.startswith("final"):
            raise ProblemError("final-upload", "It was put together.")
        with self.loopback.guard:
            if seen.offset != kept.stored.prefix:
                raise ProblemError("offset-mismatch", "Not here.")
            if body:
                kept.data[seen.offset : seen.offset + len(body)] = body
                kept.stored.add(seen.offset, seen.offset + len(body))
            said = seen.fields.get(headers.UPLOAD_LENGTH.lower())
            if kept.deferred and said is not None:
                kept.length, kept.deferred = int(said), False
        return kept

    def _check(self, seen: Seen, body: bytes) -> None:
        """The checksum of a body, if it has one."""
        said = seen.fields.get(headers.UPLOAD_CHECKSUM.lower())
        if said is None:
            return
        proof = fields.parse_checksum(said)
        if said.partition(" ")[0] not in self.loopback.checksums:
            raise ProblemError("unknown-algorithm", "Not this one.")
        if digest(proof.algorithm, body) != proof:
            raise ProblemError("checksum-mismatch", "Damaged.")

    def _options(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.loopback.shadowed:
            return 204, {}, b""
        said = {headers.TUS_VERSION: "1.0.0", headers.TUS_EXTENSION: ",".join(self.loopback.extensions)}
        if self.loopback.checksums:
            said[headers.TUS_CHECKSUM_ALGORITHM] = ",".join(self.loopback.checksums)
        if self.loopback.max_size is not None:
            said[headers.TUS_MAX_SIZE] = str(self.loopback.max_size)
        return 204, said | self._offer(), b""

    def _post(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        concat = seen.fields.get(headers.UPLOAD_CONCAT.lower())
        metadata = seen.fields.get(headers.UPLOAD_METADATA.lower())
        if concat is not None and concat.startswith("final;"):
            return self._final(seen, concat, metadata)
        self._check(seen, body)
        deferred = headers.UPLOAD_DEFER_LENGTH.lower() in seen.fields
        length = 0 if deferred else int(seen.fields[headers.UPLOAD_LENGTH.lower()])
        kept = Kept(length, metadata, bytearray(length), complete=length == 0 and not deferred, concat=concat)
        kept.deferred = deferred
        if body:
            kept.data[: len(body)] = body
            kept.stored.add(0, len(body))
        return self._created(kept, len(body))

    def _created(self, kept: Kept, offset: int) -> tuple[int, dict[str, str], bytes]:
        with self.loopback.guard:
            key = f"{next(self.loopback.numbers):032x}"
            self.loopback.uploads[key] = kept
        said = {headers.LOCATION: f"/files/{key}", headers.UPLOAD_OFFSET: str(offset)}
        return 201, said | self._offer(), b""

    def _final(self, seen: Seen, concat: str, metadata: str | None) -> tuple[int, dict[str, str], bytes]:
        parts = [self.loopback.uploads.get(url.rpartition("/")[2]) for url in concat[len("final;") :].split(" ")]
        if headers.UPLOAD_LENGTH.lower() in seen.fields:
            raise ProblemError("conflicting-fields", "A final upload has the length of its parts.")
        data = bytearray()
        for part in parts:
            if part is None or part.concat != "partial":
                raise ProblemError("not-found", "A part is not there.")
            if part.stored.prefix != part.length:
                raise ProblemError("missing-ranges", "A part is not finished.")
            data += part.data
        kept = Kept(len(data), metadata, data, RangeSet([(0, len(data))]), complete=True, concat=concat)
        return self._created(kept, len(data))

    def _offer(self) -> dict[str, str]:
        if not self.loopback.parallel:
            return {}
        return {
            headers.UPLOAD_PARALLEL: fields.format_offer(self.loopback.offer),
            headers.WANT_CONTENT_DIGEST: fields.format_wants(self.loopback.wants),
        }

    def _head(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        kept = self._kept(seen)
        said = {headers.UPLOAD_LENGTH: str(kept.length), headers.UPLOAD_OFFSET: str(kept.stored.prefix)} | self._offer()
        if kept.deferred:
            del said[headers.UPLOAD_LENGTH]
            said[headers.UPLOAD_DEFER_LENGTH] = "1"
        if kept.concat is not None:
            said[headers.UPLOAD_CONCAT] = kept.concat
        if not self.loopback.parallel:
            return 200, said, b""
        kept.verify()
        said[headers.UPLOAD_COMPLETE] = fields.format_boolean(kept.complete)
        state = "failed" if kept.failed else "complete" if kept.complete else "receiving"
        said[headers.UPLOAD_STATE] = "verifying" if kept.verifying else state
        said |= kept.step() | self._missing(kept)
        return 200, said, b""

    def _missing(self, kept: Kept) -> dict[str, str]:
        gaps = list(kept.stored.missing(0, kept.length)) if kept.length else []
        limit = self.loopback.missing_on_head
        if not gaps:
            return {}
        return {headers.UPLOAD_MISSING: fields.format_missing(gaps[:limit], len(gaps) > limit)}

    def _patch(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._is_append(seen):
            kept = self._append(seen, body)
            return 204, {headers.UPLOAD_OFFSET: str(kept.stored.prefix)}, b""
        kept = self._kept(seen)
        if not seen.is_chunk:
            return self._finish(seen, kept)
        assert seen.offset is not None
        offer = self.loopback.offer
        if seen.hole:
            assert offer.holes
            assert not body
            body = bytes(seen.hole)
        said = seen.fields[headers.CONTENT_DIGEST.lower()] if not seen.hole else None
        given = fields.parse_digests(headers.CONTENT_DIGEST, said) if said is not None else ()
        end = seen.offset + len(body)
        if seen.offset % offer.granule or (end % offer.granule and end != kept.length):
            raise ProblemError("misaligned-chunk", "Not on the granule.")
        if len(body) > offer.max_chunk and not seen.hole:
            raise ProblemError("chunk-too-large", "Too large.", {"max-chunk": offer.max_chunk})
        if [digest(each.algorithm, body) for each in given] != list(given):
            raise ProblemError("digest-mismatch", "Damaged.")
        with self.loopback.guard:
            for start, stop in list(kept.stored.within(seen.offset, end)):
                if kept.data[start:stop] != body[start - seen.offset : stop - seen.offset]:
                    raise ProblemError("chunk-conflict", "Other bytes are here.")
            kept.data[seen.offset : end] = body
            kept.stored.add(seen.offset, end)
        return 204, {headers.UPLOAD_OFFSET: str(kept.stored.prefix)}, b""

    def _finish(self, seen: Seen, kept: Kept) -> tuple[int, dict[str, str], bytes]:
        if kept.failed:
            raise ProblemError("upload-failed", "It has failed.")
        if missing := self._missing(kept):
            raise ProblemError("missing-ranges", "Not all is here.", headers=missing)
        given = seen.fields.get(headers.UPLOAD_DIGEST.lower())
        for each in fields.parse_digests(headers.UPLOAD_DIGEST, given) if given else ():
            kept.algorithm = each.algorithm
            if digest(each.algorithm, kept.data) != each:
                kept.failed = True
                raise ProblemError("upload-digest-mismatch", "Another file.")
        if self.loopback.verify_later and not kept.complete:
            kept.verifying = kept.verifying or 3
            kept.verify()
        else:
            kept.complete = True
        if not kept.complete:
            return 202, {headers.RETRY_AFTER: "0"} | kept.step(), b""
        computed: Digest = digest(kept.algorithm, kept.data)
        said = {
            headers.UPLOAD_COMPLETE: fields.format_boolean(True),
            headers.UPLOAD_OFFSET: str(kept.length),
            headers.REPR_DIGEST: fields.format_digests([computed]),
        }
        return 204, said, b""

    def _delete(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        self._kept(seen)
        del self.loopback.uploads[seen.path.rpartition("/")[2]]
        return 204, {}, b""

    def _get(self, seen: Seen, body: bytes) -> tuple[int, dict[str, str], bytes]:
        kept = self._kept(seen)
        said = {headers.CONTENT_DISPOSITION: fields.format_disposition("film.mkv")}
        if kept.digest:
            said[headers.REPR_DIGEST] = fields.format_digests([digest(kept.algorithm, kept.data)])
        if kept.etag is not None:
            said[headers.ETAG] = kept.etag
        wanted = seen.fields.get(headers.RANGE.lower()) if kept.ranges else None
        ranges = fields.parse_byte_ranges(wanted, kept.length) if wanted else None
        if ranges == []:
            return 416, {headers.CONTENT_RANGE: fields.format_unsatisfied_range(kept.length)}, b""
        if ranges is None or seen.fields.get(headers.IF_RANGE.lower(), kept.etag) != kept.etag:
            return 200, said, bytes(kept.data)
        ((start, end),) = ranges
        said[headers.CONTENT_RANGE] = fields.format_content_range(start, end, kept.length)
        return 206, said, bytes(kept.data[start:end])


def same(result: UploadResult, loopback: Loopback, path: Path) -> bool:
    """The only upload that is kept has the bytes of a file, and the result says so."""
    content = path.read_bytes()
    return (
        bytes(loopback.only().data) == content
        and result.digest == digest(result.digest.algorithm, content)
        and result.size == len(content)
    )
