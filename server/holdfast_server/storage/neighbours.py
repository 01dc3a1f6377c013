"""What the processes of one data folder tell each other beside the catalog: datagrams that may get lost.

Rule of this file: nothing here is waited for, and nothing is owed. A datagram that does not fit, or whose reader is
slow or gone, is not sent; whoever tells something tells it again when it has changed. Facts are in the catalog.
"""

import os
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio

LONGEST: Final = 128 * 1024
"""Bytes of one datagram."""
MOST_AT_ONCE: Final = 64
"""Datagrams that are read before anybody else has a turn."""
LOOK_INTERVAL: Final = 0.5
"""Seconds for which a look into the folder counts."""
_SUFFIX: Final = ".sock"


class Neighbours:
    """This process among those that work on a folder. Used with `with`, on one event loop."""

    def __init__(self, folder: Path, monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._monotonic = monotonic
        self.name: str = secrets.token_hex(8)
        self._others: list[str] = []
        self._looked = float("-inf")

    @contextmanager
    def there(self) -> "Iterator[Neighbours]":
        """Makes the folder if need be. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as self._socket:
                self._socket.bind(self._path(self.name + _SUFFIX))
                try:
                    yield self
                finally:
                    (self._folder / (self.name + _SUFFIX)).unlink(missing_ok=True)
        finally:
            os.close(self._directory)

    def _path(self, name: str) -> str:
        # An address of a socket has room for 107 bytes, and a data folder may lie deeper.
        return f"/proc/self/fd/{self._directory}/{name}"

    def alone(self) -> bool:
        """Is there nobody else, as far as was seen in the last half second?"""
        now = self._monotonic()
        if now - self._looked >= LOOK_INTERVAL:
            self._looked = now
            mine = self.name + _SUFFIX
            names = [path.name for path in self._folder.iterdir()]
            self._others = [name for name in names if name.endswith(_SUFFIX) and name != mine]
        return not self._others

    def tell(self, datagram: bytes) -> None:
        """Sends it to everybody else. Does not block, and raises nothing."""
        if self.alone():
            return
        for name in list(self._others):
            try:
                self._socket.sendto(datagram, self._path(name))
            except (ConnectionRefusedError, FileNotFoundError):
                # It was killed. Nobody has the name of another one.
                self._others.remove(name)
                (self._folder / name).unlink(missing_ok=True)
            except OSError:
                continue  # its queue is full, or this is too long

    async def heard(self) -> Sequence[bytes]:
        """The next datagrams: all that are there, one at least."""
        found: list[bytes] = []
        while not found:
            await anyio.wait_readable(self._socket)
            with suppress(BlockingIOError):
                while len(found) < MOST_AT_ONCE:
                    found.append(self._socket.recv(LONGEST + 1))
        return found
