"""`holdfast transfers`: what it shows, and what it makes other processes do."""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client.loopback import Loopback
from tests.client.test_books import held_at_the_end
from tests.support.process import CommandLine
from tests.support.waiting import eventually

MIB = 1024 * 1024
MakeFile = Callable[..., Path]


def listed(command: CommandLine) -> list[dict[str, Any]]:
    done = command.run("transfers", "list", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def in_state(command: CommandLine, *states: str) -> dict[str, Any]:
    """The one transfer that is listed, if it is in one of these states; else nothing."""
    rows = listed(command)
    return rows[0] if len(rows) == 1 and rows[0]["state"] in states else {}


def slowly(loopback: Loopback, path: Path) -> list[str]:
    return ["upload", str(path), "--to", loopback.url, "--chunk-size", "65536", "--concurrency", "1", "--json"]


def facts(process: "subprocess.Popen[bytes]", command: CommandLine) -> tuple[int, str]:
    """How a process has ended, and all that it and those before it wrote."""
    return process.wait(60), (command.home / "output.txt").read_text()


def test_what_runs_elsewhere_is_listed_paused_resumed_and_complete(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    with holdfast_command.started(*slowly(loopback, path)) as process:
        eventually(lambda: loopback.uploads and loopback.only().stored.total >= MIB - 65536, within=30, what="chunks")
        row = eventually(lambda: in_state(holdfast_command, "in_progress"), within=30, every=0.2)
        assert (row["kind"], row["source"], row["target"], row["size"]) == ("upload", str(path), loopback.url, MIB)
        assert row["process"] == process.pid
        paused = holdfast_command.run("transfers", "pause", row["id"][:5])
        assert (paused.returncode, paused.stdout) == (0, "")
        assert paused.stderr == f"{row['id']} {path}: paused\n"
        assert in_state(holdfast_command, "paused")
        table = holdfast_command.run("transfers").stdout.splitlines()
        assert table[1].split()[:2] == [row["id"], "paused"]
        shown = holdfast_command.run("transfers", "show", row["id"]).stdout
        assert f"source:     {path}" in shown
        free.set()
        assert holdfast_command.run("transfers", "resume", "--all").returncode == 0
        status, _ = facts(process, holdfast_command)
    assert status == 0
    assert bytes(loopback.only().data) == path.read_bytes()
    row = listed(holdfast_command)[0]
    assert (row["state"], row["process"], row["accepted"]) == ("completed", None, MIB)
    nothing = holdfast_command.run("transfers", "pause", row["id"])
    assert nothing.returncode == 1
    assert "nothing to pause" in nothing.stderr
    assert holdfast_command.run("transfers", "resume", row["id"]).returncode == 0
    assert holdfast_command.run("transfers", "clear").returncode == 0
    assert listed(holdfast_command) == []


def test_what_is_cancelled_elsewhere_fails_there_and_can_be_tried_again(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    with holdfast_command.started(*slowly(loopback, path)) as process:
        row = eventually(lambda: in_state(holdfast_command, "in_progress"), within=30, every=0.2)
        assert holdfast_command.run("transfers", "cancel", row["id"]).returncode == 0
        status, said = facts(process, holdfast_command)
    assert status == 1
    assert "was stopped" in said
    free.set()
    again = holdfast_command.run("transfers", "retry", row["id"])
    assert (again.returncode, again.stdout) == (0, f"{loopback.url}/{0:032x}\n")
    assert bytes(loopback.only().data) == path.read_bytes()


def test_what_a_killed_process_left_goes_on_here(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    with holdfast_command.started(*slowly(loopback, path)) as process:
        eventually(lambda: in_state(holdfast_command, "in_progress"), within=30, every=0.2)
        eventually(lambda: loopback.only().stored.total == MIB - 65536, within=30, what="all chunks but one")
        process.kill()
    row = in_state(holdfast_command, "interrupted")
    assert row["accepted"] <= MIB - 65536
    free.set()
    done = holdfast_command.run("transfers", "resume", row["id"], "--json")
    last = json.loads(done.stdout.splitlines()[-2])
    assert (done.returncode, last["event"]) == (0, "done")
    assert last["bytes_resumed"] >= MIB - 65536
    assert bytes(loopback.only().data) == path.read_bytes()


def test_two_commands_for_one_file_end_alike(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    """The second says so; what the first ends with is the status of both; the bytes go once."""
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    loopback.order("PATCH", "answer", status=422, code="upload-digest-mismatch", when=lambda seen: not seen.is_chunk)
    with holdfast_command.started(*slowly(loopback, path)) as first:
        eventually(lambda: loopback.uploads and loopback.only().stored.total == MIB - 65536, within=30, what="chunks")
        with holdfast_command.started(*slowly(loopback, path)) as second:
            output = holdfast_command.home / "output.txt"
            eventually(lambda: f"process {first.pid} is at it" in output.read_text(), within=30, what="the follower")
            free.set()
            assert facts(first, holdfast_command)[0] == 3
            status, said = facts(second, holdfast_command)
    assert status == 3
    assert said.count("nothing was published") >= 2
    assert loopback.body_bytes == MIB


def test_clear_frees_the_server_and_the_disk(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine, tmp_path: Path
) -> None:
    """Only with --unfinished, and not what runs."""
    path = make_file(MIB)
    held_at_the_end(loopback, path)
    loopback.order("GET", "stall", times=3, when=lambda seen: seen.fields.get("range") != "bytes=0-")
    url = loopback.put("a" * 32, 4 * path.read_bytes(), stored=[(0, 4 * MIB)])
    with holdfast_command.started(*slowly(loopback, path)):
        row = eventually(lambda: in_state(holdfast_command, "in_progress"), within=30, every=0.2)
        refused = holdfast_command.run("transfers", "clear", row["id"], "--unfinished")
        assert refused.returncode == 1
        assert "cancel it first" in refused.stderr
    with holdfast_command.started("download", url, "-o", str(tmp_path / "copy")):
        eventually(lambda: (tmp_path / "copy.part").exists(), within=30, what="the .part file")
        eventually(lambda: len(listed(holdfast_command)) == 2, within=30, every=0.2)
    assert {row["state"] for row in listed(holdfast_command)} == {"interrupted"}
    assert holdfast_command.run("transfers", "clear").returncode == 0
    assert len(listed(holdfast_command)) == 2, "only what is complete is forgotten without being named"
    unsaid = holdfast_command.run("transfers", "clear", row["id"])
    assert unsaid.returncode == 1
    assert "--unfinished" in unsaid.stderr
    loopback.order("DELETE", "answer", status=403)
    denied = holdfast_command.run("transfers", "clear", row["id"], "--unfinished")
    assert denied.returncode == 4
    assert "is not cleared" in denied.stderr
    assert len(listed(holdfast_command)) == 2
    done = holdfast_command.run("transfers", "clear", "--unfinished")
    assert (done.returncode, done.stderr) == (0, "")
    assert listed(holdfast_command) == []
    assert list(loopback.uploads) == ["a" * 32]
    assert not (tmp_path / "copy.part").exists()


def test_what_is_named_by_nobody_is_a_usage_error(holdfast_command: CommandLine) -> None:
    for arguments in (["show", "nothing"], ["pause"], ["cancel", "x", "--all"], ["clear", "x"], ["resume", "x"]):
        done = holdfast_command.run("transfers", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "Usage:" in done.stderr
    assert holdfast_command.run("transfers", "resume", "--all").returncode == 0
    assert holdfast_command.run("transfers").stderr == "No transfers.\n"


@pytest.mark.parametrize("given", [(), ("--header", "X-Token: t")])
def test_a_header_is_asked_for_again(
    given: tuple[str, ...], make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(1000)
    loopback.order("POST", "answer", status=403)
    first = holdfast_command.run("upload", str(path), "--to", loopback.url, "--header", "X-Token: old")
    assert first.returncode == 4
    (row,) = listed(holdfast_command)
    assert row["error"]["code"] == "not-authorized"
    done = holdfast_command.run("transfers", "retry", row["id"], *given)
    assert done.returncode == (0 if given else 1)
    assert given or "give it again with --header" in done.stderr


def test_the_second_takes_over_when_the_first_is_killed(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    with holdfast_command.started(*slowly(loopback, path)) as first:
        eventually(lambda: loopback.uploads and loopback.only().stored.total == MIB - 65536, within=30, what="chunks")
        with holdfast_command.started(*slowly(loopback, path)) as second:
            output = holdfast_command.home / "output.txt"
            eventually(lambda: f"process {first.pid} is at it" in output.read_text(), within=30, what="the follower")
            first.kill()
            free.set()
            status, said = facts(second, holdfast_command)
    assert status == 0
    last = json.loads(said.splitlines()[-2])
    assert (last["event"], last["url"]) == ("done", f"{loopback.url}/{0:032x}")
    assert last["bytes_resumed"] >= MIB - 65536
    assert bytes(loopback.only().data) == path.read_bytes()


def test_a_journal_of_a_newer_version_is_left_alone(holdfast_command: CommandLine) -> None:
    state = holdfast_command.home / ".local" / "state" / "holdfast"
    state.mkdir(parents=True)
    with sqlite3.connect(state / "journal.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    done = holdfast_command.run("transfers")
    assert (done.returncode, done.stdout) == (1, "")
    assert "newer version" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [[], ["list", "--json"], ["pause", "--all"], ["clear"]])
def test_a_journal_that_cannot_be_used_is_not_taken_for_an_empty_one(
    holdfast_command: CommandLine, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    done = holdfast_command.run("transfers", *words, variables={"HOLDFAST_STATE": str(tmp_path / "file" / "state")})
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody can say what is in it" in done.stderr
    assert "No transfers" not in done.stderr


def test_a_token_of_the_environment_is_as_good_as_the_header_that_is_not_kept(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    """One that is meant for another host is not."""
    path = make_file(1000)
    loopback.order("POST", "answer", status=401, times=1)
    words = ["upload", str(path), "--to", loopback.url, "--retries", "0"]
    assert holdfast_command.run(*words, "--header", "Authorization: Bearer old").returncode == 4
    without = holdfast_command.run("transfers", "retry", "--all")
    assert without.returncode == 1
    assert "HOLDFAST_TOKEN" in without.stderr
    token = {"HOLDFAST_TOKEN": "n3w", "HOLDFAST_TOKEN_HOST": "elsewhere.example"}
    assert holdfast_command.run("transfers", "retry", "--all", variables=token).returncode == 1
    broken = holdfast_command.run("transfers", "retry", "--all", variables={"HOLDFAST_TOKEN": "two words"})
    assert (broken.returncode, "Traceback" in broken.stderr) == (2, False)
    again = holdfast_command.run("transfers", "retry", "--all", variables={"HOLDFAST_TOKEN": "n3w"})
    assert (again.returncode, again.stdout) == (0, f"{loopback.url}/{0:032x}\n")
    assert loopback.requests("POST")[-1].fields["authorization"] == "Bearer n3w"


def test_each_has_one_line_of_80_columns_in_a_pipe(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(1000)
    path = path.rename(path.parent / f"film-{'x' * 60}.mkv")
    assert holdfast_command.run("upload", str(path), "--to", loopback.url).returncode == 0
    lines = holdfast_command.run("transfers", variables={"COLUMNS": ""}).stdout.splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines), lines
    assert "…/film-" in lines[1]
    wide = holdfast_command.run("transfers", variables={"COLUMNS": "1000"}).stdout
    assert f"{path} -> {loopback.url}" in wide
    assert listed(holdfast_command)[0]["source"] == str(path)


def test_a_user_name_in_the_url_makes_no_other_transfer(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(1000)
    for login in ("", "alice:one@", "bob:two@"):
        to = loopback.url.replace("://", f"://{login}")
        assert holdfast_command.run("upload", str(path), "--to", to).returncode == 0
    assert len(listed(holdfast_command)) == 1
