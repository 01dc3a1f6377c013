"""The core protocol: HEAD, PATCH, OPTIONS, versions and methods (S1 to S25)."""

import re

import pytest

from tests.conformance.rules import EXTENSIONS
from tests.conformance.subject import BODY, MEDIA, TUS, Subject
from tests.support.waiting import eventually
from tests.support.wire import Answer

NEEDS = ("creation",)
"""Without creation there is no upload to look at."""

NO_INTEGERS = ["-1", "abc", "1.5", "0x0", "1e1", ""]


@pytest.mark.holds("S1", "S15", needs=NEEDS)
def test_an_upload_goes_through(subject: Subject) -> None:
    """Three PATCHes, each at the offset that HEAD told before it."""
    data = bytes(range(256)) * 40
    upload = subject.create(len(data))
    for end in (1, 5000, len(data)):
        offset = subject.offset(upload)
        answer = subject.patch(upload, offset, data[offset:end])
        assert 200 <= answer.status < 300
        assert subject.offset(upload) == end
    assert subject.request("OPTIONS", subject.url).status in (200, 204)
    assert subject.content(upload) in (None, data)


@pytest.mark.holds("S15", "S19", needs=NEEDS)
def test_a_body_of_unknown_length_is_applied(subject: Subject) -> None:
    """Transfer-Encoding: chunked, as clients send streams."""
    upload = subject.create(11)
    with subject.connect() as connection:
        connection.begin("PATCH", upload, {**BODY, "Upload-Offset": "0", "Transfer-Encoding": "chunked"})
        connection.send(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
        answer = connection.read()
    assert answer.status == 204
    assert answer.offset == 11
    assert subject.offset(upload) == 11


@pytest.mark.holds("S2", needs=NEEDS)
@pytest.mark.parametrize("value", [*NO_INTEGERS, None])
def test_an_offset_that_is_no_integer_changes_nothing(subject: Subject, value: str | None) -> None:
    upload = subject.create(10)
    fields = BODY if value is None else {**BODY, "Upload-Offset": value}
    answer = subject.request("PATCH", upload, fields, b"hello")
    assert 400 <= answer.status < 500
    assert subject.offset(upload) == 0


@pytest.mark.holds("S3", needs=NEEDS)
@pytest.mark.parametrize("value", NO_INTEGERS)
def test_a_length_that_is_no_integer_creates_nothing(subject: Subject, value: str) -> None:
    answer = subject.post(Upload_Length=value)
    assert 400 <= answer.status < 500
    assert "location" not in answer


@pytest.mark.holds("S2", "S3", needs=NEEDS)
def test_the_numbers_of_the_server_are_integers(subject: Subject) -> None:
    head = subject.head(subject.create(12))
    assert re.fullmatch("[0-9]+", head["upload-offset"])
    assert re.fullmatch("[0-9]+", head["upload-length"])


@pytest.mark.holds("S23", "S4")
def test_options_names_the_versions(subject: Subject) -> None:
    answer = subject.request("OPTIONS", subject.url)
    assert answer.status in (200, 204)
    assert re.fullmatch(r"\d+\.\d+\.\d+(, *\d+\.\d+\.\d+)*", answer["tus-version"])
    assert "1.0.0" in answer["tus-version"]


@pytest.mark.holds("S24")
@pytest.mark.parametrize("version", ["0.2.2", "9.9.9", "no version"])
def test_options_is_answered_whatever_version_is_sent(subject: Subject, version: str) -> None:
    answer = subject.request("OPTIONS", subject.url, {"Tus-Resumable": version})
    assert answer.status in (200, 204)
    assert "1.0.0" in answer["tus-version"]


@pytest.mark.holds("S7", "S25")
def test_options_names_the_extensions(subject: Subject) -> None:
    """Each once, and among the names that the text defines at least creation; private names may stand beside."""
    raw = subject.request("OPTIONS", subject.url).get("tus-extension")
    assert raw is not None
    names = [name.strip() for name in raw.split(",")]
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in names)
    assert len(names) == len(set(names))
    assert "creation" in set(names) & set(EXTENSIONS)


