"""The IETF draft over the wire, in each of its versions: a whole life, other dialects beside it, malformed fields."""

import random

import pytest
from tests.support.drafts import (
    EVERY_VERSION,
    append,
    ask,
    careful,
    is_complete,
    limits,
    patch,
    post,
)
from tests.support.speaker import TUS_BODY, Speaker, digest


@EVERY_VERSION
@pytest.mark.rule("I-VERSION-1", "I-CREATE-1", "I-APPEND-1", "I-HEAD-1", "I-APPEND-3")
def test_a_whole_life(speaker: Speaker, rng: random.Random, version: int) -> None:
    """Careful creation, two appends, offset in between; the second append completes."""
    data = rng.randbytes(100_000)
    created = post(speaker, False, version=version, Upload_Length=str(len(data)))
    assert created.status == 201
    assert (created.offset, is_complete(created, version)) == (0, False)
    url = speaker.url + created["location"]

    first = patch(speaker, url, 0, data[:30_000], False, version)
    assert first.status == (201 if version < 8 else 204)
    assert (first.offset, is_complete(first, version)) == (30_000, False)

    asked = ask(speaker, url, version)
    assert (asked.status, asked.offset, asked["upload-length"]) == (204, 30_000, "100000")
    assert asked["cache-control"] == "no-store"
    assert not is_complete(asked, version)

    last = patch(speaker, url, 30_000, data[30_000:], True, version)
    assert (last.status, last.offset, is_complete(last, version)) == (204, 100_000, True)
    assert is_complete(ask(speaker, url, version), version)
    assert speaker.get(url).body == data


@pytest.mark.rule("I-VERSION-1", "I-VERSION-2")
@pytest.mark.parametrize("version", ["", "7", "10", "x", "-9", "9.0"])
def test_no_version_that_is_known_is_the_newest(speaker: Speaker, version: str) -> None:
    answer = post(speaker, False, Upload_Length="4", Upload_Draft_Interop_Version=version)
    assert (answer.status, answer.interim) == (201, [])
    assert "max-age" in limits(answer)
    url = answer["location"]
    assert patch(speaker, url, 0, b"0123", True, Upload_Draft_Interop_Version=version, Content_Type="").status == (415)
    last = patch(speaker, url, 0, b"0123", True, Upload_Draft_Interop_Version=version)
    assert (last.status, last.interim, is_complete(last)) == (204, [], True)


@pytest.mark.rule("I-VERSION-2", "I-MIX-1")
def test_one_upload_in_three_dialects(speaker: Speaker, rng: random.Random) -> None:
    """Begun by the draft, gone on with by chunks and tus, completed by the draft."""
    data = rng.randbytes(4 * 65536)
    url = careful(speaker, len(data))
    assert speaker.chunk(url, 65536, data[65536:131072]).status == 204
    assert speaker.patch(url, 0, data[:65536]).status == 204
    assert ask(speaker, url).offset == 131072
    assert speaker.patch(url, 131072, data[131072:196608], Upload_Complete="?1").status == 204
    answer = patch(speaker, url, 196608, data[196608:], True)
    assert (answer.status, is_complete(answer)) == (204, True)
    assert speaker.get(url).body == data


@pytest.mark.rule("I-MIX-1")
def test_tus_completes_what_the_draft_began(speaker: Speaker) -> None:
    url = careful(speaker, 4)
    assert patch(speaker, url, 0, b"01", False).offset == 2
    assert speaker.request("PATCH", url, {**TUS_BODY, "Upload-Offset": "2"}, b"23").status == 204
    assert is_complete(ask(speaker, url))


@pytest.mark.rule("I-MIX-1")
def test_the_draft_completes_what_tus_began(speaker: Speaker) -> None:
    url = speaker.create(4, parallel=False)
    assert speaker.patch(url, 0, b"01").status == 204
    assert is_complete(patch(speaker, url, 2, b"23", True))
    assert speaker.get(url).body == b"0123"


@pytest.mark.rule("I-DIGEST-2", "I-ANSWER-2")
def test_the_digest_of_the_whole_file(speaker: Speaker) -> None:
    good = post(speaker, True, b"whole", Repr_Digest=digest(b"whole"))
    assert good.status == 201
    assert digest(b"whole") in speaker.get(good["location"])["repr-digest"]

    bad = post(speaker, True, b"whole", Repr_Digest=digest(b"other"))
    assert bad.verdict == (422, "upload-digest-mismatch")
    assert is_complete(bad)
    assert speaker.get(bad["location"]).verdict == (409, "not-finished")
    assert patch(speaker, bad["location"], 5, b"", True).verdict == (409, "upload-failed")

    part = post(speaker, False, b"who", Upload_Length="5", Repr_Digest=digest(b"who"))
    assert patch(speaker, part["location"], 3, b"le", True).status == 204


@pytest.mark.rule("I-FIELD-1")
@pytest.mark.parametrize("value", ["true", "1", "?2", "", "?1, ?0", '"?1"'])
def test_a_malformed_completeness_is_none(speaker: Speaker, value: str) -> None:
    url = careful(speaker, 4)
    fields = {**append(0, True), "Upload-Complete": value}
    assert speaker.request("PATCH", url, fields, b"0123").verdict == (400, "missing-field")
    assert ask(speaker, url).offset == 0


@pytest.mark.rule("I-FIELD-1", "V-PROBLEM-1")
@pytest.mark.parametrize("value", ["-1", "+0", "0.0", "x", "", "1000000000000000", "0, 0"])
def test_a_malformed_offset_is_none(speaker: Speaker, value: str) -> None:
    url = careful(speaker, 4)
    answer = speaker.request("PATCH", url, {**append(0, True), "Upload-Offset": value}, b"0123")
    assert answer.verdict == (400, "missing-field")
    assert answer.json()["field"] == "Upload-Offset"
    assert ask(speaker, url).offset == 0


@pytest.mark.rule("I-FIELD-1")
def test_fields_that_are_there_twice_or_have_parameters(speaker: Speaker) -> None:
    url = careful(speaker, 4)
    twice = [*append(0, True).items(), ("Upload-Complete", "?1")]
    assert speaker.request("PATCH", url, twice, b"0123").verdict == (400, "missing-field")
    fields = {**append(0, True), "Upload-Complete": "?1;a=b", "Upload-Offset": "0;c"}
    assert speaker.request("PATCH", url, fields, b"0123").status == 204
