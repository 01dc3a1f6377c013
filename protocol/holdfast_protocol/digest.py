"""Digest algorithms: their names, sizes and incremental hashers (protocol.md, V-DIGEST-2 and V-CHECKSUM-1).

Rule of this file: an algorithm is called by one name everywhere inside, the one of V-DIGEST-2; the names of
tus are translated at the edge. `available()` lists what this process can compute and nothing else: `crc32c`
and `blake3` are there only if their packages (the `digests` extra) import, `crc32c` only if it is compiled.
They are imported when it is asked for the first time whether they are there.
"""

import hashlib
import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from functools import cache, partial
from typing import Any, Final, Protocol

import xxhash
from msgspec import Struct

_SIZES: Final[Mapping[str, int]] = {
    "xxh3-128": 16,
    "xxh3-64": 8,
    "xxh64": 8,
    "crc32c": 4,
    "blake3": 32,
    "sha-256": 32,
    "sha-512": 64,
    "md5": 16,
    "sha": 20,
}
ALGORITHMS: Final = tuple(_SIZES)
"""All of V-DIGEST-2, computable here or not, in order of preference: fast ones first, broken last."""
_TUS_NAMES: Final[Mapping[str, str]] = {"sha": "sha1", "sha-256": "sha256", "sha-512": "sha512"}

FAST: Final = frozenset({"xxh3-128", "xxh3-64", "xxh64", "crc32c"})
"""Those cheaper than the copy of the same bytes out of a socket: computed inline on an event loop."""
FASTEST: Final = "xxh3-128"
SAFE: Final = "sha-256"
"""What every server has that offers digests at all."""

_CRC_PIECE: Final = 256 * 1024


class UnknownAlgorithm(LookupError):  # noqa: N818 - the word of the protocol
    """No digest algorithm has this name, or this process cannot compute it. `algorithm` is the name."""

    def __init__(self, algorithm: str) -> None:
        known = ", ".join(available())
        super().__init__(f"the digest algorithm {algorithm!r} is not known here; known are {known}")
        self.algorithm = algorithm


class Hasher(Protocol):
    """A digest that grows with its input. For one thread at a time; it computes and does not wait."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object:
        """Take in more bytes. A memoryview is one of contiguous bytes (format "B")."""
        ...

    def digest(self) -> bytes:
        """The value for the input so far, `size(algorithm)` bytes; xxHash and crc32c big-endian."""
        ...

    def copy(self) -> "Hasher":
        """Another one that has taken in the same, and goes its own way from here."""
        ...


class Digest(Struct, frozen=True):
    """An algorithm by its name (V-DIGEST-2), and the value. The value's length is not checked here."""

    algorithm: str
    value: bytes

    @property
    def hex(self) -> str:
        """The value in lower-case hexadecimal digits."""
        return self.value.hex()


class _Crc32c:
    """CRC-32C on top of a function that extends a checksum by `bytes` and by nothing else."""

    __slots__ = ("_extend", "_value")

    def __init__(self, extend: Callable[[int, bytes], int]) -> None:
        self._extend = extend
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        if isinstance(data, bytes):
            self._value = self._extend(self._value, data)
            return
        # Copied by the piece, so that the copy stays in the cache and memory does not grow with the input.
        with memoryview(data) as view:
            for start in range(0, len(view), _CRC_PIECE):
                self._value = self._extend(self._value, bytes(view[start : start + _CRC_PIECE]))

    def copy(self) -> "_Crc32c":
        other = _Crc32c(self._extend)
        other._value = self._value
        return other

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


@cache
def _crc32c() -> Callable[[], Hasher] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of its slow fallback, not taken here
            import google_crc32c
    except ImportError:
        return None
    module: Any = google_crc32c
    return partial(_Crc32c, module.extend) if module.implementation == "c" else None


@cache
def _blake3() -> Callable[[], Hasher] | None:
    try:
        from blake3 import blake3
    except ImportError:
        return None
    return blake3


_MAKERS: Final[Mapping[str, Callable[[], Hasher]]] = {
    "xxh3-128": xxhash.xxh3_128,
    "xxh3-64": xxhash.xxh3_64,
    "xxh64": xxhash.xxh64,
    "sha-256": hashlib.sha256,
    "sha-512": hashlib.sha512,
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "sha": partial(hashlib.sha1, usedforsecurity=False),
}
_EXTRA: Final[Mapping[str, Callable[[], Callable[[], Hasher] | None]]] = {"crc32c": _crc32c, "blake3": _blake3}
_FROM_TUS: Final[Mapping[str, str]] = {_TUS_NAMES.get(name, name): name for name in ALGORITHMS}


def _maker(algorithm: str) -> Callable[[], Hasher] | None:
    found = _EXTRA.get(algorithm)
    return _MAKERS.get(algorithm) if found is None else found()


def computable(algorithm: str) -> bool:
    """Whether this process can compute it. The first time it may import a package, which takes milliseconds."""
    return _maker(algorithm) is not None


@cache
def available() -> tuple[str, ...]:
    """The algorithms that this process can compute, in order of preference: fast ones first, broken last."""
    return tuple(name for name in ALGORITHMS if computable(name))


def first_computable(algorithms: Iterable[str]) -> str | None:
    """The first of these that this process can compute, and no look at those behind it; None if there is none."""
    return next(filter(computable, algorithms), None)


def hasher(algorithm: str) -> Hasher:
    """A fresh hasher. Raises UnknownAlgorithm if there is no such algorithm or it cannot be computed here."""
    make = _maker(algorithm)
    if make is None:
        raise UnknownAlgorithm(algorithm)
    return make()


def digest(algorithm: str, data: bytes | bytearray | memoryview) -> Digest:
    """The digest of `data`. Raises as `hasher` does."""
    running = hasher(algorithm)
    running.update(data)
    return Digest(algorithm, running.digest())


def size(algorithm: str) -> int:
    """Bytes of a value, 4 to 64, for every name of V-DIGEST-2. Raises UnknownAlgorithm for any other."""
    try:
        return _SIZES[algorithm]
    except KeyError:
        raise UnknownAlgorithm(algorithm) from None


def from_tus_name(name: str) -> str | None:
    """The algorithm that tus calls `name` (V-CHECKSUM-1), computable here or not; None if there is none."""
    return _FROM_TUS.get(name)


def tus_name(algorithm: str) -> str:
    """What tus calls this algorithm (V-CHECKSUM-1). Raises UnknownAlgorithm."""
    size(algorithm)
    return _TUS_NAMES.get(algorithm, algorithm)


def chunk_algorithm(wants: Iterable[str], here: Container[str] | None = None) -> str:
    """The digest for chunks: xxh3-128 if it is wanted, else the first wanted one that can be computed here."""
    usable = [name for name in wants if here is None or name in here]
    if FASTEST in usable:
        return FASTEST
    return first_computable(usable) or SAFE
