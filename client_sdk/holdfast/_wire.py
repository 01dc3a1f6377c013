"""Connections, whose bytes go between a socket and where they belong with as little between as there can be.

Rule of this file: the HTTP library gets its connections here (httpcore's network backend), so everything but long
bodies is its business. Each byte that moves begins the limit of waiting anew. The bytes of a request go from where they
are into the socket, in a worker thread if there are many and the socket takes them, and the library is told how many
they were. An answer that comes before a request has ended is heard at once, and the rest is not sent: nobody wants it
(RFC 9112, 9.3). The head of an answer is given to the library to its last byte and no further, so that whoever reads a
body knows that the rest of it is in the socket. Then a worker thread reads what is there into memory of its own and
writes it out. The event loop only waits for the socket. It is a faster road beside the plain one: through a proxy, or
with any other backend, bodies go through the library.
"""

import contextlib
import errno
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import anyio
import httpcore
from anyio import to_thread

WINDOW: Final = 1024 * 1024
"""Bytes that are written at once, if so many are there."""
TURN: Final = 0.05
"""Seconds after which a thread that reads without a break lets the loop know how far it is."""
RECEIVERS: Final = 4
"""Threads that read at once, and so the memory: a window for each."""
SENDERS: Final = 4
"""Threads that send at once,"""
MANY: Final = 512 * 1024
"""from so many bytes on,"""
BLINK: Final = 2
"""as long as the socket takes some each time in so many milliseconds, for each time that many: more is handed over at
once where it goes fast, and there a pause is that of a processor that is busy."""
WAKE: Final = 0.1
"""Where bytes come slowly, a thread is woken for what comes in so many seconds and not for each packet."""
PATIENCE: Final = 0.3
"""Seconds for so much to come; then it is woken for each byte."""
NEXT_ADDRESS: Final = 0.25
"""Seconds after which another address is tried beside."""
HEED: Final = 0.25
"""Seconds after which whoever waits for the socket to take bytes looks whether an answer has come instead."""
EARLY: Final = 64 * 1024
"""Bytes of such an answer that are taken before the request has ended, at most."""
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_OF_THE_FILE: Final = frozenset((errno.EIO, errno.ESTALE, errno.EOVERFLOW))
"""What sendfile says of the file that it reads."""
_INTERIM: Final = (b"HTTP/1.1 1", b"HTTP/1.0 1")

Sink = Callable[[int, memoryview], None]
"""Takes bytes at an offset of the body; called in a worker thread."""


class Sent(bytes):
    """Stands for bytes of a body that are in the socket already: `len` is how many, and there is nothing to write."""

    def __new__(cls, size: int) -> "Sent":
        made = super().__new__(cls)
        made._size = size
        return made

    _size: int

    def __len__(self) -> int:
        return self._size


