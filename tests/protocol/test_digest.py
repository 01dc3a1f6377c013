"""Digests: the names on the wire, the values that others compute too, and what is there without the extras.

Rule of this file: the expected values are those that the algorithms' own publications give, not what the code under
test computed once.
"""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol import digest
from holdfast_protocol.digest import Digest, UnknownAlgorithm

NAMES = ("xxh3-64", "xxh3-128", "xxh64", "sha-256", "sha-512", "sha", "md5", "crc32c", "blake3")
TUS_NAMES = {
    "sha": "sha1", "sha-256": "sha256", "sha-512": "sha512", "md5": "md5", "crc32c": "crc32c",
    "xxh64": "xxh64", "xxh3-64": "xxh3-64", "xxh3-128": "xxh3-128", "blake3": "blake3",
}  # fmt: skip
SIZES = {
    "xxh3-64": 8, "xxh3-128": 16, "xxh64": 8, "sha-256": 32, "sha-512": 64, "sha": 20, "md5": 16,
    "crc32c": 4, "blake3": 32,
}  # fmt: skip
VECTORS = [
    ("xxh3-64", b"", "2d06800538d394c2"),
    ("xxh3-64", b"abc", "78af5f94892f3950"),
    ("xxh3-128", b"", "99aa06d3014798d86001c324468d497f"),
    ("xxh3-128", b"abc", "06b05ab6733a618578af5f94892f3950"),
    ("xxh64", b"", "ef46db3751d8e999"),
    ("xxh64", b"abc", "44bc2cf5ad770999"),
    ("sha-256", b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("sha-256", b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        "sha-512",
        b"abc",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
    ),
    ("sha", b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    ("md5", b"", "d41d8cd98f00b204e9800998ecf8427e"),
    ("md5", b"abc", "900150983cd24fb0d6963f7d28e17f72"),
    ("crc32c", b"", "00000000"),
    ("crc32c", b"123456789", "e3069283"),
    ("crc32c", bytes(32), "8a9136aa"),
    ("crc32c", b"\xff" * 32, "62a8ab43"),
    ("blake3", b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    ("blake3", b"abc", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
]


def needs(algorithm: str) -> None:
    if algorithm not in digest.available():
        pytest.skip(f"{algorithm} needs the extra 'digests'")


@pytest.mark.rule("V-DIGEST-2")
@pytest.mark.parametrize(("algorithm", "data", "expected"), VECTORS)
def test_published_vectors(algorithm: str, data: bytes, expected: str) -> None:
    needs(algorithm)
    assert digest.digest(algorithm, data) == Digest(algorithm, bytes.fromhex(expected))
    assert digest.digest(algorithm, data).hex == expected


def test_every_algorithm_has_a_vector() -> None:
    assert {algorithm for algorithm, _, _ in VECTORS} == set(NAMES)


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@given(pieces=st.lists(st.binary(max_size=300), max_size=8))
def test_pieces_hash_as_the_whole_does(
    algorithm: str, kind: type[bytes | bytearray | memoryview], pieces: list[bytes]
) -> None:
    """Whatever the buffers and the cuts, and although the value so far was asked for on the way."""
    needs(algorithm)
    running = digest.hasher(algorithm)
    for piece in pieces:
        running.update(kind(piece))
        assert len(running.digest()) == digest.size(algorithm)
    assert running.digest() == digest.digest(algorithm, b"".join(pieces)).value


@pytest.mark.parametrize("algorithm", NAMES)
def test_large_writable_buffers_hash_as_bytes_do(algorithm: str) -> None:
    """A buffer of many cache-sized pieces and one byte more."""
    needs(algorithm)
    data = bytes(range(251)) * 3000 + b"x"
    assert digest.digest(algorithm, memoryview(bytearray(data))) == digest.digest(algorithm, data)


def test_hashing_leaves_the_buffer_free() -> None:
    """A bytearray that is exported cannot be resized; after the update it can."""
    for algorithm in digest.available():
        buffer = bytearray(b"abc")
        running = digest.hasher(algorithm)
        running.update(buffer)
        buffer.extend(b"def")
        assert running.digest() == digest.digest(algorithm, b"abc").value


@pytest.mark.rule("V-DIGEST-2")
def test_sizes_are_known_for_every_name() -> None:
    assert {name: digest.size(name) for name in NAMES} == SIZES


@pytest.mark.rule("V-DIGEST-2")
def test_preference_is_fast_first_and_broken_last() -> None:
    order = digest.available()
    assert order[0] == "xxh3-128"
    assert order[-2:] == ("md5", "sha")
    assert order.index("sha-256") < order.index("sha-512")
    assert {place for place, name in enumerate(order) if name in digest.FAST} == set(
        range(len(digest.FAST & set(order)))
    )
    assert set(order) <= set(NAMES)
    assert len(set(order)) == len(order)


def test_fast_ones_are_those_for_the_event_loop() -> None:
    assert {"xxh3-128", "xxh3-64", "xxh64", "crc32c"} == digest.FAST


def names_in_a_process(prepare: str) -> list[str]:
    code = (
        f"import sys\n{prepare}\n"
        "from holdfast_protocol import digest\n"
        "for name in digest.available(): digest.digest(name, b'abc')\n"
        "for name in {'crc32c', 'blake3'} - set(digest.available()):\n"
        "    try: digest.hasher(name)\n"
        "    except digest.UnknownAlgorithm: assert digest.size(name) and digest.tus_name(name)\n"
        "    else: sys.exit('not listed but there')\n"
        "print(*digest.available())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.rule("V-DIGEST-2")
def test_the_list_is_what_imports() -> None:
    """Without the packages of the extra, their algorithms are neither listed nor made; the rest stays."""
    bare = names_in_a_process("sys.modules['blake3'] = sys.modules['google_crc32c'] = None")
    assert bare == [name for name in digest.available() if name not in {"blake3", "crc32c"}]
    assert len(bare) == 7


def test_slow_crc32c_is_not_offered() -> None:
    """The package falls back to pure Python with a warning; then it is as if it were not there, without one."""
    needs("crc32c")
    assert "crc32c" not in names_in_a_process("sys.modules['google_crc32c.cext'] = None")


@pytest.mark.parametrize("name", ["", "SHA-256", "sha256", "sha1", "md5 ", "xxh128", "crc32"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UnknownAlgorithm) as info:
        digest.hasher(name)
    assert info.value.algorithm == name
    assert "xxh3-128" in str(info.value)
    for call in (digest.size, digest.tus_name):
        with pytest.raises(UnknownAlgorithm):
            call(name)
    with pytest.raises(UnknownAlgorithm):
        digest.digest(name, b"")


def test_unknown_algorithm_is_a_lookup_error() -> None:
    assert issubclass(UnknownAlgorithm, LookupError)


@pytest.mark.rule("V-CHECKSUM-1")
def test_tus_names() -> None:
    assert {name: digest.tus_name(name) for name in NAMES} == TUS_NAMES
    assert {tus: digest.from_tus_name(tus) for tus in TUS_NAMES.values()} == {
        tus: name for name, tus in TUS_NAMES.items()
    }


@pytest.mark.rule("V-CHECKSUM-1")
@pytest.mark.parametrize("name", ["", "sha", "sha-1", "sha-256", "SHA1", "crc32", "sha512 "])
def test_what_tus_does_not_name(name: str) -> None:
    assert digest.from_tus_name(name) is None


def test_a_digest_is_a_value() -> None:
    value = Digest("md5", b"\x00\xff")
    assert value == Digest("md5", b"\x00\xff")
    assert value != Digest("sha", b"\x00\xff")
    assert len({value, Digest("md5", b"\x00\xff")}) == 1
    assert value.hex == "00ff"
    with pytest.raises(AttributeError):
        value.algorithm = "sha"  # type: ignore[misc]
