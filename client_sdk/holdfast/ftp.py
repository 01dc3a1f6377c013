"""A file at an FTP server: `ftp://`, and `ftps://` for TLS.

Rule of this file: FTP has no validators, so a version is its length and its time of change (SIZE and MDTM): they are
looked at before each range, and once more after the last byte. A server that has not both, or no REST, gives one stream
from the start. `ftps://` is TLS from the first byte on port 990, which is its port if none is given, and AUTH TLS on
any other; it never falls back to what can be read. Who logs in is said by the URL, else by $HOLDFAST_FTP_USER and
$HOLDFAST_FTP_PASSWORD, else by ~/.netrc (or $NETRC), else it is `anonymous`.

The protocol is spoken by aioftp, which comes with `pip install "holdfast[ftp]"`.
"""

import asyncio
import os
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import aioftp
import anyio
from aioftp.common import SSLSessionBoundContext
from anyio import to_thread
from msgspec import Struct

from holdfast._transport import Timeouts
from holdfast._wire import Sink
from holdfast.credentials import Login, netrc_login
from holdfast.errors import ConnectionFailed, HoldfastError, NotAuthorized, Stalled, UploadGone, UsageError
from holdfast.limiter import Limiter, Limiters
from holdfast.remote import Answer, OtherVersion, Since, Version, Wanted
from holdfast.tls import untrusted
from holdfast_protocol.client import Reaction, Refusal
from holdfast_protocol.messages import Span
from holdfast_protocol.names import safe_name

PIECE: Final = 256 * 1024
"""Bytes that are handed on at once, if they come within a tenth of a second."""
TOGETHER: Final = 0.1
PORTS: Final = {"ftp": 21, "ftps": 990}
IMPLICIT: Final = 990
SMALL: Final = 64 * 1024
USER_VARIABLE: Final = "HOLDFAST_FTP_USER"
PASSWORD_VARIABLE: Final = "HOLDFAST_FTP_PASSWORD"  # noqa: S105 - the name of it


class Place(Struct, frozen=True):
    """What an FTP URL says."""

    url: str
    """Without user name and password."""
    host: str
    port: int
    path: str
    """Relative to where a login leads; `ftp://host/%2Fa` is `/a`."""
    secure: bool
    login: Login | None


def parse_url(url: str) -> Place:
    """Raises UsageError for what is no URL of a file at an FTP server."""
    refusal = UsageError(f"{url!r} is no URL of a file at an FTP server; it must look like ftp://host/folder/file")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refusal from None
    path = unquote(parts.path[1:])
    if parts.scheme not in PORTS or not parts.hostname or not path or path.endswith("/"):
        raise refusal
    if re.search(r"[\r\n\0]", path + unquote(parts.netloc)):
        raise refusal
    login = None
    if parts.username is not None:
        login = unquote(parts.username), unquote(parts.password or "")
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return Place(bare, parts.hostname, port or PORTS[parts.scheme], path, parts.scheme == "ftps", login)


def login_for(place: Place) -> Login:
    """User and password. Blocks for a file."""
    if place.login is not None:
        return place.login
    if (user := os.environ.get(USER_VARIABLE)) is not None:
        return user, os.environ.get(PASSWORD_VARIABLE, "")
    return netrc_login(place.host) or ("anonymous", "anonymous@")


