"""Malformed requests without number: each is refused or the connection is closed, and nothing changes.

Rule of this file: tests/support/malformed.py makes the requests, and knows for each what has to come of it. After
every batch all uploads are what they were, on the wire and on the disk, the server holds no more memory and no more
files, and it takes a good upload. A failure says the seed and the number of the case, and leaves its bytes in
`case.bin`: the same `--seed` makes the same cases.
"""

import hashlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartServer
from tests.support import drafts
from tests.support.breakable import Piece, Pieces
from tests.support.malformed import Case, Scratch, block, generate
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS, Speaker, at_rest, digest
from tests.support.waiting import eventually, scaled
from tests.support.wire import Answer, Connection, ConnectionLostError

from holdfast_protocol.problem import KINDS

BATCH = 500
THREADS = 4
SLOWEST = 10.0
"""Seconds (scaled) in which a request is answered or its connection closed."""
MOST_GROWTH = 32 << 20
"""Bytes by which the server's resident memory may grow after the first batch."""


class Hand:
    """One thread: its connection, its scratch upload, what it saw."""

    def __init__(self, url: str, pieces: Pieces, scratch: Scratch) -> None:
        self._url = url
        self._pieces = pieces
        self.scratch = scratch
        self._asking = Speaker(url)
        self._connection: Connection | None = None
        self.seen: Counter[str] = Counter()
        self.slowest = 0.0

    def close(self) -> None:
        self._asking.close()
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def play(self, seed: str, numbers: range, left: Path) -> None:
        """Raises AssertionError, with the case and its bytes."""
        for number in numbers:
            case = generate(random.Random(f"{seed} {number}"), self._pieces, self.scratch)
            begun = time.monotonic()
            try:
                self.seen[self._outcome(case)] += 1
                if case.kept is not None:
                    self._kept(case.kept)
            except Exception as error:
                left.write_bytes(case.wire)
                raise AssertionError(
                    f"case {number} of seed {seed} ({case.name}; {case.then}): {error!r}\n{case.wire[:3000]!r}"
                ) from error
            self.slowest = max(self.slowest, time.monotonic() - begun)

    def _outcome(self, case: Case) -> str:
        if self._connection is not None and self._connection.stale:
            self._drop()
        if self._connection is None:
            self._connection = Connection(self._url, timeout=SLOWEST)
        connection = self._connection
        try:
            connection.send(case.wire)
            if case.then == "half-close":
                connection.half_close()
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent; the answer is there all the same
        except OSError:
            assert case.then == "half-close"
        if case.then == "reset":
            connection.reset()
        if case.then in ("reset", "close"):
            self._drop()
            return f"we: {case.then}"
        status = self._answers(case, connection)
        if case.then == "half-close":
            self._drop()
        return status

    def _answers(self, case: Case, connection: Connection) -> str:
        for good in case.before:
            answer = _read(connection, good.method)
            if answer is None and case.then == "half-close":
                return "we: half-close"
            assert answer is not None, "a good request before the malformed one was not answered"
            assert answer.status == good.status, answer
            assert good.body is None or answer.body == good.body
        if not case.refused:
            return "good"
        answer = _read(connection, case.method)
        if answer is None:
            self._drop()
            assert not case.problem, "closed without an answer"
            return "we: half-close" if case.then == "half-close" else "closed"
        _check_refusal(answer, case)
        if case.ends or answer.get("connection") == "close":
            _read_to_the_end(connection, case.method)
            self._drop()
        return str(answer.status)

    def _kept(self, offset: int) -> None:
        """What came before the cut stays, and no more of it."""
        eventually(
            lambda: self._asking.head(self.scratch.path).offset == offset, every=0.002, what=f"the offset {offset}"
        )
        self.scratch.offset = offset


def _read(connection: Connection, method: str) -> Answer | None:
    """The next answer; None if the connection ends before it is whole."""
    try:
        return connection.read(method)
    except ConnectionLostError:
        return None


def _read_to_the_end(connection: Connection, method: str) -> None:
    """The server closes it, and sends no other answer before. Raises TimeoutError."""
    if method == "HEAD":  # where the method was not understood, a document may follow
        with suppress(ConnectionResetError):
            while connection.socket.recv(65536):
                pass
    else:
        assert _read(connection, "GET") is None, "the connection goes on"