@pytest.mark.holds("S8")
def test_the_limit_is_an_integer(subject: Subject) -> None:
    value = subject.request("OPTIONS", subject.url).get("tus-max-size")
    if value is None:
        pytest.skip("not offered: Tus-Max-Size")
    assert re.fullmatch("[0-9]+", value)


@pytest.mark.holds("S5", needs=NEEDS)
@pytest.mark.parametrize(
    "what",
    ["created", "asked", "stored", "conflict", "unknown", "no version", "other version", "other type", "other method"],
)
def test_every_answer_names_the_version(subject: Subject, what: str) -> None:
    assert _answer(subject, what)["tus-resumable"] == "1.0.0"


def _answer(subject: Subject, what: str) -> Answer:
    if what == "created":
        return subject.post(Upload_Length="3")
    upload = subject.create(3)
    match what:
        case "asked":
            return subject.head(upload)
        case "stored":
            return subject.patch(upload, 0, b"abc")
        case "conflict":
            return subject.patch(upload, 2, b"c")
        case "unknown":
            return subject.head(subject.nobody(upload))
        case "no version":
            return subject.request("PATCH", upload, {"Upload-Offset": "0", "Content-Type": MEDIA}, b"abc")
        case "other version":
            return subject.request("PATCH", upload, {**BODY, "Tus-Resumable": "0.2.2", "Upload-Offset": "0"}, b"abc")
        case "other type":
            return subject.patch(upload, 0, b"abc", Content_Type="text/plain")
        case _:
            return subject.request("PUT", upload, TUS, b"abc")


@pytest.mark.holds("S6", needs=NEEDS)
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_another_version_is_refused_and_does_nothing(subject: Subject, method: str) -> None:
    upload = subject.create(3)
    body = None if method == "HEAD" else b"abc" if method == "PATCH" else b""
    answer = subject.request(method, upload, {**BODY, "Tus-Resumable": "0.2.2", "Upload-Offset": "0"}, body)
    assert answer.status == 412
    assert "1.0.0" in answer["tus-version"]
    assert subject.offset(upload) == 0


@pytest.mark.holds("S6", needs=NEEDS)
def test_another_version_creates_nothing(subject: Subject) -> None:
    answer = subject.post(Tus_Resumable="0.2.2", Upload_Length="3")
    assert answer.status == 412
    assert "1.0.0" in answer["tus-version"]
    assert "location" not in answer


