"""How the conformance suite is run.

    pytest tests/conformance --server URL [--report FILE] [--patience SECONDS]

--server URL      the creation URL of the server to test; without it our own is started, on one and on two workers
--report FILE     write the outcome of each rule, as JSON, or as Markdown if the name ends in .md
--patience S      how long to wait for an upload to expire (5 seconds if not given); longer is not observed

Rule of this file: a test says with `@pytest.mark.holds("S17")` which rules it holds. It is skipped as not offered
unless the server announces the extensions of all of them, and those of `needs=(...)`.
"""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.conformance import report as reports
from tests.conformance.rules import BY_ID
from tests.conformance.subject import Subject
from tests.support.process import ServerProcess

OWN = ("one-worker", "two-workers")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--server", default=None, help="creation URL of the server to test")
    group.addoption("--report", type=Path, default=None, help="file for the outcome of each rule (.md or .json)")
    group.addoption("--patience", type=float, default=5.0, help="seconds to wait for an upload to expire")


def _option(config: pytest.Config, name: str, default: Any = None) -> Any:
    """An option of this file, which is not there in a run that did not begin in this folder."""
    return config.getoption(name, default)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "holds(*ids, needs=()): the rules of rules.py that this test holds")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Keeper(config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "subject" in metafunc.fixturenames:
        given = _option(metafunc.config, "--server")
        metafunc.parametrize(
            "subject", [given] if given else OWN, indirect=True, ids=["server"] if given else OWN, scope="session"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a server only what looks at it is run."""
    if _option(config, "--server"):
        besides = [item for item in items if "holds" not in item.keywords]
        config.hook.pytest_deselected(items=besides)
        items[:] = [item for item in items if "holds" in item.keywords]


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Subject:
    match request.param:
        case "one-worker":
            own: ServerProcess = request.getfixturevalue("server")
            return Subject(f"{own.url}/files")
        case "two-workers":
            own = request.getfixturevalue("two_workers")
            return Subject(f"{own.url}/files")
        case url:
            return Subject(url)


@pytest.fixture(scope="session")
def hasty(
    subject: Subject, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    """A server whose unfinished uploads expire soon: one of ours, or the given one, which may be slower."""
    if _option(request.config, "--server"):
        yield subject
    else:
        with ServerProcess(tmp_path_factory.mktemp("hasty") / "data", expire_after=1.5) as process:
            yield Subject(f"{process.url}/files")


@pytest.fixture
def patience(request: pytest.FixtureRequest) -> float:
    """Seconds that may be spent waiting for the server to do something in its own time."""
    return float(_option(request.config, "--patience", 5.0))


def not_offered(what: str) -> NoReturn:
    """End the test: the server does not do, and does not say that it does, what it is about."""
    pytest.skip(f"{reports.NOT_OFFERED}: {what}")


def not_observed(why: str) -> NoReturn:
    """End the test: what it is about cannot be seen in this run."""
    pytest.skip(f"{reports.NOT_OBSERVED}: {why}")


def _marks(item: pytest.Item) -> tuple[list[str], set[str]]:
    """The ids that a test holds, and the extensions that it needs."""
    ids: list[str] = []
    needs: set[str] = set()
    for mark in item.iter_markers("holds"):
        ids += mark.args
        needs |= set(mark.kwargs.get("needs", ()))
    needs |= {extension for each in ids if (extension := BY_ID[each].extension)}
    return ids, needs


@pytest.fixture(autouse=True)
def _offered(request: pytest.FixtureRequest) -> None:
    _, needs = _marks(request.node)
    if needs:
        subject: Subject = request.getfixturevalue("subject")
        if lacking := sorted(needs - subject.offer.extensions):
            not_offered(", ".join(lacking))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Generator[None, Any, Any]:
    """Writes down with each report which rules it is about; they may be read in another process."""
    report: pytest.TestReport = yield
    ids, _ = _marks(item)
    if ids:
        callspec = getattr(item, "callspec", None)
        report.user_properties += [("holds", ids), ("server", str(callspec.params["subject"]) if callspec else "")]
    return report


class _Keeper:
    """Puts what the tests say into books, one for each server, and the books before the reader."""

    def __init__(self, config: pytest.Config) -> None:
        self._books: dict[str, reports.Book] = {}
        self._file: Path | None = _option(config, "--report")
        self._given: str | None = _option(config, "--server")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: dict[str, Any] = dict(report.user_properties)
        if "holds" in found and (report.when == "call" or not report.passed):
            self._books.setdefault(found["server"], reports.Book()).enter(found["holds"], *_said(report))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for server, book in sorted(self._books.items()):
            verdicts = book.verdicts()
            terminalreporter.section(f"tus 1.0.0 at {server}")
            for each in verdicts:
                if self._given or each.outcome == reports.BROKEN:
                    why = f" ({each.why})" if each.why else ""
                    terminalreporter.line(
                        f"{each.rule.id:4}{each.rule.level:7}{each.outcome:13}{each.rule.sentence}{why}"
                    )
            terminalreporter.line(reports.counted(verdicts))
            if self._file:
                write = reports.as_markdown if self._file.suffix == ".md" else reports.as_json
                name = self._file if self._given else self._file.with_stem(f"{self._file.stem}-{server}")
                name.write_text(write(server, verdicts))


def _said(report: pytest.TestReport) -> tuple[str, str]:
    """The outcome of a test in one word, and what it said in one line."""
    if report.passed:
        return "passed", ""
    if report.skipped and isinstance(report.longrepr, tuple):
        outcome, _, words = str(report.longrepr[2]).removeprefix("Skipped: ").partition(": ")
        return outcome, words or outcome
    crash = getattr(report.longrepr, "reprcrash", None)
    words = str(crash.message if crash else report.longrepr).splitlines()[0]
    return "failed", words.removeprefix("AssertionError: ")[:150]
