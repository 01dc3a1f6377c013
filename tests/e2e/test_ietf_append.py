"""The IETF draft over the wire: appends, offsets and lengths."""

import random

import pytest
from tests.support.drafts import (
    EVERY_VERSION,
    IANA,
    append,
    ask,
    careful,
    chunked,
    is_complete,
    patch,
)
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, Speaker, digest
from tests.support.waiting import eventually
from tests.support.wire import Connection


@EVERY_VERSION
@pytest.mark.rule("I-APPEND-2", "I-ANSWER-2")
def test_a_wrong_offset(speaker: Speaker, version: int) -> None:
    url = careful(speaker, 10, version)
    assert patch(speaker, url, 0, b"0123", False, version).offset == 4
    for offset in (0, 3, 5, 10):
        answer = patch(speaker, url, offset, b"x", False, version)
        assert answer.verdict == (409, "offset-mismatch")
        assert (answer.offset, is_complete(answer, version)) == (4, False)
        document = answer.json()
        assert document["type"] == IANA + "mismatching-upload-offset"
        assert (document["expected-offset"], document["provided-offset"]) == (4, offset)
    assert ask(speaker, url, version).offset == 4


@EVERY_VERSION
@pytest.mark.rule("I-APPEND-1", "I-VERSION-2")
def test_the_media_type_of_an_append(speaker: Speaker, version: int) -> None:
    url = careful(speaker, 4, version)
    for media in ("", "text/plain"):
        answer = patch(speaker, url, 0, b"0123", True, version, Content_Type=media)
        if version >= 6:
            assert answer.verdict == (415, "unsupported-media-type")
        else:
            assert answer.status == 204
            url = careful(speaker, 4, version)
    answer = patch(speaker, url, 0, b"0123", True, version, Content_Type="Application/Partial-Upload; x=y")
    assert answer.status == 204


@EVERY_VERSION
@pytest.mark.rule("I-APPEND-3")
def test_the_length_alone_completes_nothing(speaker: Speaker, version: int) -> None:
    url = careful(speaker, 4, version)
    answer = patch(speaker, url, 0, b"0123", False, version)
    assert (answer.offset, is_complete(answer, version)) == (4, False)
    assert speaker.get(url).verdict == (409, "not-finished")
    answer = patch(speaker, url, 4, b"", True, version)
    assert (answer.status, is_complete(answer, version)) == (204, True)
    assert speaker.get(url).body == b"0123"


@pytest.mark.rule("I-APPEND-1", "I-FIELD-1")
def test_what_a_patch_without_completeness_means(speaker: Speaker) -> None:
    """In version 3 it completes; in all others the field has to be there."""
    url = careful(speaker, 4, 3)
    answer = patch(speaker, url, 0, b"0123", True, 3, Upload_Incomplete="")
    assert (answer.status, is_complete(answer, 3)) == (204, True)
    for version in (5, 6, 8, 9):
        answer = patch(speaker, careful(speaker, 4, version), 0, b"0123", True, version, Upload_Complete="")
        assert answer.verdict == (400, "missing-field")


@EVERY_VERSION
@pytest.mark.rule("I-APPEND-4")
def test_the_last_answer_was_lost(speaker: Speaker, version: int) -> None:
    url = careful(speaker, 4, version)
    assert patch(speaker, url, 0, b"0123", True, version).status == 204
    again = patch(speaker, url, 4, b"", True, version)
    repeated = patch(speaker, url, 0, b"0123", True, version)
    more = patch(speaker, url, 4, b"4", True, version)
    if version in (6, 8):
        for answer in (again, repeated, more):
            assert answer.verdict == (400, "completed-upload")
            assert answer.json()["type"] == IANA + "completed-upload"
    else:
        assert (again.status, is_complete(again, version)) == (204, True)
        assert repeated.verdict == (409, "offset-mismatch")
        assert (repeated.offset, is_complete(repeated, version)) == (4, False)
        assert more.verdict == (403, "final-upload")
    assert speaker.get(url).body == b"0123"


@pytest.mark.rule("I-APPEND-5", "I-APPEND-3")
def test_a_last_append_that_is_cut_off(server: ServerProcess, speaker: Speaker, rng: random.Random) -> None:
    """Every byte came, but not the end of the request: not complete, until an empty append says so."""
    data = rng.randbytes(200_000)
    url = careful(speaker, len(data))
    with Connection(server.url) as connection:
        connection.begin("PATCH", url, append(0, True, Transfer_Encoding="chunked"))
        connection.send(chunked(data, last=False))
        eventually(lambda: speaker.request("HEAD", url, TUS).offset == len(data))
    asked = ask(speaker, url)
    assert (asked.offset, is_complete(asked)) == (len(data), False)
    assert speaker.get(url).verdict == (409, "not-finished")
    answer = patch(speaker, url, len(data), b"", True)
    assert (answer.status, is_complete(answer)) == (204, True)
    assert speaker.get(url).body == data


