"""The client's side of the protocol, by values: what is sent, and what each answer means."""

import json
from collections.abc import Generator
from typing import TypeVar

import pytest

from holdfast_protocol import client
from holdfast_protocol.client import Missing, Reaction, Refusal, ViolationError
from holdfast_protocol.digest import Digest, chunk_algorithm, digest
from holdfast_protocol.fields import ParallelOffer
from holdfast_protocol.messages import Headers, Request, Response, Span
from holdfast_protocol.problem import KINDS

Result = TypeVar("Result")
URL = "http://host/files"


def asked(steps: Generator[Request, Response, object]) -> Request:
    return next(steps)


def answered(
    steps: Generator[Request, Response, Result], status: int, fields: dict[str, str] | None = None, body: bytes = b""
) -> Result:
    """What the exchange returns for one answer."""
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.send(Response(status, Headers(fields or {}), body))
    result: Result = stop.value.value
    return result


def problem(code: str, **members: object) -> tuple[int, dict[str, str], bytes]:
    document = {"code": code, "detail": "Because.", **members}
    return KINDS[code].status, {"Content-Type": "application/problem+json"}, json.dumps(document).encode()


def refusal(steps: Generator[Request, Response, object], status: int, fields: dict[str, str], body: bytes) -> Refusal:
    next(steps)
    with pytest.raises(Refusal) as caught:
        steps.send(Response(status, Headers(fields), body))
    return caught.value


@pytest.mark.rule("P-CREATE-1", "P-DIGEST-2")
def test_create_asks_for_parallel_chunks() -> None:
    request = asked(client.create(URL, 5, metadata={"filename": b"a b"}, want="sha-256"))
    assert (request.method, request.url, request.body) == ("POST", URL, None)
    assert request.headers == {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": "5",
        "Content-Length": "0",
        "Upload-Metadata": "filename YSBi",
        "Upload-Parallel": "?1",
        "Want-Repr-Digest": "sha-256=10",
    }


def test_create_for_tus_asks_for_nothing_else() -> None:
    request = asked(client.create(URL, 5, parallel=False, want="sha-256"))
    assert request.headers == {"Tus-Resumable": "1.0.0", "Upload-Length": "5", "Content-Length": "0"}


@pytest.mark.rule("P-OFFER-1", "P-OFFER-2")
def test_created_with_an_offer() -> None:
    created = answered(
        client.create(URL, 5),
        201,
        {
            "Location": "/files/1",
            "Upload-Parallel": "?1;granule=65536;max-chunk=131072",
            "Want-Content-Digest": "sha-256=5, xxh3-128=10",
        },
    )
    offer = ParallelOffer(65536, 131072)
    assert created == client.Created("http://host/files/1", 0, offer, ("xxh3-128", "sha-256"))


@pytest.mark.rule("P-OFFER-1")
def test_created_without_an_offer() -> None:
    assert answered(client.create(URL, 5), 201, {"Location": "1"}).offer is None


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("1", "http://host/1"),
        ("/x/1", "http://host/x/1"),
        ("//other/1", "http://other/1"),
        ("https://o/1", "https://o/1"),
    ],
)
def test_locations(location: str, url: str) -> None:
    assert answered(client.create(URL, 5), 201, {"Location": location}).url == url


@pytest.mark.parametrize("fields", [{}, {"Location": "ftp://host/1"}, {"Location": "/1", "Upload-Parallel": "yes"}])
def test_a_creation_without_a_usable_location_is_a_violation(fields: dict[str, str]) -> None:
    steps = client.create(URL, 5)
    next(steps)
    with pytest.raises(ViolationError):
        steps.send(Response(201, Headers(fields)))


@pytest.mark.parametrize(
    ("code", "reaction"),
    [
        ("not-found", Reaction.FAIL),
        ("upload-too-large", Reaction.FAIL),
        ("insufficient-storage", Reaction.FAIL),
        ("overloaded", Reaction.RETRY),
        ("internal-error", Reaction.RETRY),
    ],
)
def test_at_creation_there_is_nothing_to_begin_anew(code: str, reaction: Reaction) -> None:
    assert refusal(client.create(URL, 5), *problem(code)).reaction is reaction


@pytest.mark.rule("P-STATE-1", "P-STATE-2", "V-MISSING-1")
def test_the_state_of_an_upload() -> None:
    state = answered(
        client.query(URL),
        200,
        {
            "Upload-Offset": "65536",
            "Upload-Length": "300000",
            "Upload-Complete": "?0",
            "Upload-State": "receiving",
            "Upload-Parallel": "?1;granule=65536;max-chunk=65536",
            "Upload-Missing": "(65536 65536), (262144 10);more",
        },
    )
    assert (state.offset, state.length, state.complete, state.failed) == (65536, 300000, False, False)
    assert state.step is None
    assert state.missing == Missing((Span(65536, 131072), Span(262144, 262154)), more=True)


