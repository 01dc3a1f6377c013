"""nginx as a server of files."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.waiting import eventually, scaled

SETTINGS = """\
daemon off;
{user}
worker_processes 1;
pid {home}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    etag {etag};
    default_type application/octet-stream;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    types {{ text/css css; }}
    limit_conn_zone $binary_remote_addr zone=each:64k;
    gzip_types *;
    gzip_min_length 1;
    gzip_http_version 1.0;
    server {{
        listen 127.0.0.1:{port};
        location / {{ root {root}; {more} }}
    }}
}}
"""


class Nginx:
    """Serves the folder `root` at `url`; `more` are further directives for it. Where it is not installed it skips."""

    def __init__(self, home: Path, more: str = "", *, etag: bool = True) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.skip("nginx is not installed: apt install nginx-light")
        self.root = home / "root"
        self.root.mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        user = "user root;" if os.geteuid() == 0 else ""
        settings = home / "nginx.conf"
        names = {"home": home, "root": self.root, "port": self.port, "user": user, "more": more}
        settings.write_text(SETTINGS.format(**names, etag="on" if etag else "off"))
        self._process = subprocess.Popen([program, "-p", str(home), "-c", str(settings), "-e", "stderr"])

    def __enter__(self) -> "Nginx":
        eventually(self._listens, within=10, what="nginx")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(scaled(10))

    def _listens(self) -> bool:
        assert self._process.poll() is None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
