"""`holdfast serve`.

Rule of this file: the one place that reads the environment and a configuration file. A value is taken from the flag,
else from `HOLDFAST_<NAME>`, else from the file given with `--config`, else from the defaults of `Settings`.
"""

import asyncio
import dataclasses
import errno
import functools
import gc
import ipaddress
import multiprocessing
import multiprocessing.connection
import os
import re
import resource
import signal
import socket
import ssl
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, cast, get_args

import click
import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from holdfast_server.app import create_app
from holdfast_server.auth.chain import authority_of
from holdfast_server.http.doors import Doors
from holdfast_server.http.hosts import ANY
from holdfast_server.http.proxies import networks
from holdfast_server.http.uvicorn_protocol import HoldfastProtocol
from holdfast_server.http.websocket import WebSocketProtocol
from holdfast_server.settings import Limits, Settings
from holdfast_server.storage.board import Board
from holdfast_server.storage.local import Durability

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BACKLOG = 2048
_FILES = 1 << 20
_SWITCH_INTERVAL = 0.0001
_GARBAGE = 20_000


class Size(click.ParamType[int]):
    """Bytes: `1048576`, `64M`, `64MiB`, `1.5G`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is no size; write bytes, or 64M, 1.5GiB.", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].upper()])


class Count(click.ParamType[int]):
    """A number from 1 on; `any`, which is 0 here."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value).strip() == "any":
            return 0
        if not re.fullmatch(r"[1-9][0-9]*", str(value).strip()):
            self.fail(f"{value!r} is no number from 1 on, and not any.", param, ctx)
        return int(value)


class Extension(click.ParamType[str]):
    """`jpg` or `.jpg`."""

    name = "extension"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = re.fullmatch(r"\.?([^./\\\s]+)", str(value))
        if match is None:
            self.fail(f"{value!r} is no extension; write it as jpg.", param, ctx)
        return match[1].lower()


