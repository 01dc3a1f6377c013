"""A sparse file by the command line against a real server: sparse there, and sparse again when it comes back."""

import json
import os
import random
from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.support.process import CommandLine, ServerProcess, kill_group
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import Speaker
from tests.support.waiting import eventually

from holdfast_protocol.digest import hasher

MIB = 1 << 20
GIB = 1 << 30
Runs = dict[int, bytes]


def sparse(path: Path, size: int, runs: Runs) -> Path:
    """A file of holes with runs of bytes at some offsets, ascending."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
        for offset, data in runs.items():
            os.pwrite(file.fileno(), data, offset)
    return path


def digest_of(size: int, runs: Runs) -> str:
    """xxh3-128 of such a file, without reading it."""
    computing, at, zeros = hasher("xxh3-128"), 0, bytes(MIB)
    for offset, data in [*runs.items(), (size, b"")]:
        while at < offset:
            part = min(MIB, offset - at)
            computing.update(zeros[:part])
            at += part
        computing.update(data)
        at += len(data)
    return computing.digest().hex()


def room(path: Path) -> int:
    return path.stat().st_blocks * 512


def on_disk(server: ServerProcess, url: str) -> Path:
    (found,) = (server.data / "files").glob(f"{url.rsplit('/', 1)[-1]}-*")
    return found


@pytest.mark.rule("P-HOLE-1", "P-HOLE-2", "P-HOLE-4", "P-COMPLETE-1")
def test_a_long_file_with_few_bytes(
    server: ServerProcess, holdfast_command: CommandLine, tmp_path: Path, rng: random.Random
) -> None:
    """4 GiB with 3 MiB of bytes: no more than these go over the wire, and the room of them is taken."""
    runs = {0: rng.randbytes(MIB), GIB + 12_345: rng.randbytes(MIB), 4 * GIB - MIB: rng.randbytes(MIB)}
    file = sparse(tmp_path / "disk.img", 4 * GIB, runs)
    arguments = ["--json", "--checksum", "xxh3-128"]
    with Proxy(server.url) as proxy:
        up = holdfast_command.run("upload", str(file), "--to", f"{proxy.url}/files", *arguments, within=60)
        assert up.returncode == 0, up.stderr
        assert proxy.up < 4 * MIB
    last = json.loads(up.stdout.splitlines()[-2])
    assert last["digest"] == {"algorithm": "xxh3-128", "hex": digest_of(4 * GIB, runs)}
    assert last["bytes_sent"] + last["bytes_sparse"] == 4 * GIB
    stored = on_disk(server, last["url"])
    assert (stored.stat().st_size, room(stored) < 4 * MIB) == (4 * GIB, True)
    with Speaker(server.url) as speaker:
        for offset, data in runs.items():
            part = f"bytes={max(offset - 10, 0)}-{offset + len(data) - 1}"
            assert (
                speaker.get(server.url + last["url"][len(proxy.url) :], Range=part).body
                == bytes(10) * (offset > 0) + data
            )
        assert speaker.delete(server.url + last["url"][len(proxy.url) :]).status == 204


def test_down_again(server: ServerProcess, holdfast_command: CommandLine, tmp_path: Path, rng: random.Random) -> None:
    """The zeros come over the wire, and are holes here."""
    runs = {5 * MIB - 3: rng.randbytes(100_000), 70 * MIB: rng.randbytes(MIB)}
    file = sparse(tmp_path / "disk.img", 100 * MIB + 1, runs)
    up = holdfast_command.run("upload", str(file), "--to", f"{server.url}/files")
    assert up.returncode == 0, up.stderr
    assert "holes" in up.stderr
    copy = tmp_path / "copy.img"
    down = holdfast_command.run("download", up.stdout.strip(), "-o", str(copy))
    assert down.returncode == 0, down.stderr
    assert copy.read_bytes() == file.read_bytes()
    assert room(copy) < 2 * MIB


@pytest.mark.rule("P-HOLE-3", "P-HOLE-4")
@pytest.mark.parametrize("who", ["client", "server"])
def test_killed_in_the_middle(
    start_server: StartServer, holdfast_command: CommandLine, tmp_path: Path, rng: random.Random, who: str
) -> None:
    """What the server has heard of holes stands; the same command brings the rest."""
    server = start_server()
    runs = {at * 20 * MIB: rng.randbytes(2 * MIB) for at in range(1, 10)}
    size = 200 * MIB
    file = sparse(tmp_path / "disk.img", size, runs)
    with Proxy(server.url, Fault(rate=4 * MIB)) as proxy, Speaker(server.url) as speaker:
        arguments = ("upload", str(file), "--to", f"{proxy.url}/files", "--json", "--concurrency", "2")
        with holdfast_command.started(*arguments) as client:
            listed = eventually(lambda: speaker.request("GET", "/api/uploads").json()["uploads"], within=30)
            upload = f"{server.url}/files/{listed[0]['id']}"
            eventually(lambda: speaker.status(upload)["received"] >= 60 * MIB, within=30)
            if who == "server":
                server.kill()
            kill_group(client.pid)
        proxy.drop_all()
        proxy.fault = Fault()
        if who == "server":
            server.start()
        assert 60 * MIB <= speaker.status(upload)["received"] < size
        before = proxy.up
        result = holdfast_command.run(*arguments)
        assert result.returncode == 0, result.stderr
        last = json.loads(result.stdout.splitlines()[-2])
        assert last["bytes_resumed"] >= 60 * MIB
        assert proxy.up - before < 18 * MIB + MIB
        assert speaker.get(upload).body == file.read_bytes()
    assert room(on_disk(server, upload)) < 20 * MIB