@pytest.mark.rule("P-STATE-2")
@pytest.mark.parametrize("step", ["verifying", "publishing"])
def test_what_the_server_is_at(step: str) -> None:
    fields = {"Upload-Offset": "9", "Upload-Length": "9", "Upload-Complete": "?0"}
    state = answered(client.query(URL), 200, {**fields, "Upload-State": "verifying", "Upload-Step": step})
    assert (state.complete, state.failed, state.step) == (False, False, step)


def test_nothing_missing_and_not_able_to_say_are_two_things() -> None:
    fields = {"Upload-Offset": "5", "Upload-Length": "9"}
    assert answered(client.query(URL), 200, fields).missing is None
    fields["Upload-Parallel"] = "?1;granule=1;max-chunk=1"
    assert answered(client.query(URL), 200, fields).missing == Missing()


@pytest.mark.parametrize(("offset", "complete"), [("4", False), ("5", True)])
def test_a_tus_server_is_complete_at_the_length(offset: str, complete: bool) -> None:
    state = answered(client.query(URL), 200, {"Upload-Offset": offset, "Upload-Length": "5"})
    assert state.complete is complete


@pytest.mark.rule("T-PATCH-4")
def test_a_server_that_says_that_it_is_not_complete_is_believed() -> None:
    fields = {"Upload-Offset": "5", "Upload-Length": "5", "Upload-Complete": "?0"}
    assert not answered(client.query(URL), 200, fields).complete


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Upload-Offset": "+5"},
        {"Upload-Offset": "5", "Upload-Complete": "true"},
        {"Upload-Offset": "0", "Upload-Parallel": "?1;granule=1;max-chunk=1", "Upload-Missing": "(5 0)"},
    ],
)
def test_a_state_that_cannot_be_read_is_a_violation(fields: dict[str, str]) -> None:
    steps = client.query(URL)
    next(steps)
    with pytest.raises(ViolationError):
        steps.send(Response(200, Headers(fields)))


@pytest.mark.rule("P-CHUNK-1")
def test_a_chunk_names_its_offset_and_digest() -> None:
    steps = client.chunk(URL, Span(65536, 65539), digest("sha-256", b"abc"))
    request = asked(steps)
    assert (request.method, request.body) == ("PATCH", Span(65536, 65539))
    assert request.headers == {
        "Tus-Resumable": "1.0.0",
        "Content-Type": "application/vnd.holdfast.chunk",
        "Upload-Offset": "65536",
        "Content-Length": "3",
        "Content-Digest": "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:",
    }
    with pytest.raises(StopIteration) as stop:
        steps.send(Response(204, Headers({"Upload-Offset": "0"})))
    assert stop.value.value == client.Stored(0)


@pytest.mark.rule("P-COMPLETE-1", "P-COMPLETE-4")
def test_completing() -> None:
    whole = Digest("sha-256", bytes(32))
    request = asked(client.complete(URL, [whole]))
    assert request.headers == {
        "Tus-Resumable": "1.0.0",
        "Content-Type": "application/vnd.holdfast.chunk",
        "Upload-Complete": "?1",
        "Content-Length": "0",
        "Upload-Digest": f"sha-256=:{'A' * 43}=:",
    }
    said = {"Repr-Digest": f"sha-256=:{'A' * 43}=:"}
    assert answered(client.complete(URL), 204, said) == client.Completed(True, None, (whole,))
    assert answered(client.complete(URL), 202, {"Retry-After": "3"}) == client.Completed(False, 3.0)
    assert asked(client.complete(URL, wait=2)).headers["Prefer"] == "wait=2"
    still = answered(client.complete(URL, wait=2), 202, {"Retry-After": "0", "Upload-Step": "publishing"})
    assert still == client.Completed(False, 0.0, step="publishing")


@pytest.mark.rule("P-COMPLETE-2")
def test_completing_too_early_says_what_is_missing() -> None:
    status, fields, body = problem("missing-ranges")
    found = refusal(client.complete(URL), status, fields | {"Upload-Missing": "(0 5)"}, body)
    assert (found.reaction, found.missing) == (Reaction.RESYNC, Missing((Span(0, 5),)))


