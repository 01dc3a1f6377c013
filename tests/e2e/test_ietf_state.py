"""The IETF draft over the wire: asking for the state of an upload, and ending one."""

from collections.abc import Iterator

import pytest
from tests.conftest import StartServer
from tests.support.drafts import (
    EVERY_VERSION,
    NEWEST,
    VERSIONS,
    ask,
    careful,
    completeness,
    is_complete,
    limits,
    patch,
    post,
    version_field,
)
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, Speaker, digest
from tests.support.waiting import eventually
from tests.support.wire import Answer


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on which unfinished uploads expire at once."""
    with ServerProcess(tmp_path_factory.mktemp("forgetful") / "data", expire_after=0.1) as process:
        yield process


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


@pytest.mark.rule("I-HEAD-1", "V-ID-1", "T-EXPIRE-2")
def test_an_upload_that_is_not_there(speaker: Speaker) -> None:
    for answer in (
        ask(speaker, "/files/" + 32 * "0"),
        patch(speaker, "/files/" + 32 * "0", 0, b"x", True),
        speaker.request("DELETE", "/files/nobody", completeness(False)),
    ):
        assert answer.status == 404
        assert "upload-offset" not in answer
