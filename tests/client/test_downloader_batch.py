"""A batch of 500 downloads: in order, within limits, and with the right words at the end."""

import hashlib
import shlex
import threading
from pathlib import Path

from tests.support.process import CommandLine
from tests.support.scripted import Asked, Scripted, good, head

FILES = 500
AT_ONCE = 4
"""What the command has on its way together."""


class Count:
    """In what order files were asked for, and how many at once."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.order: list[int] = []
        self.now = self.most = 0

    def script(self, asked: Asked) -> list[bytes]:
        if asked.path.endswith(".sha256"):
            return [head(404, "Content-Length: 0")]
        number = int(asked.path.rpartition("/")[2])
        if number == 77:
            return [head(404, "Content-Length: 0")]
        with self.guard:
            self.order.append(number)
            self.now += 1
            self.most = max(self.most, self.now)
        answer = good(content(number), asked)
        with self.guard:
            self.now -= 1
        return answer


def content(number: int) -> bytes:
    return b"%d " % number * 1000


def test_five_hundred_files(tmp_path: Path, holdfast_command: CommandLine) -> None:
    """Three fail: one is not there, one is damaged, one has no place to go to; each says so, and nobody else fails."""
    count = Count()
    target = tmp_path / "in"
    target.mkdir()
    (target / "99").write_text("mine")
    with Scripted(count.script) as server:
        lines = []
        for number in range(FILES):
            line = [f"{server.url}/{number}", "-d", str(target), "--priority", str(number % 5)]
            if number % 3 == 0:  # as other download managers have it
                line = ["-u", line[0], "-o", str(target / str(number)), "-n", "2", "--priority", str(number % 5)]
            if number == 88:
                line += ["--checksum", "sha-256=" + "0" * 64]
            lines.append(shlex.join(line))
        listed = tmp_path / "list.txt"
        listed.write_text("# five hundred\n\n" + "\n".join(lines) + "\n")
        done = holdfast_command.run("download", "-i", str(listed), within=100)
    failed = {77, 88, 99}
    there = [number for number in range(FILES) if number not in failed]
    assert done.stdout.splitlines() == [str(target / str(number)) for number in there]
    for number in there:
        assert (target / str(number)).read_bytes() == content(number)
    assert (target / "99").read_text() == "mine"
    assert done.returncode == 3, "what is wrong with the bytes goes before what a server refuses, and before all else"

    said = [line for line in done.stderr.splitlines() if line.startswith("holdfast: ")]
    assert len(said) == 3, said
    assert any("/77" in line and "there is nothing" in line for line in said)
    assert any("/88" in line and hashlib.sha256(content(88)).hexdigest() in line for line in said)
    assert any("/99" in line and "is there already" in line for line in said)
    summaries = [line for line in done.stderr.splitlines() if f" of {FILES} done" in line and "%" not in line]
    assert len(summaries) == 1
    assert summaries[0].startswith(f"{FILES - 3} of {FILES} done, 3 failed: ")

    assert count.most <= AT_ONCE
    assert sorted(set(count.order)) == [number for number in range(FILES) if number not in {77, 99}]
    firsts = list(dict.fromkeys(count.order))
    expected = sorted(firsts, key=lambda number: (number % 5, number))
    # Those that are on their way together may overtake each other on the wire.
    moved = [abs(firsts.index(number) - place) for place, number in enumerate(expected)]
    assert max(moved) <= 2 * AT_ONCE


def test_a_plain_list(tmp_path: Path, holdfast_command: CommandLine) -> None:
    """URLs, one a line, as they are copied from anywhere."""
    with Scripted(Count().script) as server:
        listed = tmp_path / "list.txt"
        listed.write_text("".join(f"{server.url}/{number}\n" for number in range(3)))
        done = holdfast_command.run("download", "-i", str(listed), "-d", str(tmp_path / "in"))
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / "in" / str(number)).read_bytes() for number in range(3)] == [content(n) for n in range(3)]
    assert "3 of 3 done: " in done.stderr