def test_append_needs_to_be_told_the_offset() -> None:
    request = asked(client.append(URL, Span(3, 9)))
    assert (request.headers["Content-Type"], request.headers["Upload-Offset"]) == (
        "application/offset+octet-stream",
        "3",
    )
    assert answered(client.append(URL, Span(3, 9)), 204, {"Upload-Offset": "9"}).offset == 9
    steps = client.append(URL, Span(3, 9))
    next(steps)
    with pytest.raises(ViolationError):
        steps.send(Response(204, Headers()))


@pytest.mark.parametrize("status", [204, 404, 410])
def test_removing_what_is_gone_is_no_error(status: int) -> None:
    assert answered(client.terminate(URL), status) is None


@pytest.mark.parametrize(
    ("code", "reaction"),
    [
        ("digest-mismatch", Reaction.REPEAT),
        ("checksum-mismatch", Reaction.REPEAT),
        ("misaligned-chunk", Reaction.FAIL),
        ("chunk-too-large", Reaction.SMALLER),
        ("upload-too-large", Reaction.FAIL),
        ("not-found", Reaction.RECREATE),
        ("gone", Reaction.RECREATE),
        ("chunk-conflict", Reaction.RECREATE),
        ("upload-failed", Reaction.RECREATE),
        ("fenced", Reaction.RESYNC),
        ("offset-mismatch", Reaction.RESYNC),
        ("final-upload", Reaction.RESYNC),
        ("request-timeout", Reaction.RETRY),
        ("range-busy", Reaction.RETRY),
        ("shutting-down", Reaction.RETRY),
        ("insufficient-storage", Reaction.RETRY),
        ("unsupported-media-type", Reaction.FAIL),
        ("version-not-supported", Reaction.FAIL),
        ("upload-digest-mismatch", Reaction.FAIL),
    ],
)
def test_what_each_code_asks_for(code: str, reaction: Reaction) -> None:
    found = refusal(client.chunk(URL, Span(0, 1), digest("md5", b"x")), *problem(code))
    assert (found.reaction, found.code, found.detail) == (reaction, code, "Because.")


@pytest.mark.parametrize(
    ("status", "reaction"),
    [
        (400, Reaction.FAIL),
        (401, Reaction.FAIL),
        (403, Reaction.FAIL),
        (404, Reaction.RECREATE),
        (408, Reaction.RETRY),
        (409, Reaction.RESYNC),
        (410, Reaction.RECREATE),
        (412, Reaction.FAIL),
        (413, Reaction.SMALLER),
        (423, Reaction.RETRY),
        (429, Reaction.RETRY),
        (460, Reaction.REPEAT),
        (500, Reaction.RETRY),
        (501, Reaction.FAIL),
        (502, Reaction.RETRY),
        (503, Reaction.RETRY),
        (504, Reaction.RETRY),
        (522, Reaction.RETRY),
    ],
)
def test_what_each_status_asks_for_that_has_no_code(status: int, reaction: Reaction) -> None:
    assert refusal(client.query(URL), status, {}, b"").reaction is reaction


@pytest.mark.parametrize("status", [206, 299, 301, 302, 308])
def test_an_answer_that_means_nothing_is_a_violation(status: int) -> None:
    steps = client.query(URL)
    next(steps)
    with pytest.raises(ViolationError):
        steps.send(Response(status, Headers({"Location": "/elsewhere"})))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0), ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0), ("soon", None)],
)
def test_retry_after_counts_from_now(value: str, seconds: float | None) -> None:
    found = refusal(client.query(URL, now=40.0), 503, {"Retry-After": value}, b"")
    assert (found.retry_after, found.throttled) == (seconds, True)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"code": 5}', b"[" * 100_000])
def test_a_broken_problem_document_is_passed_over(body: bytes) -> None:
    found = refusal(client.query(URL), 500, {"Content-Type": "application/problem+json"}, body)
    assert (found.code, found.reaction) == (None, Reaction.RETRY)


@pytest.mark.rule("V-PROBLEM-2")
def test_an_answer_to_head_says_why_in_a_field() -> None:
    found = refusal(client.query(URL), 403, {"Upload-Problem": 'given-up;detail="Ask for \\"one\\"."'}, b"")
    assert (found.code, found.detail) == ("given-up", 'Ask for "one".')


@pytest.mark.parametrize("name", ["Upload-Missing", "Upload-Offset", "Upload-Problem"])
def test_a_refusal_stands_with_a_malformed_field(name: str) -> None:
    assert refusal(client.query(URL), 409, {name: "("}, b"").reaction is Reaction.RESYNC


