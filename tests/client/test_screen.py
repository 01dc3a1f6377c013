"""What people see: bars in whatever width, lines in pipes and CI logs, sums of many files."""

import io
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from holdfast.cli.bars import COLUMNS, LARGEST_BAR, MARGIN, SHOWN, Bars, Layout, amount, shortened
from holdfast.cli.jobs import Job
from holdfast.cli.running import Sum
from holdfast.cli.screen import MANY, Events, Lines, Overall, Silent, choose, clock, printable
from holdfast.progress import Part, Progress, State
from tests.client.loopback import Loopback
from tests.support.process import CommandLine
from tests.support.terminal import Terminal

MIB = 1024 * 1024
MakeFile = Callable[..., Path]


def look(accepted: int = 3 * MIB, state: State = State.IN_PROGRESS, **more: object) -> Progress:
    facts = {
        "state": state,
        "size": 10 * MIB,
        "accepted": accepted,
        "resumed": 0,
        "wire": accepted,
        "speed": 2.5 * MIB,
        "elapsed": 1.2,
        "resent": 0,
        "errors": 0,
        "retries": 0,
        "concurrency": 1,
        "chunk_size": MIB,
        "eta": 75.0,
    }
    return Progress(**(facts | more))  # type: ignore[arg-type]


def frame(bars: Bars, console: Console) -> list[str]:
    """The lines of the newest frame."""
    with console.capture() as caught:
        console.print(bars._frame())
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", caught.get()).splitlines()]


def screen(jobs: int, width: int = 80, height: int = 24) -> tuple[Bars, Console]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    return Bars(jobs, console), console


def test_a_bar_is_one_line_that_says_all_in_80_columns() -> None:
    bars, console = screen(1)
    bars.show(0, "/home/ada/film.mkv", look())
    (line,) = frame(bars, console)
    assert re.fullmatch(r"film\.mkv +\S+ +30% +3\.0/10\.0 MiB +2\.5 MiB/s +1:15", line), line
    bars.show(0, "/home/ada/film.mkv", look(10 * MIB, State.COMPLETED))
    assert re.fullmatch(r"film\.mkv +━+ 100% +10\.0/10\.0 MiB +in 0:01", frame(bars, console)[0])


