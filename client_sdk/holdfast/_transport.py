"""HTTP as the rest of the client sees it: a request and its bytes go out, an answer or one of our errors comes back.

Rule of this file: it alone knows httpx. HTTP/1.1 only: bulk bytes over one HTTP/2 connection wait for each other's
flow control. No redirect is followed, no answer is kept in memory beyond 64 KiB (but downloads, which are streamed),
and each wait has its limit: for a connection, for the next bytes to move, for the answer. Long bodies of answers go
from the socket straight to where they belong, if the connection is one of _wire.py.
Headers that the caller gave, and credentials, go to the origin that they are for and to no other. What httpx is told of
a URL, and may log, has no query.
"""

import os
import socket
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Final, TypeAlias, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import anyio
import httpcore
import httpx
from anyio import to_thread
from msgspec import Struct

from holdfast._wire import WRITTEN, Network, Sink, Wire
from holdfast.bodies import PIECE, Body, outgoing
from holdfast.clock import SYSTEM, Clock
from holdfast.credentials import Key, Keyring, Login
from holdfast.errors import BrokenProtocol, ConnectionFailed, ServerUntrusted, Stalled, UsageError
from holdfast.limiter import Crowd, Direction, Limiter, Limiters, Origin
from holdfast.outcome import from_refusal
from holdfast.rates import Share
from holdfast.tls import cause_of, speaks_tls, unencrypted, untrusted
from holdfast_protocol import client as protocol
from holdfast_protocol import headers as names
from holdfast_protocol.messages import Headers, Request, Response

READ_PIECE: Final = 1024 * 1024
"""Bytes of an answer that are handed on at once, if so many are there."""
LEND: Final = 4 * 1024 * 1024
"""Bytes of a body from which on it is read from the socket itself; a connection is not used again after that."""
LARGEST_ERROR: Final = 64 * 1024
_LEGAL: Final = "!$%&'()*+,-./:;=?@_~[]"
"""What may stand in a path and a query as it is; a percent sign is taken for the begin of an escape."""

Result = TypeVar("Result")


class Timeouts(Struct, frozen=True):
    """Limits of waiting, in seconds. There is none for a request as a whole."""

    connect: float = 10.0
    stall: float = 30.0
    """No byte moved in either direction."""
    response: float = 60.0
    """From the last byte of a request to the head of its answer."""


Content: TypeAlias = Callable[[], AsyncIterator[bytes]]
"""Gives the bytes of a body anew for each sending."""
Verify: TypeAlias = ssl.SSLContext | bool | str | os.PathLike[str]
"""How servers prove who they are: against the authorities of the system, those in a PEM file, not at all, or as
said."""


