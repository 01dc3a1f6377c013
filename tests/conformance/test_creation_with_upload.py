"""creation-with-upload (S43 to S46)."""

import pytest

from tests.conformance.subject import BODY, TUS, Subject, checksum
from tests.support.wire import Answer


def _create(subject: Subject, length: int, body: bytes, **fields: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return subject.request("POST", subject.url, {**BODY, "Upload-Length": str(length), **named}, body)


@pytest.mark.holds("S43", "S44", "S45")
@pytest.mark.parametrize("size", [1, 5000, 300_000])
def test_the_first_bytes_come_with_the_creation(subject: Subject, size: int) -> None:
    """All of them are taken, the 201 says so, and PATCH goes on from there."""
    data = bytes(each % 251 for each in range(300_000))
    answer = _create(subject, len(data), data[:size])
    assert answer.status == 201
    assert answer.offset == size
    upload = subject.where(answer)
    assert subject.offset(upload) == size
    if size < len(data):
        assert subject.patch(upload, size, data[size:]).status == 204
    assert subject.content(upload) in (None, data)


@pytest.mark.holds("S43", "S45")
def test_a_creation_with_a_body_of_unknown_length(subject: Subject) -> None:
    with subject.connect() as connection:
        connection.begin("POST", subject.url, {**BODY, "Upload-Length": "11", "Transfer-Encoding": "chunked"})
        connection.send(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
        answer = connection.read()
    assert answer.status == 201
    assert answer.offset == 11


@pytest.mark.holds("S43")
def test_a_body_of_another_type_does_not_count(subject: Subject) -> None:
    answer = subject.request("POST", subject.url, {**TUS, "Upload-Length": "5", "Content-Type": "text/plain"}, b"hello")
    if answer.status == 201:
        assert subject.offset(subject.where(answer)) == 0
    else:
        assert 400 <= answer.status < 500


@pytest.mark.holds("S43")
def test_a_body_beyond_the_length_is_not_taken(subject: Subject) -> None:
    answer = _create(subject, 3, b"hello")
    if answer.status == 201:
        assert answer.offset <= 3
        assert subject.offset(subject.where(answer)) <= 3
    else:
        assert 400 <= answer.status < 500


@pytest.mark.holds("S43", needs=("checksum",))
def test_a_checksum_of_the_first_bytes_is_verified(subject: Subject) -> None:
    """Rules like those for PATCH: a wrong one takes no byte, a right one does no harm."""
    answer = _create(subject, 10, b"hello", Upload_Checksum=checksum("sha1", b"other"))
    if answer.status == 201:
        assert subject.offset(subject.where(answer)) == 0
    else:
        assert 400 <= answer.status < 500
    answer = _create(subject, 10, b"hello", Upload_Checksum=checksum("sha1", b"hello"))
    assert (answer.status, answer.offset) == (201, 5)


@pytest.mark.holds("S43", needs=("creation-defer-length",))
def test_the_first_bytes_of_an_unknown_length(subject: Subject) -> None:
    answer = subject.request("POST", subject.url, {**BODY, "Upload-Defer-Length": "1"}, b"hello")
    assert (answer.status, answer.offset) == (201, 5)
    assert subject.head(subject.where(answer))["upload-defer-length"] == "1"


@pytest.mark.holds("S46")
def test_a_body_that_waits_is_asked_for(subject: Subject) -> None:
    """100 (or the last word) comes while the client still holds the body back."""
    with subject.connect() as connection:
        fields = {**BODY, "Upload-Length": "5", "Content-Length": "5", "Expect": "100-continue"}
        connection.begin("POST", subject.url, fields)
        assert connection.socket.recv(1) == b"H", "the server waits for the body, and so does the client"
        connection.send(b"hello")
        rest = b"H"
        while b" 201 " not in rest:
            more = connection.socket.recv(65536)
            assert more, "the connection was closed before the answer"
            rest += more
    assert rest.startswith((b"HTTP/1.1 100 ", b"HTTP/1.1 201 "))


@pytest.mark.holds("S46")
@pytest.mark.parametrize("wrong", [{"Tus-Resumable": "0.2.2"}, {"Upload-Length": "abc"}], ids=["version", "length"])
def test_a_refusal_comes_before_the_body(subject: Subject, wrong: dict[str, str]) -> None:
    fields = {**BODY, "Upload-Length": "5", "Content-Length": "5", "Expect": "100-continue", **wrong}
    with subject.connect() as connection:
        connection.begin("POST", subject.url, fields)
        answer = connection.read()
    assert answer.interim == []
    assert 400 <= answer.status < 500
