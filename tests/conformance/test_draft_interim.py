"""The IETF draft: interim answers (R17, R18, R22, R23, R35, R36, R42, R51)."""

import select
import time
from urllib.parse import urljoin

import pytest

from tests.conformance.conftest import not_observed, not_offered
from tests.conformance.draft import NO_VERSION, RESUMPTION_SUPPORTED, Draft, limits
from tests.support.waiting import scaled
from tests.support.wire import Answer, Connection

PIECE = bytes(50_000)
PIECES = 400


def _resumption(answer: Answer) -> list[Answer]:
    """The 104 that came before an answer."""
    return [each for each in answer.before if each.status == RESUMPTION_SUPPORTED]


@pytest.mark.holds("R17", "R18", "R23")
@pytest.mark.parametrize("complete", [True, False], ids=["whole", "part"])
def test_a_creation_can_be_resumed(draft: Draft, interim: None, complete: bool) -> None:
    """The URL is told before the end, and is the same in the final answer: unless that is about the whole file."""
    answer = draft.post(complete, b"hello", length=5 if complete else 10)
    told = [each["location"] for each in _resumption(answer) if "location" in each]
    assert told, "no 104 with Location came"
    assert len(set(told)) == 1
    assert answer.get("location") == told[0] or complete
    assert draft.head(urljoin(draft.subject.url, told[0])).status < 300 or complete


@pytest.mark.holds("R17", "R18")
def test_the_url_is_told_while_the_body_is_on_its_way(draft: Draft, interim: None) -> None:
    """The upload can be asked for after the connection broke; the body never came."""
    with draft.sending("POST", draft.subject.url, draft.creating(True), 10, b"") as connection:
        told = connection.read_head()
    assert (told.status, draft.state(draft.where(told))) == (RESUMPTION_SUPPORTED, (0, False))


@pytest.mark.holds("R18")
@pytest.mark.versions(since=8)
def test_the_limits_are_told_with_the_url(draft: Draft, interim: None) -> None:
    if limits(draft.options()) in (None, {"min-size": 0}):
        not_observed("the server has no limits")
    first, *_ = _resumption(draft.post(False, b"hello", length=10))
    assert limits(first)


@pytest.mark.holds("R22")
@pytest.mark.versions(since=5)
def test_a_long_creation_is_told_its_offset(draft: Draft, interim: None) -> None:
    with draft.subject.connect() as connection:
        connection.begin("POST", draft.subject.url, _chunked(draft.creating(False)))
        told = _progress(connection)
    if told is None:
        not_offered("progress")
    assert 0 < told.offset <= PIECES * len(PIECE)


@pytest.mark.holds("R35", "R36")
@pytest.mark.versions(since=5)
def test_a_long_append_is_told_its_offset(draft: Draft, interim: None) -> None:
    """And not its URL again. Before version 8 a server may leave it."""
    upload = draft.create(length=None)
    with draft.subject.connect() as connection:
        connection.begin("PATCH", upload, _chunked(draft.appending(0, False)))
        told = _progress(connection)
    if told is None and draft.version < 8:
        not_offered("progress")
    assert told is not None, "no interim answer told an offset"
    assert 0 < told.offset <= PIECES * len(PIECE)
    assert "location" not in told
    assert draft.offset(upload) >= told.offset


def _chunked(fields: dict[str, str]) -> dict[str, str]:
    return {**fields, "Transfer-Encoding": "chunked"}


def _progress(connection: Connection) -> Answer | None:
    """Sends a body slowly until an interim answer tells an offset; None if none came in 4 s (scaled)."""
    until = time.monotonic() + scaled(4)
    for _ in range(PIECES):
        connection.send(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
        while select.select([connection.socket], [], [], scaled(4) / PIECES)[0]:
            answer = connection.read_head()
            assert answer.status < 200, f"the request was answered {answer.status} while its body was on its way"
            if answer.status == RESUMPTION_SUPPORTED and "upload-offset" in answer:
                return answer
        if time.monotonic() > until:
            break
    return None


@pytest.mark.holds("R42")
@pytest.mark.parametrize("complete", [True, False], ids=["whole", "part"])
def test_a_body_that_waits_is_asked_for(draft: Draft, complete: bool) -> None:
    fields = {**draft.creating(complete, 5 if complete else 10), "Expect": "100-continue"}
    with draft.sending("POST", draft.subject.url, fields, 5, b"") as connection:
        head = connection.read_head()
        while head.status == RESUMPTION_SUPPORTED:
            head = connection.read_head()
        assert head.status == 100, "the body was not asked for"
        connection.send(b"hello")
        assert connection.read().status < 300


@pytest.mark.holds("R51")
def test_an_interim_answer_names_its_version(draft: Draft, interim: None) -> None:
    told = _resumption(draft.post(False, b"hello", length=10))
    assert told
    assert {each["upload-draft-interop-version"] for each in told} == {str(draft.version)}


@pytest.mark.holds("R51")
@pytest.mark.parametrize("named", [None, "1", str(NO_VERSION), "newest", '"9"', "-9"])
def test_nobody_else_gets_one(draft: Draft, interim: None, named: str | None) -> None:
    """Who names no version, or none that there is: clients that know only final answers would take it for one."""
    fields = draft.creating(False, 10)
    del fields["Upload-Draft-Interop-Version"]
    if named is not None:
        fields["Upload-Draft-Interop-Version"] = named
    answer = draft.subject.request("POST", draft.subject.url, fields, b"hello")
    assert _resumption(answer) == []