class Incoming:
    """An answer whose body is read as it comes. `stall` is for how many seconds it may stand still."""

    def __init__(self, response: httpx.Response, stall: float) -> None:
        self._response = response
        self._stall = stall
        self.status = response.status_code
        self.headers = Headers(response.headers.multi_items())

    async def carry(self, sink: Sink, wanted: Callable[[], int], *, decode: bool = False) -> AsyncIterator[int]:
        """Bring the body to `sink`, which is called in a worker thread, in order; gives the bytes of each time.

        `wanted` says how many may come now, each time anew; with 0 it ends. `decode` takes off a content coding. Raises
        ConnectionFailed, after all that came, BrokenProtocol, and what `sink` raises.
        """
        length = self.headers.get(names.CONTENT_LENGTH)
        wire = self._response.extensions.get("network_stream")
        plain = decode or names.TRANSFER_ENCODING in self.headers or length is None or not length.isdigit()
        if isinstance(wire, Wire) and wire.at_body and not plain and length is not None and int(length) >= LEND:
            carried = self._lent(wire, int(length), sink, wanted)
        else:
            carried = self._plain(sink, wanted, decode=decode)
        async with aclosing(carried):
            async for count in carried:
                yield count

    async def _lent(self, wire: Wire, length: int, sink: Sink, wanted: Callable[[], int]) -> AsyncGenerator[int, None]:
        at = 0
        while at < length and (most := wanted()):
            try:
                count = await wire.carry(sink, at, min(most, length - at), self._stall)
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                kind = httpx.ReadTimeout if isinstance(error, httpcore.TimeoutException) else httpx.ReadError
                raise _connection_error(kind(str(error)), self._response.request) from error
            if not count:
                where = _where(self._response.request)
                raise ConnectionFailed(f"{where} ended the answer after {at} of {length} bytes")
            at += count
            yield count

    async def _plain(self, sink: Sink, wanted: Callable[[], int], *, decode: bool) -> AsyncGenerator[int, None]:
        at = 0
        async with aclosing(self.pieces(decode=decode)) as pieces:
            async for piece in pieces:
                view = memoryview(piece)
                while view:
                    most = wanted()
                    if not most:
                        return
                    await to_thread.run_sync(sink, at, view[:most])
                    count = min(most, len(view))
                    at += count
                    view = view[most:]
                    yield count

    async def pieces(self, *, decode: bool = False) -> AsyncGenerator[bytes, None]:
        """The body as it came over the wire, or decoded, in pieces of about 1 MiB.

        Raises ConnectionFailed, after all that came.
        """
        parts: list[bytes] = []
        size = 0
        failure: Exception | None = None
        try:
            async for part in self._response.aiter_bytes() if decode else self._response.aiter_raw():
                parts.append(part)
                size += len(part)
                if size >= READ_PIECE:
                    yield b"".join(parts)
                    parts, size = [], 0
        except httpx.HTTPError as error:
            failure = _connection_error(error, self._response.request)
            failure.__cause__ = error
        if parts:
            yield b"".join(parts)
        if failure is not None:
            raise failure

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes, at once. Raises ConnectionFailed."""
        try:
            async for part in self._response.aiter_raw():
                yield part
        except httpx.HTTPError as error:
            raise _connection_error(error, self._response.request) from error

    async def answer(self) -> Response:
        """The whole as a value; of the body at most 64 KiB."""
        body = bytearray()
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) >= LARGEST_ERROR:
                    break
        return Response(self.status, self.headers, bytes(body[:LARGEST_ERROR]))


class Transport:
    """Connections to servers. Belongs to one event loop; `aclose()` ends all of them.

    `override_method` sends PATCH and DELETE as a POST that says so (tus, X-HTTP-Method-Override), for networks that let
    no other methods through. `proxy` is the URL of a proxy for all requests; without it the environment says which
    (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY). Authorities are those of SSL_CERT_FILE or SSL_CERT_DIR, if `verify`
    names no others. Raises UsageError for a proxy or a file of authorities that cannot be used.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        verify: Verify = True,
        proxy: str | None = None,
        keyring: Keyring | None = None,
        override_method: bool = False,
        ceilings: Mapping[str, int] | None = None,
        crowd: Crowd | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.timeouts: Timeouts = timeouts or Timeouts()
        self._verify = verify
        self._keyring = keyring or Keyring()
        self._clock = clock
        self._override_method = override_method
        self._proxy = proxy
        self._asking = anyio.Lock()
        self.limiters: Limiters = Limiters(clock, ceilings, crowd)
        """Of all origins; `ceilings` and `crowd` are those of Limiters."""
        times = self.timeouts
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=20)
        # A proxy needs httpx's own set-up; what is set up here is not worth losing that.
        direct = proxy is None and not urllib.request.getproxies()

        def made(*, secure: bool) -> httpx.AsyncClient:
            # A plain connection needs no authorities, which take longer to read than a small file to send.
            known = _context(verify) if secure or not direct else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            return httpx.AsyncClient(
                http1=True,
                http2=False,
                verify=known,
                proxy=proxy,
                limits=limits,
                follow_redirects=False,
                timeout=httpx.Timeout(times.stall, connect=times.connect, pool=None),
                # What is stored is what is wanted, not a form of it that was made for the way.
                headers={"User-Agent": "holdfast", names.ACCEPT_ENCODING: "identity"},
                transport=_Direct(known, limits) if direct else None,
            )

        self._made = made
        self._clients: dict[bool, httpx.AsyncClient] = {}
        """For connections with TLS and without, as soon as there is one."""
        try:
            self._client("http:" if verify is True else "https:")
        except UsageError:
            raise
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise UsageError(f"the proxy cannot be used: {error}") from error

    def _proxied(self, url: str) -> bool:
        """A proxy stands between, of the caller or of the environment."""
        parts = urlsplit(url)
        if self._proxy is not None:
            return True
        known = urllib.request.getproxies()
        return bool({parts.scheme, "all"} & known.keys()) and not urllib.request.proxy_bypass(parts.netloc)

    def _client(self, url: str) -> httpx.AsyncClient:
        secure = not url.lower().startswith("http:")
        if secure not in self._clients:
            self._clients[secure] = self._made(secure=secure)
        return self._clients[secure]

    def tls(self) -> ssl.SSLContext:
        """What connections that are not of HTTP are made with; that of HTTP names its protocol to servers."""
        return _context(self._verify)

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def session(self, url: str, extra: Mapping[str, str] | None = None, direction: Direction = "up") -> "Session":
        """A session for the server of `url`, with header fields for it. Raises UsageError for a bad URL."""
        return Session(
            self._client,
            self.timeouts,
            url,
            extra or {},
            lambda origin: self.limiters.of(origin, direction),
            self._keyring,
            asking=self._asking,
            override_method=self._override_method,
            proxied=self._proxied,
            clock=self._clock,
        )


