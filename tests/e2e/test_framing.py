"""HTTP itself (protocol.md, section 7): what is refused below the application, and what stays of it.

Rule of this file: bytes are written by hand, and each test reads the connection to its end.
"""

import contextlib
import select
import time
from collections.abc import Iterator
from functools import partial

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, TUS_BODY, Speaker
from tests.support.waiting import eventually, scaled
from tests.support.wire import Connection, ConnectionLostError

BOUND = 128 * 1024
HOST = "Host: localhost"


@pytest.fixture
def server(workers: int, server: ServerProcess, two_workers: ServerProcess) -> ServerProcess:
    return server if workers == 1 else two_workers


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[Connection]:
    with Connection(server.url) as each:
        yield each


def head(method: str, target: str, *fields: str, version: str = "HTTP/1.1", host: str = HOST) -> bytes:
    lines = [f"{method} {target} {version}", *([host] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def lines(fields: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in fields.items()]


def path(url: str) -> str:
    return "/" + url.split("/", 3)[3]


def is_closed(connection: Connection) -> bool:
    """Nothing more comes: the connection is at its end."""
    with pytest.raises(ConnectionLostError):
        connection.read_head()
    return True


def send_all(connection: Connection, data: bytes) -> None:
    """As much as the server takes."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.send(data)


@pytest.fixture
def complete(speaker: Speaker) -> str:
    """The path of a complete upload of the bytes `0123456789`."""
    url = speaker.create(10, parallel=False)
    assert speaker.patch(url, 0, b"0123456789").status == 204
    return path(url)


@pytest.mark.parametrize(
    "wrong",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        head("GET", "/files\xff"),
        head("GET", "http://holdfast"),
        head("GET", "/files", version="HTTP/2.0"),
        head("GET", "/files", version="HTTP/1.2"),
        b"GET /files\r\n\r\n",
        head("GET", "/files", host=""),
        head("GET", "/files", HOST),
        head("GET", "/files", host="Host: a b"),
        head("GET", "/files", host="Host: a/b"),
        head("GET", "/files#part"),
        head("CONNECT", "/files"),
        head("CONNECT", "holdfast:80"),
        head("GET", "/files", "A : b"),
        head("GET", "/files", "A: b\r\n c"),
        head("GET", "/files", "A: b\x00"),
        head("POST", "/files", "Content-Length: 1", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("POST", "/files", "Content-Length: 1", "Content-Length: 2") + b"ab",
        head("POST", "/files", "Content-Length: +1") + b"a",
        head("POST", "/files", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
        head("POST", "/files", "Transfer-Encoding: chunked", version="HTTP/1.0") + b"0\r\n\r\n",
    ],
)
@pytest.mark.rule("H-HTTP-1", "H-HTTP-2")
def test_what_is_no_request_is_a_problem_and_the_end(connection: Connection, wrong: bytes) -> None:
    connection.send(wrong)
    answer = connection.read()
    assert answer.verdict == (400, "malformed-request")
    assert (answer["tus-resumable"], answer["connection"]) == ("1.0.0", "close")
    assert is_closed(connection)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.rule("H-HTTP-1", "H-PIPE-1")
def test_requests_before_the_garbage_are_answered_first(connection: Connection, complete: str, at_once: bool) -> None:
    for piece in [3 * head("GET", complete) + b"\x00\x01"] if at_once else [3 * head("GET", complete), b"\x00\x01"]:
        connection.send(piece)
    assert [connection.read().body for _ in range(3)] == [b"0123456789"] * 3
    assert connection.read().verdict == (400, "malformed-request")
    assert is_closed(connection)


@pytest.mark.rule("H-HTTP-1")
def test_nothing_is_written_into_an_answer_that_has_begun(server: ServerProcess, speaker: Speaker) -> None:
    """The client does not read its download for now, so it is still on its way when the garbage comes."""
    data = bytes(range(256)) * (64 * 1024)
    url = speaker.create(len(data), parallel=False)
    assert speaker.patch(url, 0, data).status == 204
    with Connection(server.url, receive_buffer=65536) as connection:
        connection.send(head("GET", path(url)))
        first = connection.socket.recv(1000)
        connection.send(b"\x00 garbage")
        rest = b"".join(iter(lambda: connection.socket.recv(1 << 20), b""))
    whole = (first + rest).split(b"\r\n\r\n", 1)[1]
    assert whole[: len(data)] == data
    assert whole[len(data) :].startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("bad", [b"ZZ\r\n", b"-1\r\nx\r\n0\r\n\r\n", b"3\r\nabcdef\r\n", b"1" * 20 + b"\r\n"])
@pytest.mark.rule("H-HTTP-1", "T-PATCH-4", "I-APPEND-5")
@pytest.mark.parametrize("draft", [False, True])
def test_a_bad_chunk_size_cuts_a_body_off(speaker: Speaker, bad: bytes, at_once: bool, draft: bool) -> None:
    """The bytes before it are kept, and the next PATCH goes on behind them."""
    url = speaker.create(100, parallel=False)
    fields = (
        {"Content-Type": "application/partial-upload", "Upload-Complete": "?0", "Upload-Draft-Interop-Version": "8"}
        if draft
        else TUS_BODY
    )
    with Connection(speaker.url) as connection:
        begin = head("PATCH", path(url), "Upload-Offset: 0", "Transfer-Encoding: chunked", *lines(fields))
        if at_once:
            connection.send(begin + b"5\r\nhello\r\n" + bad)
        else:
            connection.send(begin)
            connection.send(b"5\r\nhello\r\n")
            eventually(lambda: speaker.head(url).offset == 5, what="the first five bytes")
            connection.send(bad)
        answer = connection.read()
        assert answer.verdict == (400, "malformed-request")
        assert is_closed(connection)
    kept = 5 + 3 * bad.startswith(b"3")
    eventually(lambda: speaker.head(url).offset == kept, what="the bytes before the bad chunk")
    assert speaker.patch(url, kept, b"x" * (100 - kept)).status == 204


@pytest.mark.rule("H-HTTP-1", "T-CHECKSUM-1")
def test_a_bad_chunk_size_discards_what_has_a_checksum(speaker: Speaker) -> None:
    url = speaker.create(5, parallel=False)
    fields = {**TUS_BODY, "Upload-Offset": "0", "Upload-Checksum": "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00="}
    with Connection(speaker.url) as connection:
        connection.send(head("PATCH", path(url), "Transfer-Encoding: chunked", *lines(fields)) + b"5\r\nhello\r\nZ\r\n")
        assert connection.read().verdict == (400, "malformed-request")
        assert is_closed(connection)
    assert speaker.head(url).offset == 0
    assert speaker.patch(url, 0, b"hello", Upload_Checksum=fields["Upload-Checksum"]).status == 204


@pytest.mark.rule("H-UPGRADE-1")
def test_an_upgrade_is_passed_over(connection: Connection, speaker: Speaker) -> None:
    """Clients that would like HTTP/2 ask so, also with a body; requests behind that one are answered too."""
    url = speaker.create(10, parallel=False)
    upgrade = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]
    patch = head("PATCH", path(url), "Upload-Offset: 0", "Content-Length: 10", *upgrade, *lines(TUS_BODY))
    connection.send(patch + b"01234")
    connection.send(b"56789" + head("GET", path(url), *upgrade) + head("GET", path(url)))
    assert connection.read("PATCH").status == 204
    assert [connection.read().body for _ in range(2)] == [b"0123456789"] * 2


@pytest.mark.parametrize("count", [100, 5000])
@pytest.mark.rule("H-PIPE-1")
def test_pipelined_requests(connection: Connection, complete: str, count: int) -> None:
    """They are answered in order; far too many at once are answered in part, and then there is an end."""
    send_all(connection, b"".join(head("GET", complete, f"Range: bytes={n % 10}-{n % 10}") for n in range(count)))
    answered = 0
    try:
        while answered < count:
            answer = connection.read()
            assert (answer.status, answer.body) == (206, b"%d" % (answered % 10))
            answered += 1
    except ConnectionLostError:
        pass
    assert answered == count if count == 100 else 100 <= answered < count


@pytest.mark.rule("H-PIPE-1")
def test_a_lost_connection_ends_the_request_that_runs(start_server: StartServer) -> None:
    """Also when others wait behind it: nothing is written to a connection that is gone."""
    server = start_server()
    data = bytes(range(256)) * (64 * 1024)
    with Speaker(server.url) as speaker:
        url = speaker.create(len(data), parallel=False)
        assert speaker.patch(url, 0, data).status == 204
        for _ in range(5):
            with Connection(server.url, receive_buffer=65536) as connection:
                connection.send(3 * head("GET", path(url)))
                assert connection.read_head().status == 200
                connection.reset()
            assert speaker.head(url).status == 200
    server.stop()
    assert "Traceback" not in server.read_log()


HEADS = {
    "a field": (head("GET", "/files")[:-2] + b"X: ", b"x"),
    "many fields": (head("GET", "/files")[:-2], b"X: y\r\n"),
    "the target": (b"GET /files/", b"x"),
    "a field's name": (head("GET", "/files")[:-2], b"x"),
}
BODY = head("PATCH", "/files/{id}", "Upload-Offset: 0", "Transfer-Encoding: chunked", *lines(TUS_BODY))
BODIES = {
    "an extension": (BODY + b"5\r\nhello\r\n5;", b"x"),
    "a chunk's size": (BODY + b"5\r\nhello\r\n", b"0"),
    "a trailer": (BODY + b"5\r\nhello\r\n0\r\nX: ", b"x"),
    "trailers": (BODY + b"5\r\nhello\r\n0\r\n", b"X: y\r\n"),
}


@pytest.mark.parametrize("name", [*HEADS, *BODIES])
@pytest.mark.parametrize("piece", [1024, 1 << 20])
@pytest.mark.rule("H-HEAD-1", "V-PROBLEM-1")
def test_what_is_no_body_has_a_bound(connection: Connection, speaker: Speaker, name: str, piece: int) -> None:
    """The answer comes after little more than the bound, though the line would never have ended."""
    url = speaker.create(100, parallel=False)
    begin, unit = {**HEADS, **BODIES}[name]
    connection.send(begin.replace(b"/files/{id}", path(url).encode()))
    more = (unit * (piece // len(unit) + 1))[: piece // len(unit) * len(unit)]
    sent = 0
    while sent <= 2 * BOUND or piece < BOUND:
        send_all(connection, more)
        sent += len(more)
        if select.select([connection.socket], [], [], 0.01 if sent > BOUND else 0)[0]:
            break
        assert sent < 16 * BOUND
    answer = connection.read()
    assert answer.verdict == (431, "headers-too-large")
    assert is_closed(connection)
    if name in BODIES:
        eventually(lambda: speaker.head(url).offset == 5, what="the body before it")


@pytest.mark.rule("H-HEAD-1")
def test_long_heads_of_many_connections_take_no_memory(start_server: StartServer) -> None:
    server = start_server()
    before = max(server.resident().values())
    connections = [Connection(server.url) for _ in range(40)]
    try:
        for each in connections:
            each.send(b"GET /files HTTP/1.1\r\nHost: localhost\r\nX: ")
            send_all(each, b"x" * (8 << 20))
        assert [each.read().status for each in connections] == [431] * 40
        assert max(server.resident().values()) - before < 64 << 20
    finally:
        for each in connections:
            each.close()


@pytest.mark.parametrize("begun", [b"", b"\r\n\r\n", b"G", b"GET /files HTTP/1.1\r\nHost: localhost\r\n"])
@pytest.mark.rule("H-HEAD-2")
def test_a_head_that_does_not_end(start_server: StartServer, begun: bytes) -> None:
    """Also when it goes on, a byte at a time, and also after a request that was answered."""
    server = start_server("--stall-timeout", "0.5s")
    for earlier in (b"", head("GET", "/health/live")):
        with Connection(server.url) as connection:
            if earlier:
                connection.send(earlier)
                assert connection.read().status == 200
                if not begun:
                    continue  # an idle connection is kept for longer
            connection.send(begun)
            connection.socket.settimeout(0.05)
            deadline = time.monotonic() + scaled(10)
            received, ended = b"", False
            while not ended and time.monotonic() < deadline:
                if begun.endswith(b": x\r\n"):
                    send_all(connection, b"X: y\r\n")
                try:
                    data = connection.socket.recv(65536)
                    received, ended = received + data, not data
                except TimeoutError:
                    pass
                except ConnectionResetError:
                    ended = True
            assert ended
            assert received.startswith(b"HTTP/1.1 408 ") if begun.startswith(b"G") else received == b""


def arrived(speaker: Speaker, url: str, offset: int) -> bool:
    return speaker.head(url).offset == offset


def later_than(moment: float) -> bool:
    return time.monotonic() > moment


@pytest.mark.rule("H-HEAD-2")
def test_a_running_request_has_no_such_limit(start_server: StartServer) -> None:
    """A body that keeps coming, for longer than a head may take."""
    server = start_server("--stall-timeout", "1s", "--min-speed", "1")
    with Speaker(server.url) as speaker, Connection(server.url) as connection:
        url = speaker.create(60, parallel=False)
        fields = {**TUS_BODY, "Upload-Offset": "0", "Content-Length": "60"}
        begun, sent = time.monotonic(), 0
        connection.begin("PATCH", url, fields)
        while sent < 59 and time.monotonic() < begun + 2:
            connection.send(b"x")
            sent += 1
            eventually(partial(arrived, speaker, url, sent), what="the byte")
            eventually(partial(later_than, begun + sent / 20), what="the time of the next byte")
        connection.send(b"x" * (60 - sent))
        assert connection.read().status == 204


@pytest.mark.rule("T-METHOD-1")
def test_a_head_by_override_has_no_length_of_a_body(speaker: Speaker, complete: str) -> None:
    """On the wire it is a POST, so a length would be that of a body, and the next answer would be taken for it."""
    with Connection(speaker.url) as connection:
        for target, status in ((complete, 200), ("/api/uploads", 200), ("/files/none", 404)):
            answer = connection.request("POST", target, {**TUS, "X-HTTP-Method-Override": "HEAD"}, b"")
            assert (answer.status, answer["content-length"], answer.body) == (status, "0", b"")
        assert connection.request("GET", complete).body == b"0123456789"
