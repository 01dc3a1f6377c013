"""The client's side of the IETF draft, by values: what is sent in which version, and what each answer means."""

import json
from collections.abc import Generator, Mapping
from typing import TypeVar

import pytest

from holdfast_protocol.client import Reaction, Refusal, State, Stored, ViolationError
from holdfast_protocol.digest import Digest
from holdfast_protocol.drafts import DRAFTS
from holdfast_protocol.fields import parse_limits
from holdfast_protocol.ietf_client import NOT_SPOKEN, Guest, drafts_from, hinted
from holdfast_protocol.messages import Headers, Request, Response, Span
from holdfast_protocol.problem import FieldError
from holdfast_protocol.size_limits import SizeLimits, size_limits

Result = TypeVar("Result")
Steps = Generator[Request, Response, Result]
URL = "http://host/files"
AT = "http://host/files/1"
NOW = 1_000_000.0
CREATED = {"Location": "/files/1", "Upload-Complete": "?0"}
ASKED = {"Upload-Offset": "3", "Upload-Complete": "?0"}


def answered(steps: "Steps[Result]", *answers: tuple[int, Mapping[str, str]], body: bytes = b"") -> Result:
    """What the exchange returns after these answers."""
    next(steps)
    for number, (status, fields) in enumerate(answers, start=1):
        response = Response(status, Headers(fields), body)
        if number < len(answers):
            steps.send(response)
            continue
        with pytest.raises(StopIteration) as stop:
            steps.send(response)
    result: Result = stop.value.value
    return result


def refused(steps: "Steps[Result]", status: int, fields: Mapping[str, str], body: bytes = b"") -> Refusal:
    next(steps)
    with pytest.raises(Refusal) as caught:
        steps.send(Response(status, Headers(fields), body))
    return caught.value


def guest(version: int, size: int | None = 10) -> Guest:
    return Guest(size, [DRAFTS[version]])


def create(them: Guest) -> "Steps[object]":
    return them.create(URL, metadata={}, now=NOW)


@pytest.mark.rule("G-VERSION-1")
def test_the_newest_comes_first() -> None:
    assert [draft.version for draft in drafts_from()] == [9, 8, 6, 5, 3]
    assert [draft.version for draft in drafts_from(DRAFTS[6])] == [6, 5, 3]


@pytest.mark.rule("G-VERSION-2")
@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({}, None),
        ({"Tus-Version": "1.0.0"}, None),
        ({"Upload-Draft-Interop-Version": "8"}, 8),
        ({"Upload-Draft-Interop-Version": "4"}, None),
        ({"Upload-Draft-Interop-Version": "6", "Upload-Limit": "max-age=5"}, 6),
        ({"Upload-Limit": "max-size=9, max-age=5"}, 9),
        ({"Upload-Limit": "max-size=9, expires=5"}, 6),
        ({"Upload-Limit": "min-size=0"}, 9),
        ({"Upload-Limit": "nonsense="}, 9),
        ({"Accept-Patch": "application/offset+octet-stream, application/partial-upload"}, 9),
        ({"Accept-Patch": "application/offset+octet-stream"}, None),
    ],
)
def test_what_an_answer_says_of_the_draft(fields: dict[str, str], version: int | None) -> None:
    found = hinted(Response(204, Headers(fields)))
    assert (None if found is None else found.version) == version


@pytest.mark.rule("G-IETF-7", "G-IETF-8", "G-IETF-9", "G-IETF-27")
@pytest.mark.parametrize(
    ("version", "size", "field"),
    [
        (3, 10, {"Upload-Incomplete": "?1", "Upload-Length": "10"}),
        (3, 0, {"Upload-Incomplete": "?0", "Upload-Length": "0"}),
        (9, 10, {"Upload-Complete": "?0", "Upload-Length": "10"}),
        (9, 0, {"Upload-Complete": "?1", "Upload-Length": "0"}),
        (6, None, {"Upload-Complete": "?0"}),
    ],
)
def test_a_creation(version: int, size: int | None, field: dict[str, str]) -> None:
    request = next(guest(version, size).create(URL, metadata={"filename": b"a b", "x": b""}))
    assert (request.method, request.url, request.body) == ("POST", URL, None)
    assert request.headers == field | {
        "Upload-Draft-Interop-Version": str(version),
        "Content-Length": "0",
        "Upload-Metadata": "filename YSBi,x",
        "Content-Disposition": "inline; filename=\"a b\"; filename*=UTF-8''a%20b",
    }