class Session:
    """What a transfer sends through: requests to one server, with the caller's header fields.

    `endpoint` is the URL without user name and password; these become a header field for its origin.
    """

    def __init__(
        self,
        client: Callable[[str], httpx.AsyncClient],
        timeouts: Timeouts,
        url: str,
        extra: Mapping[str, str],
        limiter: Callable[[Origin], Limiter],
        keyring: Keyring,
        *,
        asking: anyio.Lock,
        override_method: bool = False,
        proxied: Callable[[str], bool],
        clock: Clock = SYSTEM,
    ) -> None:
        self.clock = clock
        self.asking = asking
        """Held by whoever asks what a server offers, so that transfers which start together ask once."""
        self._override_method = override_method
        self._proxied = proxied
        self._client = client
        self._timeouts = timeouts
        self.endpoint: str
        self.endpoint, login = _split(url)
        self._origin = _origin(self.endpoint)
        self.limiter: Limiter = limiter(self._origin)
        """Shared by all transfers to this origin in this direction."""
        self._extra = dict(extra)
        self._tls: bool | None = None
        """Whether a port that the URL takes for a plain one speaks TLS; None as long as nobody has found out."""
        self._key = keyring.key(_spelled(self._origin), login, self._extra)

    async def exchange(
        self,
        steps: Generator[Request, Response, Result],
        body: Body | None = None,
        *,
        sent: Callable[[int], None] | None = None,
        share: Share | None = None,
        patience: float = 0.0,
    ) -> Result:
        """Carry out an exchange of holdfast_protocol.client. `sent` is told of bytes of the body that went out.

        `patience` is how many seconds longer than usual the answer may take.
        Raises what the exchange raises, and ConnectionFailed, Stalled or BrokenProtocol.
        """
        answer: Response | None = None
        while True:
            try:
                request = next(steps) if answer is None else steps.send(answer)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            content: Content | None = None
            if request.body is not None and body is not None:
                content = partial(outgoing, body, sent, share, self.limiter, self._timeouts.stall)
            began = self.clock.monotonic()
            async with self.open(request, content, patience=patience) as incoming:
                if content is None:
                    self.limiter.controller.met(self.clock.monotonic() - began)
                answer = await incoming.answer()

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        content: Content | None = None,
        *,
        stream: bool = False,
        endless: bool = False,
        patience: float = 0.0,
    ) -> AsyncIterator[Incoming]:
        """Send a request and give its answer as it comes.

        An `endless` one may pause for as long as it likes when its head is there: whoever reads it has a limit.
        A token that is refused is renewed once, and the request is sent again. Raises NotAuthorized if that is no help,
        ConnectionFailed, Stalled or BrokenProtocol.
        """
        times = self._timeouts
        if endless:
            try:
                with anyio.fail_after(times.connect + times.response):
                    response = await self._opened(request, content, None)
            except TimeoutError:
                raise Stalled(f"{self.endpoint} did not answer for {times.response:.0f} seconds") from None
        else:
            response = await self._opened(request, content, times.stall if stream else times.response + patience)
        try:
            yield Incoming(response, times.stall)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _opened(self, request: Request, content: Content | None, read: float | None) -> httpx.Response:
        key = self._key if _origin(request.url) == self._origin else None
        shown = await key.shown() if key is not None else None
        response = await self._send(request, shown, content, read)
        if response.status_code in (401, 403) and key is not None and key.renewable:
            with anyio.CancelScope(shield=True):
                await response.aclose()
            response = await self._renewed(request, key, shown, content, read)
        return response

    async def _renewed(
        self, request: Request, key: Key, refused: str | None, content: Content | None, read: float | None
    ) -> httpx.Response:
        """The same request with another token. Raises NotAuthorized if that is refused, too."""
        await key.renew(refused)
        response = await self._send(request, await key.shown(), content, read)
        if response.status_code not in (401, 403):
            return response
        try:
            refusal = protocol.refused(await Incoming(response, self._timeouts.stall).answer(), self.clock.time())
        finally:
            await response.aclose()
        error = from_refusal(refusal, request.url)
        error.add("; the token had just been renewed")
        raise error

    async def _send(
        self, request: Request, authorization: str | None, content: Content | None, read: float | None
    ) -> httpx.Response:
        ours = _origin(request.url) == self._origin
        sent = {**(self._extra if ours else {}), **request.headers}
        if authorization is not None:
            sent[names.AUTHORIZATION] = authorization
        method = request.method
        if self._override_method and method in ("PATCH", "DELETE"):
            sent[names.METHOD_OVERRIDE], method = method, "POST"
        limits = httpx.Timeout(self._timeouts.stall, connect=self._timeouts.connect, read=read, pool=None)
        url, extensions = request.url, {}
        if "?" in url:
            # httpx logs URLs, and a query may be a signature; this goes past its eyes.
            parts = urlsplit(url)
            url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
            extensions["target"] = f"{quote(parts.path, safe=_LEGAL) or '/'}?{quote(parts.query, safe=_LEGAL)}".encode()
        try:
            client = self._client(url)
            WRITTEN.set(None)
            message = client.build_request(
                method,
                url,
                headers=sent,
                content=content() if content is not None else None,
                timeout=limits,
                extensions=extensions,
            )
            response = await client.send(message, stream=True)
        except httpx.HTTPError as error:
            if await self._unasked_tls(error):
                raise BrokenProtocol(
                    f"{_where(error.request)} speaks TLS, and the URL says http://; give it with https://"
                ) from error
            failure = _connection_error(error, error.request)
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError) and self._proxied(url):
                stop = "" if failure.message.endswith("?") else "."
                failure.add(f"{stop} All of it goes through a proxy; is that one right, and running?")
            raise failure from error
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"{request.url} is not a URL that can be asked: {error}") from error
        self._tls = False
        return response

    async def _unasked_tls(self, error: httpx.HTTPError) -> bool:
        """Whether the server breaks plain connections off because it speaks TLS. Asks that once, and not where an
        answer has come.
        """
        url = error.request.url
        if url.scheme != "http" or self._proxied(str(url)):
            return False
        if self._tls is None and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
            self._tls = await speaks_tls(url.host, url.port or 80)
        return self._tls is True


