"""Our command line at servers of others, unchanged: tusd, and @tus/server on Node.

Rule of this file: both are real processes, and what counts is the digest of the file that the server has on its disk.
tusd is on the PATH, or $TUSD names it; @tus/server comes from `make interop`. Without them the tests are skipped.
"""

import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.process import CommandLine, environment, kill_group
from tests.support.waiting import eventually, scaled

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / ".cache" / "interop" / "node_modules"
TUSD = shutil.which(os.environ.get("TUSD", "tusd"))
MIB = 1024 * 1024
LARGE = 72 * MIB + 4321

MakeLarge = Callable[[int], Path]


class ForeignServer:
    """A server of others as a process, with its uploads in `folder`. The constructor waits until it answers."""

    def __init__(self, command: Callable[[int, Path], list[str]], folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/files/"
        self._command = command(port, folder)
        self.start()

    def start(self) -> None:
        with self.folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self.folder.parent),
                start_new_session=True,
            )
        eventually(self._answers, within=30, every=0.05, what="the server's first answer")

    def kill(self) -> None:
        kill_group(self._process.pid)
        self._process.wait()

    def options(self) -> dict[str, str]:
        with urllib.request.urlopen(urllib.request.Request(self.url, method="OPTIONS"), timeout=5) as answer:
            return {name.lower(): value for name, value in answer.getheaders()}

    def stored(self) -> int:
        """Bytes of uploads on the disk."""
        found = 0
        for path in self.folder.iterdir():
            if path.suffix not in (".info", ".json", ".lock"):
                found += path.stat().st_size
        return found

    def digest(self, url: str) -> str:
        """SHA-256 of what is stored for an upload."""
        with (self.folder / url.rstrip("/").rpartition("/")[2]).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.folder.with_suffix(".log").read_text()
        try:
            return "tus-version" in self.options()
        except OSError:
            return False


def tusd(port: int, folder: Path) -> list[str]:
    assert TUSD is not None
    return [TUSD, "-host", "127.0.0.1", "-port", str(port), "-upload-dir", str(folder), "-base-path", "/files/"]


def tusd_with_draft(port: int, folder: Path) -> list[str]:
    return [*tusd(port, folder), "-enable-experimental-protocol"]


def tus_node(port: int, folder: Path) -> list[str]:
    return ["node", str(HERE / "tus_server.mjs"), str(MODULES), str(folder), str(port)]


ON_TUSD = pytest.param(tusd, id="tusd", marks=pytest.mark.skipif(TUSD is None, reason="tusd is not installed"))
ON_NODE = pytest.param(
    tus_node,
    id="tus-node",
    marks=[
        pytest.mark.skipif(not shutil.which("node"), reason="node is not installed"),
        pytest.mark.skipif(
            not (MODULES / "@tus" / "server").is_dir(), reason="@tus/server is not installed: make interop"
        ),
    ],
)


@pytest.fixture(params=[ON_TUSD, ON_NODE])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ForeignServer]:
    server = ForeignServer(request.param, tmp_path / "uploads")
    yield server
    server.kill()


@pytest.fixture
def make_large(tmp_path: Path, rng: random.Random) -> MakeLarge:
    """A file of so many bytes, mostly holes, with random bytes in each MiB of it."""

    def make(size: int) -> Path:
        path = tmp_path / "film.mkv"
        with path.open("wb") as file:
            for start in range(0, size, MIB):
                file.seek(start)
                file.write(rng.randbytes(min(1000, size - start)))
            file.truncate(size)
        return path

    return make


def upload(command: CommandLine, path: Path, foreign: ForeignServer, *options: str) -> Any:
    """The last event of an upload that goes well."""
    done = command.run("upload", str(path), "--to", foreign.url, "--json", *options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-2])


def same(event: Any, foreign: ForeignServer, path: Path) -> bool:
    ours = hashlib.sha256(path.read_bytes()).hexdigest()
    return [foreign.digest(event["url"]), event["digest"]["hex"]] == [ours, ours]