@pytest.mark.holds("S9", needs=NEEDS)
@pytest.mark.parametrize("actual", ["POST", "PUT", "GET"])
def test_a_patch_by_another_name(subject: Subject, actual: str) -> None:
    upload = subject.create(3)
    fields = {**BODY, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    answer = subject.request(actual, upload, fields, b"abc")
    assert answer.status == 204
    assert subject.offset(upload) == 3


@pytest.mark.holds("S9", needs=NEEDS)
def test_the_actual_method_is_ignored(subject: Subject) -> None:
    """A DELETE that says it is a HEAD deletes nothing."""
    upload = subject.create(3)
    answer = subject.request("DELETE", upload, {**TUS, "X-HTTP-Method-Override": "HEAD"})
    assert answer.status in (200, 204)
    assert answer["upload-offset"] == "0"
    assert subject.offset(upload) == 0


@pytest.mark.holds("S10", "S11", "S13", "S14", needs=NEEDS)
@pytest.mark.parametrize("sent", [0, 4, 10])
def test_head_tells_the_state(subject: Subject, sent: int) -> None:
    """At the start, in between, and at the end."""
    upload = subject.create(10)
    if sent:
        assert subject.patch(upload, 0, b"0123456789"[:sent]).status == 204
    head = subject.head(upload)
    assert head.status in (200, 204)
    assert head["upload-offset"] == str(sent)
    assert head["upload-length"] == "10"
    assert "no-store" in head["cache-control"]


@pytest.mark.holds("S12", needs=NEEDS)
def test_head_on_nothing(subject: Subject) -> None:
    answer = subject.head(subject.nobody(subject.create(1)))
    assert answer.status in (403, 404, 410)
    assert "upload-offset" not in answer


@pytest.mark.holds("S20", needs=NEEDS)
def test_patch_on_nothing(subject: Subject) -> None:
    assert subject.patch(subject.nobody(subject.create(1)), 0, b"x").status == 404


@pytest.mark.holds("S16", needs=NEEDS)
@pytest.mark.parametrize("media", ["text/plain", "application/octet-stream", None])
def test_another_media_type_is_refused(subject: Subject, media: str | None) -> None:
    upload = subject.create(3)
    fields = {**TUS, "Upload-Offset": "0"} | ({} if media is None else {"Content-Type": media})
    answer = subject.request("PATCH", upload, fields, b"abc")
    assert answer.status == 415
    assert subject.offset(upload) == 0


@pytest.mark.holds("S17", needs=NEEDS)
@pytest.mark.parametrize("offset", [0, 3, 5, 9, 10, 11])
def test_another_offset_is_a_conflict(subject: Subject, offset: int) -> None:
    """Below, above, at the end and beyond it; the upload has 4 of 10 bytes."""
    upload = subject.create(10)
    assert subject.patch(upload, 0, b"0123").status == 204
    answer = subject.patch(upload, offset, b"x")
    assert answer.status == 409
    assert subject.offset(upload) == 4
    assert subject.patch(upload, 4, b"456789").status == 204
    assert subject.content(upload) in (None, b"0123456789")


@pytest.mark.holds("S18", "S19", needs=NEEDS)
def test_each_patch_tells_the_new_offset(subject: Subject) -> None:
    upload = subject.create(10)
    for offset, body in ((0, b"012"), (3, b""), (3, b"3456789")):
        answer = subject.patch(upload, offset, body)
        assert answer.status == 204
        assert answer.offset == offset + len(body)


@pytest.mark.holds("S19", needs=NEEDS)
def test_no_more_is_taken_than_the_length(subject: Subject) -> None:
    """A body that goes beyond the end never moves the offset there."""
    upload = subject.create(5)
    answer = subject.patch(upload, 0, b"0123456789")
    assert 400 <= answer.status < 500 or (answer.status == 204 and answer.offset <= 5)
    assert subject.offset(upload) <= 5


@pytest.mark.holds("S21", needs=NEEDS)
@pytest.mark.parametrize("how", ["closed", "reset"])
def test_an_upload_goes_on_after_a_broken_connection(subject: Subject, how: str) -> None:
    """In ten seconds it can be asked for and takes the rest."""
    upload = subject.create(100_000)
    _cut_off(subject, upload, 100_000, bytes(60_000), how)

    def goes_on() -> bool:
        offset = subject.offset(upload)
        return subject.patch(upload, offset, bytes(100_000 - offset)).status == 204

    eventually(goes_on, every=0.1, what="the upload going on")
    assert subject.offset(upload) == 100_000


@pytest.mark.holds("S22", needs=NEEDS)
@pytest.mark.parametrize("size", [1, 60_000, 3_000_000])
def test_what_came_before_the_cut_is_stored(subject: Subject, size: int) -> None:
    """All of it had been sent, and the connection was closed in order: nothing of it was lost on the way."""
    upload = subject.create(size + 1000)
    _cut_off(subject, upload, size + 1000, bytes(size), "closed")
    eventually(lambda: subject.offset(upload) == size, every=0.05, what=f"an offset of {size}")


def _cut_off(subject: Subject, upload: str, promised: int, sent: bytes, how: str) -> None:
    with subject.connect() as connection:
        connection.begin("PATCH", upload, {**BODY, "Upload-Offset": "0", "Content-Length": str(promised)})
        connection.send(sent)
        if how == "reset":
            connection.reset()
