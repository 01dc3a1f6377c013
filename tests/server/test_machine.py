"""One upload against a plain model, in any order of requests (Hypothesis, RuleBasedStateMachine).

Rule of this file: the model is a bytearray and a set of granules, and nothing of the server's own code.
What the server answers is compared after every step; after a kill as well.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS_BODY, Speaker, b64, chunk_fields, digest, missing, raw_digest
from tests.support.waiting import eventually
from tests.support.wire import Connection

LONG = os.environ.get("HOLDFAST_TEST_PROFILE") == "ci"
ALGORITHMS = st.sampled_from(["xxh3-128", "sha-256"])
GRANULES = st.integers(0, 6)
SEEDS = st.integers(0, 2**32 - 1)


def noise(seed: int, size: int) -> bytes:
    """Bytes that depend on the seed in every place."""
    unit = raw_digest("sha-256", seed.to_bytes(4, "big"))
    return (unit * (size // len(unit) + 1))[:size]


class UploadMachine(RuleBasedStateMachine):
    """What is known: `stored` says of each byte whether it is there, `content` what it is."""

    server: ServerProcess

    def __init__(self) -> None:
        super().__init__()
        self.speaker = Speaker(self.server.url)
        self.speakers = [self.speaker, Speaker(self.server.url)]
        self.url = ""
        self.state = "receiving"
        self.length = 0
        self.content = bytearray()
        self.stored = bytearray()
        self.restarts = 0

    def teardown(self) -> None:
        if self.url:
            self.speaker.delete(self.url)
        for each in self.speakers:
            each.close()

    @property
    def prefix(self) -> int:
        end = self.stored.find(0)
        return self.length if end < 0 else end

    @property
    def holes(self) -> list[tuple[int, int]]:
        holes, start = [], self.stored.find(0)
        while start >= 0:
            end = self.stored.find(1, start)
            end = self.length if end < 0 else end
            holes.append((start, end - start))
            start = self.stored.find(0, end)
        return holes

    def put(self, offset: int, data: bytes) -> None:
        self.content[offset : offset + len(data)] = data
        self.stored[offset : offset + len(data)] = b"\1" * len(data)

    def piece(self, first: int, count: int) -> tuple[int, int]:
        """A chunk's place: aligned, within the upload, the last one short."""
        granules = -(-self.length // GRANULE)
        first = first % granules
        offset = first * GRANULE
        return offset, min(offset + max(1, count) * GRANULE, self.length)

    def conflicts(self, offset: int, data: bytes) -> bool:
        return (
            any(self.stored[offset + n] and self.content[offset + n] != byte for n, byte in enumerate(data))
            if self.stored.find(1, offset, offset + len(data)) >= 0
            else False
        )

    @initialize(granules=st.integers(1, 5), tail=st.integers(0, GRANULE - 1), parallel=st.booleans())
    def create(self, granules: int, tail: int, parallel: bool) -> None:
        self.length = granules * GRANULE - tail
        self.content = bytearray(self.length)
        self.stored = bytearray(self.length)
        self.url = self.speaker.create(self.length, parallel=parallel)

    @precondition(lambda self: self.state == "receiving")
    @rule(first=GRANULES, count=GRANULES, seed=SEEDS, algorithm=ALGORITHMS, second=st.booleans())
    def send_chunk(self, first: int, count: int, seed: int, algorithm: str, second: bool) -> None:
        """New bytes: stored where nothing is stored, a conflict where other bytes are."""
        offset, end = self.piece(first, count)
        data = noise(seed, end - offset)
        conflict = self.conflicts(offset, data)
        answer = self.speakers[second].chunk(self.url, offset, data, algorithm)
        if conflict:
            assert answer.verdict == (409, "chunk-conflict")
        else:
            assert answer.verdict == (204, None)
            self.put(offset, data)
            assert answer.offset == self.prefix

    @precondition(lambda self: self.state == "receiving")
    @rule(first=GRANULES, count=GRANULES, second=st.booleans())
    def send_hole(self, first: int, count: int, second: bool) -> None:
        """The same as a chunk of zeros, for which no body is sent."""
        offset, end = self.piece(first, count)
        conflict = self.conflicts(offset, bytes(end - offset))
        answer = self.speakers[second].hole(self.url, offset, end - offset)
        if conflict:
            assert answer.verdict == (409, "chunk-conflict")
        else:
            assert answer.verdict == (204, None)
            self.put(offset, bytes(end - offset))
            assert answer.offset == self.prefix

    @precondition(lambda self: self.state == "receiving" and any(self.stored))
    @rule(first=GRANULES, count=GRANULES, seed=SEEDS, second=st.booleans())
    def send_agreeing_chunk(self, first: int, count: int, seed: int, second: bool) -> None:
        """A chunk that repeats what is stored and fills what is not: always welcome (P-CHUNK-5, P-CHUNK-6)."""
        offset, end = self.piece(first, count)
        data = bytearray(noise(seed, end - offset))
        for n in range(offset, end):
            if self.stored[n]:
                data[n - offset] = self.content[n]
        answer = self.speakers[second].chunk(self.url, offset, bytes(data))
        assert answer.verdict == (204, None)
        self.put(offset, bytes(data))

    @precondition(lambda self: self.state == "receiving")
    @rule(first=GRANULES, count=GRANULES, seed=SEEDS)
    def send_damaged_chunk(self, first: int, count: int, seed: int) -> None:
        """The digest is of other bytes: nothing is stored."""
        offset, end = self.piece(first, count)
        data = noise(seed, end - offset)
        damaged = data[:-1] + bytes([data[-1] ^ 1])
        answer = self.speaker.chunk(self.url, offset, damaged, Content_Digest=digest(data))
        whole = self.stored.find(0, offset, end) < 0
        if whole and self.content[offset:end] == data:
            # Its body is not read (P-CHUNK-5): the stored bytes have the digest that it claims.
            assert answer.verdict == (204, None)
        elif whole or self.conflicts(offset, damaged):
            assert answer.verdict in [(409, "chunk-conflict"), (400, "digest-mismatch")]
        else:
            assert answer.verdict == (400, "digest-mismatch")

    @precondition(lambda self: self.state == "receiving")
    @rule(first=GRANULES, count=GRANULES, seed=SEEDS, share=st.floats(0, 0.99))
    def cut_a_chunk(self, first: int, count: int, seed: int, share: float) -> None:
        """The connection ends before the body does: nothing is stored."""
        offset, end = self.piece(first, count)
        data = noise(seed, end - offset)
        with Connection(self.server.url) as connection:
            connection.begin("PATCH", self.url, chunk_fields(offset, data))
            connection.send(data[: int(len(data) * share)])

    @precondition(lambda self: self.state == "receiving" and self.prefix < self.length)
    @rule(size=st.integers(0, 3 * GRANULE), seed=SEEDS, second=st.booleans(), checksum=st.booleans())
    def send_patch(self, size: int, seed: int, second: bool, checksum: bool) -> None:
        """tus: stored up to the next stored range; at the end of the upload it completes it."""
        start = self.prefix
        gap_end = self.stored.find(1, start)
        gap_end = self.length if gap_end < 0 else gap_end
        size = min(size, gap_end - start if checksum else self.length - start)
        data = noise(seed, size)
        fields = {"Upload_Checksum": f"sha256 {b64(raw_digest('sha-256', data))}"} if checksum else {}
        answer = self.speakers[second].patch(self.url, start, data, **fields)
        assert answer.verdict == (204, None)
        kept = data[: gap_end - start]
        self.put(start, kept)
        assert answer.offset in (start + len(kept), self.prefix)
        if self.prefix == self.length and kept == data:
            self.state = "complete"
        elif self.prefix == self.length:
            # Its body went on into a range that is stored: whether that was the end is for HEAD to say.
            self.state = self.speaker.head(self.url)["upload-state"]
            assert self.state in ("receiving", "complete")

    @precondition(lambda self: self.state == "receiving" and all(self.stored))
    @rule()
    def finish_with_an_empty_patch(self) -> None:
        """T-PATCH-4: what chunks, or a PATCH that was cut, have brought up to the last byte."""
        answer = self.speaker.patch(self.url, self.length, b"")
        assert answer.verdict == (204, None)
        self.state = "complete"

    @precondition(lambda self: self.state == "receiving" and self.prefix < self.length)
    @rule(size=st.integers(1, 2 * GRANULE), seed=SEEDS)
    def send_patch_with_wrong_checksum(self, size: int, seed: int) -> None:
        data = noise(seed, min(size, self.holes[0][1]))
        wrong = f"sha1 {b64(raw_digest('sha', data + b'!'))}"
        answer = self.speaker.patch(self.url, self.prefix, data, Upload_Checksum=wrong)
        assert answer.verdict == (460, "checksum-mismatch")

    @precondition(lambda self: self.state == "receiving" and self.prefix < self.length)
    @rule(size=st.integers(0, 3 * GRANULE), seed=SEEDS, takeover=st.booleans())
    def cut_a_patch(self, size: int, seed: int, takeover: bool) -> None:
        """What came is kept, whether the connection ended or another PATCH took over."""
        start = self.prefix
        gap_end = self.stored.find(1, start)
        gap_end = self.length if gap_end < 0 else gap_end
        data = noise(seed, min(size, gap_end - start - 1))
        with Connection(self.server.url) as connection:
            fields = {"Upload-Offset": str(start), "Content-Length": str(self.length - start)}
            connection.begin("PATCH", self.url, TUS_BODY | fields)
            connection.send(data)
            self.put(start, data)
            if takeover and data:
                eventually(lambda: self.speaker.head(self.url).offset == self.prefix)
                self.send_patch_of_one_byte(seed)
                assert connection.read().verdict == (409, "fenced")
                return
        eventually(lambda: self.speaker.head(self.url).offset == self.prefix)

    def send_patch_of_one_byte(self, seed: int) -> None:
        start = self.prefix
        answer = self.speaker.patch(self.url, start, noise(seed, 1))
        assert answer.verdict == (204, None)
        self.put(start, noise(seed, 1))
        if self.prefix == self.length:
            self.state = "complete"

    @precondition(lambda self: self.state == "receiving")
    @rule(wrong=st.integers(1, 100000))
    def send_patch_at_wrong_offset(self, wrong: int) -> None:
        answer = self.speaker.patch(self.url, self.prefix + wrong, b"x")
        assert answer.verdict == (409, "offset-mismatch")
        assert answer.offset == self.prefix

    @precondition(lambda self: self.state == "receiving" and not all(self.stored))
    @rule()
    def complete_too_early(self) -> None:
        answer = self.speaker.complete(self.url, digest(b"whatever"))
        assert answer.verdict == (409, "missing-ranges")
        assert missing(answer) == self.holes

    @precondition(lambda self: self.state == "receiving" and all(self.stored))
    @rule(algorithm=st.sampled_from(["sha-256", "xxh3-128", None]))
    def complete(self, algorithm: str | None) -> None:
        answer = self.speaker.complete(self.url, digest(bytes(self.content), algorithm) if algorithm else None)
        assert answer.verdict == (204, None)
        assert answer["upload-complete"] == "?1"
        assert answer.offset == self.length
        self.state = "complete"

    @precondition(lambda self: self.state == "receiving" and all(self.stored))
    @rule()
    def complete_with_wrong_digest(self) -> None:
        answer = self.speaker.complete(self.url, digest(bytes(self.content) + b"!"))
        assert answer.verdict == (422, "upload-digest-mismatch")
        assert digest(bytes(self.content)) in answer["repr-digest"]
        self.state = "failed"

    @precondition(lambda self: self.state == "complete")
    @rule(second=st.booleans())
    def read_the_file(self, second: bool) -> None:
        assert self.speakers[second].get(self.url).body == self.content

    @precondition(lambda self: self.state == "complete")
    @rule(right=st.booleans())
    def complete_again(self, right: bool) -> None:
        claimed = bytes(self.content) + (b"" if right else b"!")
        answer = self.speaker.complete(self.url, digest(claimed))
        assert answer.verdict == ((204, None) if right else (409, "chunk-conflict"))

    @precondition(lambda self: self.state in ("complete", "failed"))
    @rule(seed=SEEDS)
    def write_after_the_end(self, seed: int) -> None:
        verdict = (403, "final-upload") if self.state == "complete" else (409, "upload-failed")
        assert self.speaker.patch(self.url, 0, noise(seed, 10)).verdict == verdict

    @rule()
    def delete(self) -> None:
        """DELETE in any state; the machine goes on with a fresh upload of the same length."""
        assert self.speaker.delete(self.url).status == 204
        assert self.speaker.head(self.url).status == 404
        assert self.speaker.patch(self.url, 0, b"x").verdict == (404, "not-found")
        self.begin_anew()

    @precondition(lambda self: self.restarts < 1 and (LONG or any(self.stored)))
    @rule(really=st.integers(0, 5 if LONG else 11))
    def expire(self, really: int) -> None:
        """The server is away for so long that the upload expires; a complete one never does."""
        if really != 0:
            return
        self.restarts += 1
        self.server.kill()
        with closing(sqlite3.connect(self.server.data / "catalog.sqlite")) as catalog:
            catalog.execute("UPDATE upload SET expires = 1 WHERE expires IS NOT NULL")
            catalog.commit()
        self.server.start()
        if self.state == "complete":
            return
        eventually(lambda: self.speaker.head(self.url).status == 410)
        assert self.speaker.patch(self.url, 0, b"x").verdict == (410, "gone")
        self.begin_anew()

    def begin_anew(self) -> None:
        self.url = self.speaker.create(self.length)
        self.content, self.stored = bytearray(self.length), bytearray(self.length)
        self.state = "receiving"

    @precondition(lambda self: self.restarts < 1 and (LONG or any(self.stored)))
    @rule(really=st.integers(0, 5 if LONG else 11))
    def kill_and_restart(self, really: int) -> None:
        """Rarely, because it takes a second."""
        if really == 0:
            self.restarts += 1
            self.server.restart()

    @invariant()
    def the_server_tells_the_truth(self) -> None:
        if not self.url:
            return
        for speaker in self.speakers:
            head = speaker.head(self.url)
            assert head.status == 200
            assert head["upload-state"] == self.state
            assert head["upload-complete"] == ("?1" if self.state == "complete" else "?0")
            assert head.offset == self.prefix
            assert missing(head) == self.holes

    @precondition(lambda self: self.state != "complete")
    @invariant()
    def nothing_unfinished_is_published(self) -> None:
        if self.url:
            assert self.speaker.get(self.url).verdict == (409, "not-finished")


@pytest.fixture(scope="module")
def machine_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("machine") / "data") as process:
        yield process


@pytest.mark.timeout(900)
@pytest.mark.rule("C-MIX-1", "C-MIX-2", "C-MIX-3", "C-OFFSET-1", "P-CHUNK-6", "P-COMPLETE-5", "P-HOLE-3", "T-PATCH-4")
def test_an_upload_is_its_model(machine_server: ServerProcess) -> None:
    """Whatever is sent in whatever order, the server's answers are those of the model."""

    class Machine(UploadMachine):
        server = machine_server

    run_state_machine_as_test(
        Machine,
        settings=hypothesis.settings(
            max_examples=600 if LONG else 150,
            stateful_step_count=25 if LONG else 15,
            deadline=None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
        ),
    )
