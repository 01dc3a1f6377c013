"""Two writers of one upload, in one worker or in two: one wins, nothing is mixed, nobody waits for a dead
one.

Promise 4: a new writer takes over in under a second and keeps what the old one had brought; reading never
waits.
"""

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.conftest import StartServer
from tests.support.drafts import append
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS_BODY, Speaker, chunk_fields, digest, missing
from tests.support.waiting import eventually, median, scaled
from tests.support.wire import Answer, Connection
from tests.support.workers import speakers_by_worker, worker_of

ROUNDS = 8
SAME_OR_OTHER = pytest.mark.parametrize("other_worker", [False, True], ids=["same-worker", "other-worker"])


@contextmanager
def pair(server: ServerProcess, other_worker: bool) -> Iterator[tuple[Speaker, Speaker]]:
    """Two speakers whose connections end in the same worker, or in two."""
    with speakers_by_worker(server) as (first, second):
        if other_worker:
            yield first, second
            return
        with Speaker(server.url) as each:
            while worker_of(each) not in (worker_of(first), worker_of(second)):
                each.close()
            yield (first if worker_of(first) == worker_of(each) else second), each


def race(writers: list[tuple[Speaker, str, int, bytes]], rng: random.Random) -> list[Answer]:
    """Each writer sends its chunk but for the last bytes; then all send those at the same time. Who is told to come
    again does so."""
    answers: list[Answer | None] = [None] * len(writers)
    gate = threading.Barrier(len(writers))
    tails = [rng.randint(1, 1000) for _ in writers]

    def write(number: int) -> None:
        speaker, url, offset, data = writers[number]
        connection = speaker.connection
        connection.begin("PATCH", url, chunk_fields(offset, data))
        connection.send(data[: -tails[number]])
        gate.wait(scaled(20))
        connection.send(data[-tails[number] :])
        answer = connection.read()
        while answer.verdict == (503, "range-busy"):  # where the disk hangs the first one takes long
            answer = speaker.chunk(url, offset, data)
        answers[number] = answer

    threads = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(len(writers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(30))
    assert None not in answers
    return [answer for answer in answers if answer is not None]


@SAME_OR_OTHER
@pytest.mark.rule("P-CHUNK-7", "P-CHUNK-5")
def test_one_of_two_different_chunks_wins_whole(
    two_workers: ServerProcess, other_worker: bool, rng: random.Random
) -> None:
    """Exactly one of two writers of the same range is told 204, and the file holds that one's bytes alone."""
    with pair(two_workers, other_worker) as (first, second):
        upload = first.create(ROUNDS * 4 * GRANULE)
        stored = b""
        for number in range(ROUNDS):
            offset = number * 4 * GRANULE
            offers = [rng.randbytes(4 * GRANULE) for _ in range(2)]
            writers = [(first, upload, offset, offers[0]), (second, upload, offset, offers[1])]
            answers = race(writers, rng)
            assert sorted(a.verdict for a in answers) == [(204, None), (409, "chunk-conflict")]
            winner = [a.status for a in answers].index(204)
            stored += offers[winner]
            assert first.chunk(upload, offset, offers[winner]).status == 204
            assert second.chunk(upload, offset, offers[1 - winner]).verdict == (409, "chunk-conflict")
        assert first.complete(upload, digest(stored)).status == 204
        assert second.get(upload).body == stored


@SAME_OR_OTHER
@pytest.mark.rule("P-CHUNK-7", "P-CHUNK-5")
def test_both_of_two_equal_chunks_are_welcome(
    two_workers: ServerProcess, other_worker: bool, rng: random.Random
) -> None:
    with pair(two_workers, other_worker) as (first, second):
        data = rng.randbytes(ROUNDS * 4 * GRANULE)
        upload = first.create(len(data))
        for offset in range(0, len(data), 4 * GRANULE):
            piece = data[offset : offset + 4 * GRANULE]
            answers = race([(first, upload, offset, piece), (second, upload, offset, piece)], rng)
            assert [a.status for a in answers] == [204, 204], answers
        assert first.complete(upload, digest(data)).status == 204
        assert first.get(upload).body == data


@SAME_OR_OTHER
@pytest.mark.rule("P-CHUNK-6", "P-CHUNK-7", "P-CHUNK-4")
def test_overlapping_writers_never_mix(two_workers: ServerProcess, other_worker: bool, rng: random.Random) -> None:
    """Two different chunks that share some granules: the second to commit stores nothing at all."""
    with pair(two_workers, other_worker) as (first, second):
        for _ in range(ROUNDS // 2):
            upload = first.create(6 * GRANULE)
            left, right = rng.randbytes(4 * GRANULE), rng.randbytes(4 * GRANULE)
            answers = race([(first, upload, 0, left), (second, upload, 2 * GRANULE, right)], rng)
            verdicts = sorted(a.verdict for a in answers)
            assert verdicts in ([(204, None), (409, "chunk-conflict")], [(204, None), (409, "fenced")])
            if answers[0].status == 204:
                assert second.chunk(upload, 2 * GRANULE, right).verdict == (409, "chunk-conflict")
                assert missing(second.head(upload)) == [(4 * GRANULE, 2 * GRANULE)]
                rest, whole = (4 * GRANULE, right[2 * GRANULE :]), left + right[2 * GRANULE :]
            else:
                assert first.chunk(upload, 0, left).verdict == (409, "chunk-conflict")
                assert missing(first.head(upload)) == [(0, 2 * GRANULE)]
                rest, whole = (0, left[: 2 * GRANULE]), left[: 2 * GRANULE] + right
            assert first.chunk(upload, *rest).status == 204
            assert second.complete(upload, digest(whole)).status == 204
            assert first.get(upload).body == whole


@SAME_OR_OTHER
@pytest.mark.rule("P-CHUNK-3", "P-CHUNK-7")
def test_a_wrong_digest_is_never_recorded(two_workers: ServerProcess, other_worker: bool, rng: random.Random) -> None:
    """A chunk that fails its digest beside a good one for the same range leaves no trace of itself."""
    with pair(two_workers, other_worker) as (first, second):
        upload = first.create(4 * GRANULE)
        good, bad = rng.randbytes(4 * GRANULE), rng.randbytes(4 * GRANULE)
        connection = second.connection
        fields = chunk_fields(0, bad, Content_Digest=digest(good, "xxh3-128"))
        connection.begin("PATCH", upload, fields)
        connection.send(bad[:-1])
        assert missing(first.head(upload)) == [(0, 4 * GRANULE)]
        connection.send(bad[-1:])
        assert connection.read().verdict == (400, "digest-mismatch")
        assert missing(first.head(upload)) == [(0, 4 * GRANULE)]

        connection.begin("PATCH", upload, fields)
        connection.send(bad[:-1])
        assert first.chunk(upload, 0, good).status == 204
        connection.send(bad[-1:])
        # Its range is stored meanwhile, with the very digest that it claims: either answer is true.
        assert connection.read().verdict in [(400, "digest-mismatch"), (204, None)]
        assert first.complete(upload, digest(good)).status == 204
        assert second.get(upload).body == good


@SAME_OR_OTHER
@pytest.mark.rule("P-CHUNK-7")
def test_a_stalled_chunk_does_not_stop_another_one(
    two_workers: ServerProcess, other_worker: bool, rng: random.Random
) -> None:
    """The range of a chunk that hangs can be brought by somebody else; the late one cannot change it."""
    with pair(two_workers, other_worker) as (first, second):
        upload = first.create(4 * GRANULE)
        data, late = rng.randbytes(4 * GRANULE), rng.randbytes(4 * GRANULE)
        connection = first.connection
        connection.begin("PATCH", upload, chunk_fields(0, late))
        connection.send(late[: 3 * GRANULE])
        assert second.chunk(upload, 0, data).status == 204
        assert second.complete(upload, digest(data)).status == 204
        connection.send(late[3 * GRANULE :])
        assert connection.read().status in (403, 409)
        assert second.get(upload).body == data


def stalled_patch(speaker: Speaker, upload: str, offset: int, length: int, brought: bytes) -> Connection:
    """Begin a tus PATCH of `length` bytes, send some of them, and leave it there."""
    connection = speaker.connection
    fields = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    fields |= {"Upload-Offset": str(offset), "Content-Length": str(length)}
    connection.begin("PATCH", upload, fields)
    connection.send(brought)
    return connection


@SAME_OR_OTHER
@pytest.mark.rule("T-HEAD-1", "C-OFFSET-1")
def test_head_is_true_and_quick_while_a_patch_is_stalled(
    two_workers: ServerProcess, other_worker: bool, rng: random.Random
) -> None:
    """HEAD counts what a half-open PATCH has brought, and answers in under 100 ms (the median of nine).

    On a machine that has other work, in that and some times as long as a HEAD takes there on an upload that rests.
    """
    with pair(two_workers, other_worker) as (writer, reader):
        data = rng.randbytes(2_000_000)
        resting = writer.create(1, parallel=False)
        upload = writer.create(len(data), parallel=False)
        connection = stalled_patch(writer, upload, 0, len(data), data[:100_000])
        sent, waited, usual = 100_000, [], []
        for _ in range(9):
            began = time.monotonic()
            assert reader.head(resting).offset == 0
            usual.append(time.monotonic() - began)
            connection.send(data[sent : sent + 100_000])
            sent += 100_000
            began = time.monotonic()
            eventually(lambda: reader.head(upload).offset == sent, what=f"offset {sent}")  # noqa: B023
            began_head = time.monotonic()
            assert reader.head(upload).offset == sent
            waited.append(max(began_head - began, time.monotonic() - began_head))
        assert median(waited) < scaled(0.1) + 5 * median(usual)
        connection.send(data[sent:])
        assert connection.read().verdict == (204, None)
        assert reader.get(upload).body == data


@SAME_OR_OTHER
@pytest.mark.rule("T-PATCH-3", "C-OFFSET-1")
def test_a_new_patch_takes_over_from_a_stalled_one(
    two_workers: ServerProcess, other_worker: bool, rng: random.Random
) -> None:
    """In under a second, without losing a byte of the old one, which is told that it was fenced."""
    with pair(two_workers, other_worker) as (old, new):
        data = rng.randbytes(800_000)
        upload = old.create(len(data), parallel=False)
        connection = stalled_patch(old, upload, 0, len(data), data[:300_000])
        eventually(lambda: new.head(upload).offset == 300_000)

        began = time.monotonic()
        answer = new.patch(upload, 300_000, data[300_000:600_000])
        assert time.monotonic() - began < scaled(1)
        assert (answer.status, answer.offset) == (204, 600_000)
        assert connection.read().verdict == (409, "fenced")

        assert new.patch(upload, 600_000, data[600_000:]).status == 204
        assert new.get(upload).body == data


@SAME_OR_OTHER
@pytest.mark.parametrize("what", ["tus PATCH", "draft PATCH", "draft HEAD"])
@pytest.mark.rule("T-PATCH-3", "I-APPEND-5", "I-HEAD-2")
def test_a_request_whose_connection_is_gone_ends_nobody(
    two_workers: ServerProcess, other_worker: bool, what: str, rng: random.Random
) -> None:
    """Most likely it is the older one, looked at late: whoever is still there goes on."""
    data = rng.randbytes(200_000)
    fields: dict[str, str] = {"Upload-Draft-Interop-Version": "9"}
    if what.endswith("PATCH"):
        fields = append(100_000, True) if what.startswith("draft") else {**TUS_BODY, "Upload-Offset": "100000"}
        fields |= {"Content-Length": "100000"}
    for _ in range(3):
        with pair(two_workers, other_worker) as (writer, other):
            upload = writer.create(len(data), parallel=False)
            living = stalled_patch(writer, upload, 0, len(data), data[:100_000])
            eventually(lambda: other.head(upload).offset == 100_000)  # noqa: B023
            lost = other.connection
            # The end of the connection comes with the last bytes, so that the server never sees it without.
            lost.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            lost.begin(what.split()[1], upload, fields)
            if what.endswith("PATCH"):
                lost.send(bytes(10_000))
            other.close()
            for _ in range(40):  # it is looked at meanwhile, and a fence would come to the other worker
                assert other.head(upload).offset == 100_000
            living.send(data[100_000:])
            assert living.read().verdict == (204, None)
            assert other.get(upload).body == data


@SAME_OR_OTHER
@pytest.mark.rule("T-PATCH-3")
def test_an_old_patch_that_wakes_up_changes_nothing(
    two_workers: ServerProcess, other_worker: bool, rng: random.Random
) -> None:
    """The bytes that the old writer sends after the takeover are not stored."""
    with pair(two_workers, other_worker) as (old, new):
        data, stale = rng.randbytes(500_000), rng.randbytes(500_000)
        upload = old.create(len(data), parallel=False)
        connection = stalled_patch(old, upload, 0, len(data), data[:200_000])
        eventually(lambda: new.head(upload).offset == 200_000)
        assert new.patch(upload, 200_000, data[200_000:300_000]).status == 204
        try:
            connection.send(stale[200_000:])
        except OSError:
            old.close()
        else:
            assert connection.read().verdict == (409, "fenced")
        assert new.head(upload).offset == 300_000
        assert new.patch(upload, 300_000, data[300_000:]).status == 204
        assert new.get(upload).body == data


@SAME_OR_OTHER
@pytest.mark.rule("T-PATCH-3", "T-PATCH-1", "C-OFFSET-1")
def test_an_outdated_offset_disturbs_nobody(two_workers: ServerProcess, other_worker: bool, rng: random.Random) -> None:
    """A prefix never shrinks, so a PATCH below it can be refused while the running one goes on."""
    with pair(two_workers, other_worker) as (running, late):
        data = rng.randbytes(400_000)
        upload = running.create(len(data), parallel=False)
        connection = stalled_patch(running, upload, 0, len(data), data[:150_000])
        eventually(lambda: late.head(upload).offset == 150_000)
        answer = late.patch(upload, 0, data)
        assert (answer.verdict, answer.offset) == ((409, "offset-mismatch"), 150_000)
        connection.send(data[150_000:])
        assert connection.read().verdict == (204, None)
        assert late.get(upload).body == data


@SAME_OR_OTHER
@pytest.mark.rule("T-PATCH-3", "T-PATCH-1")
def test_the_offset_is_compared_after_the_takeover(
    two_workers: ServerProcess, other_worker: bool, rng: random.Random
) -> None:
    """A PATCH beyond the offset that is known takes over first, and is told what the old one had reached."""
    with pair(two_workers, other_worker) as (old, new):
        data = rng.randbytes(400_000)
        upload = old.create(len(data), parallel=False)
        connection = stalled_patch(old, upload, 0, len(data), data[:150_000])
        eventually(lambda: new.head(upload).offset == 150_000)
        answer = new.patch(upload, 150_001, data[150_001:])
        assert (answer.verdict, answer.offset) == ((409, "offset-mismatch"), 150_000)
        assert connection.read().verdict == (409, "fenced")
        assert new.patch(upload, 150_000, data[150_000:]).offset == len(data)
        assert new.get(upload).body == data


@SAME_OR_OTHER
@pytest.mark.rule("T-DELETE-1")
def test_delete_ends_a_stalled_patch(two_workers: ServerProcess, other_worker: bool, rng: random.Random) -> None:
    """DELETE does not wait for a writer that hangs, and the writer's bytes are gone with the rest."""
    with pair(two_workers, other_worker) as (old, new):
        data = rng.randbytes(300_000)
        upload = old.create(len(data), parallel=False)
        connection = stalled_patch(old, upload, 0, len(data), data[:100_000])
        eventually(lambda: new.head(upload).offset == 100_000)
        assert new.delete(upload).status == 204
        assert new.head(upload).status == 404
        assert connection.read().status in (404, 409)
        assert new.patch(upload, 100_000, data[100_000:]).verdict == (404, "not-found")


@SAME_OR_OTHER
@pytest.mark.rule("T-PATCH-5", "C-OFFSET-1")
def test_a_patch_stops_at_what_chunks_have_stored(
    two_workers: ServerProcess, other_worker: bool, rng: random.Random
) -> None:
    """A tus PATCH that is on its way never writes over a chunk that came meanwhile through another worker."""
    with pair(two_workers, other_worker) as (writer, other):
        data = rng.randbytes(6 * GRANULE)
        upload = writer.create(len(data))
        connection = stalled_patch(writer, upload, 0, len(data), data[:GRANULE])
        eventually(lambda: other.head(upload).offset == GRANULE)
        assert other.chunk(upload, 4 * GRANULE, data[4 * GRANULE : 5 * GRANULE]).status == 204
        connection.send(bytes(5 * GRANULE))
        answer = connection.read()
        assert answer.verdict == (204, None)
        assert answer.offset == 4 * GRANULE
        head = other.head(upload)
        assert head.offset == 5 * GRANULE
        assert missing(head) == [(5 * GRANULE, GRANULE)]
        assert other.patch(upload, 5 * GRANULE, data[5 * GRANULE :]).status == 204
        whole = data[:GRANULE] + bytes(3 * GRANULE) + data[4 * GRANULE :]
        assert other.get(upload).body == whole


@SAME_OR_OTHER
@pytest.mark.rule("T-PATCH-3", "C-OFFSET-1")
def test_two_patches_at_once_never_mix(two_workers: ServerProcess, other_worker: bool, rng: random.Random) -> None:
    """Two clients that send different bytes from the same offset: what is stored is of one of them alone."""
    with pair(two_workers, other_worker) as (first, second):
        for _ in range(ROUNDS):
            offers = [rng.randbytes(700_000) for _ in range(2)]
            upload = first.create(1_000_000, parallel=False)
            verdicts: list[tuple[int, str | None]] = []

            def write(speaker: Speaker, data: bytes, url: str, verdicts: list[tuple[int, str | None]]) -> None:
                verdicts.append(speaker.patch(url, 0, data).verdict)

            threads = [
                threading.Thread(target=write, args=(speaker, data, upload, verdicts), daemon=True)
                for speaker, data in zip((first, second), offers, strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(scaled(30))
            assert len(verdicts) == 2
            assert set(verdicts) <= {(204, None), (409, "fenced"), (409, "offset-mismatch")}
            assert verdicts.count((204, None)) <= 1
            offset = first.head(upload).offset
            assert offset == 700_000 or (204, None) not in verdicts
            rest = rng.randbytes(1_000_000 - offset)
            assert second.patch(upload, offset, rest).status == 204
            assert first.get(upload).body in [offer[:offset] + rest for offer in offers]


@pytest.mark.rule("P-COMPLETE-1", "T-DELETE-1")
def test_delete_and_complete_at_once(two_workers: ServerProcess, rng: random.Random) -> None:
    """Whoever comes first: in the end there is no upload, and not a byte of it on the disk."""
    with speakers_by_worker(two_workers) as (first, second):
        for _ in range(ROUNDS):
            data = rng.randbytes(1_000_000)
            upload = first.create(len(data))
            assert first.chunk(upload, 0, data).status == 204
            gate = threading.Barrier(2)
            answers: list[Answer] = []

            def complete(url: str, data: bytes, gate: threading.Barrier, answers: list[Answer]) -> None:
                gate.wait(scaled(10))
                answers.append(first.complete(url, digest(data)))

            thread = threading.Thread(target=complete, args=(upload, data, gate, answers), daemon=True)
            thread.start()
            gate.wait(scaled(10))
            deleted = second.delete(upload)
            thread.join(scaled(30))
            assert deleted.status == 204
            assert answers[0].status in (204, 404, 409)
            assert first.head(upload).status == second.head(upload).status == 404
            number = upload.rsplit("/", 1)[-1]
            assert list(two_workers.data.rglob(f"*{number}*")) == []


@pytest.mark.rule("T-PATCH-3")
def test_takeover_from_a_worker_that_was_killed(start_server: StartServer, rng: random.Random) -> None:
    """The bytes that HEAD had told of are there, and the other worker goes on at once."""
    server = start_server(workers=2)
    with speakers_by_worker(server) as (old, new):
        data = rng.randbytes(600_000)
        upload = old.create(len(data), parallel=False)
        victim = worker_of(old)
        stalled_patch(old, upload, 0, len(data), data[:250_000])
        eventually(lambda: new.head(upload).offset == 250_000)
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        answer = new.patch(upload, 250_000, data[250_000:])
        assert time.monotonic() - began < scaled(1)
        assert (answer.status, answer.offset) == (204, len(data))
        assert new.get(upload).body == data


@pytest.mark.rule("T-PATCH-3", "T-HEAD-1")
def test_a_worker_that_does_not_react_at_all(start_server: StartServer, rng: random.Random) -> None:
    """It cannot be fenced, so 503 with Retry-After; reading and other uploads do not wait for it."""
    server = start_server(workers=2)
    with speakers_by_worker(server) as (old, new):
        data = rng.randbytes(600_000)
        upload = old.create(len(data), parallel=False)
        victim = worker_of(old)
        stalled_patch(old, upload, 0, len(data), data[:250_000])
        eventually(lambda: new.head(upload).offset == 250_000)
        os.kill(victim, signal.SIGSTOP)
        try:
            answer = new.patch(upload, 250_000, data[250_000:])
            assert answer.verdict == (503, "range-busy")
            assert int(answer["retry-after"]) >= 0
            assert new.head(upload).offset == 250_000
            other = new.create(4, parallel=False)
            assert new.patch(other, 0, b"four").status == 204
        finally:
            os.kill(victim, signal.SIGCONT)
        eventually(lambda: new.patch(upload, 250_000, data[250_000:]).status == 204)
        assert new.get(upload).body == data
