"""Whatever happens to the network, the server and the client, in whatever order: the file is whole in the end.

Every plan is another file, another protocol and other faults at other moments; `--plans` says how many, `--seed`
repeats them. The faults are real: a link that cuts, stalls and refuses, SIGKILL of the server and of `holdfast upload`.
"""

import json
import random
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import pytest
from benchmarks.link import Conditions, Link
from tests.conftest import StartServer
from tests.support.process import CommandLine, ServerProcess
from tests.support.speaker import Speaker, raw_digest
from tests.support.waiting import eventually, scaled

MIB: Final = 1 << 20
RATE: Final = 10 * MIB
"""Bytes a second of the link, so that a plan has its time."""
COSTS: Final = {"parallel": 2 * MIB, "auto": 2 * MIB, "tus": 8 * MIB, "ietf": 8 * MIB}
"""By protocol, the bytes of one request: what a connection that breaks, or is refused, may cost."""
HEADS: Final = 2048
"""Bytes of the head of a request, at most."""
STARTS: Final = 12
"""How often the command may be started again after the last fault."""

Kind = Literal["cuts", "stalls", "server", "client", "token", "storm"]
KINDS: Final[tuple[Kind, ...]] = ("cuts", "stalls", "server", "client", "token", "storm")


@dataclass(frozen=True)
class Step:
    """A fault: `after` seconds of the step before it, for `lasts` seconds. `size` is after how many bytes it cuts."""

    kind: Kind
    after: float
    lasts: float
    size: int


@dataclass(frozen=True)
class Plan:
    """A file, how it is sent, and what happens."""

    size: int
    protocol: str
    steps: tuple[Step, ...]


def plan_of(rng: random.Random) -> Plan:
    """Any plan."""
    steps = tuple(
        Step(rng.choice(KINDS), rng.uniform(0.0, 0.4), rng.uniform(0.1, 0.8), rng.randint(200_000, 4 * MIB))
        for _ in range(rng.randint(2, 5))
    )
    protocol = rng.choice(("parallel", "parallel", "auto", "tus", "ietf"))
    return Plan(rng.randint(6 * MIB, 24 * MIB), protocol, steps)


@dataclass
class Run:
    """A plan that is carried out."""

    plan: Plan
    server: ServerProcess
    link: Link
    command: CommandLine
    file: Path
    starts: int = 0
    stack: ExitStack = field(default_factory=ExitStack)
    process: Any = None

    def start(self) -> None:
        """Start `holdfast upload`, for the first time or again."""
        self.starts += 1
        url = f"http://127.0.0.1:{self.link.port}/files"
        words = ("upload", str(self.file), "--to", url, "--json", "--protocol", self.plan.protocol)
        self.process = self.stack.enter_context(self.command.started(*words))

    def kill(self) -> None:
        """SIGKILL it, if it still runs."""
        self.stack.close()

    def uploads(self) -> list[dict[str, Any]]:
        """What the server has, whatever its state."""
        with Speaker(self.server.url) as speaker:
            answer = speaker.request("GET", "/api/uploads")
            assert answer.status == 200, answer
            found: list[dict[str, Any]] = json.loads(answer.body)["uploads"]
            return found

    def is_known(self) -> bool:
        """The client has written down where the upload is: it sends, or has ended."""
        return '"in_progress"' in self._told() or '"done"' in self._told()

    def carry_out(self, step: Step) -> None:
        """One fault, from its begin to its end."""
        usual = Conditions(whole=RATE)
        pause = threading.Event()
        pause.wait(step.after)
        match step.kind:
            case "cuts":
                self.link.change(Conditions(whole=RATE, cut_after=step.size))
            case "stalls":
                self.link.change(Conditions(whole=RATE, stalls=0.5, stall_time=step.lasts))
            case "token":
                self.link.change(Conditions(whole=RATE, answer=401))
            case "storm":
                self.link.change(Conditions(whole=RATE, answer=503))
            case "server":
                self.server.kill()
            case "client":
                self.kill()
        pause.wait(step.lasts)
        self.link.change(usual)
        if not self.server.running:
            self.server.start()
        if self.process.poll() is not None:
            self.start()

    def finish(self) -> dict[str, Any]:
        """Let it come to its end, started again as often as it needs; what it said last."""
        while (status := self.process.wait(scaled(120))) != 0:
            assert self.starts <= len(self.plan.steps) + STARTS, f"it ends with {status} again and again"
            self.start()
        lines = self._told().splitlines()
        done: dict[str, Any] = json.loads(next(line for line in reversed(lines) if line.startswith('{"event":"done"')))
        return done

    def _told(self) -> str:
        return (self.command.home / "output.txt").read_text()


def carry_out(plan: Plan, data: bytes, run: Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the command said last, and what is on the server then."""
    run.start()
    # An answer to a creation that is lost leaves an upload that nobody knows of: that is not what is shown here.
    eventually(run.uploads, within=30, what="an upload on the server")
    eventually(run.is_known, within=30, what="an upload in the journal")
    for step in plan.steps:
        run.carry_out(step)
    done = run.finish()
    with Speaker(run.server.url) as speaker:
        answer = speaker.get(urlsplit(done["url"]).path)
    assert answer.body == data
    return done, run.uploads()


@pytest.mark.rule("P-RETRY-1", "P-COMPLETE-1", "C-OFFSET-1")
def test_every_file_is_whole_in_the_end(
    plan_run: int,
    start_server: StartServer,
    tmp_path: Path,
    holdfast_command: CommandLine,
    rng: random.Random,
    request: pytest.FixtureRequest,
) -> None:
    """Whole, once, and with little sent twice: what a connection that breaks may cost is one request."""
    plan = plan_of(rng)
    data = rng.randbytes(plan.size)
    file = tmp_path / "film.bin"
    file.write_bytes(data)
    server = start_server()
    port = urlsplit(server.url).port
    assert port is not None
    try:
        with Link(port, Conditions(whole=RATE), seed=plan_run) as link:
            run = Run(plan, server, link, holdfast_command, file)
            with run.stack:
                done, uploads = carry_out(plan, data, run)
        assert len(uploads) == 1, uploads
        algorithm = "xxh3-128" if plan.protocol in ("parallel", "auto") else "sha-256"
        assert done["digest"] == {"algorithm": algorithm, "hex": raw_digest(algorithm, data).hex()}
        assert link.up <= done["bytes_sent"] + HEADS * (done["chunks"] + 40 * link.connections)
        assert done["bytes_resent"] == max(0, done["bytes_sent"] - plan.size)
        assert done["bytes_resent"] <= COSTS[plan.protocol] * link.connections
    except BaseException as error:
        error.add_note(f"--seed {request.config.getoption('seed')}, plan {plan_run}: {plan}")
        raise
