"""One upload, three clients, three protocols: tus-js-client begins it, `holdfast` brings chunks in parallel, and a
client of the IETF draft finishes it.

Rule of this file: each client is unchanged and in a process of its own, knows of the others nothing but the URL, and
stops somewhere in the middle; what counts is the digest of the whole file. What `make interop` installs is needed.
"""

import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.process import CommandLine, ServerProcess, environment
from tests.support.speaker import Speaker
from tests.support.waiting import eventually, scaled

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / ".cache" / "interop" / "node_modules"
MIB = 1024 * 1024
SIZE = 24 * MIB + 4321

pytestmark = [
    pytest.mark.skipif(not shutil.which("node"), reason="node is not installed"),
    pytest.mark.skipif(not (MODULES / "tus-js-client").is_dir(), reason="tus-js-client is not installed: make interop"),
]

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Finish = Callable[["Relay"], None]


class Relay:
    """The runners, each of which is given the URL and the file."""

    def __init__(self, server: ServerProcess, speaker: Speaker, command: CommandLine, folder: Path, seed: int) -> None:
        self.server = server
        self.speaker = speaker
        self.command = command
        self.folder = folder
        self.file = folder / "film.bin"
        self.file.write_bytes(random.Random(seed).randbytes(SIZE))
        self.url = ""

    def run(self, *command: str) -> str:
        """What a program prints that goes well."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(self.folder),
            timeout=scaled(60),
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def tus_js(self, scene: str, **job: Any) -> Any:
        task = {
            "scene": scene,
            "package": "tus-js-client",
            "endpoint": f"{self.server.url}/files",
            "file": str(self.file),
            "url": self.url,
            **job,
        }
        return json.loads(self.run("node", str(HERE / "tus_js.cjs"), str(MODULES), json.dumps(task)))

    def begin(self, **job: Any) -> None:
        """tus-js-client; it stops where no granule ends."""
        self.url = self.tus_js(
            "start", chunkSize=1_000_000, abortAt=3_000_000, metadata={"filename": "film.bin"}, **job
        )["url"]
        assert 3_000_000 <= self.state()["received"] < SIZE

    def carry_on(self) -> None:
        """`holdfast`, in parallel chunks; Ctrl-C when it is half-way."""
        before = self.state()["received"]
        options = ("--resume", self.url, "--limit-rate", "8M", "--chunk-size", "512K", "--concurrency", "4")
        with self.command.started("upload", str(self.file), *options) as process:
            eventually(lambda: self.state()["received"] > before + 6 * MIB, within=30, every=0.05, what="chunks")
            process.send_signal(signal.SIGINT)
            assert process.wait(scaled(20)) == 130
        assert self.state()["state"] == "receiving"
        assert self.state()["received"] < SIZE

    def state(self) -> Any:
        return self.speaker.status(self.url)

    def whole(self) -> bool:
        return (
            hashlib.sha256(self.speaker.get(self.url).body).digest() == hashlib.sha256(self.file.read_bytes()).digest()
        )


def by_tus_js(relay: Relay) -> None:
    """tus-js-client again, as a client of the draft."""
    result = relay.tus_js("finish", protocol="ietf-draft-05", source="buffer")
    assert "HEAD" in {request["method"] for request in result["requests"]}


def by_holdfast(relay: Relay) -> None:
    """In another home, so that no journal helps."""
    other = CommandLine(relay.folder / "other")
    done = other.run("upload", str(relay.file), "--resume", relay.url, "--protocol", "ietf", "--json")
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout.splitlines()[-2])
    assert (event["protocol"], event["url"]) == ("ietf", relay.url)
    assert event["bytes_sent"] < SIZE


def by_curl(relay: Relay) -> None:
    """By hand: HEAD, then PATCH with all that is left, again from where a 409 says."""
    version = ("-H", "Upload-Draft-Interop-Version: 9")
    head = relay.run("curl", "-sI", *version, relay.url)
    for _ in range(100):
        found = re.search(r"^upload-offset: (\d+)", head, re.MULTILINE | re.IGNORECASE)
        assert found, head
        offset = int(found[1])
        (relay.folder / "rest").write_bytes(relay.file.read_bytes()[offset:])
        fields = (
            "Content-Type: application/partial-upload",
            f"Upload-Offset: {offset}",
            "Upload-Complete: ?1",
            "Expect:",
        )
        given = [part for field in fields for part in ("-H", field)]
        head = relay.run("curl", "-si", *version, "-X", "PATCH", *given, "--data-binary", "@rest", relay.url)
        final = head[head.rindex("HTTP/1.1 ") :]
        if final.startswith("HTTP/1.1 204"):
            return
        assert final.startswith("HTTP/1.1 409"), final
        head = final


@pytest.fixture
def relay(
    server: ServerProcess,
    speaker: Speaker,
    holdfast_command: CommandLine,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Relay:
    return Relay(server, speaker, holdfast_command, tmp_path, request.config.getoption("seed"))


@pytest.mark.rule("I-MIX-1", "I-MIX-2", "C-MIX-1", "C-MIX-3", "G-RESUME-1")
@pytest.mark.parametrize("finish", [by_tus_js, by_curl, by_holdfast])
def test_three_clients_bring_one_file(relay: Relay, finish: Finish) -> None:
    relay.begin()
    relay.carry_on()
    finish(relay)
    state = relay.state()
    assert (state["state"], state["length"], state["name"]) == ("complete", SIZE, "film.bin")
    assert relay.whole()


@pytest.mark.rule("I-MIX-1", "G-RESUME-1")
def test_what_the_draft_began_is_finished_in_parallel(relay: Relay) -> None:
    """The other way round, and to the end: then the server has verified the digest of the whole."""
    relay.begin(protocol="ietf-draft-05")
    done = relay.command.run("upload", str(relay.file), "--resume", relay.url, "--json")
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout.splitlines()[-2])
    assert (event["protocol"], event["url"]) == ("parallel", relay.url)
    assert event["bytes_resumed"] >= 3_000_000
    assert relay.whole()


@pytest.mark.rule("G-RESUME-1", "P-COMPLETE-3", "P-CHUNK-6")
@pytest.mark.parametrize(
    ("stored", "status", "says"),
    [(MIB, 3, "does not have the digest of the file"), (1_000_000, 4, "stored bytes never change")],
    ids=["on the granule", "beside it"],
)
def test_another_file_of_the_same_length_is_found_out(relay: Relay, stored: int, status: int, says: str) -> None:
    """At the end, by the digest of the whole; or at once, where the first chunk overlaps what is there."""
    relay.url = relay.speaker.create(SIZE, parallel=False)
    assert relay.speaker.patch(relay.url, 0, bytes(stored)).status == 204
    done = relay.command.run("upload", str(relay.file), "--resume", relay.url)
    assert done.returncode == status
    assert says in done.stderr
    assert relay.speaker.get(relay.url).status == 409