@pytest.mark.rule("G-VERSION-1")
@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, {}),
        (405, {}),
        (412, {}),
        (415, {}),
        (501, {}),
        (200, {}),
        (201, {"Location": "/files/1"}),
        (201, {"Upload-Complete": "?0"}),
        (201, {"Location": "/files/1", "Upload-Complete": "yes"}),
        (201, {"Location": "/files/1", "Upload-Incomplete": "?1"}),
        (201, {"Location": "/files/1", "Upload-Draft-Interop-Version": "8"}),
    ],
)
def test_an_answer_that_is_none_of_this_version(status: int, fields: dict[str, str]) -> None:
    """The next older version is tried, and is spoken from then on; without one the refusal says what was tried."""
    them = Guest(10)
    answered(create(them), (status, fields), (201, CREATED))
    assert them.draft is DRAFTS[8]
    assert next(them.query(AT)).headers == {"Upload-Draft-Interop-Version": "8"}
    found = refused(create(guest(9)), status, fields)
    assert (found.code, found.reaction) == (NOT_SPOKEN, Reaction.FAIL)
    assert "in interop version 9 (" in found.detail


@pytest.mark.rule("G-VERSION-1")
def test_a_server_may_show_its_version_by_its_number() -> None:
    """tusd does not say how complete a new upload is."""
    them = guest(6)
    created = answered(create(them), (201, {"Location": "/files/1", "Upload-Draft-Interop-Version": "6"}))
    assert them.draft is DRAFTS[6]
    assert created == answered(create(guest(6)), (201, CREATED))


@pytest.mark.rule("G-IETF-4", "G-IETF-3")
def test_what_a_creation_says() -> None:
    said = CREATED | {"Upload-Limit": "max-size=100, min-append-size=2, max-append-size=5, max-age=60, of=1"}
    found = answered(guest(9).create(URL, metadata={}, now=NOW), (201, said))
    assert (found.url, found.expires, found.complete) == (AT, NOW + 60, False)
    assert found.limits == SizeLimits(100, None, 5, 2)
    assert answered(guest(9, 0).create(URL, metadata={}), (200, CREATED | {"Upload-Complete": "?1"})).complete


@pytest.mark.parametrize("location", ["ftp://host/1", "file:///etc/passwd"])
def test_a_url_that_is_none_of_http(location: str) -> None:
    steps = create(guest(9))
    next(steps)
    with pytest.raises(ViolationError, match="not one of HTTP"):
        steps.send(Response(201, Headers(CREATED | {"Location": location})))


@pytest.mark.rule("G-IETF-22")
@pytest.mark.parametrize(
    ("status", "reaction"),
    [(401, Reaction.FAIL), (404, Reaction.FAIL), (413, Reaction.FAIL), (507, Reaction.FAIL), (503, Reaction.RETRY)],
)
def test_a_creation_that_is_refused(status: int, reaction: Reaction) -> None:
    found = refused(create(Guest(10)), status, {"Upload-Limit": "max-size=5"})
    assert (found.status, found.reaction, found.limits) == (status, reaction, SizeLimits(max_size=5))


def test_a_redirect_is_not_followed() -> None:
    steps = create(Guest(10))
    next(steps)
    with pytest.raises(ViolationError, match="elsewhere"):
        steps.send(Response(307, Headers({"Location": "http://other/"})))


@pytest.mark.rule("G-IETF-12")
def test_the_state() -> None:
    fields = ASKED | {"Upload-Length": "10", "Upload-Limit": "max-age=60, max-append-size=4", "Retry-After": "2"}
    found = answered(guest(9).query(AT, now=NOW), (204, fields))
    assert found == State(3, 10, False, expires=NOW + 60, limits=SizeLimits(max_append=4), retry_after=2.0)
    assert answered(guest(9).query(AT), (200, ASKED)) == State(3, None, False)
    assert answered(guest(3).query(AT), (204, {"Upload-Offset": "3", "Upload-Incomplete": "?1"})) == State(
        3, None, False
    )


