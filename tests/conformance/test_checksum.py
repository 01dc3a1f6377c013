"""checksum and checksum-trailer (S53 to S61)."""

import hashlib
import re
from urllib.parse import urlsplit

import pytest

from tests.conformance.conftest import not_offered
from tests.conformance.subject import BODY, Subject, b64, checksum, listed
from tests.support.wire import Answer

DATA = b"hello world"


def _trailed(subject: Subject, upload: str, value: str, *, at_once: bool = False) -> Answer:
    """A PATCH whose checksum comes after its body, in one piece with the head or after it."""
    lines = [
        f"PATCH {urlsplit(upload).path} HTTP/1.1",
        f"Host: {urlsplit(upload).netloc}",
        *(f"{name}: {text}" for name, text in BODY.items()),
        "Upload-Offset: 0",
        "Transfer-Encoding: chunked",
        "Trailer: Upload-Checksum",
    ]
    head = "\r\n".join([*lines, "", ""]).encode()
    rest = b"%x\r\n%s\r\n0\r\nUpload-Checksum: %s\r\n\r\n" % (len(DATA), DATA, value.encode())
    with subject.connect() as connection:
        for piece in (head + rest,) if at_once else (head, rest):
            connection.send(piece)
        return connection.read()


@pytest.mark.holds("S53", needs=("creation",))
def test_verifying_is_announced(subject: Subject) -> None:
    upload = subject.create(20)
    answer = subject.patch(upload, 0, DATA, Upload_Checksum=checksum("sha1", b"other"))
    works = answer.status == 460 and subject.offset(upload) == 0
    if not works and not subject.offers("checksum"):
        not_offered("checksum")
    assert (works, subject.offers("checksum")) == (True, True)


@pytest.mark.holds("S60", needs=("creation",))
@pytest.mark.parametrize("at_once", [False, True])
def test_verifying_trailers_is_announced(subject: Subject, at_once: bool) -> None:
    """A wrong one is 460 and nothing is stored, a right one is 204, in however many packets it came."""
    upload = subject.create(20)
    answer = _trailed(subject, upload, checksum("sha1", b"other"), at_once=at_once)
    works = answer.status == 460 and subject.offset(upload) == 0
    if not works and not subject.offers("checksum-trailer"):
        not_offered("checksum-trailer")
    assert (works, subject.offers("checksum-trailer", "checksum")) == (True, True)
    answer = _trailed(subject, upload, checksum("sha1", DATA), at_once=at_once)
    assert (answer.status, answer.offset) == (204, len(DATA))


@pytest.mark.holds("S54", "S56", needs=("creation", "checksum-trailer"))
def test_a_trailer_that_cannot_be_used_stores_nothing(subject: Subject) -> None:
    for value in ("sha1 !!!", "no-such-algorithm YQ=="):
        upload = subject.create(20)
        assert 400 <= _trailed(subject, upload, value).status < 500
        assert subject.offset(upload) == 0


@pytest.mark.holds("S54", "S55", "S61", needs=("creation",))
def test_a_right_checksum(subject: Subject) -> None:
    """It is that of the body of its own request, and not of all bytes so far."""
    upload = subject.create(len(DATA))
    for start, end in ((0, 6), (6, len(DATA))):
        answer = subject.patch(upload, start, DATA[start:end], Upload_Checksum=checksum("sha1", DATA[start:end]))
        assert (answer.status, answer.offset) == (204, end)
    assert subject.content(upload) in (None, DATA)


@pytest.mark.holds("S55", "S56", needs=("creation",))
@pytest.mark.parametrize("chunked", [False, True])
def test_a_wrong_checksum_discards_the_body(subject: Subject, chunked: bool) -> None:
    """The offset stays, and the right bytes can be sent there."""
    upload = subject.create(len(DATA))
    assert subject.patch(upload, 0, DATA[:3]).status == 204
    fields = {**BODY, "Upload-Offset": "3", "Upload-Checksum": checksum("sha1", b"other")}
    if chunked:
        with subject.connect() as connection:
            connection.begin("PATCH", upload, {**fields, "Transfer-Encoding": "chunked"})
            connection.send(b"8\r\nXXXXXXXX\r\n0\r\n\r\n")
            answer = connection.read()
    else:
        answer = subject.request("PATCH", upload, fields, b"X" * 8)
    assert answer.status == 460
    assert subject.offset(upload) == 3
    assert subject.patch(upload, 3, DATA[3:]).status == 204
    assert subject.content(upload) in (None, DATA)


@pytest.mark.holds("S54", needs=("creation",))
def test_a_body_that_is_cut_off_cannot_be_verified(subject: Subject) -> None:
    """Not one byte of it counts; the rest of the promised body never comes."""
    upload = subject.create(1_000_000)
    with subject.connect() as connection:
        fields = {**BODY, "Upload-Offset": "0", "Content-Length": "500000"}
        connection.begin("PATCH", upload, {**fields, "Upload-Checksum": checksum("sha1", bytes(500_000))})
        connection.send(bytes(400_000))
        assert subject.offset(upload) == 0
    assert subject.offset(upload) == 0
    answer = subject.patch(upload, 0, DATA, Upload_Checksum=checksum("sha1", DATA))
    assert (answer.status, answer.offset) == (204, len(DATA))


@pytest.mark.holds("S55", "S56", needs=("creation",))
def test_an_unsupported_algorithm(subject: Subject) -> None:
    upload = subject.create(20)
    answer = subject.patch(upload, 0, DATA, Upload_Checksum="no-such-algorithm YQ==")
    assert answer.status == 400
    assert subject.offset(upload) == 0


@pytest.mark.holds("S61", needs=("creation",))
@pytest.mark.parametrize("value", ["sha1", "sha1 !!!", "sha1 YQ==", ""])
def test_a_malformed_checksum_is_refused(subject: Subject, value: str) -> None:
    """No value, no base64, and not the length of the algorithm: none of them can be that of the body."""
    upload = subject.create(20)
    answer = subject.patch(upload, 0, DATA, Upload_Checksum=value)
    assert 400 <= answer.status < 500
    assert subject.offset(upload) == 0


@pytest.mark.holds("S57", "S58", "S59")
def test_the_algorithms_are_told(subject: Subject) -> None:
    names = listed(subject.request("OPTIONS", subject.url)["tus-checksum-algorithm"])
    assert "sha1" in names
    for name in names:
        assert re.fullmatch(r"[!-+\--@\[-~]+", name), "not ASCII, or with an upper-case letter"


@pytest.mark.holds("S54", "S59", needs=("creation",))
def test_each_algorithm_that_is_told_is_verified(subject: Subject) -> None:
    """Those that Python knows by the same name."""
    known = [name for name in subject.offer.algorithms if name in hashlib.algorithms_available]
    assert known
    for name in known:
        upload = subject.create(len(DATA))
        size = hashlib.new(name, usedforsecurity=False).digest_size
        if size:
            assert subject.patch(upload, 0, DATA, Upload_Checksum=f"{name} {b64(bytes(size))}").status == 460
            assert subject.patch(upload, 0, DATA, Upload_Checksum=checksum(name, DATA)).status == 204
