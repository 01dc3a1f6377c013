"""`holdfast serve`.

Rule of this file: the one place that reads the environment and a configuration file. A value is taken from the flag,
else from `HOLDFAST_<NAME>`, else from the file given with `--config`, else from the defaults of `Settings`.
"""

import dataclasses
import functools
import gc
import multiprocessing
import multiprocessing.connection
import os
import re
import resource
import signal
import socket
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
from holdfast_server.http.doors import Doors
from holdfast_server.http.uvicorn_protocol import HoldfastProtocol
from holdfast_server.settings import Limits, Settings
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


class BaseURL(click.ParamType[str]):
    """`https://files.example.org`, with a port or a path if need be; a slash at its end is taken off."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = re.fullmatch(r"(https?://[A-Za-z0-9.:_\[\]-]+(?:/[A-Za-z0-9._~/-]*?)?)/*", str(value))
        if match is None:
            self.fail(f"{value!r} is no address; write it as https://files.example.org.", param, ctx)
        return match[1]


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
    "--patience", default="10s", type=Duration(), help="How long a completing request waits before it is answered 202."
)
@click.option("--max-connections", default=10_000, type=Count(), help="Connections at once, or `any`.")
@click.option("--client-connections", default=1_000, type=Count(), help="Connections of one client at once, or `any`.")
@click.option("--client-requests", type=click.FloatRange(0.1), help="Requests of one client a second.  [default: any]")
@click.option(
    "--client-rate", type=Size(), help="Bytes a second that one client may send and fetch.  [default: any number]"
)
@click.option("--max-head", default="128K", type=Size(), help="Largest head of a request.")
@click.option("--max-metadata", default="16K", type=Size(), help="Largest Upload-Metadata.")
@click.option("--min-speed", default="128", type=Size(), help="End requests that send or fetch less a second.")
@click.option("--max-request-time", default="1d", type=Duration(), help="End requests that take longer.")
def serve(host: str, port: int, workers: int, **values: Any) -> None:
    """Run the upload server."""
    settings = _settings(values)
    try:
        listener = _bind((host, port))
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {host} port {port}: {error.strerror}.") from None
    url = "http://{}:{}".format(f"[{host}]" if ":" in host else host, listener.getsockname()[1])
    config = uvicorn.Config(
        functools.partial(_served, settings),
        factory=True,
        workers=workers,
        http=cast(
            Any,
            functools.partial(
                HoldfastProtocol,
                head_timeout=settings.stall_timeout,
                limits=settings.limits,
                doors=Doors(_connections(settings.limits.max_connections), settings.limits.client_connections),
            ),
        ),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
    )
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


def _connections(wanted: int | None) -> int:
    """How many connections a process takes: no more than it may have files open, of which one may need three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = max(64, (hard - 256) // 3)
    return most if wanted is None else min(most, wanted)


def _served(settings: Settings) -> Starlette:
    """The application, which learns at once when its process is told to end, before uvicorn waits for requests."""
    # With the default of 5 ms an event loop that makes many short system calls starves every thread beside it.
    sys.setswitchinterval(_SWITCH_INTERVAL)
    app = create_app(settings)
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
    """Has a signal do this first, and then what it did before."""
    before = signal.getsignal(number)

    def handle(number: int, frame: FrameType | None) -> None:
        action()
        if callable(before):
            before(number, frame)

    signal.signal(number, handle)


def _settings(values: dict[str, Any]) -> Settings:
    for name in ("expire_after", "expire_finished", "max_request_time"):
        if values[name] == float("inf"):
            values[name] = None
    for name in ("max_connections", "client_connections"):
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