@pytest.mark.rule("G-IETF-2", "G-IETF-15")
def test_a_state_without_an_offset() -> None:
    """Of a complete upload it is the length; of another one it is asked for again."""
    assert answered(guest(9).query(AT), (204, {"Upload-Complete": "?1"})) == State(10, None, True)
    done = {"Upload-Complete": "?1", "Upload-Length": "7"}
    assert answered(guest(9, None).query(AT), (204, done)) == State(7, 7, True)
    for malformed in ({}, {"Upload-Offset": "-1"}, {"Upload-Offset": "three"}):
        found = refused(guest(9).query(AT), 204, {"Upload-Complete": "?0", **malformed})
        assert found.reaction is Reaction.RETRY


@pytest.mark.rule("G-VERSION-1")
def test_asking_finds_the_version_too() -> None:
    """An answer that does not say how complete the upload is, is one of tus."""
    them = Guest(10)
    tus = {"Upload-Offset": "3", "Upload-Length": "10", "Tus-Resumable": "1.0.0"}
    state = answered(them.query(AT), (200, tus), (412, {}), (204, ASKED))
    assert (state.offset, them.draft) == (3, DRAFTS[6])
    assert refused(guest(9).query(AT), 200, tus).code == NOT_SPOKEN
    assert refused(Guest(10).query(AT), 404, {}).reaction is Reaction.RECREATE


@pytest.mark.rule("G-IETF-16", "G-IETF-18", "G-DIGEST-1", "G-IETF-1")
@pytest.mark.parametrize(
    ("version", "size", "span", "length", "field"),
    [
        (9, 10, Span(3, 7), None, {"Upload-Complete": "?0"}),
        (9, 10, Span(3, 10), None, {"Upload-Complete": "?1"}),
        (9, 10, Span(10, 10), None, {"Upload-Complete": "?1"}),
        (3, 10, Span(3, 7), None, {"Upload-Incomplete": "?1"}),
        (3, 10, Span(3, 10), None, {"Upload-Incomplete": "?0"}),
        (9, None, Span(3, 7), None, {"Upload-Complete": "?0"}),
        (9, None, Span(3, 7), 7, {"Upload-Complete": "?1", "Upload-Length": "7"}),
        (9, None, Span(3, 7), 9, {"Upload-Complete": "?0", "Upload-Length": "9"}),
    ],
)
def test_an_append(version: int, size: int | None, span: Span, length: int | None, field: dict[str, str]) -> None:
    proof = Digest("md5", bytes(16))
    request = next(guest(version, size).append(AT, span, checksum=proof, length=length))
    assert (request.method, request.url, request.body) == ("PATCH", AT, span)
    assert request.headers == field | {
        "Upload-Draft-Interop-Version": str(version),
        "Content-Type": "application/partial-upload",
        "Upload-Offset": str(span.start),
        "Content-Length": str(span.length),
        "Content-Digest": "md5=:AAAAAAAAAAAAAAAAAAAAAA==:",
    }


@pytest.mark.rule("G-IETF-2", "G-IETF-17")
@pytest.mark.parametrize(
    ("end", "status", "fields", "stored"),
    [
        (7, 204, {"Upload-Offset": "7", "Upload-Complete": "?0"}, Stored(7, None, False)),
        (7, 201, {"Upload-Offset": "5"}, Stored(5, None, False)),
        (7, 204, {}, Stored(None, None, False)),
        (10, 204, {}, Stored(10, None, True)),
        (10, 200, {"Upload-Complete": "?1"}, Stored(10, None, True)),
        (10, 204, {"Upload-Complete": "?0", "Upload-Offset": "8"}, Stored(8, None, False)),
        (10, 202, {"Upload-Offset": "10", "Retry-After": "3"}, Stored(10, None, False, retry_after=3.0)),
        (10, 202, {"Upload-Offset": "10", "Retry-After": "soon"}, Stored(10, None, False)),
        (7, 204, {"Upload-Limit": "max-age=9"}, Stored(None, NOW + 9, False, SizeLimits())),
    ],
)
def test_what_an_append_says(end: int, status: int, fields: dict[str, str], stored: Stored) -> None:
    assert answered(guest(9).append(AT, Span(3, end), now=NOW), (status, fields)) == stored


@pytest.mark.rule("G-IETF-21")
def test_409_with_an_offset() -> None:
    found = refused(guest(9).append(AT, Span(3, 7)), 409, ASKED)
    assert found.state == State(3, None, complete=False)
    assert refused(guest(9).append(AT, Span(3, 7)), 409, {}).state is None
    document = json.dumps({"code": "upload-failed"}).encode()
    fields = {**ASKED, "Content-Type": "application/problem+json"}
    assert refused(guest(9).append(AT, Span(3, 7)), 409, fields, document).state is None