class MediaType(click.ParamType[str]):
    """`image/png`, `image/*`."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = str(value).lower()
        if not re.fullmatch(r"[a-z0-9.+-]+/(?:\*|[a-z0-9.+-]+)", found):
            self.fail(f"{value!r} is no media type; write it as image/png or image/*.", param, ctx)
        return found


class BaseURL(click.ParamType[str]):
    """`https://files.example.org`, with a port or a path if need be; a slash at its end is taken off."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = re.fullmatch(r"(https?://[A-Za-z0-9.:_\[\]-]+(?:/[A-Za-z0-9._~/-]*?)?)/*", str(value))
        if match is None:
            self.fail(f"{value!r} is no address; write it as https://files.example.org.", param, ctx)
        return match[1]


class HostName(click.ParamType[str]):
    """`nas.example.org`, or `*`; no port, since a name is good on every one."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if str(value) != ANY and not re.fullmatch(r"[A-Za-z0-9._-]+", str(value)):
            self.fail(
                f"{value!r} is no name of a host; write it as nas.example.org, without scheme and port.", param, ctx
            )
        return str(value)


class Duration(click.ParamType[float]):
    """Seconds: `90`, `15m`, `12h`, `7d`; `never`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if str(value).strip() == "never":
            return float("inf")
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([smhd]?)", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no duration; write seconds, or 15m, 12h, 7d, never.", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


def _from_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        try:
            table = tomllib.loads(value.read_text("utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise click.BadParameter(f"{value} cannot be read: {error}", ctx, param) from None
        known = {option.name for option in ctx.command.params}
        unknown = sorted(set(table) - known)
        if unknown:
            raise click.BadParameter(f"{value} has settings that are not known: {', '.join(unknown)}.", ctx, param)
        ctx.default_map = {**(ctx.default_map or {}), **table}
    return value


_DEFAULT = {f.name: f.default for f in dataclasses.fields(Settings)}


@click.command(context_settings={"auto_envvar_prefix": "HOLDFAST", "show_default": True})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_from_file,
    help="A TOML file with these settings, names with underscores.",
)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", default=8000, type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option(
    "--data", default="holdfast-data", type=click.Path(file_okay=False, path_type=Path), help="Folder for everything."
)
@click.option("--workers", default=1, type=click.IntRange(1, 64), help="Processes.")
@click.option(
    "--durability",
    default=_DEFAULT["durability"],
    type=click.Choice(get_args(Durability)),
    help="ack: what is acknowledged is on the disk; finish: complete files are; os: never asked for.",
)
@click.option("--max-size", type=Size(), help="Largest upload.  [default: any that fits]")
@click.option("--max-chunk", default="64M", type=Size(), help="Largest chunk of the parallel dialect.")
@click.option("--overcommit", is_flag=True, help="Accept more than is free, as sparse files may.")
@click.option("--min-free", default="16M", type=Size(), help="Room that uploads never take.")
@click.option(
    "--expire-after", default="7d", type=Duration(), help="Remove unfinished uploads not touched for so long."
)
@click.option("--expire-finished", default="never", type=Duration(), help="Remove complete files after so long.")
@click.option(
    "--stall-timeout",
    default="60s",
    type=Duration(),
    help="End requests of which nothing comes, and connections without a whole head for so long.",
)
@click.option("--grace", default="3s", type=Duration(), help="How long requests may go on at SIGTERM.")
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    help="Origin whose pages may speak to this server, as https://example.org; * for all. Can be given several times.",
)
@click.option(
    "--public-url",
    type=BaseURL(),
    help="Where clients reach this server, as https://files.example.org; Location is absolute then.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    type=HostName(),
    help="A name by which this server may be asked where nobody has to say who he is, as nas.example.org; * for all. "
    "Addresses, localhost and the names of --host and --public-url may always. Can be given several times.",
)
@click.option(
    "--progress-rate",
    default=_DEFAULT["progress_rate"],
    type=click.FloatRange(0.01, 1000),
    help="Progress frames a second of one upload that somebody who watches gets, at most.",
)
@click.option("--ping-interval", default="25s", type=Duration(), help="Those who watch hear something so often.")
@click.option(
    "--history-samples",
    default=_DEFAULT["history_samples"],
    type=click.IntRange(2, 10_000),
    help="Samples of progress that are kept of one upload.",
)
@click.option("--history-keep", default="24h", type=Duration(), help="How long samples are kept.")
@click.option("--log-keep", default="7d", type=Duration(), help="How long events are kept for those who were away.")
@click.option(
    "--log-events", default=_DEFAULT["log_events"], type=click.IntRange(1), help="How many events are kept at most."
)
@click.option(
    "--patience", default="10s", type=Duration(), help="How long a completing request waits before it is answered 202."
)
@click.option(
    "--allow-extension",
    "allow_extensions",
    multiple=True,
    type=Extension(),
    help="Take only files that end so, as jpg. Can be given several times.",
)
@click.option(
    "--allow-type",
    "allow_types",
    multiple=True,
    type=MediaType(),
    help="Take only files that are of this type, as image/*, by name and first bytes. Can be given several times.",
)
@click.option(
    "--inline-type",
    "inline_types",
    multiple=True,
    type=MediaType(),
    help="Let browsers show files of this type, and not only save them. Can be given several times.",
)
@click.option("--max-connections", default=10_000, type=Count(), help="Connections at once, or `any`.")
@click.option("--client-connections", default=1_000, type=Count(), help="Connections of one client at once, or `any`.")
@click.option("--client-requests", type=click.FloatRange(0.1), help="Requests of one client a second.  [default: any]")
@click.option(
    "--client-rate", type=Size(), help="Bytes a second that one client may send and fetch.  [default: any number]"
)
@click.option("--max-head", default="128K", type=Size(), help="Largest head of a request.")
@click.option("--max-metadata", default="16K", type=Size(), help="Largest Upload-Metadata.")
@click.option("--max-uploads", default=100_000, type=Count(), help="Unfinished uploads at once, or `any`.")
@click.option("--max-stored", type=Size(), help="Bytes of all uploads together.  [default: any that fit]")
@click.option("--owner-uploads", type=Count(), help="Unfinished uploads of one owner at once.  [default: any number]")
@click.option("--owner-stored", type=Size(), help="Bytes of all uploads of one owner.  [default: any number]")
@click.option("--min-speed", default="128", type=Size(), help="End requests that send or fetch less a second.")
@click.option("--max-request-time", default="1d", type=Duration(), help="End requests that take longer.")
@click.option(
    "--tokens",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of tokens, as holdfast token makes it; only who has one may do anything.",
)
@click.option("--jwt-keys", help="Keys to verify JWTs with: a file with a JWK set, or its https:// address.")
@click.option("--jwt-issuer", help="The issuer (iss) that JWTs have to have.")
@click.option("--jwt-audience", help="The audience (aud) that JWTs have to have.")
@click.option(
    "--jwt-algorithm",
    "jwt_algorithms",
    multiple=True,
    default=_DEFAULT["jwt_algorithms"],
    help="An algorithm that JWTs may be signed with. Can be given several times.",
)
@click.option(
    "--signing-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the keys of signed URLs, one a line, as of openssl rand -hex 32; the first one signs.",
)
@click.option("--authority", help="A Python callable that says who sends a request, as package.module:name.")
@click.option(
    "--allow-everyone",
    is_flag=True,
    help="Listen on other addresses than those of this machine although nobody has to say who he is: whoever reaches "
    "the server may upload, read and delete everything.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    help="A proxy whose X-Forwarded- fields are believed: address, network, or unix. Can be given several times.",
)
@click.option(
    "--tls-cert", type=click.Path(dir_okay=False, path_type=Path), help="Speak TLS, with this certificate chain (PEM)."
)
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="The key of it (PEM).")
@click.option(
    "--unix", type=click.Path(dir_okay=False, path_type=Path), help="Listen on this Unix socket instead of a port."
)
def serve(
    host: str,
    port: int,
    workers: int,
    allow_everyone: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    unix: Path | None,
    **values: Any,
) -> None:
    """Run the upload server."""
    settings = _settings(values)
    settings = dataclasses.replace(settings, allowed_hosts=(*settings.allowed_hosts, host))
    _check_credentials(settings, None if unix else host, allow_everyone)
    _check_tls(tls_cert, tls_key)
    try:
        listener = _bind((host, port)) if unix is None else _bind_unix(unix)
    except OSError as error:
        where = f"{host} port {port}" if unix is None else unix
        raise click.ClickException(f"Cannot listen on {where}: {error.strerror or error}.") from None
    if unix is None:
        scheme = "http" if tls_cert is None else "https"
        url = "{}://{}:{}".format(scheme, f"[{host}]" if ":" in host else host, listener.getsockname()[1])
    else:
        url = f"unix:{unix}"
    board = Board(workers) if workers > 1 else None
    config = uvicorn.Config(
        functools.partial(_served, settings, board),
        factory=True,
        workers=workers,
        http=cast(
            Any,
            functools.partial(
                HoldfastProtocol,
                head_timeout=settings.stall_timeout,
                limits=settings.limits,
                doors=Doors(
                    settings.limits.max_connections,
                    settings.limits.client_connections,
                    networks(settings.trusted_proxies),
                    _most_connections(),
                    board,
                ),
            ),
        ),
        ws=cast(Any, WebSocketProtocol),
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
    )
    if unix is not None:
        listener.listen(_BACKLOG)
        _tell(url)
        if workers > 1:
            Multiprocess(config, sockets=[listener]).run()
        else:
            uvicorn.Server(config).run(sockets=[listener])
        unix.unlink(missing_ok=True)
        return
    if workers > 1:
        port_of_all = _Port(listener)
        threading.Thread(target=port_of_all.tell, args=(url, workers), name="tell", daemon=True).start()
        Multiprocess(config, sockets=[cast(socket.socket, port_of_all)]).run()
        return
    listener.listen(_BACKLOG)
    _tell(url)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(1)