def _check_refusal(answer: Answer, case: Case) -> None:
    assert 400 <= answer.status < 500, answer
    assert answer["tus-resumable"] == "1.0.0"
    fenced = False
    if case.method != "HEAD":
        assert answer.code in KINDS, answer
        assert KINDS[answer.code or ""].status == answer.status
        fenced = answer.code == "fenced"  # a body that is cut off may have been taken over before (T-PATCH-3)
    if case.ends and not fenced:
        assert answer.status in (400, 408, 431), answer


def _pieces(speaker: Speaker, rng: random.Random) -> Pieces:
    """An upload of every kind."""
    base = speaker.url

    def piece(url: str, offset: int, length: int | None) -> Piece:
        return Piece(url.removeprefix(base), offset, length)

    def created(answer: Answer) -> str:
        assert answer.status == 201, answer
        return base + answer["location"]

    file = rng.randbytes(3000)
    receiving = speaker.create(100_000, parallel=False)
    assert speaker.patch(receiving, 0, rng.randbytes(1000)).status == 204
    deferred = created(speaker.post(None, Upload_Defer_Length="1"))
    assert speaker.patch(deferred, 0, rng.randbytes(500)).status == 204
    part = created(speaker.post(20_000, Upload_Concat="partial"))
    assert speaker.patch(part, 0, rng.randbytes(100)).status == 204
    whole = created(speaker.post(1000, Upload_Concat="partial"))
    assert speaker.patch(whole, 0, rng.randbytes(1000)).status == 204
    path = whole.removeprefix(base)
    final = created(speaker.post(None, Upload_Concat=f"final;{path} {path}"))
    eventually(lambda: speaker.head(final)["upload-state"] == "complete", what="the final")
    holes = speaker.create(4 * GRANULE + 10)
    for offset in (0, 2 * GRANULE):
        assert speaker.chunk(holes, offset, rng.randbytes(GRANULE)).status == 204
    complete = speaker.create(len(file), parallel=False)
    assert speaker.patch(complete, 0, file).status == 204
    failed = speaker.create(10, Upload_Digest=digest(b"other bytes"))
    assert speaker.chunk(failed, 0, b"0123456789").status == 204
    assert speaker.complete(failed).status == 422
    draft = created(speaker.request("POST", "/files", drafts.create(False, Upload_Length="50000"), rng.randbytes(700)))
    host = base.split("//")[1]
    return Pieces(
        receiving=piece(receiving, 1000, 100_000),
        deferred=piece(deferred, 500, None),
        partial=piece(part, 100, 20_000),
        final=piece(final, 2000, 2000),
        holes=piece(holes, GRANULE, 4 * GRANULE + 10),
        complete=piece(complete, len(file), len(file)),
        failed=piece(failed, 10, 10),
        draft=piece(draft, 700, 50_000),
        file=file,
        host=host,
    )


def _everything(server: ServerProcess, speaker: Speaker, pieces: Pieces, scratches: list[Scratch]) -> dict[str, Any]:
    """All that can be seen of the uploads: from outside, in the list, and in their bytes on the disk."""
    seen: dict[str, Any] = {}
    own = {scratch.path.rsplit("/", 1)[1] for scratch in scratches}
    for each in pieces.all():
        head = speaker.request("HEAD", each.path, TUS)
        seen[each.path] = [pair for pair in head.fields if pair[0] != "date"], at_rest(speaker.status(each.path))
    listed = speaker.request("GET", "/api/uploads?limit=1000").json()["uploads"]
    seen["uploads"] = sorted(each["id"] for each in listed)
    for folder in ("incoming", "files"):
        for file in (server.data / folder).iterdir():
            upload = file.name[:32]
            if upload not in own:
                # Only what is stored counts: where nothing is, discarded bodies have left their bytes.
                data = file.read_bytes()
                ranges = [data[start : start + size] for start, size in speaker.stored(upload)]
                seen[f"{folder}/{file.name}"] = hashlib.sha256(b"".join(ranges)).hexdigest()
    return seen


