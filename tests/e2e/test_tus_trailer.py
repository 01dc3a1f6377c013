"""tus 1.0.0 over the wire: checksum-trailer, a checksum that follows the body."""

import random
from pathlib import Path

import anyio
import pytest
from starlette.types import Message
from tests.conftest import StartServer
from tests.support.speaker import TUS_BODY, Speaker, b64, raw_digest
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection, ConnectionLostError

from holdfast_server import create_app

ANNOUNCED = {"Transfer-Encoding": "chunked", "Trailer": "Upload-Checksum"}


def checksum(data: bytes) -> str:
    return f"Upload-Checksum: sha1 {b64(raw_digest('sha', data))}\r\n"


def send(
    speaker: Speaker,
    target: str,
    data: bytes,
    trailer: str,
    *,
    method: str = "PATCH",
    at_once: bool = True,
    **other: str,
) -> Answer:
    """A tus body in one chunk with a trailer behind it, in one write or in several."""
    fields = {**TUS_BODY, **ANNOUNCED, **{name.replace("_", "-"): value for name, value in other.items()}}
    fields = {name: value for name, value in fields.items() if value}
    body = f"{len(data):x}\r\n".encode() + data + b"\r\n" if data else b""
    with Connection(speaker.url) as connection:
        if at_once:
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            path = target.removeprefix(speaker.url)
            first = f"{method} {path} HTTP/1.1\r\nHost: {connection.host}\r\n{head}\r\n".encode()
            connection.send(first + body + f"0\r\n{trailer}\r\n".encode())
        else:
            connection.begin(method, target, fields)
            for piece in (body, b"0\r\n", trailer.encode() + b"\r\n"):
                connection.send(piece)
        return connection.read()


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.rule("T-TRAILER-1", "T-TRAILER-2")
def test_a_checksum_may_follow_the_body(speaker: Speaker, rng: random.Random, at_once: bool) -> None:
    """A wrong one changes nothing, a right one is stored."""
    assert "checksum-trailer" in speaker.request("OPTIONS", "/files")["tus-extension"].split(",")
    data = rng.randbytes(300_000)
    upload = speaker.create(len(data), parallel=False)
    answer = send(speaker, upload, data[:200_000], checksum(data), at_once=at_once, Upload_Offset="0")
    assert answer.verdict == (460, "checksum-mismatch")
    assert speaker.head(upload).offset == 0
    answer = send(speaker, upload, data[:200_000], checksum(data[:200_000]), at_once=at_once, Upload_Offset="0")
    assert (answer.status, answer.offset) == (204, 200_000)
    answer = send(speaker, upload, data[200_000:], checksum(data[200_000:]), at_once=at_once, Upload_Offset="200000")
    assert (answer.status, answer.offset) == (204, 300_000)
    assert speaker.get(upload).body == data


@pytest.mark.parametrize(
    ("trailer", "verdict"),
    [
        ("", (400, "missing-field")),
        ("Other: x\r\n", (400, "missing-field")),
        ("Upload-Checksum: sha1\r\n", (400, "malformed-field")),
        ("Upload-Checksum: sha1 AAAA\r\n", (400, "malformed-field")),
        ("Upload-Checksum: crc7 AAAA\r\n", (400, "unknown-algorithm")),
        (2 * checksum(b"hello"), (400, "malformed-field")),
    ],
)
@pytest.mark.rule("T-TRAILER-2")
def test_without_the_checksum_that_was_announced_nothing_is_stored(
    speaker: Speaker, trailer: str, verdict: tuple[int, str]
) -> None:
    upload = speaker.create(5, parallel=False)
    assert send(speaker, upload, b"hello", trailer, Upload_Offset="0").verdict == verdict
    assert speaker.head(upload).offset == 0
    assert send(speaker, upload, b"hello", checksum(b"hello"), Upload_Offset="0").status == 204


@pytest.mark.rule("T-TRAILER-2")
def test_a_body_that_is_cut_off_before_its_trailer_is_discarded(speaker: Speaker) -> None:
    upload = speaker.create(5, parallel=False)
    with Connection(speaker.url) as connection:
        connection.begin("PATCH", upload, {**TUS_BODY, **ANNOUNCED, "Upload-Offset": "0"})
        connection.send(b"5\r\nhello\r\n0\r\n")
        connection.half_close()
        with pytest.raises(ConnectionLostError):
            connection.read()
    # The server may still be at it, and then whichever of the two comes later fences the other one (T-PATCH-3).
    whole = checksum(b"hello").strip().split(": ")[1]
    eventually(lambda: speaker.patch(upload, 0, b"hello", Upload_Checksum=whole).status == 204)