class Threads:
    """The threads that read and send, and the memory of those that read. Belongs to one event loop."""

    def __init__(self) -> None:
        self.receivers = anyio.CapacityLimiter(RECEIVERS)
        self.senders = anyio.CapacityLimiter(SENDERS)
        self._free: list[bytearray] = []

    def borrow(self) -> bytearray:
        """A window; any thread may ask."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(WINDOW)

    def give_back(self, window: bytearray) -> None:
        self._free.append(window)


class UnreadableError(Exception):
    """A file gave no more in the middle of a request. No error of httpcore, which would wait for an answer then."""


class Wire(httpcore.AsyncNetworkStream):
    """One connection. Its socket does not block."""

    def __init__(self, connection: socket.socket, threads: Threads) -> None:
        self._socket = connection
        self._threads = threads
        self._early = b""
        """What came of an answer before the request had ended."""
        self._rest = b""
        """Bytes of a body that came with its head."""
        self._head = bytearray()
        self._in_head = True
        self._dry = False
        """Nothing was left in the socket when it was read last."""
        self._mark = 1
        self._rate = 0.0
        self._then = time.monotonic()

    @property
    def at_body(self) -> bool:
        """The head of an answer was read, and nothing of its body."""
        return not self._in_head

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """httpcore's. Up to the end of a head, or what there is of a body."""
        if self._rest and not self._in_head:
            piece, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
            return piece
        piece = await self._receive(max_bytes, timeout)
        if not self._in_head or not piece:
            return piece
        before = len(self._head)
        self._head += piece
        end = _end_of_head(self._head)
        if end is None:
            return piece
        given, self._rest = bytes(self._head[before:end]), bytes(self._head[end:])
        self._head.clear()
        self._in_head = False
        return given

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """httpcore's. What comes after it begins with a head."""
        self._in_head = True
        WRITTEN.set(self)
        await self.send(memoryview(buffer), timeout)

    async def send(self, view: memoryview, timeout: float | None) -> None:
        """Put all of it into the socket. Raises httpcore.WriteError, also if it was answered before that, and
        httpcore.WriteTimeout.
        """
        with _translated(httpcore.WriteError):
            while view:
                if len(view) >= MANY and (sent := await self._push(partial(self._send_part, view), len(view))):
                    view = view[sent:]
                    continue
                try:
                    view = view[self._socket.send(view) :]
                except (BlockingIOError, ssl.SSLWantWriteError):
                    await self._room(timeout)
                except ssl.SSLWantReadError:
                    await self._wait(anyio.wait_readable, timeout, httpcore.WriteTimeout)

    def _send_part(self, view: memoryview, at: int) -> int:
        return self._socket.send(view[at:])

    @property
    def plain(self) -> bool:
        """What is put into the socket is what goes over the wire: the kernel may take it from a file."""
        return not isinstance(self._socket, ssl.SSLSocket)

    async def send_file(self, file: int, offset: int, size: int, timeout: float | None) -> None:
        """As `send`, with bytes of an open file that need not pass through here; for a `plain` connection.

        Always in a thread: the file may be slow. Raises UnreadableError if the file ends before its time or cannot be
        read.
        """

        def send_some(at: int) -> int:
            try:
                count = os.sendfile(self._socket.fileno(), file, offset + done + at, size - done - at)
            except OSError as error:
                if error.errno in _OF_THE_FILE:
                    raise UnreadableError(error.strerror) from error
                raise
            if count == 0:
                raise UnreadableError("the file has ended")
            return count

        done = 0
        with _translated(httpcore.WriteError):
            while done < size:
                if sent := await self._push(send_some, size - done):
                    done += sent
                else:
                    await self._room(timeout)

    async def _push(self, send_some: Callable[[int], int], size: int) -> int:
        """Send in a thread, as long as the socket takes bytes without a break; how many it were."""
        return await to_thread.run_sync(self._send_on, send_some, size, limiter=self._threads.senders)

    def _send_on(self, send_some: Callable[[int], int], size: int) -> int:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        blink = BLINK * (size // MANY)
        until = time.monotonic() + TURN
        sent = 0
        while sent < size and time.monotonic() < until:
            try:
                sent += send_some(sent)
            except (BlockingIOError, ssl.SSLWantWriteError):
                if not blink or not poll.poll(blink):
                    break
            except ssl.SSLWantReadError:
                break
            except OSError:
                if not sent:
                    raise
                break  # what went before counts; the error comes again
        return sent

    def heed(self) -> None:
        """To be called in the middle of a request. Raises httpcore.WriteError if its answer has come, or the end of the
        connection, upon which httpcore sends no more and reads what there is. Interim answers (1xx) are none.
        """
        try:
            piece = self._socket.recv(EARLY - len(self._early)) if len(self._early) < EARLY else b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error
        self._early += piece
        while self._early.startswith(_INTERIM) and (end := _HEAD_END.search(self._early)) is not None:
            self._early = self._early[end.end() :]
        final = len(self._early) >= len(_INTERIM[0]) and not self._early.startswith(_INTERIM)
        if not piece or final:
            raise httpcore.WriteError("it was answered before it had ended")

    async def _room(self, timeout: float | None) -> None:
        """Wait until the socket takes bytes. Raises as `heed`: who has answered may read no more."""
        until = time.monotonic() + (timeout or 0.0)
        while True:
            self.heed()
            left = HEED if timeout is None else until - time.monotonic()
            if left <= 0:
                raise httpcore.WriteTimeout("nothing moved in time")
            with anyio.move_on_after(min(left, HEED)):
                await anyio.wait_writable(self._socket)
                return

    async def aclose(self) -> None:
        """httpcore's."""
        self._socket.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "Wire":
        """httpcore's."""
        with _translated(httpcore.ConnectError):
            secure = ssl_context.wrap_socket(
                self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            wire = Wire(secure, self._threads)
            try:
                while True:
                    try:
                        secure.do_handshake()
                        return wire
                    except ssl.SSLWantReadError:
                        await wire._wait(anyio.wait_readable, timeout, httpcore.ConnectTimeout)
                    except ssl.SSLWantWriteError:
                        await wire._wait(anyio.wait_writable, timeout, httpcore.ConnectTimeout)
            except BaseException:
                secure.close()
                raise

    def get_extra_info(self, info: str) -> Any:
        """httpcore's."""
        match info:
            case "ssl_object":
                return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
            case "socket":
                return self._socket
            case "is_readable":
                return self._is_readable()
            case "client_addr":
                return self._socket.getsockname()
            case "server_addr":
                return self._socket.getpeername()
        return None

    async def carry(self, sink: Sink, at: int, most: int, timeout: float) -> int:
        """Bring what is there of a body, at most `most` bytes, to `sink`, and wait for some if there is nothing.

        How many bytes it was; 0: the connection has ended. `at` is their offset, `timeout` in seconds. Raises
        httpcore.ReadError, httpcore.ReadTimeout, and what `sink` raises.
        """
        if self._rest:
            piece, self._rest = self._rest[:most], self._rest[most:]
            await to_thread.run_sync(sink, at, memoryview(piece))
            return len(piece)
        while True:
            if self._dry:
                await self._wait_for(min(most, int(self._rate * WAKE)), timeout)
            count, ended = await to_thread.run_sync(self._bring, sink, at, most, limiter=self._threads.receivers)
            if count or ended:
                self._pace(count)
                return count

    async def _wait_for(self, size: int, timeout: float) -> None:
        """Wait until about so many bytes are there, or fewer if they are long in coming."""
        with _translated(httpcore.ReadError):
            if self._mark_at(size) > 1:
                with anyio.move_on_after(PATIENCE):
                    await anyio.wait_readable(self._socket)
                    return
                self._rate = 0.0
                self._mark_at(1)
            await self._wait(anyio.wait_readable, timeout, httpcore.ReadTimeout)

    def _bring(self, sink: Sink, at: int, most: int) -> tuple[int, bool]:
        """In a thread: read and write until nothing is there, or the turn is over."""
        window = self._threads.borrow()
        view = memoryview(window)
        until = time.monotonic() + TURN
        done = filled = 0
        ended = self._dry = False
        try:
            while done + filled < most and not ended:
                try:
                    count = self._socket.recv_into(view[filled : min(len(window), most - done)])
                except (BlockingIOError, ssl.SSLWantReadError):
                    self._dry = True
                    break
                except ssl.SSLError as error:
                    raise httpcore.ReadError(str(error)) from error
                except OSError as error:
                    if not done + filled:
                        raise httpcore.ReadError(str(error)) from error
                    break  # what came before counts; the error comes again
                ended = not count
                filled += count
                if filled == len(window):
                    sink(at + done, view)
                    done, filled = done + filled, 0
                    if time.monotonic() >= until:
                        break
            if filled:
                sink(at + done, view[:filled])
            return done + filled, ended
        finally:
            view.release()
            self._threads.give_back(window)

    def _pace(self, count: int) -> None:
        now = time.monotonic()
        self._rate = 0.5 * self._rate + 0.5 * count / max(now - self._then, 0.001)
        self._then = now

    def _mark_at(self, size: int) -> int:
        """Have the socket count as readable from about so many bytes on, or when it has ended; from how many it is."""
        size = max(1, min(size, WINDOW // 2))
        if size > 2 * self._mark or size < self._mark:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
                self._mark = size
        return self._mark

    async def _receive(self, most: int, timeout: float | None) -> bytes:
        if self._early:
            piece, self._early = self._early[:most], self._early[most:]
            return piece
        self._mark_at(1)
        with _translated(httpcore.ReadError):
            while True:
                try:
                    return self._socket.recv(most)
                except (BlockingIOError, ssl.SSLWantReadError):
                    await self._wait(anyio.wait_readable, timeout, httpcore.ReadTimeout)

    async def _wait(self, ready: Callable[[socket.socket], Any], timeout: float | None, late: type[Exception]) -> None:
        try:
            with anyio.fail_after(timeout):
                await ready(self._socket)
        except TimeoutError:
            raise late("nothing moved in time") from None

    def _is_readable(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))


WRITTEN: Final[ContextVar[Wire | None]] = ContextVar("written", default=None)
"""The connection to which the library has written last in this task: the body that it asks for next is for that one."""


class Network(httpcore.AsyncNetworkBackend):
    """httpcore's: makes connections."""

    def __init__(self) -> None:
        self._threads = Threads()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Wire:
        """The first address of `host` that answers."""
        try:
            with anyio.fail_after(timeout), _translated(httpcore.ConnectError):
                ask = partial(socket.getaddrinfo, host.encode("ascii"), port, type=socket.SOCK_STREAM)
                # In a thread that is there already; the one of the event loop would be made for this alone.
                places = await to_thread.run_sync(ask, abandon_on_cancel=True)
                connection = await _first_of([(each[:3], each[4]) for each in places])
        except TimeoutError:
            raise httpcore.ConnectTimeout("no connection in time") from None
        try:
            with _translated(httpcore.ConnectError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for option in socket_options or ():
                    connection.setsockopt(*option)
        except BaseException:
            connection.close()
            raise
        return Wire(connection, self._threads)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> Wire:
        """httpcore's; nobody asks for it."""
        raise httpcore.ConnectError("Unix sockets are not for transfers")

    async def sleep(self, seconds: float) -> None:
        """httpcore's."""
        await anyio.sleep(seconds)


async def _first_of(places: list[tuple[tuple[int, int, int], Any]]) -> socket.socket:
    """A connection to the address that answers first. The next one is tried when one has failed, or has not answered
    within 250 ms (RFC 8305).
    """
    won: socket.socket | None = None
    failure = OSError("it has no address")

    async def attempt(kind: tuple[int, int, int], place: Any, failed: anyio.Event) -> None:
        nonlocal won, failure
        try:
            connection = await _connected(*kind, place)
        except OSError as error:
            failure = error
            failed.set()
            return
        if won is None:
            won = connection
            group.cancel_scope.cancel()
        else:
            connection.close()

    try:
        async with anyio.create_task_group() as group:
            for kind, place in places:
                failed = anyio.Event()
                group.start_soon(attempt, kind, place, failed)
                with anyio.move_on_after(NEXT_ADDRESS):
                    await failed.wait()
    except BaseException:
        # Nobody wants it any more: the caller was cancelled just when it was there.
        if won is not None:
            won.close()
        raise
    if won is None:
        raise failure
    return won


async def _connected(family: int, kind: int, number: int, place: Any) -> socket.socket:
    connection = socket.socket(family, kind, number)
    try:
        connection.setblocking(False)
        try:
            connection.connect(place)
        except BlockingIOError:
            await anyio.wait_writable(connection)
            if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _end_of_head(data: bytearray) -> int | None:
    """Where the head of the final answer ends that `data` begins with, after interim ones (1xx); None: not yet."""
    start = 0
    while (match := _HEAD_END.search(data, start)) is not None:
        if not data.startswith(_INTERIM, start):
            return match.end()
        start = match.end()
    return None


@contextlib.contextmanager
def _translated(kind: type[Exception]) -> Iterator[None]:
    """What the operating system says becomes an error of httpcore."""
    try:
        yield
    except OSError as error:
        raise kind(str(error)) from error
    except (anyio.ClosedResourceError, anyio.BusyResourceError) as error:
        raise kind("the connection was closed") from error
