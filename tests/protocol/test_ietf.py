"""The IETF draft by values: who speaks it, in which version, and what a head asks for."""

import pytest

from holdfast_protocol import fields, headers
from holdfast_protocol.dialects import draft_spoken, ietf
from holdfast_protocol.drafts import DRAFTS, NEWEST, Draft
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_protocol.server import Append, Limits

LIMITS = Limits(1000, 65536, 60.0)
VERSION = {"Upload-Draft-Interop-Version": "6"}
PARTIAL = {"Content-Type": "application/partial-upload"}
TUS = {"Tus-Resumable": "1.0.0"}
OFFSET = {"Content-Type": "application/offset+octet-stream"}
CHUNK = {"Content-Type": "application/vnd.holdfast.chunk"}
COMPLETE = {"Upload-Complete": "?1"}


@pytest.mark.rule("I-VERSION-1")
def test_the_table() -> None:
    """Each row stands under its version, the newest is the last, and its columns are the defaults."""
    assert list(DRAFTS) == [3, 5, 6, 8, 9]
    assert all(draft.version == version for version, draft in DRAFTS.items())
    assert Draft(9) == NEWEST


@pytest.mark.rule("I-VERSION-2")
@pytest.mark.parametrize(
    ("head", "version"),
    [
        (VERSION, 6),
        (PARTIAL, 9),
        (COMPLETE, 9),
        ({"Upload-Incomplete": "?0"}, 9),
        (VERSION | PARTIAL | COMPLETE, 6),
        (VERSION | TUS, 6),
        (PARTIAL | TUS, 9),
        (TUS, None),
        (TUS | COMPLETE, None),
        (TUS | OFFSET | COMPLETE, None),
        (OFFSET | VERSION | COMPLETE, None),
        (CHUNK | COMPLETE, None),
        (CHUNK | VERSION | COMPLETE, None),
        ({}, None),
    ],
)
def test_who_speaks_the_draft(head: dict[str, str], version: int | None) -> None:
    for method in ("POST", "PATCH", "HEAD", "DELETE"):
        spoken = draft_spoken(method, Headers(head))
        assert (None if spoken is None else spoken.draft.version) == version
        assert spoken is None or spoken.named is ("Upload-Draft-Interop-Version" in head)
    assert draft_spoken("GET", Headers(head)) is None


@pytest.mark.rule("I-HEAD-4")
def test_a_get_has_to_name_a_version_that_knows_it() -> None:
    for version in ("3", "5", "6", "8", "10", "x"):
        assert draft_spoken("GET", Headers({"Upload-Draft-Interop-Version": version})) is None
    assert draft_spoken("GET", Headers({"Upload-Draft-Interop-Version": "9"})) == ietf.Spoken(DRAFTS[9], True)


@pytest.mark.rule("I-VERSION-1", "I-INTERIM-1")
@pytest.mark.parametrize("value", ["", "4", "7", "10", "six", "-6", "?1"])
def test_a_version_that_is_not_known(value: str) -> None:
    spoken = ietf.spoken(Headers({"Upload-Draft-Interop-Version": value}))
    assert spoken == ietf.Spoken(NEWEST, False)


@pytest.mark.rule("I-INTERIM-1")
def test_an_interim_answer_names_the_version_that_was_asked_in() -> None:
    found = ietf.interim_fields(DRAFTS[5], {"Location": "/files/x"})
    assert found == {"Upload-Draft-Interop-Version": "5", "Location": "/files/x"}


@pytest.mark.rule("I-LIMIT-1")
def test_limits() -> None:
    assert ietf.limit_fields(DRAFTS[5], LIMITS, 60.0) == {}
    assert ietf.limit_fields(DRAFTS[6], LIMITS, 59.9) == {"Upload-Limit": "max-size=1000, expires=59"}
    assert ietf.limit_fields(DRAFTS[8], LIMITS, -1.0) == {"Upload-Limit": "max-size=1000, max-age=0"}
    assert ietf.limit_fields(DRAFTS[9], LIMITS, None) == {"Upload-Limit": "max-size=1000"}


