"""The IETF draft over the wire: limits, and where they are told."""

import pytest
from tests.conftest import StartServer
from tests.support.drafts import (
    EVERY_VERSION,
    LONGEST,
    ask,
    careful,
    create,
    limits,
    patch,
    post,
    version_field,
)
from tests.support.speaker import Speaker


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