@pytest.mark.parametrize("width", [16, 20, 25, 33, 40, 52, 60, 79, 80, 81, 100, 132, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    """Whatever a file is called, and whatever happens to it; the ^C that a terminal shows has its place, too."""
    bars, console = screen(40, width)
    for job, name in enumerate(("a" * 300, "ÄÖÜ" * 50, "写真" * 60, "x", "\x1b[31m\n\r" * 9, "a b c " * 30)):
        bars.show(job, name, look(1023 * MIB, size=1024**5 - 1, eta=1e9, note="no connection to the server " * 9))
    bars.show_all(Overall(total=100_000, done=99_999, failed=1, size=2**60, accepted=2**59, speed=2.0**49, eta=1e8))
    lines = frame(bars, console)
    assert max(cell_len(line) for line in lines) <= width - MARGIN
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("height", [1, 5, 10, 24, 50])
def test_of_many_files_few_have_bars_and_the_rest_is_a_number(height: int) -> None:
    bars, console = screen(500, height=height)
    for job in range(60):
        bars.show(job, f"file-{job}", look())
    bars.show(60, "file-60", look(0, State.PENDING))
    bars.show_all(Overall(total=500, done=100, failed=3, size=None, accepted=MIB, fraction=0.25))
    lines = frame(bars, console)
    assert len(lines) <= max(3, min(SHOWN + 2, height))
    shown = sum(line.startswith("file-") for line in lines)
    assert lines[-1] == f"{60 - shown} more on their way, 337 waiting, 3 failed"
    assert lines[-2].startswith("100 of 500 done")
    assert " 25% " in lines[-2]


def test_a_bar_goes_when_its_file_has_ended_and_stays_when_it_is_paused() -> None:
    bars, console = screen(5)
    for job, state in enumerate((State.COMPLETED, State.FAILED, State.CANCELLED, State.IN_PROGRESS)):
        bars.show(job, f"file-{job}", look())
        bars.show(job, f"file-{job}", look(state=state))
    bars.show(4, "file-4", look(0, State.PENDING, size=None))
    bars.show(4, "file-4", look(0, State.CANCELLED, size=None))
    lines = frame(bars, console)
    assert [line.split()[0] for line in lines[:2]] == ["file-2", "file-3"]
    assert lines[0].endswith("paused")
    assert not any("file-4" in line for line in lines), "it had not begun"


def test_what_the_server_is_at_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """In a bar, in lines and in events, each time that it changes."""
    looks = [look(10 * MIB, State.VERIFYING, step=step) for step in (None, "verifying", "verifying", "publishing")]
    bars, console = screen(1)
    ends = []
    for each in looks:
        bars.show(0, "film", each)
        ends.append(frame(bars, console)[0].split()[-1])
    assert ends == ["verifying", "verifying", "verifying", "publishing"]
    lines, events = Lines(1), Events()
    for each in looks:
        lines.show(0, "film", each)
        events.show(0, "film", each)
    said = capsys.readouterr()
    assert said.err.splitlines() == ["film: verifying", "film: publishing"]
    told = [json.loads(line) for line in said.out.splitlines()]
    assert [(each["state"], each["step"]) for each in told] == [("verifying", None), ("verifying", "publishing")]


def test_trouble_has_a_line_of_its_own() -> None:
    bars, console = screen(1)
    bars.show(0, "film", look(note="no connection to host:80; attempt 2 of 10 in 1.5 s", concurrency=0))
    assert frame(bars, console)[1] == "  no connection to host:80; attempt 2 of 10 in 1.5 s"


def test_the_only_download_has_a_bar_for_each_connection() -> None:
    parts = tuple(Part(start * MIB, start * MIB + MIB // 2, (start + 1) * MIB) for start in range(64))
    bars, console = screen(1)
    bars.show(0, "film", look(parts=parts))
    lines = frame(bars, console)
    assert len(lines) == 1 + SHOWN
    assert re.fullmatch(r"  at 1\.0 MiB +\S+ +50% +0\.5/1\.0 MiB", lines[2])


def test_without_a_length_there_is_no_percentage() -> None:
    bars, console = screen(1)
    bars.show(0, "stdin", look(size=None, eta=None))
    assert "%" not in frame(bars, console)[0]
    assert "3.0 MiB" in frame(bars, console)[0]


def test_layouts_fit() -> None:
    for width in range(1, 300):
        layout = Layout.of(width)
        used = layout.name + 1 + 4 + sum(COLUMNS[each] + 1 for each in layout.columns)
        assert layout.bar == 0 or used + layout.bar + 1 <= width
        assert layout.bar <= LARGEST_BAR


def test_names_lose_their_middle() -> None:
    assert shortened("short.txt", 9) == "short.txt"
    assert shortened("holiday-pictures-2024.tar.gz", 16) == "holiday-pi…ar.gz"
    assert cell_len(shortened("写真" * 9, 11)) <= 11


def test_words_for_amounts_and_times() -> None:
    assert amount(1536, 10 * 1024) == "1.5/10.0 KiB"
    assert (amount(7, 9), amount(0, None), amount(2 * MIB, None)) == ("7/9 bytes", "", "2.0 MiB")
    assert max(len(amount(size, size)) for size in (1023, 1024**2 - 1, 1024**3 - 1, 1024**4 - 1, 1024**5 - 1)) <= 17
    assert [clock(each) for each in (7, 725, 10_931, 360_000)] == ["0:07", "12:05", "3:02:11", "4 days"]
    assert printable("a\x1b[31mb\nc") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c"


def test_lines_of_few_tell_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(2)
    lines.show(0, "a", look(0, State.STARTING))
    lines.show(0, "a", look())
    lines.show(0, "a", look())
    lines.show(1, "b", look(0, State.PENDING, note="no connection; the transfer goes on in 3 s", concurrency=0))
    lines.show(0, "a", look(10 * MIB, State.COMPLETED))
    lines.show_all(Overall(2))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "a: 3.0 MiB of 10.0 MiB (30%), 2.5 MiB/s, 1:15 to go",
        "b: no connection; the transfer goes on in 3 s",
        "a: done, 10.0 MiB in 1.2 s",
    ]


def test_lines_of_many_tell_the_sum_and_what_goes_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("holdfast.cli.screen.time.monotonic", lambda: now)
    lines = Lines(MANY + 1)
    for job in range(MANY + 1):
        lines.show(job, f"file-{job}", look())
        lines.show(job, f"file-{job}", look(10 * MIB, State.COMPLETED))
    lines.show(0, "other", look(note="it broke", concurrency=0))
    overall = Overall(total=21, done=5, failed=1, size=20 * MIB, accepted=5 * MIB, fraction=0.25, speed=MIB, eta=15)
    lines.show_all(overall)
    now = 5.0
    lines.show_all(overall)
    lines.show_all(overall)
    assert capsys.readouterr().err.splitlines() == [
        "other: it broke",
        "5 of 21 done, 1 failed: 5.0 MiB of 20.0 MiB (25%), 1.0 MiB/s, 0:15 to go",
    ]


def test_the_sum_counts_what_moved_and_what_was_there() -> None:
    total = Sum([Job("a", size=10), Job("b", size=30)])
    total.look(0, look(4, size=10, wire=2))
    assert (total.accepted, total.wire, total.overall().fraction) == (4, 2, 0.1)
    total.look(0, look(10, State.COMPLETED, size=10, wire=11, resent=3, retries=1))
    total.done += 1
    assert (total.accepted, total.wire, total.resent, total.retries, total.left) == (10, 11, 3, 1, 1)
    assert total.event(0)["resent"] == 3
    assert str(total).startswith("1 of 2 done, 1 left for another time: 10 bytes in ")
    assert str(total).endswith("; 3 bytes went over the network more than once")
    unknown = Sum([Job("a"), Job("b", size=30)])
    unknown.look(1, look(15, size=30))
    assert unknown.overall().fraction == 0.25, "by files"


@pytest.mark.parametrize(
    ("variables", "bars"),
    [
        ({"CI": ""}, True),
        ({"CI": "false"}, True),
        ({"CI": "true"}, False),
        ({"CI": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_bars_are_for_terminals_that_somebody_looks_at(
    variables: dict[str, str], bars: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(choose(2, quiet=False, as_json=False), Bars if bars else Lines)
    assert type(choose(2, quiet=True, as_json=False)) is Silent
    assert type(choose(2, quiet=True, as_json=True)) is Events
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert isinstance(choose(2, quiet=False, as_json=False), Lines)


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"CI": "true"}])
def test_a_folder_on_a_real_terminal(
    variables: dict[str, str], make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    """All URLs stand there for good, each alone on its line, and the sum is the last word."""
    files = [make_file(2000 + number, f"file-{number}") for number in range(MANY + 5)]
    words = ["upload", *map(str, files), "--to", loopback.url]
    with Terminal(holdfast_command.home, *words, variables=variables) as terminal:
        assert terminal.ended() == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.text).replace("\r", "\n").split("\n")
    urls = [line for line in plain if line.startswith(f"{loopback.url}/")]
    assert len(urls) == len(set(urls)) == len(files)
    (summary,) = [line for line in plain if line.startswith(f"{len(files)} of {len(files)} done: ")]
    assert [line for line in plain if line.strip()][-1] == summary
    assert ("\x1b[?25l" in terminal.text) == ("CI" not in variables)
    if variables:
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", terminal.text), "no colour"


class _Evil(BaseHTTPRequestHandler):
    """Refuses everything, in words that a terminal would obey."""

    protocol_version = "HTTP/1.1"

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        words = "no \x1b]0;mine\x07 \u009b31m \u202e or\nholdfast: done"
        body = json.dumps({"code": "not-permitted\x1b[2J", "detail": words}).encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_OPTIONS = _refuse  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: object) -> None:
        return None


def test_nothing_that_a_server_or_a_name_says_is_obeyed_by_a_terminal(
    tmp_path: Path, holdfast_command: CommandLine
) -> None:
    file = tmp_path / "film\x1b[31m.bin"
    file.write_bytes(b"film")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Evil) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        told = [
            holdfast_command.run("upload", str(file), "--to", f"{url}/files"),
            holdfast_command.run("download", f"{url}/files/x", "-d", str(tmp_path)),
            holdfast_command.run("watch", url),
            holdfast_command.run("transfers", "list"),
        ]
        ids = [line.split()[0] for line in told[-1].stdout.splitlines()[1:]]
        assert len(ids) == 2
        told += [holdfast_command.run("transfers", "show", *ids), holdfast_command.run("transfers", "pause", *ids)]
        server.shutdown()
    assert all(
        "or\N{REPLACEMENT CHARACTER}holdfast: done" in each.stdout + each.stderr for each in (*told[:3], told[4])
    )
    for each in told:
        shown = (each.stdout + each.stderr).replace("\n", "")
        assert shown.isprintable(), repr(shown)
