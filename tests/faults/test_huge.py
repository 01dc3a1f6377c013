"""Memory and answers do not grow with the file: one upload of 1 TiB, in random order (promise 6)."""

import random
import threading
import time

import pytest
from tests.conftest import StartServer
from tests.support.speaker import Ranges, Speaker, has_more, missing
from tests.support.waiting import median, scaled

MIB = 1 << 20
TIB = 1 << 40
GRANULE = MIB
"""P-CREATE-2: 64 KiB up to 64 GiB, doubled four times for 1 TiB."""
CHUNKS = 200
LIMIT = 120 * MIB


def send(url: str, upload: str, chunks: Ranges, seed: int, refused: list[object]) -> None:
    rng = random.Random(seed)
    with Speaker(url) as speaker:
        for offset, size in chunks:
            answer = speaker.chunk(upload, offset, rng.randbytes(size))
            if answer.status != 204:
                refused.append(answer)


def holes_between(chunks: Ranges) -> Ranges:
    holes, after = [], 0
    for offset, size in [*sorted(chunks), (TIB, 0)]:
        if offset > after:
            holes.append((after, offset - after))
        after = offset + size
    return holes


@pytest.mark.rule("P-CREATE-2", "P-OFFER-1", "P-STATE-1", "V-MISSING-1", "D-JSON-1", "P-CHUNK-2")
def test_one_tebibyte_in_random_order(start_server: StartServer, rng: random.Random) -> None:
    """200 chunks from four connections into two workers: little memory, true ranges, quick answers."""
    server = start_server(workers=2, overcommit=True)
    with Speaker(server.url) as speaker:
        created = speaker.post(TIB, parallel=True)
        assert created.status == 201, created
        assert f"granule={GRANULE}" in created["upload-parallel"].split(";")
        upload = server.url + created["location"]
        assert speaker.chunk(upload, 65536, bytes(GRANULE)).verdict == (400, "misaligned-chunk")

        chunks = [(n * GRANULE, GRANULE) for n in rng.sample(range(TIB // GRANULE), CHUNKS)]
        refused: list[object] = []
        threads = [
            threading.Thread(
                target=send,
                args=(server.url, upload, chunks[n::4], rng.getrandbits(32), refused),
                daemon=True,
            )
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(scaled(60))
            assert not thread.is_alive()
        assert refused == []

        resident, private = server.resident(), server.private()
        assert len(resident) >= 2
        assert max(resident.values()) < LIMIT, resident
        assert sum(private.values()) < LIMIT, private

        holes = holes_between(chunks)
        head = speaker.head(upload)
        assert missing(head) == holes[:100]
        assert has_more(head)
        assert head.offset == (0 if holes[0][0] == 0 else holes[0][0])

        told_ranges: Ranges = []
        told_missing: Ranges = []
        after: int | None = 0
        pages = 0
        while after is not None:
            page = speaker.status(upload, f"?after={after}&limit=60")
            assert len(page["ranges"]) <= 60
            assert len(page["missing"]) <= 60
            told_ranges += [(offset, size) for offset, size in page["ranges"]]
            told_missing += [(offset, size) for offset, size in page["missing"]]
            after, pages = page["next"], pages + 1
            assert pages < 50
        assert pages >= 3
        assert told_missing == holes
        assert sum(size for _, size in told_ranges) == CHUNKS * GRANULE

        for ask in (lambda: speaker.head(upload), lambda: speaker.status(upload)):
            took = []
            for _ in range(15):
                began = time.monotonic()
                ask()
                took.append(time.monotonic() - began)
            assert median(took) < scaled(0.05)

        assert speaker.delete(upload).status == 204
