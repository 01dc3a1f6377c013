"""The command line: what goes where, exit statuses, Ctrl-C, and going on in another process."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast import AsyncClient, Transfer
from holdfast.cli import main
from holdfast.cli.jobs import Job
from holdfast.cli.options import Settings
from holdfast.cli.running import Batch
from holdfast.cli.values import Size
from holdfast.errors import (
    BrokenProtocol,
    ConnectionFailed,
    HoldfastError,
    NotAuthorized,
    ServerFull,
    ServerRefused,
    ServerUnavailable,
    SourceChanged,
    SourceUnreadable,
    Stalled,
    TargetExists,
    TargetUnwritable,
    TransferBusy,
    TransferCancelled,
    UploadGone,
    VerificationFailed,
)
from holdfast.progress import Tracker
from holdfast.rates import RateLimit, Share
from holdfast_protocol.digest import digest
from tests.client.loopback import Loopback
from tests.support.process import CommandLine, environment
from tests.support.waiting import eventually, scaled

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
COMMAND = [sys.executable, "-m", "holdfast.cli"]


def test_upload_prints_the_url_and_nothing_else_on_standard_output(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(MIB)
    done = holdfast_command.run("upload", str(path), "--to", loopback.url)
    assert (done.returncode, done.stdout) == (0, f"{loopback.url}/{0:032x}\n")
    assert "done" in done.stderr


def test_bars_on_a_terminal_leave_standard_output_alone(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    """Standard error is a terminal, standard output a pipe."""
    path = make_file(MIB)
    terminal, inside = pty.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, "upload", str(path), "--to", loopback.url],
            env=environment(holdfast_command.home) | {"TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=inside,
            timeout=scaled(30),
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, f"{loopback.url}/{0:032x}\n".encode())
        assert b"100%" in os.read(terminal, 1 << 20)
    finally:
        os.close(inside)
        os.close(terminal)


def test_urls_come_in_the_order_of_the_files(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    files = [make_file(size, f"file-{size}") for size in (200_000, 0, 70_000)]
    done = holdfast_command.run("upload", *map(str, files), "--to", loopback.url, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    contents = [bytes(loopback.uploads[url.rpartition("/")[2]].data) for url in done.stdout.splitlines()]
    assert contents == [file.read_bytes() for file in files]


def test_json_events_end_with_the_facts(make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine) -> None:
    path = make_file(2 * MIB)
    done = holdfast_command.run(
        "upload", str(path), "--to", loopback.url, "--json", "--chunk-size", "512K", "--concurrency", "2"
    )
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["event"] for event in events[:-2]} <= {"progress"}
    summary, last = events[-1], events[-2]
    assert summary.pop("seconds") >= last["seconds"]
    assert summary == {
        "event": "summary",
        "status": 0,
        "files": 1,
        "done": 1,
        "failed": 0,
        "left": 0,
        "accepted": 2 * MIB,
        "wire": 2 * MIB,
        "resent": 0,
        "retries": 0,
    }
    assert last.pop("seconds") > 0
    assert last == {
        "event": "done",
        "file": str(path),
        "url": f"{loopback.url}/{0:032x}",
        "size": 2 * MIB,
        "digest": {"algorithm": "xxh3-128", "hex": digest("xxh3-128", path.read_bytes()).hex},
        "chunks": 4,
        "concurrency": 2,
        "retries": 0,
        "bytes_sent": 2 * MIB,
        "bytes_resent": 0,
        "bytes_resumed": 0,
        "bytes_sparse": 0,
        "protocol": "parallel",
        "already_there": False,
    }


@pytest.mark.parametrize(
    ("order", "status", "sentence"),
    [
        ({"method": "POST", "kind": "answer", "status": 401}, 4, "give a token"),
        ({"method": "POST", "kind": "answer", "status": 404}, 4, "check the URL"),
        ({"method": "POST", "kind": "answer", "status": 413, "code": "upload-too-large"}, 4, "refused (413)"),
        ({"method": "POST", "kind": "answer", "status": 507, "code": "insufficient-storage", "times": 9}, 4,
         "has no room for it"),
        ({"method": "POST", "kind": "answer", "status": 500, "times": 9}, 1, "gave up after 2 attempts"),
        ({"method": "PATCH", "kind": "answer", "status": 422, "code": "upload-digest-mismatch",
          "when": lambda seen: not seen.is_chunk}, 3, "nothing was published"),
    ],
)  # fmt: skip
def test_failures_have_their_exit_status_and_one_sentence(
    make_file: MakeFile,
    loopback: Loopback,
    holdfast_command: CommandLine,
    order: dict[str, object],
    status: int,
    sentence: str,
) -> None:
    path = make_file(MIB)
    method, kind = str(order.pop("method")), str(order.pop("kind"))
    loopback.order(method, kind, **order)
    done = holdfast_command.run(
        "upload", str(path), "--to", loopback.url, "--quiet", "--max-attempts", "2", "--retries", "0"
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"holdfast: {path}: ")
    assert sentence in done.stderr


def test_a_file_that_is_not_there_fails_and_the_others_go(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(1000)
    done = holdfast_command.run("upload", f"{path}.no", str(path), "--to", loopback.url, "--quiet")
    assert done.returncode == 1
    assert done.stdout == f"{loopback.url}/{0:032x}\n"
    assert "cannot be opened" in done.stderr


@pytest.mark.parametrize(
    ("errors", "status"),
    [
        ((), 0),
        ((SourceUnreadable("x"), TargetUnwritable("x"), SourceChanged("x"), TargetExists("x"), TransferBusy("x")), 1),
        ((ConnectionFailed("x"), Stalled("x"), BrokenProtocol("x"), TransferCancelled("x")), 1),
        ((ServerUnavailable("x", status=503),), 1),
        ((VerificationFailed("x"),), 3),
        ((NotAuthorized("x", status=401), UploadGone("x", status=404), ServerFull("x", status=507)), 4),
        ((ServerRefused("x", status=413),), 4),
        ((ConnectionFailed("x"), ServerFull("x", status=507)), 4),
        ((VerificationFailed("x"), ServerFull("x", status=507), ConnectionFailed("x")), 3),
    ],
)
def test_of_several_failures_the_worst_has_the_exit_status(
    errors: tuple[HoldfastError, ...], status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The table in docs/transfers.md."""
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "state"))

    def start(client: AsyncClient, job: Job) -> Transfer[str]:
        async def work() -> str:
            if job.name == "good":
                return "done"
            raise errors[int(job.name)]

        limit = RateLimit(None, lambda: 0.0)
        transfer = Transfer("upload", job.name, Tracker(lambda: 0.0), work, share=Share(0, limit), limit=limit)
        client.queue.start(transfer)
        return transfer

    jobs = [Job("good"), *(Job(str(number)) for number in range(len(errors)))]
    settings = Settings(quiet=True, retries=0)
    assert Batch(jobs, start, str, lambda name, result: {}, settings=settings).run() == status


