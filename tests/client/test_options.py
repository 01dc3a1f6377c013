"""Options that uploads and downloads share do what they say, for both."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.loopback import Loopback
from tests.support.process import CommandLine
from tests.support.scripted import Asked, Scripted, good, head

MIB = 1024 * 1024
MakeFile = Callable[..., Path]


def test_transfers_is_how_many_files_are_on_their_way(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    """With one, a file is begun after the one before it was completed."""
    files = [make_file(300_000, f"file-{number}") for number in range(4)]
    done = holdfast_command.run("upload", *map(str, files), "--to", loopback.url, "--quiet", "--transfers", "1")
    assert done.returncode == 0, done.stderr
    paths = [each.path for each in loopback.requests("PATCH")]
    assert len(dict.fromkeys(paths)) == 4
    assert paths == sorted(paths, key=list(dict.fromkeys(paths)).index), "one after the other"


def test_connections_are_those_of_all_files_together(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    files = [make_file(MIB, f"file-{number}") for number in range(4)]
    words = ["--concurrency", "4", "--chunk-size", "64K", "--connections", "2", "--quiet"]
    done = holdfast_command.run("upload", *map(str, files), "--to", loopback.url, *words)
    assert done.returncode == 0, done.stderr
    assert 1 <= loopback.most_at_once <= 2


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_proxy_gets_the_requests(
    direction: str, make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine, tmp_path: Path
) -> None:
    proxy = ["--proxy", loopback.url.removesuffix("/files"), "--quiet"]
    if direction == "upload":
        words = ["upload", str(make_file(10)), "--to", "http://elsewhere.invalid/files", "--protocol", "tus"]
    else:
        loopback.put("a" * 32, b"0123456789", stored=[(0, 10)])
        words = ["download", f"http://elsewhere.invalid/files/{'a' * 32}", "-o", str(tmp_path / "copy")]
    done = holdfast_command.run(*words, *proxy)
    assert (done.returncode, done.stderr) == (0, "")


def test_cacert_vouches_for_a_server(certificate: Path, holdfast_command: CommandLine, tmp_path: Path) -> None:
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate)

    def script(asked: Asked) -> list[bytes]:
        return good(b"content", asked) if asked.path == "/f" else [head(404, "Content-Length: 0")]

    with Scripted(script, ours) as server:
        words = ["download", f"{server.url}/f", "-o", str(tmp_path / "f"), "--max-attempts", "1", "--retries", "0"]
        refused = holdfast_command.run(*words, "--quiet")
        assert (refused.returncode, "certificate" in refused.stderr) == (1, True)
        done = holdfast_command.run(*words, "--quiet", "--cacert", str(certificate))
        assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'f'}\n"), done.stderr
    assert (tmp_path / "f").read_bytes() == b"content"
