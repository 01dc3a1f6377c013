"""What upload and download are asked to transfer: folders, patterns, and files of jobs."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from holdfast.cli import main
from holdfast.cli.download import LISTED, download
from holdfast.cli.download import PER_FILE as DOWNLOADS
from holdfast.cli.jobs import Job, Lines, files_of, read_jobs
from holdfast.cli.upload import PER_FILE as UPLOADS
from holdfast.cli.upload import upload
from holdfast_protocol import fields
from tests.client.loopback import Loopback
from tests.support.process import CommandLine

MakeFile = Callable[..., Path]


def read(command: click.Command, text: str) -> list[Job]:
    lines = Lines(command, UPLOADS) if command is upload else Lines(command, DOWNLOADS, LISTED)
    file = io.StringIO(text)
    file.name = "jobs.txt"
    return list(read_jobs(lines, file, 7, strict=False))


def test_a_line_has_options_of_its_own() -> None:
    (job,) = read(upload, "'my film.mkv' --to http://host/files --meta a=b --meta 'c=d e' --priority 2\n")
    assert (job.name, job.priority, job.line) == ("my film.mkv", 2, "line 1 of jobs.txt")
    assert job.said == {"endpoint": "http://host/files", "meta": (("a", "b"), ("c", "d e")), "priority": 2}


def test_what_a_line_does_not_say_is_as_on_the_command_line() -> None:
    (job,) = read(upload, "film.mkv\n")
    assert (job.said, job.priority) == ({}, 7)


def test_the_format_of_download_managers() -> None:
    """-u URL -o PATH -n N, in any order, with long names too."""
    one, two = read(
        download, "-u http://host/a?b=c -o 'some where/a' -n 4\n--concurrency 8 --output b --url http://host/b\n"
    )
    assert one.name == "http://host/a?b=c"
    assert (str(one.said["output"]), one.said["segments"]) == ("some where/a", 4)
    assert (two.name, str(two.said["output"]), two.said["segments"]) == ("http://host/b", "b", 8)


def test_a_plain_list_of_urls_is_taken_as_it_stands() -> None:
    """Also with letters that mean something to a shell; empty lines and comments are nothing."""
    jobs = read(download, "# mine\n\nhttp://host/it's&more#x\n  https://host/b  \n")
    assert [job.name for job in jobs] == ["http://host/it's&more#x", "https://host/b"]


def test_the_name_of_a_file_that_is_there_is_taken_as_it_stands(make_file: MakeFile) -> None:
    path = make_file(1, "it's mine.mkv")
    assert [job.name for job in read(upload, f"{path}\n")] == [str(path)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("'film.mkv --to http://host/files", "No closing quotation"),
        ("film.mkv --nonsense", "--nonsense"),
        ("film.mkv --header 'A: b'", "--header"),
        ("film.mkv --checksum crc8", "crc8"),
        ("--priority 1", "names nothing"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_stops_nobody_else(line: str, sentence: str) -> None:
    good, bad, last = read(upload, f"a.mkv\n{line}\nb.mkv\n")
    assert (good.name, good.problem, last.name, last.problem) == ("a.mkv", None, "b.mkv", None)
    assert bad.name == "line 2 of jobs.txt"
    assert bad.problem is not None
    assert sentence in bad.problem


def test_folders_patterns_and_single_files(tmp_path: Path) -> None:
    top = tmp_path / "photos"
    for name in ("b/2.jpg", "b/1.jpg", "a.jpg", "notes.txt"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()

    def names(given: str, *, recursive: bool = False) -> list[str]:
        return [os.path.relpath(job.name, top) for job in files_of(Job(given), recursive=recursive)]

    assert names(str(top), recursive=True) == ["a.jpg", "notes.txt", "b/1.jpg", "b/2.jpg"]
    places = [job.relative for job in files_of(Job(f"{top}/"), recursive=True)]
    assert places == ["photos/a.jpg", "photos/notes.txt", "photos/b/1.jpg", "photos/b/2.jpg"]
    assert names(f"{top}/*") == ["a.jpg", "notes.txt"]
    assert names(f"{top}/*", recursive=True) == ["a.jpg", "b/1.jpg", "b/2.jpg", "notes.txt"]
    assert names(f"{top}/**/*.jpg") == ["a.jpg", "b/1.jpg", "b/2.jpg"]
    (whole,) = files_of(Job(str(top)), recursive=False)
    assert "--recursive" in (whole.problem or "")
    (none,) = files_of(Job(f"{top}/*.png"), recursive=False)
    assert "nothing matches" in (none.problem or "")
    (top / "[x].jpg").touch()
    assert names(f"{top}/[x].jpg") == ["[x].jpg"]


def test_a_folder_goes_with_the_place_of_each_file(
    tmp_path: Path, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    for name in ("one", "in/two"):
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    done = holdfast_command.run("upload", str(tmp_path / "top"), "--to", loopback.url, "--recursive", "--quiet")
    assert done.returncode == 0, done.stderr
    found = {bytes(kept.data): fields.parse_metadata(kept.metadata or "") for kept in loopback.uploads.values()}
    assert found[b"one"]["relativePath"] == b"top/one"
    assert found[b"in/two"]["relativePath"] == b"top/in/two"
    assert found[b"in/two"]["filename"] == b"two"
    flat = holdfast_command.run("upload", str(tmp_path / "top"), "--to", loopback.url, "--quiet")
    assert flat.returncode == 1
    assert "give --recursive" in flat.stderr


def test_a_file_of_uploads(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine, tmp_path: Path
) -> None:
    """Each line is for itself; results come in the order of the lines, whatever the priorities."""
    first, second = make_file(1000, "first one"), make_file(2000, "second")
    batch = tmp_path / "jobs"
    batch.write_text(f"'{first}' --priority 9\n{second} --nonsense\n{second} --to {loopback.url} --priority 1\n")
    done = holdfast_command.run("upload", "-i", str(batch), "--to", loopback.url, "--quiet")
    assert done.returncode == 1
    assert "line 2 of" in done.stderr
    sizes = [len(loopback.uploads[url.rpartition("/")[2]].data) for url in done.stdout.splitlines()]
    assert sizes == [1000, 2000]
    strict = holdfast_command.run("upload", "-i", str(batch), "--to", loopback.url, "--quiet", "--strict")
    assert (strict.returncode, strict.stdout) == (2, "")
    assert "line 2 of" in strict.stderr


def test_a_file_of_downloads(loopback: Loopback, holdfast_command: CommandLine, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    urls = [loopback.put(letter * 32, content, stored=[(0, len(content))]) for letter in "abc"]
    batch = tmp_path / "jobs"
    batch.write_text(f"-u {urls[0]} -o {tmp_path / 'one'} -n 2\n{urls[1]} -d '{tmp_path / 'a folder'}'\n{urls[2]}\n")
    done = holdfast_command.run("download", "-i", str(batch), "-d", str(tmp_path / "rest"), "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    paths = [tmp_path / "one", tmp_path / "a folder" / "film.mkv", tmp_path / "rest" / "film.mkv"]
    assert [event["path"] for event in events if event["event"] == "done"] == [str(path) for path in paths]
    assert [path.read_bytes() for path in paths] == [content] * 3


def test_jobs_come_from_standard_input_too(loopback: Loopback, tmp_path: Path) -> None:
    content = os.urandom(1000)
    url = loopback.put("a" * 32, content, stored=[(0, len(content))])
    runner = CliRunner(env={"HOLDFAST_STATE": str(tmp_path / "state")})
    done = runner.invoke(main, ["download", "-i", "-", "--quiet"], input=f"-u {url} -o {tmp_path / 'x'}\n-u\n")
    assert (done.exit_code, done.stdout) == (1, f"{tmp_path / 'x'}\n")
    assert "line 2 of standard input" in done.stderr
    twice = runner.invoke(main, ["upload", "-", "-i", "-", "--to", loopback.url], input="x\n")
    assert twice.exit_code == 2
    assert "can be read once" in twice.stderr