class FtpRemote:
    """See Remote."""

    def __init__(self, url: str, limiters: Limiters, timeouts: Timeouts, tls: ssl.SSLContext | None) -> None:
        self._place = parse_url(url)
        self.url: str = self._place.url
        self.limiter: Limiter = limiters.of(("ftp", self._place.host, self._place.port), "down")
        self._timeouts = timeouts
        self._tls = tls
        self._login: Login | None = None
        self._let_in = False

    @asynccontextmanager
    async def first(self, since: Since | None = None) -> AsyncIterator[Answer]:
        """See Remote."""
        async with self._connection() as client:
            version = await self._version(client)
            same = since is not None and since.pin == version.pin
            answer = await self._retrieve(client, version, since.span.start if since is not None and same else 0)
            with closing(answer):
                yield answer

    @asynccontextmanager
    async def range(self, version: Version, span: Span) -> AsyncIterator[Answer]:
        """See Remote."""
        async with self._connection() as client:
            if await self._version(client) != version:
                raise OtherVersion
            answer = await self._retrieve(client, version, span.start)
            with closing(answer):
                yield answer

    async def beside(self, suffix: str) -> bytes | None:
        """See Remote."""
        try:
            async with self._connection() as client:
                answer = await self._retrieve(client, Version(None, None), 0, suffix)
                found = bytearray()
                with closing(answer):
                    async for _ in answer.carry(lambda at, data: found.extend(data), lambda: SMALL - len(found)):
                        pass
                return bytes(found)
        except (HoldfastError, Refusal):
            return None

    async def settle(self, version: Version) -> None:
        """See Remote."""
        if version.pin is None:
            return
        try:
            async with self._connection() as client:
                now = await self._version(client)
        except Refusal as error:
            raise ConnectionFailed(f"{self.url} does not say whether it has changed ({error.detail})") from error
        if now != version:
            raise OtherVersion

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aioftp.Client]:
        """Logged in, for binary files."""
        place = self._place
        if self._login is None:
            self._login = await to_thread.run_sync(login_for, place)
        context = self._tls
        client = aioftp.Client(
            socket_timeout=self._timeouts.stall,
            connection_timeout=self._timeouts.connect,
            ssl=context if place.port == IMPLICIT else None,
        )
        try:
            with _Translated(self):
                await client.connect(place.host, place.port)
                if context is not None:
                    await _secure(client, context, begun=place.port == IMPLICIT)
                await client.login(*self._login)
                await client.command("TYPE I", "200")
            self._let_in = True
            yield client
        finally:
            client.close()

    async def _version(self, client: aioftp.Client) -> Version:
        size = await self._ask(client, "SIZE", r"(\d{1,18})")
        changed = await self._ask(client, "MDTM", r"(\d{14}(?:\.\d+)?)")
        restarts = await self._ask(client, "REST 0", None)
        pin = f"mdtm {changed}" if size is not None and changed is not None and restarts is not None else None
        name = safe_name(self._place.path.rpartition("/")[2], "download")
        return Version(int(size) if size is not None else None, pin, name=name)

    async def _ask(self, client: aioftp.Client, command: str, form: str | None) -> str | None:
        """What the server answers, or None if it does not know how to, or has no such file: RETR will say so."""
        with _Translated(self):
            whole = command if form is None else f"{command} {self._place.path}"
            said = await client.command(whole, ("2xx", "350", "500", "502", "504", "550"))
        assert said is not None
        code, lines = said
        if code.matches("5xx"):
            return None
        match = re.search(form or "()", lines[-1])
        return None if match is None else match[1]

    async def _retrieve(self, client: aioftp.Client, version: Version, start: int, suffix: str = "") -> "_FtpAnswer":
        # As client.download_stream, which leaves the data connection open if the server refuses the file, and waits for
        # TLS before the file is asked for: with vsftpd for ever, as that does not begin earlier.
        with _Translated(self):
            with anyio.fail_after(self._timeouts.connect):
                stream = await _data_stream(client, self._timeouts.stall)
            try:
                if start:
                    await client.command(f"REST {start}", "350")
                await client.command(f"RETR {self._place.path}{suffix}", "1xx")
                if self._tls is not None:
                    with anyio.fail_after(self._timeouts.connect):
                        await stream.start_tls(sslcontext=_same_session(client), server_hostname=self._place.host)
            except BaseException:
                stream.writer.transport.abort()
                raise
        return _FtpAnswer(self, stream, version, start)

    def error(self, failure: Exception) -> HoldfastError | Refusal:
        """Ours, for what went wrong with a connection."""
        place = self._place
        where = f"{place.host}:{place.port}"
        if isinstance(failure, aioftp.StatusCodeError):
            code = str(failure.received_codes[-1])
            said = f"{code} {' '.join(failure.info).strip(' -')}".strip()
            if code == "421" or (code == "530" and self._let_in):
                # It takes so many connections and no more.
                return Refusal(429, Reaction.RETRY, detail=said)
            if code.startswith("4"):
                return Refusal(503, Reaction.RETRY, detail=said)
            if code == "530":
                return NotAuthorized(
                    f"{self.url} refuses the login ({said}); give user and password in the URL, in"
                    f" {USER_VARIABLE} and {PASSWORD_VARIABLE}, or in ~/.netrc",
                    status=401,
                )
            if code == "550":
                return UploadGone(f"there is nothing at {self.url} that can be read ({said}); check it", status=404)
            return Refusal(400, Reaction.FAIL, detail=said)
        if isinstance(failure, TimeoutError):
            return Stalled(f"no answer from {where} in time")
        if isinstance(failure, ssl.SSLError):
            return untrusted(where, failure) or ConnectionFailed(
                f"no secure connection to {where} ({failure.reason or failure})"
            )
        return ConnectionFailed(f"the connection to {where} broke or was not made ({failure})")


