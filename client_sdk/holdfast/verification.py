"""Whether a file that was received is the right one.

Rule of this file: every digest that anybody has said of the file is compared: the caller, the server, and if neither
has, the `.sha256` file beside it. The bytes are hashed in a worker thread while the others still come, as far as they
have come without a gap, so that little is left to read at the end. What is hashed is read back from the file: what was
verified is what is there.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio
from anyio import to_thread
from msgspec import Struct

from holdfast.errors import VerificationFailed
from holdfast.targets import PartFile
from holdfast_protocol.digest import Digest, Hasher, hasher, size

SUFFIX: Final = ".sha256"
READ: Final = 1024 * 1024
STEP: Final = 32 * 1024 * 1024
"""Bytes that a thread hashes before it looks whether it is still wanted."""
LOOK: Final = 0.1
WAIT_FOR_SUMS: Final = 10.0
"""Seconds for which a complete file waits for the answer about the file beside it, from when that was asked for on."""

_LINE: Final = re.compile(r"\\?([0-9a-fA-F]{64})(?:[ \t]+\*?(.+))?")
_BSD_LINE: Final = re.compile(r"SHA256 ?\((.+)\) = ([0-9a-fA-F]{64})")


class Said(Struct, frozen=True):
    """A digest of the file, and who says so, in words."""

    digest: Digest
    who: str


class Proof:
    """Compares one file with what was said of it. `url` is what it is called in errors. For one event loop."""

    def __init__(self, part: PartFile, url: str, said: Iterable[Said]) -> None:
        self._part = part
        self._url = url
        self._said = list(said)
        self._running: dict[str, Hasher] = {}
        self._at = 0
        self._hashing = anyio.Lock()
        self._asking = anyio.Event()
        self._asked = anyio.Event()
        self._start()

    @property
    def wanted(self) -> bool:
        """There is something to compare with."""
        return bool(self._said)

    async def ask_beside(
        self,
        beside: Callable[[str], Awaitable[bytes | None]],
        names: Iterable[str],
        turn: AbstractAsyncContextManager[None],
    ) -> None:
        """Look for a `.sha256` file, if nobody has said a digest; it may be of a file that has one of these names.

        `turn` is a connection that may be used for it.
        """
        try:
            if not self._said:
                async with turn:
                    self._asking.set()
                    found = await beside(SUFFIX)
                digest = parse_sums(found, names) if found is not None else None
                if digest is not None:
                    self._said.append(Said(digest, f"{self._url}{SUFFIX}"))
                    self._start()
        finally:
            self._asking.set()
            self._asked.set()

    async def heard(self) -> None:
        """It is known whether there is such a file, or it has been waited for long enough."""
        await self._asking.wait()
        with anyio.move_on_after(WAIT_FOR_SUMS):
            await self._asked.wait()

    async def follow(self, prefix: Callable[[], int]) -> None:
        """Hash what has come without a gap from the start on; goes on until it is cancelled."""
        while True:
            await anyio.sleep(LOOK)
            while self._said and prefix() - self._at >= READ:
                await self._hash(prefix())

    async def check(self, length: int) -> Digest | None:
        """Hash what is left, and compare; the digest that was compared, None if nobody has said one.

        Raises VerificationFailed.
        """
        while self._said and self._at < length:
            await self._hash(length)
        for each in self._said:
            algorithm = each.digest.algorithm
            value = Digest(algorithm, self._running[algorithm].digest())
            if value != each.digest:
                raise VerificationFailed(
                    f"{self._url}: what arrived has {algorithm} {value.hex}, and {each.who} says {each.digest.hex};"
                    f" it is left in {self._part.path}, and the next download begins anew"
                )
        return self._said[0].digest if self._said else None

    def _start(self) -> None:
        for each in self._said:
            self._running.setdefault(each.digest.algorithm, hasher(each.digest.algorithm))

    async def _hash(self, to: int) -> None:
        """Some more of it, in a thread; one at a time."""
        async with self._hashing:
            await to_thread.run_sync(self._advance, min(to, self._at + STEP))

    def _advance(self, to: int) -> None:
        buffer = bytearray(READ)
        while self._at < to:
            count = min(self._part.read_into(buffer, self._at), to - self._at)
            if not count:
                return  # it was cut meanwhile
            with memoryview(buffer)[:count] as view:
                for each in self._running.values():
                    each.update(view)
            self._at += count


def parse_sums(content: bytes, names: Iterable[str]) -> Digest | None:
    """The SHA-256 of a file that has one of `names`, from what `sha256sum` writes; a lone one needs no name.

    None if it is anything else, for example a page that says that there is no such file.
    """
    try:
        lines = [line for line in content.decode().splitlines() if line.strip() and not line.startswith("#")]
    except UnicodeDecodeError:
        return None
    wanted = set(names)
    for line in lines:
        if (match := _BSD_LINE.fullmatch(line.strip())) is not None:
            name, digits = match[1], match[2]
        elif (match := _LINE.fullmatch(line.strip())) is not None:
            digits, name = match[1], match[2] or ""
        else:
            return None
        if name.rpartition("/")[2] in wanted or (len(lines) == 1 and not name):
            value = bytes.fromhex(digits)
            return Digest("sha-256", value) if len(value) == size("sha-256") else None
    return None
