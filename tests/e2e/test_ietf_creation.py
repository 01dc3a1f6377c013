"""The IETF draft over the wire: creations, with and without content."""

import random
import re

import pytest
from tests.support.drafts import (
    EVERY_VERSION,
    IANA,
    NEWEST,
    PARTIAL,
    VERSIONS,
    ask,
    chunked,
    create,
    is_complete,
    patch,
    post,
    version_field,
)
from tests.support.speaker import TUS, Speaker, at_rest, digest
from tests.support.waiting import eventually
from tests.support.wire import Connection


@EVERY_VERSION
@pytest.mark.rule("I-CREATE-1", "I-CREATE-2")
def test_a_file_in_one_request(speaker: Speaker, version: int) -> None:
    answer = post(speaker, True, b"whole", version)
    assert (answer.status, answer.offset, is_complete(answer, version)) == (201, 5, True)
    assert speaker.get(answer["location"]).body == b"whole"


@EVERY_VERSION
@pytest.mark.rule("I-CREATE-1")
def test_a_part_with_the_creation(speaker: Speaker, version: int) -> None:
    answer = post(speaker, False, b"01234", version, Upload_Length="10")
    assert (answer.status, answer.offset, is_complete(answer, version)) == (201, 5, False)
    assert patch(speaker, answer["location"], 5, b"56789", True, version).status == 204
    assert speaker.get(answer["location"]).body == b"0123456789"


@pytest.mark.rule("I-CREATE-1")
def test_only_post_creates(speaker: Speaker) -> None:
    for method in ("PUT", "PATCH"):
        answer = speaker.request(method, "/files", create(True), b"whole")
        assert answer.verdict == (405, "method-not-allowed")


@pytest.mark.rule("I-CREATE-2")
def test_lengths_that_contradict_each_other_create_nothing(speaker: Speaker) -> None:
    def newest() -> list[dict[str, object]]:
        return [at_rest(each) for each in speaker.request("GET", "/api/uploads?limit=1").json()["uploads"]]

    before = newest()
    for complete, body, length in ((True, b"12345", "6"), (True, b"12345", "4"), (False, b"12345", "4")):
        answer = post(speaker, complete, body, Upload_Length=length)
        assert answer.verdict == (400, "inconsistent-upload-length")
        assert answer.json()["type"] == IANA + "inconsistent-upload-length"
        assert "location" not in answer
    assert newest() == before


@pytest.mark.rule("I-CREATE-2", "I-CREATE-1")
def test_a_body_of_unknown_length_with_upload_length(speaker: Speaker) -> None:
    fields = create(True, Transfer_Encoding="chunked", Upload_Length="5")
    answer = speaker.request("POST", "/files", fields, chunked(b"wh", b"ole"))
    assert (answer.status, is_complete(answer)) == (201, True)
    assert speaker.get(answer["location"]).body == b"whole"


@EVERY_VERSION
@pytest.mark.rule("I-CREATE-5")
def test_an_empty_file_is_complete_at_once(speaker: Speaker, version: int) -> None:
    """Whether the client says so or not; an empty append that follows does no harm where it is replayed."""
    for complete in (False, True):
        answer = post(speaker, complete, b"", version, Upload_Length="0")
        assert (answer.status, answer.offset, is_complete(answer, version)) == (201, 0, True)
        assert speaker.get(answer["location"]).body == b""


@pytest.mark.rule("I-CREATE-3", "I-APPEND-5")
def test_a_creation_that_is_cut_off_keeps_what_arrived(speaker: Speaker, rng: random.Random) -> None:
    """The URL is known from the interim answer; nothing is complete, even when the last byte is all that misses."""
    data = rng.randbytes(300_000)
    with Connection(speaker.url) as connection:
        connection.begin("POST", "/files", create(True, Content_Length=str(len(data))))
        url = speaker.url + connection.read_head()["location"]
        connection.send(data[:-1])
        eventually(lambda: speaker.request("HEAD", url, TUS).offset == len(data) - 1)
    eventually(lambda: ask(speaker, url).offset == len(data) - 1)
    assert not is_complete(ask(speaker, url))
    answer = patch(speaker, url, len(data) - 1, data[-1:], True)
    assert (answer.status, is_complete(answer)) == (204, True)
    assert speaker.get(url).body == data


@pytest.mark.rule("I-CREATE-3", "I-DIGEST-1")
def test_a_creation_with_a_wrong_digest_leaves_an_empty_upload(speaker: Speaker) -> None:
    answer = post(speaker, True, b"whole", Content_Digest=digest(b"other"))
    assert answer.verdict == (400, "digest-mismatch")
    assert (answer.offset, is_complete(answer)) == (0, False)
    again = patch(speaker, answer["location"], 0, b"whole", True, Content_Digest=digest(b"whole"))
    assert (again.status, is_complete(again)) == (204, True)


@pytest.mark.rule("I-CREATE-4")
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"Content_Disposition": 'inline; filename="a film.mkv"'}, "a film.mkv"),
        ({"Content_Disposition": "inline; filename=plain; filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt"}, "Grüße.txt"),
        ({"Upload_Metadata": "filename b25lLnR4dA==", "Content_Disposition": "inline; filename=two.txt"}, "one.txt"),
        ({"Content_Type": PARTIAL, "Content_Disposition": "inline; filename=x.bin"}, "x.bin"),
        ({"Content_Type": "image/jpeg", "Content_Disposition": "inline; filename=x.jpg"}, "x.jpg"),
    ],
)
def test_the_name_of_the_file(speaker: Speaker, fields: dict[str, str], name: str) -> None:
    answer = post(speaker, True, b"whole", NEWEST, **fields)
    assert answer.status == 201
    assert speaker.status(answer["location"])["name"] == name


@pytest.mark.rule("I-LENGTH-3", "I-CREATE-3")
def test_a_creation_that_goes_beyond_its_length(speaker: Speaker) -> None:
    fields = create(True, Transfer_Encoding="chunked", Upload_Length="4")
    answer = speaker.request("POST", "/files", fields, chunked(b"0123", b"4"))
    assert answer.verdict == (400, "inconsistent-upload-length")
    assert ask(speaker, answer["location"]).status == 409
    assert speaker.status(answer["location"])["state"] == "failed"


@pytest.mark.rule("I-FIELD-1")
def test_a_creation_has_to_say_whether_it_is_all(speaker: Speaker) -> None:
    for version in VERSIONS:
        fields = {**version_field(version), "Upload-Length": "5"}
        assert speaker.request("POST", "/files", fields, b"whole").verdict == (400, "missing-field")


@EVERY_VERSION
@pytest.mark.rule("I-ANSWER-2")
def test_a_creation_that_is_refused_says_that_it_is(speaker: Speaker, version: int) -> None:
    """The answer is of this protocol, and not of what became of the file."""
    answer = post(speaker, True, b"whole", version, Upload_Length="6")
    assert (answer.status, is_complete(answer, version)) == (400, False)


@pytest.mark.rule("I-CREATE-1", "V-ID-1")
def test_the_location_is_a_path(speaker: Speaker) -> None:
    assert re.fullmatch(r"/files/[0-9a-f]{32}", post(speaker, True, b"whole")["location"])