@EVERY_VERSION
@pytest.mark.rule("I-LENGTH-1")
def test_the_length_never_changes(speaker: Speaker, version: int) -> None:
    url = careful(speaker, 10, version)
    answer = patch(speaker, url, 0, b"0123", False, version, Upload_Length="20")
    assert answer.verdict == (400, "inconsistent-upload-length")
    assert answer.json()["type"] == IANA + "inconsistent-upload-length"
    assert (answer.offset, is_complete(answer, version)) == (0, False)
    assert patch(speaker, url, 0, b"0123", False, version, Upload_Length="10").offset == 4


@EVERY_VERSION
@pytest.mark.rule("I-LENGTH-2")
def test_a_last_body_that_is_too_short(speaker: Speaker, version: int) -> None:
    url = careful(speaker, 10, version)
    answer = patch(speaker, url, 0, b"0123", True, version)
    assert (*answer.verdict, answer.offset) == (400, "inconsistent-upload-length", 0)
    fields = append(0, True, version, Transfer_Encoding="chunked")
    answer = speaker.request("PATCH", url, fields, chunked(b"0123"))
    assert (*answer.verdict, answer.offset) == (400, "inconsistent-upload-length", 4)
    assert patch(speaker, url, 4, b"456789", True, version).status == 204
    assert speaker.get(url).body == b"0123456789"


@EVERY_VERSION
@pytest.mark.parametrize("known", [True, False], ids=["with a length", "without"])
@pytest.mark.rule("I-LENGTH-3", "I-HEAD-1")
def test_a_body_beyond_the_length(speaker: Speaker, version: int, known: bool) -> None:
    """From version 8 on nothing more can be done with such an upload; before, it goes on."""
    url = careful(speaker, 10, version)
    assert patch(speaker, url, 0, b"01234", False, version).offset == 5
    if known:
        answer = patch(speaker, url, 5, b"56789A", False, version)
    else:
        fields = append(5, False, version, Transfer_Encoding="chunked")
        answer = speaker.request("PATCH", url, fields, chunked(b"567", b"89A"))
    assert answer.verdict == (400, "inconsistent-upload-length")
    if version >= 8:
        assert ask(speaker, url, version).status == 409
        refused = patch(speaker, url, 5, b"5", False, version)
        assert (*refused.verdict, is_complete(refused, version)) == (409, "upload-failed", False)
        assert "upload-offset" not in refused
        assert ask(speaker, url, 6).status == 404
        assert speaker.status(url)["state"] == "failed"
    else:
        offset = ask(speaker, url, version).offset
        assert offset == (5 if known else 10)
        assert patch(speaker, url, offset, b"0123456789"[offset:], True, version).status == 204
        assert speaker.get(url).body == b"0123456789"


@pytest.mark.rule("I-MIX-2")
def test_an_append_stops_at_what_is_stored(speaker: Speaker, rng: random.Random) -> None:
    data = rng.randbytes(3 * 65536)
    url = careful(speaker, len(data))
    assert speaker.chunk(url, 65536, data[65536:131072]).status == 204
    answer = patch(speaker, url, 0, data, True)
    assert answer.verdict == (409, "offset-mismatch")
    assert (answer.offset, is_complete(answer)) == (131072, False)
    assert patch(speaker, url, 131072, data[131072:], True).status == 204
    assert speaker.get(url).body == data


@pytest.mark.rule("I-DIGEST-1")
def test_an_append_with_a_digest_is_atomic(server: ServerProcess, speaker: Speaker, rng: random.Random) -> None:
    data = rng.randbytes(100_000)
    url = careful(speaker, len(data))
    both = f"{digest(data, 'xxh3-128')}, {digest(data)}"
    wrong = f"{digest(data, 'xxh3-128')}, {digest(data[1:])}"
    answer = patch(speaker, url, 0, data, True, Content_Digest=wrong)
    assert answer.verdict == (400, "digest-mismatch")
    assert (answer.offset, is_complete(answer)) == (0, False)
    with Connection(server.url) as connection:
        connection.begin("PATCH", url, append(0, True, Content_Digest=both, Content_Length=str(len(data))))
        connection.send(data[:-1])
        assert ask(speaker, url).offset == 0
    assert patch(speaker, url, 0, data, True, Content_Digest="no-such=:AAAA:").verdict == (400, "unknown-algorithm")
    eventually(lambda: patch(speaker, url, 0, data, True, Content_Digest=both).status == 204)
    assert speaker.get(url).body == data