@pytest.mark.rule("I-CREATE-2", "I-CREATE-1")
def test_what_a_creation_asks_for() -> None:
    draft = NEWEST
    whole = ietf.create(Headers({**COMPLETE, "Content-Length": "5"}), LIMITS, draft)
    assert (whole.length, whole.body) == (5, Append(0, 5, most=1000, completes=True, fails_beyond=True))
    assert whole.without_body().body is None
    careful = ietf.create(Headers({"Upload-Complete": "?0", "Upload-Length": "5"}), LIMITS, draft)
    assert (careful.length, careful.body) == (5, None)


@pytest.mark.rule("I-CREATE-2", "I-LENGTH-4")
def test_a_creation_that_does_not_say_how_long_the_file_is() -> None:
    draft = NEWEST
    part = ietf.create(Headers({"Upload-Complete": "?0", "Content-Length": "5"}), LIMITS, draft)
    assert (part.length, part.body) == (None, Append(0, 5, most=1000, completes=False, fails_beyond=True))
    whole = ietf.create(Headers({**COMPLETE, "Transfer-Encoding": "chunked"}), LIMITS, draft)
    assert (whole.length, whole.body) == (None, Append(0, None, most=1000, completes=True, fails_beyond=True))
    with pytest.raises(ProblemError) as info:
        ietf.create(Headers({"Upload-Complete": "?0", "Content-Length": "1001"}), LIMITS, draft)
    assert info.value.code == "upload-too-large"


@pytest.mark.rule("I-VERSION-1")
def test_version_3_says_it_the_other_way_round() -> None:
    draft = DRAFTS[3]
    wanted = ietf.create(Headers({"Upload-Incomplete": "?0", "Content-Length": "5"}), LIMITS, draft)
    assert wanted.body == Append(0, 5, most=1000, completes=True)
    assert draft.complete_field == headers.UPLOAD_INCOMPLETE
    assert (draft.format_complete(True), draft.format_complete(False)) == ("?0", "?1")


@pytest.mark.rule("I-ANSWER-2", "I-LENGTH-3")
def test_a_refusal_speaks_the_draft() -> None:
    """A problem of tus becomes that of the draft; what is said of an upload needs one."""
    problem = ietf.refusal(ProblemError("length-exceeded", "Too long."), NEWEST, LIMITS, None, 0.0)
    assert (problem.code, problem.status) == ("inconsistent-upload-length", 400)
    assert problem.headers == {"Upload-Complete": "?0"}
    problem = ietf.refusal(ProblemError("upload-too-large", "Too large."), NEWEST, LIMITS, None, 0.0)
    assert problem.headers == {"Upload-Complete": "?0", "Upload-Limit": "max-size=1000, max-age=59"}


@pytest.mark.rule("I-ANSWER-2", "I-ANSWER-3")
@pytest.mark.parametrize("code", ["upload-failed", "data-lost", "gone"])
def test_an_upload_that_is_not_active_any_more(code: str) -> None:
    """Versions up to 6 want 404; the detail still says what happened."""
    for version, draft in DRAFTS.items():
        problem = ietf.refusal(ProblemError(code, "It was so."), draft, LIMITS, None, 0.0)
        assert problem.code == ("not-found" if version <= 6 else code)
        assert problem.detail == "It was so."
        assert problem.headers == ({"Upload-Incomplete": "?1"} if version == 3 else {"Upload-Complete": "?0"})


@pytest.mark.rule("I-FIELD-1")
def test_an_integer_of_structured_fields() -> None:
    assert fields.parse_item_integer("Upload-Offset", "0;a=b") == 0
    assert fields.parse_item_integer("Upload-Offset", "999999999999999") == 999_999_999_999_999
    for value in ("", "-1", "+1", "1.0", "?1", "1, 1", '"1"', "1000000000000000", "1_0", "\u0661"):
        with pytest.raises(FieldError):
            fields.parse_item_integer("Upload-Offset", value)


@pytest.mark.rule("I-LIMIT-1")
def test_limits_are_a_dictionary() -> None:
    assert fields.format_limits({"max-size": 10, "max-age": 0}) == "max-size=10, max-age=0"
