"""The servers that are measured: ours, those of others, and nginx.

Rule of this file: a server of others is started as its own documentation shows, with the fewest options that let it
take part (its limits lifted, nothing tuned; only nginx gets a larger buffer for bodies, because it is no rival but a
mark, and its default is made for forms). One that is not installed is left out, and `missing` says so.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.conformance.peers import MODULES, TUS_NODE, TUSD

ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAMS: Final = Path(__file__).parent / "programs"
VENV: Final = ROOT / ".cache" / "bench-venv"
"""tuspyserver and what it needs, away from our own packages; `make rivals` makes it."""
RESUMABLE_UPLOAD_PROGRAM: Final = Path(sys.executable).with_name("resumable-upload")
DIGEST: Final = "xxh3-128"
"""The digest of the whole file that our server is asked for where the table says so."""


@dataclass(frozen=True)
class Peer:
    """A server under measurement. `command` makes the command line from a port and an empty data folder."""

    name: str
    command: Callable[[int, Path], list[str]]
    collection: str = "/files"
    """The path that uploads are created at."""
    durability: str = "none"
    """What is on the disk when a request is answered."""
    checksum: str = "none"
    fields: tuple[str, ...] = ()
    """Lines that go with every creation."""
    put: bool = False
    """It takes files by PUT and speaks no upload protocol."""

    def with_options(self, *options: str) -> "Peer":
        """The same with further options at the end of its command line."""
        return replace(self, command=lambda port, data: [*self.command(port, data), *options])


def holdfast(durability: str = "os", *, digest: bool = False, workers: int = 1) -> Peer:
    """This server. With `digest` it is asked for the digest of each whole file, which it computes as bytes arrive."""

    def command(port: int, data: Path) -> list[str]:
        server = [sys.executable, "-m", "holdfast_server", "--host", "127.0.0.1", "--port", str(port)]
        return [*server, "--data", str(data), "--durability", durability, "--workers", str(workers)]

    words = [durability, *([DIGEST] if digest else []), *([f"{workers} workers"] if workers > 1 else [])]
    return Peer(
        f"holdfast ({', '.join(words)})",
        command,
        durability={"os": "none", "ack": "all that is acknowledged", "finish": "complete files"}[durability],
        checksum=f"{DIGEST}, whole file" if digest else "none",
        fields=(f"Want-Repr-Digest: {DIGEST}=10",) if digest else (),
    )


def in_chunks(peer: Peer) -> Peer:
    """Ours, where every chunk has a digest that is verified before it is stored."""
    return replace(peer, checksum=f"{DIGEST}, each chunk", fields=())


def _tusd(port: int, data: Path) -> list[str]:
    program = os.environ.get("TUSD") or shutil.which("tusd") or "tusd"
    where = ["-host", "127.0.0.1", "-port", str(port), "-upload-dir", str(data), "-base-path", "/files/"]
    return [program, *where, "-show-greeting=false"]


def _rustus(port: int, data: Path) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port), "--url", "/files"]
    return [
        *(shutil.which("rustus") or "rustus", *where),
        *("--data-dir", str(data / "files"), "--info-dir", str(data / "info")),
        *("--max-body-size", str(1 << 40), "--log-level", "ERROR"),
    ]


def _tus_node(port: int, data: Path) -> list[str]:
    return ["node", str(ROOT / "tests" / "interop" / "tus_server.mjs"), str(MODULES), str(data), str(port)]


def _tuspyserver(port: int, data: Path) -> list[str]:
    return [str(VENV / "bin" / "python"), str(PROGRAMS / "tuspyserver_app.py"), str(port), str(data)]


def _resumable_upload(port: int, data: Path) -> list[str]:
    where = ["--upload-dir", str(data / "files"), "--db-path", str(data / "uploads.db"), "--enable-downloads"]
    return [
        str(RESUMABLE_UPLOAD_PROGRAM),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *where,
        "--log-level",
        "ERROR",
    ]


_NGINX = """\
daemon off;
{user}
worker_processes auto;
pid {home}/nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    default_type application/octet-stream;
    client_max_body_size 0;
    client_body_buffer_size 1m;
    client_body_temp_path {data}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port};
        location / {{ root {data}/files; dav_methods PUT DELETE; }}
    }}
}}
"""


def _nginx_program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _nginx(port: int, data: Path) -> list[str]:
    home = data.with_name("nginx")
    home.mkdir(exist_ok=True)
    (data / "files").mkdir(exist_ok=True)
    settings = home / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    settings.write_text(_NGINX.format(home=home, data=data, port=port, user=user))
    return [_nginx_program() or "nginx", "-p", str(home), "-c", str(settings), "-e", "stderr"]


TUSD_PEER: Final = Peer("tusd", _tusd, "/files/")
RUSTUS: Final = Peer("rustus", _rustus)
TUS_NODE_PEER: Final = Peer("@tus/server", _tus_node)
TUSPYSERVER: Final = Peer(
    "tuspyserver", _tuspyserver, fields=("Upload-Metadata: filename ZmlsZQ==,filetype dGV4dC9wbGFpbg==",)
)
"""Its HEAD refuses uploads that have no name and type."""
RESUMABLE_UPLOAD: Final = Peer("resumable-upload", _resumable_upload)
NGINX: Final = Peer("nginx", _nginx, "/", put=True)
WS: Final = Peer(
    "ws (Node)", lambda port, _: ["node", str(PROGRAMS / "ws_hub.mjs"), str(MODULES.absolute()), str(port)], "/"
)
STARLETTE: Final = Peer(
    "Starlette, a loop", lambda port, _: [sys.executable, str(PROGRAMS / "starlette_hub.py"), str(port)], "/"
)
"""Hubs of live messages; they take no uploads."""


def _tuspyserver_version() -> str:
    """Empty if it is not installed."""
    found = next(iter(VENV.glob("lib/*/site-packages/tuspyserver-*.dist-info")), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found else ""


def _tus_js_client() -> bool:
    return shutil.which("node") is not None and (MODULES / "tus-js-client").is_dir()


MISSING: Final[dict[str, Callable[[], str | None]]] = {
    "tusd": TUSD.missing,
    "rustus": lambda: None if shutil.which("rustus") else "rustus is not on the PATH: cargo install rustus",
    "@tus/server": TUS_NODE.missing,
    "tuspyserver": lambda: None if _tuspyserver_version() else "tuspyserver is not installed: make rivals",
    "nginx": lambda: None if _nginx_program() else "nginx is not installed: apt install nginx-light",
    WS.name: lambda: None if (MODULES / "ws").is_dir() and shutil.which("node") else "ws is missing: make interop",
    "curl": lambda: None if shutil.which("curl") else "curl is not installed: apt install curl",
    "aria2c": lambda: None if shutil.which("aria2c") else "aria2c is not installed: apt install aria2",
    "tus-js-client": lambda: None if _tus_js_client() else "tus-js-client is not installed: make interop",
}
"""For each program of others: why it cannot be started, or None."""


@cache
def missing(name: str) -> str | None:
    """Why a program of others cannot take part; None: it can, or it is ours."""
    return MISSING[name]() if name in MISSING else None


def installed(peers: Sequence[Peer]) -> list[Peer]:
    """Those that can be started here, in the same order."""
    return [peer for peer in peers if missing(peer.name) is None]


def _said(*command: str) -> str:
    """The first version number that a command prints."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    found = re.search(r"\d+\.\d+(?:\.\d+)*", result.stdout + result.stderr)
    return found[0] if found else "of unknown version"


def versions() -> dict[str, str]:
    """What is installed of ours and of others, by name."""
    asked: dict[str, Callable[[], str]] = {
        "tusd": TUSD.version,
        "rustus": lambda: _said("rustus", "--version"),
        "@tus/server": TUS_NODE.version,
        "tuspyserver": _tuspyserver_version,
        "nginx": lambda: _said(_nginx_program() or "nginx", "-v"),
        "curl": lambda: _said("curl", "--version"),
        "aria2c": lambda: _said("aria2c", "--version"),
        WS.name: lambda: _said("grep", '"version"', str(MODULES / "ws" / "package.json")),
        "tus-js-client": lambda: _said("grep", '"version"', str(MODULES / "tus-js-client" / "package.json")),
    }
    own = {
        name: version(name)
        for name in ("holdfast", "uvicorn", "starlette", "websockets", "httpx", "tuspy", "aiotus", "resumable-upload")
    }
    return {**own, **{name: ask() for name, ask in asked.items() if missing(name) is None}}