@pytest.mark.rule("T-TRAILER-1")
def test_before_or_after_but_not_both(speaker: Speaker) -> None:
    """Refused before the body is read."""
    upload = speaker.create(5, parallel=False)
    leading = checksum(b"hello").strip().split(": ")[1]
    with Connection(speaker.url) as connection:
        fields = {**TUS_BODY, **ANNOUNCED, "Upload-Offset": "0", "Upload-Checksum": leading}
        connection.begin("PATCH", upload, fields)
        assert connection.read().verdict == (400, "conflicting-fields")
    assert speaker.head(upload).offset == 0


@pytest.mark.rule("T-TRAILER-1")
@pytest.mark.parametrize("at_once", [True, False])
def test_a_trailer_is_no_field_of_the_head(speaker: Speaker, at_once: bool) -> None:
    """Whatever is behind the body, and however early it comes: it does not steer the request."""
    upload = speaker.create(5, parallel=False)
    trailer = checksum(b"wrong") + "Upload-Offset: 3\r\nX-HTTP-Method-Override: DELETE\r\nTus-Resumable: 0.2.2\r\n"
    answer = send(speaker, upload, b"hello", trailer, at_once=at_once, Upload_Offset="0", Trailer="")
    assert (answer.status, answer.offset) == (204, 5)
    assert speaker.get(upload).body == b"hello"


@pytest.mark.rule("T-TRAILER-2", "T-CREATE-4", "T-DEFER-2")
def test_creation_with_a_trailer(speaker: Speaker) -> None:
    """If the body is refused, no upload stays behind; an empty body has a checksum too."""
    answer = send(speaker, "/files", b"hello", checksum(b"other"), method="POST", Upload_Length="5")
    assert answer.verdict == (460, "checksum-mismatch")
    assert "location" not in answer
    answer = send(speaker, "/files", b"hello", checksum(b"hello"), method="POST", Upload_Defer_Length="1")
    assert (answer.status, answer.offset) == (201, 5)
    upload = speaker.url + answer["location"]
    length = {"Upload_Offset": "5", "Upload_Length": "5"}
    assert send(speaker, upload, b"", checksum(b"x"), **length).status == 460  # type: ignore[arg-type]
    assert "upload-length" not in speaker.head(upload)
    assert send(speaker, upload, b"", checksum(b""), **length).status == 204  # type: ignore[arg-type]
    assert speaker.get(upload).body == b"hello"


@pytest.mark.rule("T-TRAILER-1")
def test_the_next_request_of_a_connection_has_its_own(start_server: StartServer) -> None:
    """Two requests in one write, each with a trailer."""
    server = start_server()
    with Speaker(server.url) as speaker, Connection(server.url) as connection:
        upload = speaker.create(10, parallel=False)
        raw = b""
        for offset, data in ((0, b"hello"), (5, b"world")):
            fields = {**TUS_BODY, **ANNOUNCED, "Upload-Offset": str(offset)}
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            path = upload.removeprefix(speaker.url)
            raw += f"PATCH {path} HTTP/1.1\r\nHost: {connection.host}\r\n{head}\r\n5\r\n".encode()
            raw += data + f"\r\n0\r\n{checksum(data)}\r\n".encode()
        connection.send(raw)
        assert [connection.read().offset for _ in range(2)] == [5, 10]
        assert speaker.get(upload).body == b"helloworld"


@pytest.mark.rule("T-TRAILER-1")
@pytest.mark.anyio
async def test_it_is_not_offered_where_it_cannot_be_kept(tmp_path: Path) -> None:
    """An ASGI server that knows nothing of trailers: not announced, and refused before the body is read."""
    app = create_app(tmp_path)

    async def ask(method: str, fields: dict[str, str]) -> Message:
        sent: list[Message] = []

        async def receive() -> Message:
            raise AssertionError("the body was read")

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": "/files",
            "root_path": "",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        }
        await app(scope, receive, send)
        return sent[0]

    async with app.router.lifespan_context(app):
        with anyio.fail_after(20):
            options = await ask("OPTIONS", {})
            refused = await ask("POST", {**TUS_BODY, **ANNOUNCED, "Upload-Length": "5"})
    extensions = dict(options["headers"])[b"tus-extension"].split(b",")
    assert b"checksum" in extensions
    assert b"checksum-trailer" not in extensions
    assert refused["status"] == 400
