"""The IETF draft over the wire, in each of its versions: creation, append, offset, cancellation, digests."""

import random
import re
from collections.abc import Iterator

import pytest
from tests.conftest import StartServer
from tests.support.drafts import (
    IANA,
    NEWEST,
    PARTIAL,
    VERSIONS,
    append,
    chunked,
    completeness,
    create,
    is_complete,
    limits,
    version_field,
)
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, TUS_BODY, Speaker, at_rest, digest
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on which unfinished uploads expire at once."""
    with ServerProcess(tmp_path_factory.mktemp("forgetful") / "data", expire_after=0.1) as process:
        yield process


LONGEST = 999_999_999_999_999
EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def post(speaker: Speaker, complete: bool, body: bytes = b"", version: int | None = NEWEST, **other: str) -> Answer:
    return speaker.request("POST", speaker.files, create(complete, version, **other), body)


def careful(speaker: Speaker, length: int, version: int | None = NEWEST) -> str:
    """An upload created without a body, which must succeed; its URL."""
    answer = post(speaker, False, version=version, Upload_Length=str(length))
    assert answer.status == 201, answer
    return speaker.url + answer["location"]


def patch(
    speaker: Speaker,
    url: str,
    offset: int,
    body: bytes,
    complete: bool,
    version: int | None = NEWEST,
    **other: str,
) -> Answer:
    return speaker.request("PATCH", url, append(offset, complete, version, **other), body)


def ask(speaker: Speaker, url: str, version: int | None = NEWEST) -> Answer:
    return speaker.request("HEAD", url, version_field(version))


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


@EVERY_VERSION
@pytest.mark.rule("I-LIMIT-1", "I-LIMIT-2", "I-CREATE-1", "I-HEAD-1")
def test_limits_are_told_in_the_words_of_the_version(speaker: Speaker, version: int) -> None:
    named = version_field(version)
    options = speaker.request("OPTIONS", "/files", named)
    created = post(speaker, False, version=version, Upload_Length="10")
    asked = ask(speaker, speaker.url + created["location"], version)
    if version < 6:
        assert ["upload-limit" in answer for answer in (options, created, asked)] == [False] * 3
        return
    age = "expires" if version == 6 else "max-age"
    for answer in (options, created, asked):
        found = limits(answer)
        assert set(found) == {"max-size", age}
        assert found["max-size"] == LONGEST
        assert 7 * 86400 - 60 < found[age] <= 7 * 86400


@pytest.mark.rule("I-LIMIT-3")
@pytest.mark.parametrize("version", [6, 8, 9])
def test_limits_do_not_shrink(speaker: Speaker, version: int) -> None:
    """Not from OPTIONS to the interim answer, the final one, a stored range, and a refusal."""
    age = "expires" if version == 6 else "max-age"
    told = [speaker.request("OPTIONS", "/files", version_field(version))]
    created = post(speaker, False, version=version)
    url = created["location"]
    told += [*created.before, created, patch(speaker, url, 0, b"01234", False, version)]
    refused = patch(speaker, url, 5, b"", False, version, Upload_Length=str(LONGEST))
    assert refused.verdict == (507, "insufficient-storage")
    told.append(ask(speaker, url, version))
    assert len(told) == 5
    ages = [limits(answer)[age] for answer in told]
    assert {limits(answer)["max-size"] for answer in told} == {LONGEST}
    assert ages[0] == 7 * 86400 - 1
    assert min(ages[1:]) >= ages[0] - 60


@pytest.mark.rule("I-LIMIT-3")
def test_a_refused_append_tells_the_limits_of_its_upload(start_server: StartServer) -> None:
    server = start_server("--max-size", "1000")
    with Speaker(server.url) as speaker:
        url = careful(speaker, 1000)
        before = limits(ask(speaker, url))
        open_ended = post(speaker, False)["location"]
        refused = patch(speaker, open_ended, 0, b"x" * 1001, False)
        assert refused.verdict == (413, "upload-too-large")
        assert limits(refused)["max-size"] == before["max-size"] == 1000
        assert limits(refused)["max-age"] <= 7 * 86400


@pytest.mark.rule("I-LIMIT-2")
def test_options_with_a_creation_in_mind_has_no_limits(speaker: Speaker) -> None:
    assert "upload-limit" not in speaker.request("OPTIONS", "/files", {"Upload-Complete": "?1"})
    upload = careful(speaker, 1)
    for target in ("/files", upload):
        answer = speaker.request("OPTIONS", target)
        assert limits(answer)["max-size"] == LONGEST
        assert answer["tus-version"] == "1.0.0"


@pytest.mark.rule("I-LIMIT-2", "T-OPTIONS-1")
def test_options_of_the_whole_server(speaker: Speaker) -> None:
    """`OPTIONS *` (RFC 9110, section 9.3.7) is that of the collection; nothing else can be done with `*`."""
    for fields in (version_field(6), {"Upload-Complete": "?1"}, {}):
        one, other = (speaker.request("OPTIONS", target, fields) for target in ("*", "/files"))
        kept = [[each for each in answer.fields if each[0] != "date"] for answer in (one, other)]
        assert (one.status, kept[0]) == (204, kept[1])
    for method in ("GET", "POST", "DELETE"):
        assert speaker.request(method, "*", create(True), b"").verdict == (404, "not-found")


@pytest.mark.rule("I-LIMIT-1", "I-LIMIT-2")
def test_a_limit_is_told_and_kept(start_server: StartServer) -> None:
    server = start_server("--max-size", "1000", "--expire-after", "never")
    with Speaker(server.url) as speaker:
        assert limits(speaker.request("OPTIONS", "/files")) == {"max-size": 1000}
        refused = post(speaker, False, Upload_Length="1001")
        assert refused.verdict == (413, "upload-too-large")
        assert limits(refused) == {"max-size": 1000}
        assert post(speaker, True, b"x" * 1001).verdict == (413, "upload-too-large")
        assert post(speaker, True, b"x" * 1000).status == 201


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


@pytest.mark.rule("I-LENGTH-3", "I-CREATE-3")
def test_a_creation_that_goes_beyond_its_length(speaker: Speaker) -> None:
    fields = create(True, Transfer_Encoding="chunked", Upload_Length="4")
    answer = speaker.request("POST", "/files", fields, chunked(b"0123", b"4"))
    assert answer.verdict == (400, "inconsistent-upload-length")
    assert ask(speaker, answer["location"]).status == 409
    assert speaker.status(answer["location"])["state"] == "failed"


@EVERY_VERSION
@pytest.mark.rule("I-HEAD-3")
def test_fields_that_do_not_belong_to_asking_and_ending(speaker: Speaker, version: int) -> None:
    url = careful(speaker, 4, version)
    refused = {3: {"Upload-Offset", "Upload-Incomplete"}, 5: {"Upload-Offset", "Upload-Complete"}}
    refused[6] = refused[5] | {"Upload-Length"}
    for name in ("Upload-Offset", "Upload-Incomplete", "Upload-Complete", "Upload-Length"):
        fields = {**version_field(version), name: "0" if name in ("Upload-Offset", "Upload-Length") else "?0"}
        bad = name in refused.get(version, set())
        assert speaker.request("HEAD", url, fields).status == (400 if bad else 204)
        if bad:
            assert speaker.request("DELETE", url, fields).verdict == (400, "conflicting-fields")
    assert speaker.request("DELETE", url, version_field(version)).status == 204
    assert ask(speaker, url, version).status == 404


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


@pytest.mark.rule("I-FIELD-1")
def test_a_creation_has_to_say_whether_it_is_all(speaker: Speaker) -> None:
    for version in VERSIONS:
        fields = {**version_field(version), "Upload-Length": "5"}
        assert speaker.request("POST", "/files", fields, b"whole").verdict == (400, "missing-field")


@pytest.mark.rule("I-ANSWER-1", "I-APPEND-4")
def test_verifying_takes_long(start_server: StartServer) -> None:
    """With no patience at all the answer is 202, and the empty append asks again."""
    server = start_server("--patience", "0s")
    with Speaker(server.url) as speaker:

        def slow() -> tuple[str, Answer] | None:
            """An upload whose completion was not over when it was answered: nearly every one."""
            url = careful(speaker, 4)
            answer = patch(speaker, url, 0, b"0123", True)
            return (url, answer) if answer.status == 202 else None

        found = eventually(slow)
        assert found is not None
        url, answer = found
        assert (answer["retry-after"], is_complete(answer)) == ("1", False)
        assert eventually(lambda: is_complete(ask(speaker, url)))
        assert patch(speaker, url, 4, b"", True).status == 204


@EVERY_VERSION
@pytest.mark.rule("I-ANSWER-3", "I-DIGEST-2")
def test_an_upload_that_has_failed(speaker: Speaker, version: int) -> None:
    """There is nothing to go on with, whoever asks and however."""
    bad = post(speaker, True, b"whole", version, Repr_Digest=digest(b"other"))
    assert (*bad.verdict, is_complete(bad, version)) == (422, "upload-digest-mismatch", True)
    status, code = (404, "not-found") if version <= 6 else (409, "upload-failed")
    assert ask(speaker, bad["location"], version).status == status
    for offset, body in ((5, b""), (0, b"whole")):
        answer = patch(speaker, bad["location"], offset, body, True, version)
        assert (*answer.verdict, is_complete(answer, version)) == (status, code, False)
        assert "upload-offset" not in answer
    assert speaker.request("DELETE", bad["location"], version_field(version)).status == 204


@EVERY_VERSION
@pytest.mark.rule("I-ANSWER-3", "T-EXPIRE-2")
def test_an_upload_that_has_expired(forgetful: ServerProcess, version: int) -> None:
    with Speaker(forgetful.url) as speaker:
        url = careful(speaker, 10, version)
        status = 404 if version <= 6 else 410
        eventually(lambda: ask(speaker, url, version).status != 204)
        assert ask(speaker, url, version).status == status
        answer = patch(speaker, url, 0, b"x", False, version)
        assert answer.verdict == (status, "not-found" if version <= 6 else "gone")
        assert "upload-offset" not in answer


@EVERY_VERSION
@pytest.mark.rule("I-HEAD-1", "T-CONCAT-6")
def test_asking_about_a_final(speaker: Speaker, version: int) -> None:
    """Before and after its parts are whole: where it is, although it takes no bytes from anybody."""
    parts = [speaker.create(4, parallel=False, Upload_Concat="partial") for _ in range(2)]
    assert speaker.patch(parts[0], 0, b"0123").status == 204
    fields = {**TUS, "Upload-Concat": "final;" + " ".join(parts)}
    url = speaker.url + speaker.request("POST", "/files", fields, b"")["location"]
    asked = ask(speaker, url, version)
    assert (asked.status, asked["upload-length"], is_complete(asked, version)) == (204, "8", False)
    assert asked.offset < 8
    assert speaker.patch(parts[1], 0, b"4567").status == 204
    eventually(lambda: is_complete(ask(speaker, url, version), version))
    asked = ask(speaker, url, version)
    assert (asked.status, asked.offset, asked["upload-length"]) == (204, 8, "8")
    assert patch(speaker, url, 0, b"x", False, version).verdict == (403, "final-upload")


@pytest.mark.rule("I-HEAD-4")
def test_asking_by_get(speaker: Speaker) -> None:
    """As by HEAD, in the version that knows it; the file comes when there is one."""
    url = careful(speaker, 10)
    assert patch(speaker, url, 0, b"01234", False).offset == 5
    for version in (None, *VERSIONS[:-1]):
        assert speaker.request("GET", url, version_field(version)).verdict == (409, "not-finished")
    asked = speaker.request("GET", url, version_field(NEWEST))
    assert (asked.status, asked.offset, asked["upload-length"], is_complete(asked)) == (204, 5, "10", False)
    assert set(limits(asked)) == {"max-size", "max-age"}
    assert asked["cache-control"] == "no-store"
    assert patch(speaker, url, 5, b"56789", True).status == 204
    asked = speaker.request("GET", url, version_field(NEWEST))
    assert (asked.status, asked.offset, asked["upload-length"], is_complete(asked)) == (200, 10, "10", True)
    assert (asked.body, set(limits(asked))) == (b"0123456789", {"max-size"})
    assert "upload-offset" not in speaker.get(url)
    assert speaker.request("GET", "/files/" + 32 * "0", version_field(NEWEST)).verdict == (404, "not-found")


@EVERY_VERSION
@pytest.mark.rule("I-ANSWER-2")
def test_a_creation_that_is_refused_says_that_it_is(speaker: Speaker, version: int) -> None:
    """The answer is of this protocol, and not of what became of the file."""
    answer = post(speaker, True, b"whole", version, Upload_Length="6")
    assert (answer.status, is_complete(answer, version)) == (400, False)


@pytest.mark.rule("I-HEAD-1", "V-ID-1", "T-EXPIRE-2")
def test_an_upload_that_is_not_there(speaker: Speaker) -> None:
    for answer in (
        ask(speaker, "/files/" + 32 * "0"),
        patch(speaker, "/files/" + 32 * "0", 0, b"x", True),
        speaker.request("DELETE", "/files/nobody", completeness(False)),
    ):
        assert answer.status == 404
        assert "upload-offset" not in answer


@pytest.mark.rule("I-CREATE-1", "V-ID-1")
def test_the_location_is_a_path(speaker: Speaker) -> None:
    assert re.fullmatch(r"/files/[0-9a-f]{32}", post(speaker, True, b"whole")["location"])
