"""docs/interop.md says what a run gave: no more, no less, and in its order."""

import json
from pathlib import Path

import pytest
from docs import interop

ROW = {"client": "curl", "version": "as installed", "what": "the walk by hand", "outcome": "passed"}
OTHER = {"client": "tuspy", "version": "1.1.0", "what": "uploads in one request", "outcome": "passed"}


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a report is written; the document of this test has the rows of ROW and OTHER."""
    document = tmp_path / "interop.md"
    table = "\n".join([*interop.HEAD, *interop.rows([ROW, OTHER])])
    document.write_text(f"# Clients\n\n| a | b |\n\n{interop.BEGIN}\n\n{table}\n\n{interop.END}\n\n| c | d |\n")
    monkeypatch.setattr(interop, "DOCUMENT", document)
    return tmp_path / "report.json"


def test_a_document_that_says_what_came_out_holds(report: Path) -> None:
    """The order in which the tests of different clients ran does not matter."""
    report.write_text(json.dumps([OTHER, ROW]))
    assert interop.check(report) == 0


@pytest.mark.parametrize(
    "entries",
    [
        [ROW],
        [ROW, OTHER, {**ROW, "what": "more"}],
        [ROW, {**OTHER, "outcome": "failed"}],
        [{**ROW, "version": "8"}, OTHER],
    ],
    ids=["fewer", "more", "outcome", "version"],
)
def test_one_that_says_something_else_does_not(report: Path, entries: list[interop.Entry]) -> None:
    report.write_text(json.dumps(entries))
    assert interop.check(report) == 1


def test_a_run_that_skipped_something_says_nothing(report: Path) -> None:
    report.write_text(json.dumps([ROW, {**OTHER, "outcome": "skipped"}]))
    with pytest.raises(SystemExit, match="skipped"):
        interop.check(report)