def _context(verify: Verify) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    if isinstance(verify, bool):
        return httpx.create_ssl_context(verify=verify)
    try:
        return ssl.create_default_context(cafile=os.fspath(verify))
    except OSError as error:
        reason = error.strerror or "it holds no certificates in PEM"
        raise UsageError(
            f"{os.fspath(verify)} cannot be used as a file of certificate authorities ({reason})"
        ) from error


class _Direct(httpx.AsyncHTTPTransport):
    """Its connections are those of _wire.py."""

    def __init__(self, verify: ssl.SSLContext, limits: httpx.Limits) -> None:
        super().__init__(verify=verify, limits=limits)
        options: list[tuple[int, int, int]] = []
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Without it megabytes wait in the kernel: the count of bytes sent runs ahead of the wire, and the time
            # until they are gone is taken for time without an answer.
            options.append((socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, PIECE))
        # httpx has no argument for it. A version that keeps its connections elsewhere is none the worse for this line.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=verify,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            socket_options=options,
            network_backend=Network(),
        )


def _split(url: str) -> tuple[str, Login | None]:
    """The URL without user name and password, and these."""
    refusal = UsageError(f"{url!r} is not a URL of an HTTP server; it must look like http://host:8000/files")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise refusal from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise refusal
    credentials = None
    if parts.username is not None:
        credentials = (unquote(parts.username), unquote(parts.password or ""))
    bare = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, bare, parts.path or "/", parts.query, "")), credentials


def _spelled(origin: Origin) -> str:
    scheme, host, port = origin
    return f"{scheme}://{f'[{host}]' if host and ':' in host else host}:{port}"


def _origin(url: str) -> Origin:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _where(request: httpx.Request) -> str:
    return f"{request.url.host}:{request.url.port or {'http': 80}.get(request.url.scheme, 443)}"


def _connection_error(
    error: httpx.HTTPError, request: httpx.Request
) -> ConnectionFailed | BrokenProtocol | ServerUntrusted:
    """Ours for one of httpx's."""
    where = _where(request)
    system = cause_of(error, OSError)
    reason = (system.strerror if system is not None else None) or str(error) or type(error).__name__
    distrust = untrusted(where, error)
    if distrust is not None:
        return distrust
    tls = cause_of(error, ssl.SSLError)
    match error:
        case httpx.ConnectError() if tls is not None:
            return unencrypted(where, tls)
        case httpx.ConnectError() if cause_of(error, socket.gaierror) is not None:
            return ConnectionFailed(
                f"no address is known for {request.url.host} ({reason}); is the name right, and the network up?"
            )
        case httpx.ConnectTimeout():
            return Stalled(f"no connection to {where} in time; is the address right and the network up?")
        case httpx.ConnectError():
            return ConnectionFailed(f"no connection to {where} ({reason}); is the server running?")
        case httpx.ReadTimeout():
            return Stalled(f"no answer from {where} in time")
        case httpx.WriteTimeout():
            return Stalled(f"{where} took no more bytes")
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError() | httpx.DecodingError():
            return BrokenProtocol(f"the exchange with {where} went wrong: {reason}")
        case _:
            return ConnectionFailed(f"the connection to {where} broke ({reason})")
