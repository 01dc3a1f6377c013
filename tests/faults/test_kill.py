"""What is acknowledged stays, whatever is killed and whenever (promise 1).

Every run is another file, other chunks and another moment; `--kill-runs` says how many, `--seed` repeats
them.
"""

import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartServer
from tests.support.process import CommandLine, kill_group
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import CHUNK, GRANULE, Ranges, Speaker, digest, has_more, missing
from tests.support.waiting import eventually, scaled
from tests.support.wire import ConnectionLostError

MIB = 1 << 20
HEADS = 128 * 1024
"""More than the heads of all requests of one resumed upload take."""


def random_chunks(rng: random.Random, length: int) -> Ranges:
    """The file cut at multiples of the granule, in random order; the last chunk is short as a rule."""
    chunks, start = [], 0
    while start < length:
        size = min(rng.randint(1, 12) * GRANULE, length - start)
        chunks.append((start, size))
        start += size
    rng.shuffle(chunks)
    return chunks


def overlap(ranges: Ranges, others: Ranges) -> Ranges:
    return [
        (max(a, b), min(a + n, b + m) - max(a, b))
        for a, n in ranges
        for b, m in others
        if max(a, b) < min(a + n, b + m)
    ]


def all_missing(speaker: Speaker, url: str, length: int) -> Ranges:
    """Everything that is missing, from the JSON state, after a look that HEAD tells the same."""
    holes, after = [], 0
    for start, size in [*speaker.stored(url), (length, 0)]:
        if start > after:
            holes.append((after, start - after))
        after = start + size
    head = speaker.head(url)
    told = missing(head)
    assert told == holes[: len(told)]
    assert has_more(head) == (len(told) < len(holes))
    return holes


