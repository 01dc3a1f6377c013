"""The application under servers that know nothing of it: `python -m tests.support.hosts SERVER FOLDER SETTINGS`.

Rule of this file: each server runs with its usual settings, as one who embeds the application would start it, on a
free port of 127.0.0.1; the first line that it prints has the URL. SETTINGS is JSON, with the names of `Settings`.
"""

import functools
import json
import socket
import sys
from pathlib import Path
from typing import Final

import uvicorn
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server as Granian

from holdfast_server import Settings, create_app

UVICORN: Final = "uvicorn"
"""uvicorn with httptools, and without our protocol class."""
GRANIAN: Final = "granian"


def main(name: str, folder: str, values: str) -> None:
    settings = Settings(data=Path(folder), **json.loads(values))
    run = {UVICORN: _uvicorn, GRANIAN: _granian}[name]
    with socket.socket() as listener:
        # Workers of granian bind for themselves: this socket does not listen there, and keeps the port for them.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        run(settings, listener)


def _uvicorn(settings: Settings, listener: socket.socket) -> None:
    config = uvicorn.Config(create_app(settings), http="httptools", lifespan="on", log_level="warning", ws="none")
    uvicorn.Server(config).run(sockets=[listener])


def _granian(settings: Settings, listener: socket.socket) -> None:
    server = Granian(
        f"{create_app.__module__}:{create_app.__name__}",
        port=listener.getsockname()[1],
        interface=Interfaces.ASGI,
        websockets=False,
        log_level=LogLevels.warning,
    )
    server.serve(target_loader=functools.partial(create_app, settings), wrap_loader=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