@pytest.mark.parametrize(
    ("wants", "here", "algorithm"),
    [
        (("sha-256", "xxh3-128"), ("xxh3-128", "sha-256"), "xxh3-128"),
        (("blake3", "md5", "sha-256"), ("sha-256", "md5"), "md5"),
        (("blake3",), ("sha-256",), "sha-256"),
        ((), ("xxh3-128", "sha-256"), "sha-256"),
    ],
)
def test_the_digest_of_chunks(wants: tuple[str, ...], here: tuple[str, ...], algorithm: str) -> None:
    assert chunk_algorithm(wants, here) == algorithm


def test_spans_of_a_file() -> None:
    assert client.spans_of(0) == client.spans_of(5, 5) == ()
    assert client.spans_of(9, 5) == (Span(5, 9),)


def test_create_with_content_says_what_it_is() -> None:
    """tus, creation-with-upload: the media type of a PATCH."""
    request = asked(client.create(URL, 5, parallel=False, content=Span(0, 5), checksum=digest("sha-256", b"bytes")))
    assert request.body == Span(0, 5)
    assert request.headers["Content-Type"] == "application/offset+octet-stream"
    assert request.headers["Content-Length"] == "5"
    assert request.headers["Upload-Checksum"].startswith("sha256 ")


def test_create_without_a_length_says_so() -> None:
    request = asked(client.create(URL, None, parallel=False))
    assert request.headers == {"Tus-Resumable": "1.0.0", "Upload-Defer-Length": "1", "Content-Length": "0"}


def test_parts_and_the_whole_of_them() -> None:
    """tus, concatenation: a part has a length, what is put together must not have one."""
    part = asked(client.create(URL, 5, parallel=False, partial=True))
    assert (part.headers["Upload-Concat"], part.headers["Upload-Length"]) == ("partial", "5")
    whole = asked(client.create(URL, None, parallel=False, metadata={"a": b"b"}, final_of=["http://h/1", "http://h/2"]))
    assert whole.headers["Upload-Concat"] == "final;http://h/1 http://h/2"
    assert whole.headers["Upload-Metadata"] == "a Yg=="
    assert not {"Upload-Length", "Upload-Defer-Length"} & set(whole.headers)


def test_append_may_say_a_checksum_and_the_length() -> None:
    request = asked(client.append(URL, Span(5, 10), checksum=digest("sha", b"bytes"), length=10))
    assert request.headers["Upload-Checksum"].startswith("sha1 ")
    assert request.headers["Upload-Length"] == "10"


@pytest.mark.parametrize(
    ("fields", "expires"),
    [
        ({}, None),
        ({"Upload-Expires": "tomorrow"}, None),
        ({"Upload-Expires": "Sun, 06 Nov 1994 08:49:37 GMT"}, 784111777.0),
        ({"Upload-Expires": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:30 GMT"}, 1007.0),
    ],
)
def test_expiry(fields: dict[str, str], expires: float | None) -> None:
    """With the server's own time it is read as so many seconds from now; the two clocks may differ."""
    assert (
        answered(client.append(URL, Span(0, 5), now=1000.0), 204, {"Upload-Offset": "5", **fields}).expires == expires
    )
    assert answered(client.create(URL, 5, now=1000.0), 201, {"Location": "/1", **fields}).expires == expires
    assert answered(client.query(URL, now=1000.0), 200, {"Upload-Offset": "5", **fields}).expires == expires


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, (None, False)),
        ({"Upload-Length": "5"}, (5, False)),
        ({"Upload-Length": "5", "Upload-Offset": "4"}, (5, False)),
        ({"Upload-Length": "5", "Upload-Offset": "5"}, (5, True)),
    ],
)
def test_the_state_of_what_is_put_together(fields: dict[str, str], said: tuple[int | None, bool]) -> None:
    """As long as it is not done it has no offset, and that is no violation."""
    assert answered(client.query_final(URL), 200, fields) == said


def test_the_state_of_what_is_put_together_may_be_refused() -> None:
    assert refusal(client.query_final(URL), *problem("gone")).reaction is Reaction.RECREATE


@pytest.mark.parametrize(
    ("kind", "body", "detail"),
    [
        (
            "text/plain; charset=utf-8",
            b"ERR_UPLOAD_NOT_FOUND: upload not found\nmore",
            "ERR_UPLOAD_NOT_FOUND: upload not found",
        ),
        ("text/plain", b"\x1b[2Jno\xff" + b"x" * 500, " [2Jno\ufffd" + "x" * 193),
        ("text/html", b"<h1>No</h1>", ""),
    ],
)
def test_a_refusal_in_plain_text_is_passed_on(kind: str, body: bytes, detail: str) -> None:
    assert refusal(client.query(URL), 404, {"Content-Type": kind}, body).detail == detail.strip()