def _check_upload(speaker: Speaker) -> None:
    """A good upload goes through, from its creation to its end."""
    url = speaker.create(GRANULE)
    assert speaker.chunk(url, 0, block(0, GRANULE)).status == 204
    assert speaker.complete(url, digest(block(0, GRANULE))).status == 204
    assert speaker.get(url).body == block(0, GRANULE)
    assert speaker.delete(url).status == 204


def _check_scratch(server: ServerProcess, scratch: Scratch) -> None:
    stored = (server.data / "incoming" / scratch.path.rsplit("/", 1)[1]).read_bytes()
    assert len(stored) >= scratch.offset
    assert stored[: scratch.offset] == block(0, scratch.offset), "the bytes that were kept are not those that were sent"


def _has_open(server: ServerProcess, most: int) -> bool:
    return _open_files(server) <= most


def _open_files(server: ServerProcess) -> int:
    """Of all its processes. Those of the catalog do not count: it opens a few connections more when it has much to do,
    and keeps them."""
    count = 0
    for pid in server.pids():
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                count += "catalog.sqlite" not in str(each.readlink())
    return count


@contextmanager
def _hands(server: ServerProcess, speaker: Speaker, pieces: Pieces) -> Iterator[list[Hand]]:
    hands = []
    for _ in range(THREADS):
        answer = speaker.post(None, Upload_Defer_Length="1")
        assert answer.status == 201
        hands.append(Hand(server.url, pieces, Scratch(answer["location"])))
    try:
        yield hands
    finally:
        for hand in hands:
            hand.close()


@pytest.mark.timeout(7200)
@pytest.mark.rule(
    "H-HTTP-1", "H-HTTP-2", "H-HEAD-1", "H-PIPE-1", "H-UPGRADE-1", "T-PATCH-4", "I-APPEND-5", "V-PROBLEM-1"
)
@pytest.mark.parametrize(("workers", "share"), [(1, 1), (2, 5)], ids=["one worker", "two workers"])
def test_malformed_requests_change_nothing(
    start_server: StartServer,
    request: pytest.FixtureRequest,
    rng: random.Random,
    tmp_path: Path,
    workers: int,
    share: int,
) -> None:
    """To two workers only a part of them goes: they read requests in the same way, and share what must not change."""
    seed = str(request.config.getoption("seed"))
    count = int(request.config.getoption("fuzz_cases")) // share
    server = start_server(workers=workers)
    begun = time.monotonic()
    with Speaker(server.url) as speaker, ThreadPoolExecutor(THREADS) as pool:
        pieces = _pieces(speaker, rng)
        with _hands(server, speaker, pieces) as hands:
            scratches = [hand.scratch for hand in hands]
            _check_upload(speaker)
            before = _everything(server, speaker, pieces, scratches)
            memory = files = 0
            for first in range(0, count, BATCH):
                numbers = range(first, min(first + BATCH, count))
                playing = [
                    pool.submit(hand.play, seed, numbers[turn::THREADS], tmp_path / "case.bin")
                    for turn, hand in enumerate(hands)
                ]
                for each in playing:
                    each.result(scaled(600))
                for hand in hands:
                    hand.close()
                assert _everything(server, speaker, pieces, scratches) == before, f"changed by {numbers} of seed {seed}"
                _check_upload(speaker)
                speaker.close()
                resident = max(server.resident().values())
                if not first:
                    memory, files = resident, _open_files(server)
                eventually(partial(_has_open, server, files), what="the end of all connections")
                assert resident - memory < MOST_GROWTH, f"{resident - memory} bytes more after {numbers.stop} cases"
            for scratch in scratches:
                _check_scratch(server, scratch)
            seen = sum((hand.seen for hand in hands), Counter[str]())
            slowest = max(hand.slowest for hand in hands)
    print(
        f"{count} cases in {time.monotonic() - begun:.0f} s, the slowest in {slowest:.3f} s, "
        f"{(resident - memory) / 2**20:+.1f} MiB: {dict(sorted(seen.items()))}"
    )
    assert seen.total() == count
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < scaled(3), "a request still runs: the server gives it its grace"
    log = server.log.read_text(errors="replace")
    assert not any(word in log for word in ("ERROR", "Traceback", "CRITICAL", "Fatal", "Cancel")), log[-20000:]