@pytest.mark.parametrize("size", [0, 1, 100_000, MIB, MIB + 1, 9 * MIB])
def test_a_file_of_any_size_arrives_whole(
    foreign: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge, size: int
) -> None:
    path = make_large(size)
    event = upload(holdfast_command, path, foreign)
    assert same(event, foreign, path)
    assert (event["protocol"], event["retries"], event["bytes_sent"]) == ("tus", 0, size)


def test_a_large_file_goes_in_parts_where_they_can_be_put_together(
    foreign: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge
) -> None:
    path = make_large(LARGE)
    event = upload(holdfast_command, path, foreign, "--concurrency", "2")
    assert same(event, foreign, path)
    parts = "concatenation" in foreign.options()["tus-extension"]
    assert (event["concurrency"], event["bytes_sent"]) == (2 if parts else 1, LARGE)


def test_the_same_file_again_is_already_there(
    foreign: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge
) -> None:
    path = make_large(LARGE)
    first = upload(holdfast_command, path, foreign)
    second = upload(holdfast_command, path, foreign)
    assert second["already_there"]
    assert second["url"] == first["url"]


@pytest.mark.parametrize("options", [(), ("--concurrency", "2")], ids=["auto", "two-connections"])
def test_a_client_that_was_killed_goes_on(
    foreign: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge, options: tuple[str, ...]
) -> None:
    path = make_large(LARGE)
    with holdfast_command.started("upload", str(path), "--to", foreign.url, "--limit-rate", "24M", *options) as process:
        eventually(lambda: foreign.stored() > 16 * MIB, within=30, what="bytes at the server")
        process.kill()
        process.wait()
    had = foreign.stored()
    assert had < LARGE
    event = upload(holdfast_command, path, foreign, *options)
    assert same(event, foreign, path)
    assert event["bytes_resumed"] >= 16 * MIB
    assert not event["already_there"]


@pytest.mark.parametrize("options", [(), ("--concurrency", "2")], ids=["auto", "two-connections"])
def test_a_server_that_was_killed_and_started_again_gets_the_rest(
    foreign: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge, options: tuple[str, ...]
) -> None:
    """The client goes on by itself."""
    path = make_large(LARGE)
    with holdfast_command.started(
        "upload", str(path), "--to", foreign.url, "--limit-rate", "24M", "--json", *options
    ) as process:
        eventually(lambda: foreign.stored() > 16 * MIB, within=30, what="bytes at the server")
        foreign.kill()
        foreign.start()
        assert process.wait(60) == 0
    lines = (holdfast_command.home / "output.txt").read_text().splitlines()
    (event,) = (found for line in lines if line.startswith("{") and (found := json.loads(line))["event"] == "done")
    assert same(event, foreign, path)
    assert event["retries"] >= 1


@pytest.mark.parametrize("foreign", [ON_TUSD], indirect=True)
def test_patch_as_post(foreign: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge) -> None:
    path = make_large(9 * MIB)
    assert same(upload(holdfast_command, path, foreign, "--override-method"), foreign, path)


@pytest.mark.parametrize("foreign", [ON_NODE], indirect=True)
def test_a_server_that_does_not_know_patch_as_post_is_named(
    foreign: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge
) -> None:
    """@tus/server takes it for a creation; what it says about that is passed on."""
    command = ("upload", str(make_large(9 * MIB)), "--to", foreign.url, "--override-method")
    done = holdfast_command.run(*command)
    assert done.returncode == 4
    assert "refused (400): Upload-Length or Upload-Defer-Length header required" in done.stderr


def test_standard_input_of_unknown_length(
    foreign: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge
) -> None:
    path = make_large(17 * MIB)
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "holdfast.cli", "upload", "-", "--to", foreign.url, "--json"],
            stdin=file,
            capture_output=True,
            text=True,
            env=environment(holdfast_command.home),
            timeout=scaled(60),
            check=False,
        )
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout.splitlines()[-2])
    assert same(event, foreign, path)
    assert (event["size"], event["chunks"]) == (17 * MIB, 3)


def test_an_upload_that_the_server_has_removed_is_begun_anew(
    foreign: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge
) -> None:
    path = make_large(9 * MIB)
    first = upload(holdfast_command, path, foreign)
    request = urllib.request.Request(first["url"], method="DELETE", headers={"Tus-Resumable": "1.0.0"})
    urllib.request.urlopen(request, timeout=10).close()
    second = upload(holdfast_command, path, foreign)
    assert same(second, foreign, path)
    assert second["url"] != first["url"]


