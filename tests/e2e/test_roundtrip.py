"""The command line against a real server: up, killed in the middle, up again, and down."""

import json
import random
import signal
from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.support.process import CommandLine, ServerProcess, kill_group
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import Speaker
from tests.support.waiting import eventually, scaled

MIB = 1 << 20


@pytest.mark.parametrize("protocol", ["auto", "parallel", "tus"])
def test_up_and_down(
    server: ServerProcess, holdfast_command: CommandLine, tmp_path: Path, rng: random.Random, protocol: str
) -> None:
    """`upload` prints the URL and nothing else; `download` of that URL is the same file."""
    file = tmp_path / "film.bin"
    file.write_bytes(rng.randbytes(5 * MIB + 321))
    up = holdfast_command.run("upload", str(file), "--to", f"{server.url}/files", "--protocol", protocol)
    assert up.returncode == 0, up.stderr
    (url,) = up.stdout.splitlines()
    assert url.startswith(f"{server.url}/files/")
    with Speaker(server.url) as speaker:
        assert speaker.status(url)["name"] == "film.bin"
    copy = tmp_path / "copy.bin"
    down = holdfast_command.run("download", url, "-o", str(copy))
    assert down.returncode == 0, down.stderr
    assert copy.read_bytes() == file.read_bytes()


def test_several_files_and_an_empty_one(
    server: ServerProcess, holdfast_command: CommandLine, tmp_path: Path, rng: random.Random
) -> None:
    """One URL a file, in the order of the files."""
    files = []
    for number, size in enumerate([0, 1, 65536, 200_000]):
        file = tmp_path / f"{number}.bin"
        file.write_bytes(rng.randbytes(size))
        files.append(file)
    up = holdfast_command.run("upload", *map(str, files), "--to", f"{server.url}/files")
    assert up.returncode == 0, up.stderr
    urls = up.stdout.splitlines()
    assert len(urls) == len(files)
    with Speaker(server.url) as speaker:
        assert [speaker.get(url).body for url in urls] == [file.read_bytes() for file in files]
    folder = tmp_path / "down"
    down = holdfast_command.run("download", *urls, "-d", str(folder))
    assert down.returncode == 0, down.stderr
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {f.name: f.read_bytes() for f in files}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_an_upload_goes_on_where_it_stopped(
    start_server: StartServer, holdfast_command: CommandLine, tmp_path: Path, rng: random.Random, how: signal.Signals
) -> None:
    """The same command later takes the same upload, and brings only what is missing.

    Ctrl-C is exit status 130.
    """
    server = start_server()
    file = tmp_path / "film.bin"
    data = rng.randbytes(16 * MIB)
    file.write_bytes(data)
    with Proxy(server.url, Fault(rate=6 * MIB)) as proxy, Speaker(server.url) as speaker:
        arguments = ("upload", str(file), "--to", f"{proxy.url}/files")
        with holdfast_command.started(*arguments) as client:
            listed = eventually(lambda: speaker.request("GET", "/api/uploads").json()["uploads"], within=30)
            upload = f"{server.url}/files/{listed[0]['id']}"
            eventually(lambda: speaker.status(upload)["received"] >= 3 * MIB, within=30)
            if how == signal.SIGKILL:
                kill_group(client.pid)
            else:
                client.send_signal(how)
                assert client.wait(scaled(20)) == 130
        proxy.drop_all()
        proxy.fault = Fault()
        # What was on its way may still be stored; a stored byte need not be sent again.
        received = speaker.status(upload)["received"]
        before = proxy.up
        result = holdfast_command.run(*arguments)
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines() == [f"{proxy.url}/files/{upload.rsplit('/', 1)[-1]}"]
        assert proxy.up - before <= len(data) - received + 128 * 1024
        assert len(speaker.request("GET", "/api/uploads").json()["uploads"]) == 1
        assert speaker.get(upload).body == data


def test_a_download_goes_on_where_it_stopped(
    server: ServerProcess, holdfast_command: CommandLine, tmp_path: Path, rng: random.Random
) -> None:
    """Killed in the middle, it leaves no file under the final name; the second run brings the rest.

    What is counted is what was written: megabytes that were sent wait in the kernel, and go with the process.
    """
    data = rng.randbytes(48 * MIB)
    with Speaker(server.url) as speaker:
        upload = speaker.create(len(data), parallel=False)
        assert speaker.patch(upload, 0, data).status == 204
    copy = tmp_path / "down" / "copy.bin"
    copy.parent.mkdir()
    part = copy.with_name("copy.bin.part")
    with holdfast_command.started("download", upload, "-o", str(copy), "--limit-rate", "24M") as client:
        eventually(lambda: part.exists() and part.stat().st_blocks * 512 >= 32 * MIB, within=30)
        kill_group(client.pid)
    assert not copy.exists()
    result = holdfast_command.run("download", upload, "-o", str(copy), "--json")
    assert result.returncode == 0, result.stderr
    assert copy.read_bytes() == data
    assert [p.name for p in copy.parent.iterdir()] == ["copy.bin"]
    finished = json.loads(result.stdout.splitlines()[-2])
    # With a limit each connection writes at most 64 KiB before that is marked, and blocks are whole ones.
    assert finished["bytes_resumed"] >= 32 * MIB - 2 * MIB
    # By both runs together.
    assert finished["bytes_received"] <= len(data) + 8 * MIB


def test_a_download_is_verified(
    server: ServerProcess, holdfast_command: CommandLine, tmp_path: Path, rng: random.Random
) -> None:
    """Exit status 3, and no file, when the digest that the user gave is not that of the file."""
    with Speaker(server.url) as speaker:
        upload = speaker.create(1000, parallel=False)
        assert speaker.patch(upload, 0, rng.randbytes(1000)).status == 204
    copy = tmp_path / "copy.bin"
    result = holdfast_command.run("download", upload, "-o", str(copy), "--checksum", "sha-256=" + "0" * 64)
    assert result.returncode == 3
    assert not copy.exists()


def test_a_server_that_refuses(start_server: StartServer, holdfast_command: CommandLine, tmp_path: Path) -> None:
    """Exit status 4 with the server's sentence, and nothing on standard output."""
    server = start_server("--max-size", "1000")
    file = tmp_path / "film.bin"
    file.write_bytes(bytes(1001))
    result = holdfast_command.run("upload", str(file), "--to", f"{server.url}/files")
    assert (result.returncode, result.stdout) == (4, "")
    assert "1000" in result.stderr


def test_an_upload_over_a_bad_network(
    server: ServerProcess, holdfast_command: CommandLine, tmp_path: Path, rng: random.Random
) -> None:
    """Connections that are cut over and over again: the command goes on by itself."""
    file = tmp_path / "film.bin"
    file.write_bytes(rng.randbytes(6 * MIB))
    with Proxy(server.url, Fault(cut_after=3 * MIB)) as proxy:
        result = holdfast_command.run("upload", str(file), "--to", f"{proxy.url}/files")
        assert result.returncode == 0, result.stderr
        assert proxy.connections > 2
        with Speaker(server.url) as speaker:
            assert speaker.get(result.stdout.strip()).body == file.read_bytes()