@pytest.mark.rule("G-IETF-19")
@pytest.mark.parametrize("status", [400, 409, 503])
def test_an_error_after_all_was_taken_in(status: int) -> None:
    found = refused(guest(9).append(AT, Span(3, 10)), status, ASKED | {"Upload-Complete": "?1"})
    assert (found.final, found.reaction, found.state) == (True, Reaction.FAIL, None)


def test_problems_by_their_registered_names() -> None:
    """Other servers have no codes of ours."""
    document = json.dumps({"type": "https://iana.org/assignments/http-problem-types#completed-upload"}).encode()
    found = refused(guest(9).append(AT, Span(3, 7)), 400, {"Content-Type": "application/problem+json"}, document)
    assert (found.code, found.reaction) == ("completed-upload", Reaction.RESYNC)
    for kind in ("about:blank", "https://iana.org/assignments/http-problem-types#", 5):
        document = json.dumps({"type": kind}).encode()
        fields = {"Content-Type": "application/problem+json"}
        assert refused(guest(9).append(AT, Span(3, 7)), 400, fields, document).code is None


@pytest.mark.rule("G-IETF-4")
def test_nothing_is_touched_after_its_time() -> None:
    them = guest(9)
    answered(them.create(URL, metadata={}, now=NOW), (201, CREATED | {"Upload-Limit": "max-age=60"}))
    answered(them.append(AT, Span(0, 3), now=NOW + 50), (204, ASKED))
    assert next(them.query(AT, now=NOW + 59)).method == "HEAD"
    for steps in (them.query(AT, now=NOW + 60), them.append(AT, Span(3, 10), now=NOW + 60)):
        with pytest.raises(Refusal) as caught:
            next(steps)
        assert caught.value.reaction is Reaction.RECREATE
    with pytest.raises(StopIteration):
        next(them.terminate(AT, now=NOW + 60))
    answered(them.append(AT, Span(3, 5), now=NOW + 59), (204, ASKED | {"Upload-Limit": "max-age=60"}))
    assert next(them.query(AT, now=NOW + 118)).method == "HEAD"


@pytest.mark.parametrize("status", [200, 204, 404, 410])
def test_cancelling(status: int) -> None:
    steps = guest(6).terminate(AT)
    request = next(steps)
    assert (request.method, request.url) == ("DELETE", AT)
    assert request.headers == {"Upload-Draft-Interop-Version": "6"}
    with pytest.raises(StopIteration):
        steps.send(Response(status, Headers()))
    assert refused(guest(6).terminate(AT), 405, {}).status == 405


@pytest.mark.rule("G-IETF-3", "G-IETF-5")
@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        (SizeLimits(), True),
        (SizeLimits(max_size=10, min_size=10, max_append=10, min_append=10), True),
        (SizeLimits(max_size=9), False),
        (SizeLimits(min_size=11), False),
        (SizeLimits(max_append=0), False),
        (SizeLimits(max_append=4, min_append=5), False),
        (SizeLimits(max_append=10, min_append=50), True),
    ],
)
def test_limits_that_ten_bytes_meet(limits: SizeLimits, fits: bool) -> None:
    assert (limits.unmet(10) is None) == fits


@pytest.mark.rule("G-IETF-3")
@pytest.mark.parametrize(
    "value", ["max-size", "max-size=a", "max-size=-1", "max-size=1.5", "max-size=?1", "=", "a=(1)"]
)
def test_limits_that_are_malformed_count_as_not_sent(value: str) -> None:
    with pytest.raises(FieldError):
        parse_limits(value)
    assert size_limits(Response(204, Headers({"Upload-Limit": f"min-size=5, {value}"}))) is None


def test_limits_as_others_write_them() -> None:
    assert parse_limits("min-size=0,max-size=10;x=1,  expires=5") == {"min-size": 0, "max-size": 10, "expires": 5}


@pytest.mark.rule("G-IETF-3")
def test_what_an_answer_does_not_say_of_limits_stays() -> None:
    known = SizeLimits(max_size=9, max_append=5)
    assert known.then(None) == known
    assert known.then(SizeLimits(max_append=4, min_append=0)) == SizeLimits(9, None, 4, 0)