@pytest.fixture
def drafted(tmp_path: Path) -> Iterator[ForeignServer]:
    """tusd, as a server of the IETF draft: of its interop versions 3 to 6."""
    server = ForeignServer(tusd_with_draft, tmp_path / "uploads")
    yield server
    server.kill()


ON_DRAFT = pytest.mark.skipif(TUSD is None, reason="tusd is not installed")


@ON_DRAFT
@pytest.mark.rule("G-VERSION-1", "G-IETF-16", "G-IETF-18")
@pytest.mark.parametrize("size", [0, 1, 100_000, MIB + 1, LARGE])
def test_a_file_arrives_whole_by_the_draft(
    drafted: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge, size: int
) -> None:
    """Begun in version 6, after 9 and 8 were not understood; the last request says that it is the last."""
    path = make_large(size)
    event = upload(holdfast_command, path, drafted, "--protocol", "ietf")
    assert same(event, drafted, path)
    assert (event["protocol"], event["retries"], event["bytes_sent"]) == ("ietf", 0, size)
    said = urllib.request.Request(event["url"], method="HEAD", headers={"Upload-Draft-Interop-Version": "6"})
    with urllib.request.urlopen(said, timeout=5) as answer:
        assert (answer.headers["Upload-Complete"], answer.headers["Upload-Length"]) == ("?1", str(size))
    log = drafted.folder.with_suffix(".log").read_text()
    assert re.findall(r"ResponseOutgoing method=POST .*status=(\d+)", log) == ["412", "412", "201"]


@ON_DRAFT
@pytest.mark.rule("G-AUTO-1")
def test_auto_takes_tus_where_both_are_there(
    drafted: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge
) -> None:
    assert upload(holdfast_command, make_large(MIB), drafted)["protocol"] == "tus"


@ON_DRAFT
@pytest.mark.rule("G-IETF-12", "G-IETF-23")
def test_a_client_of_the_draft_that_was_killed_goes_on(
    drafted: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge
) -> None:
    """Nothing but the journal is left; the version is found out again, by HEAD."""
    path = make_large(LARGE)
    options = ("--to", drafted.url, "--protocol", "ietf", "--limit-rate", "24M")
    with holdfast_command.started("upload", str(path), *options) as process:
        eventually(lambda: drafted.stored() > 16 * MIB, within=30, what="bytes at the server")
        process.kill()
        process.wait()
    event = upload(holdfast_command, path, drafted, "--protocol", "ietf")
    assert same(event, drafted, path)
    assert event["bytes_resumed"] >= 16 * MIB


@ON_DRAFT
@pytest.mark.rule("G-IETF-22", "G-IETF-23")
def test_a_server_of_the_draft_that_was_killed_gets_the_rest(
    drafted: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge
) -> None:
    path = make_large(LARGE)
    options = ("--to", drafted.url, "--protocol", "ietf", "--limit-rate", "24M", "--json")
    with holdfast_command.started("upload", str(path), *options) as process:
        eventually(lambda: drafted.stored() > 16 * MIB, within=30, what="bytes at the server")
        drafted.kill()
        drafted.start()
        assert process.wait(60) == 0
    lines = (holdfast_command.home / "output.txt").read_text().splitlines()
    (event,) = (found for line in lines if line.startswith("{") and (found := json.loads(line))["event"] == "done")
    assert same(event, drafted, path)
    assert event["retries"] >= 1


@ON_DRAFT
@pytest.mark.rule("G-IETF-1")
def test_standard_input_by_the_draft(
    drafted: ForeignServer, holdfast_command: CommandLine, make_large: MakeLarge
) -> None:
    path = make_large(17 * MIB)
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "holdfast.cli", "upload", "-", "--to", drafted.url, "--protocol", "ietf", "--json"],
            stdin=file,
            capture_output=True,
            text=True,
            env=environment(holdfast_command.home),
            timeout=scaled(60),
            check=False,
        )
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout.splitlines()[-2])
    assert same(event, drafted, path)
    assert (event["size"], event["protocol"]) == (17 * MIB, "ietf")
