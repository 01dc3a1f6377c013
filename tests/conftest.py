"""What every test may use, and how a run is told to be longer, repeatable, or unforgiving.

--seed N                        repeats the random choices of a run; the header of every run prints it
--kill-runs N                   how often tests/faults/test_kill.py kills a server (6 if not given)
--plans N                       how many plans of faults tests/faults/test_plans.py carries out (5 if not given)
--small-files N                 how many small files tests/faults/test_many.py sends beside a large one (300)
--stream-size N                 MiB of the stream in tests/faults/test_many.py (192)
--live-faults N                 cuts, restarts and kills in tests/faults/test_watchers.py (40 if not given)
--clients-report FILE           what the tests of clients of others gave, as JSON, for docs/interop.py
--film-size N                   MiB of the film that tests/page/test_page.py sends from a browser (24 if not given)
--slow-connections N            how many slow connections tests/faults/test_slow.py makes (300 if not given)
--uploads-left N                how many uploads tests/faults/test_left.py creates and leaves (400 if not given)
--fuzz-cases N                  how many malformed requests tests/faults/test_malformed.py sends (5000 if not given)
--download-kills N              how often tests/faults/test_download_kills.py kills a download (8 if not given)
--download-size N               MiB of the file there (96)
HOLDFAST_TEST_REQUIRE=all       a skipped test counts as failed, but for the reasons in EXCUSED
HOLDFAST_TEST_TIMEOUT_FACTOR=F  all limits are F times as long
HOLDFAST_TEST_PROFILE=ci        more Hypothesis examples
"""

import os
import random
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.clients_report import ClientsReport
from tests.support.process import CommandLine, ServerProcess
from tests.support.speaker import Speaker
from tests.support.waiting import FACTOR

hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, max_examples=500)
hypothesis.settings.load_profile(os.environ.get("HOLDFAST_TEST_PROFILE", "default"))

REQUIRED = os.environ.get("HOLDFAST_TEST_REQUIRE") == "all"
EXCUSED = (
    "fish is not installed",  # the completions for shells are tested in those that are there
    "zsh is not installed",
    "not offered: ",  # tests/conformance: what a server does not offer is an outcome, and its report says so
    "tusd is not installed",  # a Go program: no package index that the other tools come from has it
)
"""Beginnings of reasons for which a test may be skipped even then."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("holdfast")
    group.addoption("--seed", type=int, default=None, help="seed of the random choices of the tests")
    group.addoption("--kill-runs", type=int, default=6, help="runs of tests/faults/test_kill.py")
    group.addoption("--plans", type=int, default=5, help="plans of tests/faults/test_plans.py")
    group.addoption("--small-files", type=int, default=300, help="small files of tests/faults/test_many.py")
    group.addoption("--stream-size", type=int, default=192, help="MiB of the stream in tests/faults/test_many.py")
    group.addoption("--live-faults", type=int, default=40, help="faults of tests/faults/test_watchers.py")
    group.addoption("--clients-report", type=Path, default=None, help="file for the outcomes of clients of others")
    group.addoption("--film-size", type=int, default=24, help="MiB of the film in tests/page/test_page.py")
    group.addoption("--download-kills", type=int, default=8, help="kills of tests/faults/test_download_kills.py")
    group.addoption(
        "--download-size", type=int, default=96, help="MiB of the file of tests/faults/test_download_kills.py"
    )
    group.addoption("--slow-connections", type=int, default=300, help="connections of tests/faults/test_slow.py")
    group.addoption("--uploads-left", type=int, default=400, help="uploads of tests/faults/test_left.py")
    group.addoption("--fuzz-cases", type=int, default=5000, help="requests of tests/faults/test_malformed.py")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rule(*ids): the rules of protocol.md that this test holds")
    if config.getoption("seed") is None:
        inherited = getattr(config, "workerinput", {}).get("seed")
        config.option.seed = random.SystemRandom().randrange(2**32) if inherited is None else inherited
    if FACTOR != 1 and config.getoption("timeout", None) is None:
        config.option.timeout = float(config.getini("timeout")) * FACTOR
    if config.getoption("clients_report") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ClientsReport(config.getoption("clients_report")))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has what it begins in the background ignore Ctrl-C, and so would all that is begun from here.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: every worker process has the seed of the run."""
    node.workerinput["seed"] = node.config.getoption("seed")


def pytest_report_header(config: pytest.Config) -> str:
    return f"holdfast: --seed {config.getoption('seed')}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`kill_run` counts the runs of a test that kills the server, `half_kill_run` those of a slower one, and `plan_run`
    plans of faults.
    """
    runs = int(metafunc.config.getoption("kill_runs") or 0)
    plans = int(metafunc.config.getoption("plans") or 0)
    for name, count in (("kill_run", runs), ("half_kill_run", (runs + 1) // 2), ("plan_run", plans)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, range(count))


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if reason.removeprefix("Skipped: ").startswith(EXCUSED):
            return
        report.outcome = "failed"
        report.longrepr = f"HOLDFAST_TEST_REQUIRE=all, but this was skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Generator[None, Any, Any]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random choices of this test alone: the same for the same seed, whatever other tests run."""
    return random.Random(f"{request.config.getoption('seed')} {request.node.nodeid}")


StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server of this test's own, with the arguments of ServerProcess; `data` may be left out."""
    with ExitStack() as stack:

        def start(*options: str, data: Path | None = None, **named: Any) -> ServerProcess:
            return stack.enter_context(ServerProcess(data or tmp_path / "data", *options, **named))

        yield start


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one worker that many tests share: leave it running."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "data") as process:
        yield process


@pytest.fixture(scope="session")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two workers that many tests share: leave it running."""
    with ServerProcess(tmp_path_factory.mktemp("two-workers") / "data", workers=2) as process:
        yield process


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def workers(request: pytest.FixtureRequest) -> int:
    """How many a server is to have. Parameters have a fixture of their own: one of the name `server` would hand them to
    the shared server as well, and pytest starts that anew at each change of them."""
    return int(request.param)


@pytest.fixture
def speaker(server: ServerProcess) -> Iterator[Speaker]:
    """Speaks the protocol to the shared server."""
    with Speaker(server.url) as each:
        yield each


@pytest.fixture
def holdfast_command(tmp_path: Path) -> CommandLine:
    """The command line, with a journal of this test's own."""
    return CommandLine(tmp_path / "home")