def _check_credentials(settings: Settings, host: str | None, allow_everyone: bool) -> None:
    """That what the settings say of them can be used, and that somebody asks for them where strangers may come."""
    try:
        asked = authority_of(settings) is not None
        networks(settings.trusted_proxies)
    except (OSError, ValueError, ImportError) as error:
        raise click.ClickException(f"Cannot start: {error}.") from None
    if not (asked or allow_everyone or host is None or _is_loopback(host)):
        raise click.UsageError(
            f"Whoever reaches {host} could upload, read and delete everything, because nobody has to say who he is. "
            "Give --tokens, --jwt-keys, --signing-key or --authority; or, if that is what you want, --allow-everyone."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    if certificate is None and key is not None:
        raise click.UsageError("--tls-key needs --tls-cert.")
    if certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"Cannot use {certificate} and its key for TLS: {error}.") from None


def _most_connections() -> int:
    """How many connections a process takes: no more than it may have files open, of which one may need three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(64, (hard - 256) // 3)


def _served(settings: Settings, board: Board | None) -> Starlette:
    """The application, which learns at once when its process is told to end, before uvicorn waits for requests."""
    # With the default of 5 ms an event loop that makes many short system calls starves every thread beside it.
    sys.setswitchinterval(_SWITCH_INTERVAL)
    app = create_app(settings)
    app.state.board = board
    # What is here now stays: to look through it for garbage again and again takes a twentieth of the time.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    run = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with run(app):
            _end_with_parent()
            for number in (signal.SIGTERM, signal.SIGINT):
                _also(number, app.state.stop)
            yield

    app.router.lifespan_context = lifespan
    return app


def _end_with_parent() -> None:
    """A worker whose supervisor was killed would hold the port against the next server: it ends too."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _also(number: signal.Signals, action: Callable[[], None]) -> None:
    """Has a signal do this beside what it does already: on the event loop, since a handler may run in the middle of
    anything that is done there. To be called on it.
    """
    before = signal.getsignal(number)
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(action)
        if callable(before):
            before(number, frame)

    signal.signal(number, handle)


