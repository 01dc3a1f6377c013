"""What the worker processes of one server tell each other of clients: connections, and how much of a rate is used.

Rule of this file: every process writes in a column of its own and reads those of the others, in memory that all of them
have; so nobody waits for anybody, and nothing is locked that a killed process could leave locked. A number is heard
only under the name that it was told under. Two names that fall into one place hide each other from the other processes
until they are told again, which costs nobody his right; that nobody brings that about, a key sees to that is drawn anew
for each start.
"""

import fcntl
import hashlib
import mmap
import os
import secrets
from collections.abc import Callable, Iterator
from multiprocessing import reduction
from typing import Any, Final

CONNECTIONS: Final = 0
REQUESTS: Final = 1
BYTES: Final = 2

_KINDS: Final = 3
_PLACES: Final = 1 << 16
_SLOT: Final = 16
"""Bytes: of a name 8, 0 while the number is written; of the number 8."""
_COLUMN: Final = _KINDS * _PLACES * _SLOT
"""Bytes. What nobody has written to is no memory."""


class Board:
    """For `columns` processes, made before they are and sent to each. Raises OSError."""

    def __init__(self, columns: int) -> None:
        self._open(os.memfd_create("holdfast-board"), columns, secrets.token_bytes(16))
        os.ftruncate(self._file, columns * _COLUMN)

    def _open(self, file: int, columns: int, key: bytes) -> None:
        self._file, self._columns, self._key = file, columns, key
        self._mine: int | None = None
        self._seen: tuple[memoryview[int], memoryview[float]] | None = None

    def __reduce__(self) -> tuple[Callable[..., "Board"], tuple[object, ...]]:
        return _sent, (reduction.DupFd(self._file), self._columns, self._key)

    def close(self) -> None:
        """In the process that made it, once the others have ended."""
        os.close(self._file)

    def tell(self, kind: int, name: str, number: float) -> None:
        """Tells the others a number of this process, in the place of the one before."""
        names, numbers = self._memory()
        if self._mine is None:
            return
        tag, at = self._place(kind, name)
        at += self._mine
        names[at] = 0
        numbers[at + 1] = number
        names[at] = tag

    def others(self, kind: int, name: str) -> Iterator[float]:
        """What the other processes have told last under this name."""
        names, numbers = self._memory()
        tag, at = self._place(kind, name)
        for column in range(0, self._columns * _COLUMN // 8, _COLUMN // 8):
            if column != self._mine and names[at + column] == tag:
                number = numbers[at + column + 1]
                if names[at + column] == tag:
                    yield number

    def _place(self, kind: int, name: str) -> tuple[int, int]:
        tag = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=self._key).digest(), "little") or 1
        return tag, (kind * _PLACES + tag % _PLACES) * (_SLOT // 8)

    def _memory(self) -> "tuple[memoryview[int], memoryview[float]]":
        """The names and the numbers, both in steps of 8 bytes. The first time a column is taken."""
        if self._seen is None:
            memory = mmap.mmap(self._file, self._columns * _COLUMN)
            self._mine = self._take(memory)
            self._seen = memoryview(memory).cast("Q"), memoryview(memory).cast("d")
        return self._seen

    def _take(self, memory: mmap.mmap) -> int | None:
        """The first column that no living process has, emptied; None if there are more processes than columns, of
        which the last ones tell nothing."""
        for column in range(self._columns):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, column)
            except OSError:
                continue
            memory.madvise(mmap.MADV_REMOVE, column * _COLUMN, _COLUMN)
            return column * _COLUMN // 8
        return None


def _sent(file: Any, columns: int, key: bytes) -> Board:
    found = Board.__new__(Board)
    found._open(file.detach(), columns, key)
    return found
