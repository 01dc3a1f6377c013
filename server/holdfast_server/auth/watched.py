"""A small file with settings of trust that may change while the server runs: tokens, keys.

Rule of this file: what was read last stands until the file says something else that can be understood. A file that is
gone or malformed changes nothing, and the log says so once: an editor that is in the middle of saving must not shut
everybody out.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

logger: Final = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_EVERY: Final = 1.0
"""Seconds between two looks: after so long at most a change counts, in every process."""
MOST: Final = 1 << 20
"""Bytes of such a file."""


class Watched(Generic[T]):
    """What `parse` makes of the file. `parse` raises ValueError for what it does not understand.

    To make one reads the file, and raises OSError and ValueError; `get` never does, and blocks for as long as it takes
    to read a small local file, if it has changed.
    """

    def __init__(
        self, path: Path, parse: Callable[[bytes], T], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._parse = parse
        self._monotonic = monotonic
        self._seen = _stamp(path)
        self._value = parse(_read(path))
        self._looked = monotonic()

    def get(self) -> T:
        now = self._monotonic()
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        try:
            stamp: object = _stamp(self._path)
        except OSError as error:
            stamp = error.errno
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._value = self._parse(_read(self._path))
        except (OSError, ValueError) as error:
            logger.error("%s cannot be read; what it said before still holds: %s", self._path, error)
        else:
            logger.warning("%s has changed and was read again", self._path)


def _stamp(path: Path) -> object:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MOST + 1)
    if len(data) > MOST:
        raise ValueError(f"it has more than {MOST} bytes")
    return data