def _settings(values: dict[str, Any]) -> Settings:
    for name in ("expire_after", "expire_finished", "max_request_time"):
        if values[name] == float("inf"):
            values[name] = None
    for name in ("max_connections", "client_connections", "max_uploads", "owner_uploads"):
        values[name] = values[name] or None
    limits = Limits(**{field.name: values.pop(field.name) for field in dataclasses.fields(Limits)})
    return Settings(**values, limits=limits)


def _tell(url: str) -> None:
    click.echo(f"listening on {url}")
    sys.stdout.flush()


class _Port:
    """A port for several processes, each of which gets a socket of its own when this is sent to it.

    So the kernel spreads the connections (socket(7), SO_REUSEPORT): from one socket for all, whoever is quick takes
    every one of them.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._address: tuple[str, int] = bound.getsockname()[:2]
        bound.close()
        self._kept = _bind(self._address, shared=True)  # without listening: nobody else gets the port
        # A pipe, because a semaphore would outlive a process that is killed.
        self._told, self._listening = multiprocessing.Pipe(duplex=False)

    def tell(self, url: str, processes: int) -> None:
        """Tells the address when so many processes listen. Blocks until then."""
        for _ in range(processes):
            self._told.recv_bytes()
        _tell(url)

    def close(self) -> None:
        self._kept.close()

    def __reduce__(self) -> tuple[Callable[..., socket.socket], tuple[object, ...]]:
        return _listen_too, (self._address, self._listening)


def _listen_too(address: tuple[str, int], listening: Connection) -> socket.socket:
    listener = _bind(address, shared=True)
    listener.listen(_BACKLOG)
    listening.send_bytes(b"1")
    return listener


def _bind_unix(path: Path) -> socket.socket:
    """For its owner and group. A socket that a server has left behind is taken away; a living one is not."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            bound.connect(str(path))
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, "a server listens there")
        bound.close()
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o117)
        try:
            bound.bind(str(path))
        finally:
            os.umask(before)
    except OSError:
        bound.close()
        raise
    return bound


def _bind(address: tuple[str, int], *, shared: bool = False) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