@dataclass
class Senders:
    """Four threads that send chunks over a connection each, until all are sent or the server is gone."""

    url: str
    upload: str
    data: bytes
    todo: Ranges
    acknowledged: Ranges = field(default_factory=list)
    refused: list[object] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    running: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self.running = 4
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Wait until so many chunks are acknowledged, or all threads have ended."""
        with self.changed:
            assert self.changed.wait_for(
                lambda: len(self.acknowledged) >= count or not self.running, timeout=scaled(30)
            )

    def join(self) -> None:
        for thread in self._threads:
            thread.join(scaled(30))
            assert not thread.is_alive()

    def _send(self) -> None:
        with Speaker(self.url) as speaker, suppress(OSError, ConnectionLostError):
            while True:
                with self.changed:
                    if not self.todo:
                        break
                    offset, size = self.todo.pop()
                answer = speaker.chunk(self.upload, offset, self.data[offset : offset + size])
                with self.changed:
                    if answer.status == 204:
                        self.acknowledged.append((offset, size))
                    else:
                        self.refused.append(answer)
                    self.changed.notify_all()
        with self.changed:
            self.running -= 1
            self.changed.notify_all()


@pytest.mark.rule("P-CHUNK-4", "P-STATE-1", "P-COMPLETE-1", "P-RETRY-1")
def test_acknowledged_chunks_survive_a_killed_server(
    kill_run: int, start_server: StartServer, rng: random.Random
) -> None:
    """kill -9 at any moment: no acknowledged range is missing afterwards, and only what is missing is sent again."""
    data = rng.randbytes(rng.randint(MIB, 24 * MIB))
    server = start_server(workers=rng.choice([1, 2]))
    with Speaker(server.url) as speaker:
        upload = speaker.create(len(data))
    chunks = random_chunks(rng, len(data))
    senders = Senders(server.url, upload, data, list(chunks))

    senders.start()
    senders.wait_for(rng.randint(0, len(chunks)))
    threading.Event().wait(rng.random() * 0.02)
    server.kill()
    senders.join()
    assert senders.refused == []
    server.start()

    with Speaker(server.url) as speaker:
        holes = all_missing(speaker, upload, len(data))
        assert overlap(holes, senders.acknowledged) == []
        unacknowledged = len(data) - sum(size for _, size in senders.acknowledged)
        assert sum(size for _, size in holes) <= unacknowledged
        again = Senders(server.url, upload, data, holes)
        again.start()
        again.join()
        assert again.refused == []
        answer = speaker.complete(upload, digest(data))
        assert answer.status == 204, answer
        assert digest(data) in answer["repr-digest"]
        assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-4", "C-OFFSET-1")
def test_the_offset_survives_a_killed_server(kill_run: int, start_server: StartServer, rng: random.Random) -> None:
    """An offset that HEAD or a PATCH has answered never shrinks, and the bytes below it are those that were sent."""
    data = rng.randbytes(rng.randint(MIB, 12 * MIB))
    server = start_server(workers=rng.choice([1, 2]))
    with Speaker(server.url) as speaker, Speaker(server.url) as writer:
        upload = speaker.create(len(data), parallel=False)
        told = 0
        for _ in range(rng.randint(0, 3)):
            piece = data[told : told + rng.randint(1, len(data) // 4)]
            told = writer.patch(upload, told, piece).offset
        writer.connection.begin(
            "PATCH",
            upload,
            {
                "Tus-Resumable": "1.0.0",
                "Content-Type": "application/offset+octet-stream",
                "Upload-Offset": str(told),
                "Content-Length": str(len(data) - told),
            },
        )
        sent = told
        while sent < rng.randint(told, len(data) - 1):
            step = min(rng.randint(1, 300_000), len(data) - 1 - sent)
            writer.connection.send(data[sent : sent + step])
            sent += step
            if rng.random() < 0.3:
                told = max(told, speaker.head(upload).offset)
    server.restart()
    with Speaker(server.url) as speaker:
        offset = speaker.head(upload).offset
        assert told <= offset <= sent
        answer = speaker.patch(upload, offset, data[offset:])
        assert (answer.status, answer.offset) == (204, len(data))
        assert speaker.get(upload).body == data


@pytest.mark.rule("P-COMPLETE-1", "P-COMPLETE-5", "P-STATE-2")
def test_a_server_that_is_killed_while_it_publishes(
    kill_run: int, start_server: StartServer, rng: random.Random
) -> None:
    """The file is there whole, or not at all; asking again completes it (promise 2)."""
    data = rng.randbytes(rng.randint(MIB, 16 * MIB))
    server = start_server(workers=rng.choice([1, 2]))
    with Speaker(server.url) as speaker, Speaker(server.url) as completing:
        upload = speaker.create(len(data))
        assert speaker.chunk(upload, 0, data).status == 204
        given = digest(data, rng.choice(["sha-256", "sha-512", "md5"]))
        completing.connection.begin(
            "PATCH",
            upload,
            {"Content-Type": CHUNK, "Content-Length": "0", "Upload-Complete": "?1", "Upload-Digest": given},
        )
        threading.Event().wait(rng.random() * 0.08)
        server.restart()
        head = speaker.head(upload)
        assert head["upload-state"] in ("receiving", "verifying", "complete")
        assert (head.offset, missing(head)) == (len(data), [])
        seen = speaker.get(upload)
        assert seen.verdict == (409, "not-finished") or seen.body == data
        eventually(lambda: speaker.complete(upload, given).status == 204)
        assert speaker.get(upload).body == data
        published = [path for path in server.data.rglob("*") if path.is_file() and path.stat().st_size == len(data)]
        assert len(published) == 1


@pytest.mark.rule("T-CREATE-4", "C-OFFSET-1")
def test_small_files_survive_a_killed_server(kill_run: int, start_server: StartServer, rng: random.Random) -> None:
    """Many at once, each in one or two requests: what was answered is there whole, and of the others nothing half."""
    server = start_server(workers=rng.choice([1, 2]))
    kept: dict[str, bytes] = {}
    changed = threading.Condition()

    def send(seed: int) -> None:
        own = random.Random(seed)
        with Speaker(server.url) as speaker, suppress(OSError, ConnectionLostError):
            while True:
                data = own.randbytes(own.randint(1, 70_000))
                if own.random() < 0.5:
                    answer = speaker.post(len(data), body=data)
                    assert answer.status == 201
                    url = answer["location"]
                else:
                    url = speaker.create(len(data), parallel=False)
                    assert speaker.patch(url, 0, data).status == 204
                with changed:
                    kept[url.rsplit("/", 1)[-1]] = data
                    changed.notify_all()

    senders = [threading.Thread(target=send, args=(rng.getrandbits(32),), daemon=True) for _ in range(6)]
    for sender in senders:
        sender.start()
    enough = rng.randint(0, 60)
    with changed:
        assert changed.wait_for(lambda: len(kept) >= enough, timeout=scaled(30))
    server.kill()
    for sender in senders:
        sender.join(scaled(30))
        assert not sender.is_alive()
    server.start()

    with Speaker(server.url) as speaker:

        def settled() -> dict[str, Any] | None:
            listed = speaker.request("GET", "/api/uploads?limit=1000").json()["uploads"]
            return (
                None if any(each["state"] == "verifying" for each in listed) else {each["id"]: each for each in listed}
            )

        eventually(lambda: settled() is not None)
        states = settled() or {}
        assert kept.keys() <= states.keys()
        for upload_id, data in kept.items():
            assert states[upload_id]["state"] == "complete"
            assert speaker.get(f"/files/{upload_id}").body == data
        for unanswered in states.keys() - kept.keys():
            assert states[unanswered]["state"] in ("receiving", "complete")
            if states[unanswered]["state"] == "complete":
                assert len(speaker.get(f"/files/{unanswered}").body) == states[unanswered]["length"]
        files = {path.name[:32] for path in (server.data / "files").iterdir()}
        assert files == {upload_id for upload_id, each in states.items() if each["state"] == "complete"}


@pytest.mark.rule("P-RETRY-1")
def test_upload_goes_on_when_server_and_client_are_killed(
    half_kill_run: int,
    start_server: StartServer,
    rng: random.Random,
    holdfast_command: CommandLine,
    tmp_path: Path,
) -> None:
    """Both die at once; the same command later sends what is missing, and not a byte that the server had."""
    data = rng.randbytes(rng.randint(4 * MIB, 16 * MIB))
    file = tmp_path / "film.bin"
    file.write_bytes(data)
    server = start_server()
    enough = rng.uniform(0, 0.7) * len(data)

    with Proxy(server.url, Fault(rate=6 * MIB)) as proxy, Speaker(server.url) as speaker:
        with holdfast_command.started("upload", str(file), "--to", f"{proxy.url}/files") as client:
            listed = eventually(lambda: speaker.request("GET", "/api/uploads").json()["uploads"], within=30)
            assert len(listed) == 1
            upload = f"{server.url}/files/{listed[0]['id']}"
            eventually(lambda: speaker.status(upload)["received"] >= enough, within=30)
            told = speaker.stored(upload)
            kill_group(client.pid)
        server.kill()
        proxy.drop_all()
        proxy.fault = Fault()
        server.start()

        holes = all_missing(speaker, upload, len(data))
        assert overlap(holes, told) == []
        before = proxy.up
        result = holdfast_command.run("upload", str(file), "--to", f"{proxy.url}/files")
        assert result.returncode == 0, result.stderr
        assert result.stdout.split() == [f"{proxy.url}/files/{upload.rsplit('/', 1)[-1]}"]
        assert proxy.up - before <= sum(size for _, size in holes) + HEADS
        assert speaker.get(upload).body == data
