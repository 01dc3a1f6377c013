"""104 Upload Resumption Supported: who gets one, and what it says."""

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.conftest import StartServer
from tests.support.drafts import NEWEST, VERSIONS, append, create, is_complete, limits
from tests.support.process import ServerProcess
from tests.support.speaker import TUS_BODY, Speaker
from tests.support.waiting import scaled
from tests.support.wire import Answer, Connection

MIB = 1024 * 1024
EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[Connection]:
    with Connection(server.url) as each:
        yield each


class Trickle:
    """Sends a kibibyte of zeros every few milliseconds on a connection, until it is told to stop."""

    def __init__(self, connection: Connection) -> None:
        self.sent = 0
        self._connection = connection
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Trickle":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(scaled(10))
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.005):
                self._connection.send(bytes(1024))
                self.sent += 1024
        except OSError:
            pass  # the server is gone


@EVERY_VERSION
@pytest.mark.rule("I-INTERIM-1", "I-INTERIM-2")
def test_the_url_is_told_before_the_body(connection: Connection, rng: random.Random, version: int) -> None:
    data = rng.randbytes(100_000)
    connection.begin("POST", "/files", create(True, version, Content_Length=str(len(data))))
    told = connection.read_head()
    assert told.status == 104
    assert told["upload-draft-interop-version"] == str(version)
    if version >= 6:
        assert set(limits(told)) == {"max-size", "expires" if version == 6 else "max-age"}
    connection.send(data)
    answer = connection.read()
    assert (answer.status, is_complete(answer, version)) == (201, True)
    assert answer["location"] == told["location"]
    assert connection.request("GET", told["location"]).body == data


@pytest.mark.rule("I-INTERIM-1", "I-VERSION-1")
def test_nobody_else_is_told(connection: Connection) -> None:
    """Clients that know no 1xx but 100 take a 104 for the answer."""
    for fields in (
        create(True, None),
        create(True, None, Upload_Draft_Interop_Version="10"),
        {**TUS_BODY, "Upload-Length": "5"},
    ):
        answer = connection.request("POST", "/files", fields, b"whole")
        assert (answer.status, answer.interim) == (201, [])


@pytest.mark.rule("I-INTERIM-1")
def test_a_client_of_http_1_0_is_not_told(connection: Connection) -> None:
    """RFC 9110, section 15.2: no interim answer to a client of HTTP/1.0."""
    head = "".join(f"{name}: {value}\r\n" for name, value in create(True, Content_Length="5").items())
    connection.send(f"POST /files HTTP/1.0\r\nHost: {connection.host}\r\n{head}\r\nwhole".encode())
    answer = connection.read()
    assert (answer.status, answer.interim) == (201, [])


@pytest.mark.rule("I-INTERIM-4")
def test_who_waits_for_100_gets_it_too(connection: Connection) -> None:
    connection.begin("POST", "/files", create(True, Content_Length="5", Expect="100-continue"))
    assert [connection.read_head().status for _ in range(2)] == [104, 100]
    connection.send(b"whole")
    assert connection.read().status == 201


@pytest.mark.rule("I-INTERIM-1")
def test_a_creation_that_is_refused_is_not_announced(connection: Connection) -> None:
    answer = connection.request("POST", "/files", create(True, Upload_Length="6"), b"whole")
    assert (answer.verdict, answer.interim) == ((400, "inconsistent-upload-length"), [])


@pytest.mark.rule("I-INTERIM-3")
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_progress_of_a_long_body(speaker: Speaker, connection: Connection, method: str) -> None:
    """Offsets grow, never run ahead of what was sent, and come without Location."""
    size = 64 * MIB
    target = "/files"
    if method == "PATCH":
        target = speaker.request("POST", "/files", create(False, Upload_Length=str(size)), b"")["location"]
        connection.begin("PATCH", target, append(0, True, Content_Length=str(size)))
    else:
        connection.begin("POST", target, create(True, Content_Length=str(size)))
        target = connection.read_head()["location"]
    offsets = [0]
    with Trickle(connection) as trickle:
        for _ in range(2):
            told = connection.read_head()
            assert told.status == 104
            assert told["upload-draft-interop-version"] == str(NEWEST)
            assert "location" not in told
            assert offsets[-1] < told.offset <= trickle.sent + 1024
            offsets.append(told.offset)
    assert speaker.head(target).offset >= offsets[-1]


@pytest.mark.rule("I-INTERIM-3")
def test_progress_is_a_promise(start_server: StartServer) -> None:
    """kill -9 right after it was told: every byte that was told of is there."""
    server = start_server()
    with Connection(server.url) as connection:
        connection.begin("POST", "/files", create(True, Content_Length=str(64 * MIB)))
        url = server.url + connection.read_head()["location"]
        with Trickle(connection):
            told = connection.read_head().offset
            server.kill()
    server.start()
    with Speaker(server.url) as speaker:
        assert speaker.head(url.replace(url.split("/files")[0], server.url)).offset >= told > 0


@pytest.mark.rule("I-INTERIM-3")
def test_version_3_knows_no_progress(server: ServerProcess, speaker: Speaker) -> None:
    """By the time that version 5 was told twice, version 3 would have been told as well."""
    found: dict[int, Connection] = {}
    with ExitStack() as stack:
        trickles: list[Trickle] = []
        for version in (3, 5):
            found[version] = stack.enter_context(Connection(server.url))
            found[version].begin("POST", "/files", create(True, version, Content_Length=str(64 * MIB)))
            assert "location" in found[version].read_head()
            trickles.append(stack.enter_context(Trickle(found[version])))
        told: list[Answer] = [found[5].read_head() for _ in range(2)]
        assert [answer.status for answer in told] == [104, 104]
        found[3].socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            found[3].socket.recv(1)
        found[3].socket.settimeout(scaled(20))
