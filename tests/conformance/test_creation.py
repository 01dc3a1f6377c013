"""creation and creation-defer-length (S26 to S41)."""

from urllib.parse import urlsplit

import pytest

from tests.conformance.conftest import not_offered
from tests.conformance.subject import BODY, TUS, Subject, b64


@pytest.mark.holds("S26")
def test_creation_is_announced(subject: Subject) -> None:
    answer = subject.post(Upload_Length="5")
    works = answer.status == 201 and "location" in answer
    if not works and not subject.offers("creation"):
        not_offered("creation")
    assert (works, subject.offers("creation")) == (True, True)


@pytest.mark.holds("S39", "S40", "S41")
@pytest.mark.parametrize("length", [1, 12345])
def test_a_creation(subject: Subject, length: int) -> None:
    """The Location leads to an upload of this length at offset 0."""
    answer = subject.post(Upload_Length=str(length))
    assert answer.status == 201
    upload = subject.where(answer)
    assert urlsplit(upload).scheme == "http"
    head = subject.head(upload)
    assert head["upload-offset"] == "0"
    assert head["upload-length"] == str(length)


@pytest.mark.holds("S40")
def test_each_creation_is_an_upload_of_its_own(subject: Subject) -> None:
    one, two = subject.create(3), subject.create(3)
    assert one != two
    assert subject.patch(one, 0, b"abc").status == 204
    assert subject.offset(two) == 0


@pytest.mark.holds("S33")
def test_an_empty_upload_is_complete(subject: Subject) -> None:
    upload = subject.create(0)
    head = subject.head(upload)
    assert head["upload-offset"] == "0"
    assert head["upload-length"] == "0"
    assert subject.content(upload) in (None, b"")


@pytest.mark.holds("S29")
def test_a_creation_says_how_long_or_that_it_does_not_know(subject: Subject) -> None:
    answer = subject.post()
    assert 400 <= answer.status < 500
    assert "location" not in answer


@pytest.mark.holds("S29")
def test_a_creation_does_not_say_both(subject: Subject) -> None:
    """A server without creation-defer-length may pass over the second field."""
    answer = subject.post(Upload_Length="5", Upload_Defer_Length="1")
    if subject.offers("creation-defer-length") or answer.status != 201:
        assert 400 <= answer.status < 500
    else:
        assert subject.head(subject.where(answer))["upload-length"] == "5"


@pytest.mark.holds("S38")
def test_a_length_above_the_limit(subject: Subject) -> None:
    if subject.offer.max_size is None:
        not_offered("a limit")
    answer = subject.post(Upload_Length=str(subject.offer.max_size + 1))
    assert answer.status == 413
    assert "location" not in answer


METADATA = {
    "one pair": f"filename {b64(b'world.txt')}",
    "several in order": ",".join(f"{key} {b64(key.encode())}" for key in ("zeta", "alpha", "mu", "beta", "last")),
    "no value": "is_confidential",
    "no value in between": f"a {b64(b'1')},is_confidential,b {b64(b'2')}",
    "bytes that are no text": f"key {b64(bytes(range(256)))}",
}


@pytest.mark.holds("S34")
@pytest.mark.parametrize("name", METADATA)
def test_metadata_is_taken(subject: Subject, name: str) -> None:
    assert subject.post(Upload_Length="3", Upload_Metadata=METADATA[name]).status == 201


@pytest.mark.holds("S36")
@pytest.mark.parametrize("name", METADATA)
def test_metadata_comes_back_as_it_was_given(subject: Subject, name: str) -> None:
    upload = subject.create(3, Upload_Metadata=METADATA[name])
    assert subject.head(upload)["upload-metadata"] == METADATA[name]
    assert subject.patch(upload, 0, b"abc").status == 204
    assert subject.head(upload)["upload-metadata"] == METADATA[name]


@pytest.mark.holds("S34")
@pytest.mark.parametrize("value", ["key !!!", "key a b", ",,", "key YQ==,key Yg==", "k\xe9y YQ=="])
def test_malformed_metadata_is_no_failure_of_the_server(subject: Subject, value: str) -> None:
    """The text does not say what to answer; it may be refused, or passed over."""
    answer = subject.post(Upload_Length="3", Upload_Metadata=value)
    assert answer.status == 201 or 400 <= answer.status < 500


