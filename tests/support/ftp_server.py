"""pyftpdlib as a process: `python -m tests.support.ftp_server ROOT [OPTIONS]`, told what to do as JSON.

Rule of this file: it prints its port and serves until it is ended. It misbehaves as it is told: breaks off data
connections, has no MDTM, or lets only so many in.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.waiting import scaled


class FtpServer:
    """The process, for the files in `root`; user `ada`, password `lovelace`, and anonymous.

    `cut_after`: each data connection ends after so many bytes, as a broken one. `per_ip`: connections at once. `lacks`:
    commands that it does not know. `certificate`: a PEM file with a key; then nothing goes without TLS, which begins
    with AUTH TLS, or, with `implicit`, with the first byte. `host` is the address that it listens at, at `port`, 0 for
    any.
    """

    def __init__(
        self,
        root: Path,
        *,
        cut_after: int | None = None,
        per_ip: int = 0,
        lacks: tuple[str, ...] = (),
        certificate: Path | None = None,
        implicit: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        told = {
            "root": str(root),
            "cut_after": cut_after,
            "per_ip": per_ip,
            "lacks": lacks,
            "certificate": None if certificate is None else str(certificate),
            "implicit": implicit,
            "place": [host, port],
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ftp_server", json.dumps(told)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> "FtpServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(scaled(10))
        assert self._process.stdout is not None
        self._process.stdout.close()


def serve(told: dict[str, Any]) -> None:
    """Goes on until it is ended."""
    import logging

    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import DTPHandler, FTPHandler, TLS_DTPHandler, TLS_FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer

    logging.disable()
    secure = told["certificate"] is not None
    base: Any = TLS_DTPHandler if secure else DTPHandler
    head: Any = TLS_FTPHandler if secure else FTPHandler
    most = told["cut_after"]

    class Data(base):  # type: ignore[misc]
        def send(self, data: Any) -> Any:
            if most is not None and self.tot_bytes_sent >= most:
                self.close()
                return 0
            return super().send(data)

    class Head(head):  # type: ignore[misc]
        proto_cmds = {name: each for name, each in head.proto_cmds.items() if name not in told["lacks"]}  # noqa: RUF012

        def handle(self) -> None:
            if told["implicit"]:
                self.secure_connection(self.ssl_context)
            else:
                super().handle()

        def handle_ssl_established(self) -> None:
            if told["implicit"]:
                super().handle()  # only now it greets

    authorizer = DummyAuthorizer()
    authorizer.add_user("ada", "lovelace", told["root"], perm="elr")
    authorizer.add_anonymous(told["root"])
    Head.authorizer = authorizer
    Head.dtp_handler = Data
    Head.use_sendfile = most is None
    if secure:
        Head.certfile = told["certificate"]
        Head.tls_control_required = Head.tls_data_required = True
    server = ThreadedFTPServer(tuple(told["place"]), Head)
    server.max_cons_per_ip = told["per_ip"]
    print(server.address[1], flush=True)
    server.serve_forever(timeout=0.2)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
