"""How the conformance suite is run.

    pytest tests/conformance --server URL [--report FILE] [--patience SECONDS]

--server URL      the creation URL of the server to test; without it our own is started, on each of the roads of OWN
--report FILE     write the outcome of each rule, as JSON, or as Markdown if the name ends in .md
--patience S      how long to wait for an upload to expire (5 seconds if not given); longer is not observed

Rule of this file: a test says with `@pytest.mark.holds("S17")` which rules it holds. It is skipped as not offered
unless the server announces the extensions of all of them, and those of `needs=(...)`. A test that takes a `draft` is
run in each interop version of the IETF draft that the server speaks, or with `@pytest.mark.versions(since=6)` in those
whose text has the rule.
"""

import functools
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from tests.conformance import report as reports
from tests.conformance.draft import VERSIONS, Draft, Offered
from tests.conformance.peers import MAX_SIZE
from tests.conformance.rules import BY_ID, TITLES
from tests.conformance.subject import Subject
from tests.support.process import HostedProcess, ServerProcess

OWN: Final[dict[str, Callable[..., AbstractContextManager[ServerProcess]]]] = {
    "one-worker": functools.partial(ServerProcess, max_size=MAX_SIZE),
    "two-workers": functools.partial(ServerProcess, workers=2, max_size=MAX_SIZE),
    "uvicorn": functools.partial(HostedProcess, "uvicorn", max_size=MAX_SIZE),
    "granian": functools.partial(HostedProcess, "granian", max_size=MAX_SIZE),
}
"""The roads of our own server: `holdfast serve`, and the application under servers that know nothing of it."""
CLAIMED: Final = (3, 5, 6, 8, 9)
"""The versions of the draft that our own server says it speaks, on each road."""


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
    config.addinivalue_line("markers", "versions(since): the version of the draft that has the rule first")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Keeper(config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "road" not in metafunc.fixturenames:
        return
    given = _option(metafunc.config, "--server")
    roads = {given: "server"} if given else {name: name for name in OWN}
    metafunc.parametrize("road", roads, ids=roads.values(), scope="session")
    if "draft" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("versions")
        since = mark.kwargs["since"] if mark else VERSIONS[0]
        metafunc.parametrize("version", [each for each in (VERSIONS if given else CLAIMED) if each >= since])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a server only what looks at it is run."""
    if _option(config, "--server"):
        besides = [item for item in items if "holds" not in item.keywords]
        config.hook.pytest_deselected(items=besides)
        items[:] = [item for item in items if "holds" in item.keywords]


@pytest.fixture(scope="session")
def subject(road: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """The server: one of ours, or that of the URL."""
    if start := OWN.get(road):
        with start(tmp_path_factory.mktemp(road) / "data") as process:
            yield Subject(f"{process.url}/files")
    else:
        yield Subject(road)


@pytest.fixture(scope="session")
def hasty(road: str, subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A server whose unfinished uploads expire soon: one of ours, or the given one, which may be slower."""
    if start := OWN.get(road):
        with start(tmp_path_factory.mktemp("hasty") / "data", expire_after=1.5) as process:
            yield Subject(f"{process.url}/files")
    else:
        yield subject


@pytest.fixture(scope="session")
def drafts(subject: Subject) -> Offered:
    """What the server speaks of the IETF draft."""
    return Offered.by(subject)


@pytest.fixture
def draft(subject: Subject, drafts: Offered, version: int, request: pytest.FixtureRequest) -> Draft:
    """Speaks one version of the IETF draft. Our own server has to know those that it claims."""
    if _option(request.config, "--server") and version not in drafts.versions:
        not_offered(f"version {version}" if drafts.versions else "the IETF draft")
    return Draft(subject, version)


@pytest.fixture
def interim(drafts: Offered) -> None:
    """Ends the test unless the server has interim answers."""
    if not drafts.interim:
        not_offered("interim answers")


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
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        version = f"version {params['version']}: " if "version" in params else ""
        report.user_properties += [("holds", ids), ("server", str(params.get("road", ""))), ("spoken", version)]
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
            outcome, words = _said(report)
            words = found["spoken"] + words if outcome == "failed" else words
            self._books.setdefault(found["server"], reports.Book()).enter(found["holds"], outcome, words)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for server, book in sorted(self._books.items()):
            verdicts = book.verdicts()
            for protocol, own in reports.by_protocol(verdicts).items():
                terminalreporter.section(f"{TITLES[protocol]} at {server}")
                for each in own:
                    if self._given or each.outcome == reports.BROKEN:
                        why = f" ({each.why})" if each.why else ""
                        terminalreporter.line(
                            f"{each.rule.id:4}{each.rule.level:7}{each.outcome:13}{each.rule.sentence}{why}"
                        )
                terminalreporter.line(reports.counted(own))
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