@pytest.mark.holds("S37")
@pytest.mark.parametrize("key", ["filename", "name", "filetype", "type"])
def test_metadata_does_not_get_into_the_fields_of_an_answer(subject: Subject, key: str) -> None:
    """A value with line ends makes no field of its own, neither with HEAD nor with GET, and no failure."""
    value = b64(b'a"\r\nX-Injected: yes\r\n\r\n')
    answer = subject.post(Upload_Length="3", Upload_Metadata=f"{key} {value}")
    if answer.status != 201:
        assert 400 <= answer.status < 500
        return
    upload = subject.where(answer)
    assert subject.patch(upload, 0, b"abc").status == 204
    assert "x-injected" not in subject.head(upload)
    download = subject.request("GET", upload, TUS)
    assert "x-injected" not in download
    assert download.status < 500


@pytest.mark.holds("S32")
def test_deferring_the_length_is_announced(subject: Subject) -> None:
    answer = subject.post(Upload_Defer_Length="1")
    works = answer.status == 201 and subject.head(subject.where(answer)).get("upload-defer-length") == "1"
    if not works and not subject.offers("creation-defer-length"):
        not_offered("creation-defer-length")
    assert (works, subject.offers("creation-defer-length")) == (True, True)


@pytest.mark.holds("S27", "S30")
def test_an_unknown_length_is_told_as_long_as_it_is_unknown(subject: Subject) -> None:
    upload = subject.where(subject.post(Upload_Defer_Length="1"))
    for body in (b"", b"abc", b"def"):
        if body:
            assert subject.patch(upload, subject.offset(upload), body).status == 204
        head = subject.head(upload)
        assert head["upload-defer-length"] == "1"
        assert "upload-length" not in head
    assert subject.offset(upload) == 6


@pytest.mark.holds("S27")
def test_a_known_length_is_not_deferred(subject: Subject) -> None:
    assert "upload-defer-length" not in subject.head(subject.create(3))


@pytest.mark.holds("S27", "S31")
@pytest.mark.parametrize("when", ["first", "middle", "last", "after"])
def test_the_length_may_come_with_any_patch(subject: Subject, when: str) -> None:
    """From then on HEAD tells it, and no longer that it is deferred."""
    upload = subject.where(subject.post(Upload_Defer_Length="1"))
    offset = 0
    for step, body in (("first", b"abc"), ("middle", b"def"), ("last", b"gh"), ("after", b"")):
        fields = {"Upload_Length": "8"} if step == when else {}
        answer = subject.patch(upload, offset, body, **fields)
        assert answer.status == 204
        offset += len(body)
        assert answer.offset == offset
        if step == when:
            head = subject.head(upload)
            assert head["upload-length"] == "8"
            assert "upload-defer-length" not in head
        if step == "last" and when != "after":
            break
    assert subject.offset(upload) == 8
    assert subject.content(upload) in (None, b"abcdefgh")


@pytest.mark.holds("S31", needs=("creation-defer-length",))
def test_a_length_that_was_deferred_is_set_once(subject: Subject) -> None:
    upload = subject.where(subject.post(Upload_Defer_Length="1"))
    assert subject.patch(upload, 0, b"abc", Upload_Length="8").status == 204
    subject.patch(upload, 3, b"def", Upload_Length="20")
    assert subject.head(upload)["upload-length"] == "8"


@pytest.mark.holds("S31")
def test_a_length_given_at_creation_stays(subject: Subject) -> None:
    upload = subject.create(8)
    subject.patch(upload, 0, b"abc", Upload_Length="20")
    assert subject.head(upload)["upload-length"] == "8"


@pytest.mark.holds("S31", needs=("creation-defer-length",))
def test_a_length_below_what_came_is_not_taken(subject: Subject) -> None:
    upload = subject.where(subject.post(Upload_Defer_Length="1"))
    assert subject.patch(upload, 0, b"abcdef").status == 204
    answer = subject.patch(upload, 6, b"", Upload_Length="3")
    assert 400 <= answer.status < 500
    assert subject.offset(upload) == 6


@pytest.mark.holds("S28")
@pytest.mark.parametrize("value", ["0", "2", "true", "-1", "?1"])
def test_another_value_of_upload_defer_length(subject: Subject, value: str) -> None:
    answer = subject.post(Upload_Defer_Length=value)
    assert answer.status == 400
    assert "location" not in answer


@pytest.mark.holds("S42")
def test_bytes_with_the_creation_are_announced(subject: Subject) -> None:
    answer = subject.request("POST", subject.url, {**BODY, "Upload-Length": "5"}, b"hello")
    works = answer.status == 201 and subject.offset(subject.where(answer)) == 5
    if not works and not subject.offers("creation-with-upload"):
        not_offered("creation-with-upload")
    assert (works, subject.offers("creation-with-upload", "creation")) == (True, True)
