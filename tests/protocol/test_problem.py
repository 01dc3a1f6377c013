"""Problems: the codes are those of protocol.md, and the document is that of RFC 9457."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol.problem import KINDS, FieldError, ProblemError

PROTOCOL = Path(__file__).parents[2] / "protocol.md"
IANA = "https://iana.org/assignments/http-problem-types#"
REGISTERED = {
    "offset-mismatch": IANA + "mismatching-upload-offset",
    "inconsistent-upload-length": IANA + "inconsistent-upload-length",
    "completed-upload": IANA + "completed-upload",
}


@pytest.mark.rule("V-PROBLEM-1")
def test_the_table_of_protocol_md_is_the_table_here() -> None:
    """The same codes with the same statuses, in the same order."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|$", PROTOCOL.read_text(), re.MULTILINE)
    assert len(rows) > 30
    assert [(code, int(status)) for code, status in rows] == [(kind.code, kind.status) for kind in KINDS.values()]


def test_each_row_stands_under_its_code() -> None:
    for code, kind in KINDS.items():
        assert kind.code == code
        assert 400 <= kind.status <= 599
        assert kind.title
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.rule("V-PROBLEM-1")
@given(st.sampled_from(sorted(KINDS)), st.text(st.characters(exclude_categories=["Cs"])))
def test_the_document(code: str, detail: str) -> None:
    problem = ProblemError(code, detail, {"granule": 65536}, {"Retry-After": "1"})
    assert json.loads(problem.to_json().decode("utf-8")) == {
        "type": REGISTERED.get(code, f"urn:holdfast:problem:{code}"),
        "title": KINDS[code].title,
        "status": KINDS[code].status,
        "code": code,
        "detail": detail,
        "granule": 65536,
    }


def test_a_problem_is_an_exception_with_its_status() -> None:
    problem = ProblemError("fenced", "Ask with HEAD.")
    assert problem.status == 409
    assert problem.kind is KINDS["fenced"]
    assert str(problem) == "fenced: Ask with HEAD."
    assert problem.members == {}
    assert problem.headers == {}
    with pytest.raises(ProblemError) as info:
        raise problem
    assert info.value is problem


def test_two_problems_are_two() -> None:
    """They are told apart by identity, as exceptions are, and can be kept in sets."""
    one, other = ProblemError("gone", "x"), ProblemError("gone", "x")
    assert one != other
    assert len({one, other}) == 2


def test_a_bad_field_becomes_a_problem() -> None:
    error = FieldError("Upload-Offset", "not an integer")
    assert isinstance(error, ValueError)
    assert str(error) == "Upload-Offset: not an integer"
    assert (error.field, error.reason) == ("Upload-Offset", "not an integer")
    problem = error.as_problem()
    assert (problem.code, problem.status) == ("malformed-field", 400)
    assert problem.detail == "Upload-Offset: not an integer"
    assert problem.members == {"field": "Upload-Offset"}