async def _secure(client: aioftp.Client, context: ssl.SSLContext, *, begun: bool) -> None:
    """TLS on both connections; on that of commands it has `begun` already where it begins with the first byte."""
    if not begun:
        await client.upgrade_to_tls(context)
        return
    # The other one has to be asked for here, too (RFC 4217, section 9). A server that knows neither command has TLS
    # there anyway, or there is no connection: nothing is read without.
    for command in ("PBSZ 0", "PROT P"):
        await client.command(command, ("2xx", "5xx"))


async def _data_stream(client: aioftp.Client, stall: float) -> aioftp.DataConnectionThrottleStreamIO:
    """A connection for bytes, without TLS as yet.

    It goes to where that for commands goes: what PASV says of the address is often wrong, and may be a trap.
    """
    try:
        _, said = await client.command("EPSV", "229")
        _, port = client.parse_epsv_response(said[-1])
    except aioftp.StatusCodeError as error:
        if not error.received_codes[-1].matches("50x"):
            raise
        _, said = await client.command("PASV", "227")
        _, port = client.parse_pasv_response(said[-1])
    host = client.stream.writer.get_extra_info("peername")[0]
    reader, writer = await asyncio.open_connection(host, port)
    return aioftp.DataConnectionThrottleStreamIO(client, reader, writer, throttles={}, timeout=stall)


def _same_session(client: aioftp.Client) -> ssl.SSLContext:
    """For a connection that goes on with the TLS session of that for commands; some servers insist on it."""
    spoken = client.stream.writer.get_extra_info("ssl_object")
    return SSLSessionBoundContext(ssl.PROTOCOL_TLS_CLIENT, context=spoken.context, session=spoken.session)


class _Translated:
    """What aioftp raises in the block becomes an error of ours."""

    def __init__(self, remote: FtpRemote) -> None:
        self._remote = remote

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, aioftp.AIOFTPException | OSError | EOFError):
            raise self._remote.error(error) from error


class _FtpAnswer:
    """See Answer. The file from `start` to its end is on its way, whatever is wanted of it."""

    def __init__(
        self, remote: FtpRemote, stream: aioftp.DataConnectionThrottleStreamIO, version: Version, start: int
    ) -> None:
        self._remote = remote
        self._stream = stream
        self.version = version
        self.start = start

    def close(self) -> None:
        """Let go of the data connection: at once, without the farewell of TLS that a server in the middle of a file may
        not hear.
        """
        self._stream.writer.transport.abort()

    async def carry(self, sink: Sink, wanted: Wanted) -> AsyncIterator[int]:
        """See Answer."""
        at = 0
        while most := wanted():
            piece, failure = await self._read(min(most, PIECE))
            if piece:
                await to_thread.run_sync(sink, at, memoryview(piece))
                at += len(piece)
                yield len(piece)
            if failure is not None:
                raise self._remote.error(failure) from failure
            if not piece:
                if self.version.size is not None and self.start + at < self.version.size:
                    raise ConnectionFailed(f"{self._remote.url} ended after {self.start + at} bytes")
                # Only the server's word tells an end from a break.
                with _Translated(self._remote):
                    await self._stream.finish()
                return

    async def _read(self, most: int) -> tuple[bytes, Exception | None]:
        """What comes in a moment, and what ended it too early."""
        found = bytearray()
        until = time.monotonic() + TOGETHER
        try:
            while len(found) < most:
                piece = await self._stream.read(most - len(found))
                found += piece
                if not piece or time.monotonic() >= until:
                    break
        except (OSError, EOFError) as error:
            return bytes(found), error
        return bytes(found), None
