"""Files to send, a journal of the test's own, and a client with short limits."""

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast import AsyncClient, RetryPolicy, Timeouts
from holdfast.discovery import DISCOVERIES
from holdfast.limiter import BUDGET
from tests.client.draft_loopback import DraftLoopback
from tests.client.face import ClientFace
from tests.client.loopback import Loopback
from tests.support.scripted import Script, Scripted

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
Serve = Callable[[Script], Scripted]
OVER_BOTH = (
    "test_uploader",
    "test_uploader_changes",
    "test_uploader_faults",
    "test_uploader_limits",
    "test_downloader",
    "test_given",
    "test_streaming",
    "test_queue",
    "test_credentials",
)


@pytest.fixture
def make_file(tmp_path: Path, rng: random.Random) -> MakeFile:
    """A file of so many random bytes."""

    def make(size: int, name: str = "film.mkv") -> Path:
        path = tmp_path / name
        path.write_bytes(rng.randbytes(size))
        return path

    return make


@pytest.fixture(autouse=True)
def strangers() -> None:
    """A port of an earlier test's server may belong to another kind of server now, and retries cost no waiting."""
    DISCOVERIES.forget()
    BUDGET.tokens = float(BUDGET.CAPACITY)


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def tus_only() -> Iterator[Loopback]:
    with Loopback(parallel=False) as server:
        yield server


@pytest.fixture
def content(rng: random.Random) -> bytes:
    """A file to receive."""
    return rng.randbytes(6 * MIB + 11)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that follow a script."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(Scripted(script))


@pytest.fixture
def draft() -> Iterator[DraftLoopback]:
    with DraftLoopback() as server:
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`face` says which client a test is over; the tests of what both can do are over both."""
    if "face" in metafunc.fixturenames:
        both = metafunc.module.__name__.rpartition(".")[2] in OVER_BOTH
        metafunc.parametrize(
            "face", [AsyncClient, ClientFace] if both else [AsyncClient], ids=lambda each: each.__name__
        )


@pytest.fixture
def make_client(tmp_path: Path, face: Callable[..., AsyncClient]) -> Callable[..., AsyncClient]:
    """A client with a journal in the test's folder, and half a second until something counts as stalled."""

    def make(**more: object) -> AsyncClient:
        settings = {
            "state": tmp_path / "state",
            "retry": RetryPolicy(retries=0),
            "timeouts": Timeouts(connect=5, stall=0.5, response=0.5),
        }
        return face(**(settings | more))

    return make


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A PEM file with a key, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt install openssl")
    path = tmp_path / "server.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    named = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path)]
    subprocess.run([*made, *named], check=True, capture_output=True)
    return path