@pytest.mark.parametrize(
    "arguments",
    [
        ["upload"],
        ["upload", "file"],
        ["upload", "file", "--to", "files"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--protocol", "ftp"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--resume", "http://127.0.0.1:1/files/1"],
        ["upload", "file", "other", "--resume", "http://127.0.0.1:1/files/1"],
        ["upload", "-", "--to", "http://127.0.0.1:1/files", "--protocol", "parallel"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--checksum", "crc8"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--concurrency", "65"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--chunk-size", "many"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--header", "no colon"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--meta", "novalue"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--meta", "two words=x"],
        ["download"],
        ["download", "http://127.0.0.1:1/a", "-o", "x", "-d", "y"],
        ["download", "http://127.0.0.1:1/a", "http://127.0.0.1:1/b", "-o", "x"],
        ["download", "http://127.0.0.1:1/a", "--checksum", "sha-256=00"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--connections", "0"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--transfers", "0"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--proxy", "gopher://host"],
        ["upload", "file", "--to", "http://127.0.0.1:1/files", "--cacert", "no-such-file.pem"],
        ["download", "http://127.0.0.1:1/a", "--cacert", __file__],
        ["nonsense"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_usage_errors_are_two(arguments: list[str], tmp_path: Path) -> None:
    """Before anything is sent."""
    result = CliRunner(env={"HOLDFAST_STATE": str(tmp_path / "state")}).invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Usage:" in result.stderr


def test_a_command_whose_package_is_missing_says_what_to_install(tmp_path: Path) -> None:
    """The entry point is there, what it names is not."""
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[holdfast.commands]\nbroken = not_here_at_all:command\n")
    variables = environment(tmp_path)
    variables["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{variables['PYTHONPATH']}"
    done = subprocess.run(
        [*COMMAND, "broken", "--port", "1"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "holdfast[server]"' in done.stderr


def test_help_names_the_commands() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert {"upload", "download"} <= set(result.stdout.split())


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("8M", 8 * MIB),
        ("8MiB", 8 * MIB),
        ("8MB", 8_000_000),
        ("1.5k", 1536),
        ("2g", 2 << 30),
        ("5m/s", 5 * MIB),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


def stalled_upload(command: CommandLine, loopback: Loopback, path: Path) -> "subprocess.Popen[str]":
    """An upload of which the last chunk does not move; all others are stored. No other connection helps it out."""
    last = path.stat().st_size - 65536
    loopback.order("PATCH", "stall", after=1000, when=lambda seen: seen.offset == last)
    process = subprocess.Popen(
        [*COMMAND, "upload", str(path), "--to", loopback.url, "--chunk-size", "65536", "--concurrency", "1", "--json"],
        env=environment(command.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: loopback.uploads and loopback.only().stored.total == last, within=30, what="all chunks but one")
    eventually(lambda: loopback.body_bytes >= last + 1000, what="the first bytes of the last chunk")
    return process


def test_ctrl_c_pauses_and_the_same_command_goes_on(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(MIB)
    with stalled_upload(holdfast_command, loopback, path) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=scaled(20))
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-2])["event"] == "paused"
    assert "Run the same command again" in err
    done = holdfast_command.run("upload", str(path), "--to", loopback.url, "--json")
    last = json.loads(done.stdout.splitlines()[-2])
    assert (done.returncode, last["event"]) == (0, "done")
    assert (last["bytes_resumed"], last["bytes_resent"]) == (MIB - 65536, 65536)
    assert bytes(loopback.only().data) == path.read_bytes()


def test_a_killed_upload_goes_on_and_counts_what_was_sent_twice(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    """The count of bytes on the wire survives kill -9, and so does the URL."""
    path = make_file(MIB)
    with stalled_upload(holdfast_command, loopback, path) as process:
        process.kill()
        process.communicate(timeout=scaled(20))
    done = holdfast_command.run("upload", str(path), "--to", loopback.url, "--json")
    last = json.loads(done.stdout.splitlines()[-2])
    assert (last["event"], last["bytes_resumed"], last["bytes_sent"], last["bytes_resent"]) == (
        "done",
        MIB - 65536,
        MIB + 65536,
        65536,
    )
    assert bytes(loopback.only().data) == path.read_bytes()


def test_a_second_process_says_that_the_first_is_at_it(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(MIB)
    with stalled_upload(holdfast_command, loopback, path) as process:
        second = holdfast_command.run("upload", str(path), "--to", loopback.url, "--if-busy", "fail")
        process.kill()
        process.communicate(timeout=scaled(20))
    assert second.returncode == 1
    assert f"by another process (process {process.pid})" in second.stderr


def test_a_complete_upload_is_not_sent_again(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(MIB)
    first = holdfast_command.run("upload", str(path), "--to", loopback.url)
    second = holdfast_command.run("upload", str(path), "--to", loopback.url)
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert "nothing was sent" in second.stderr
    assert loopback.body_bytes == MIB


def test_download_prints_the_path(loopback: Loopback, holdfast_command: CommandLine, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    url = loopback.put("a" * 32, content, stored=[(0, len(content))])
    done = holdfast_command.run("download", url, "-d", str(tmp_path / "here"), "--quiet")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'here' / 'film.mkv'}\n")
    assert Path(done.stdout.strip()).read_bytes() == content
    again = holdfast_command.run("download", url, "-d", str(tmp_path / "here"), "--quiet")
    assert again.returncode == 1
    assert "is there already" in again.stderr
    wrong = f"sha-256={'0' * 64}"
    third = holdfast_command.run("download", url, "-o", str(tmp_path / "x"), "--checksum", wrong, "--quiet")
    assert third.returncode == 3
    assert not (tmp_path / "x").exists()
