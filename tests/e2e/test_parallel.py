"""Parallel chunks over the wire, rule by rule (protocol.md, sections 3 and 4)."""

import random
import re
import threading
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import (
    CHUNK,
    GRANULE,
    TUS,
    TUS_BODY,
    Ranges,
    Speaker,
    b64,
    chunk_fields,
    digest,
    has_more,
    missing,
    raw_digest,
)
from tests.support.waiting import eventually, scaled
from tests.support.wire import Answer, Connection

MIB = 1 << 20
GIB = 1 << 30
ALGORITHMS = ["xxh3-64", "xxh3-128", "xxh64", "sha-256", "sha-512", "sha", "md5", "crc32c", "blake3"]


def offer(answer: Answer) -> tuple[int, int]:
    """Granule and largest chunk of P-OFFER-1."""
    match = re.fullmatch(r"\?1;granule=(\d+);max-chunk=(\d+);holes;keys", answer["upload-parallel"])
    assert match, answer["upload-parallel"]
    return int(match[1]), int(match[2])


def wants(answer: Answer) -> dict[str, int]:
    """The algorithms of `Want-Content-Digest` with their preferences."""
    members = [member.split("=") for member in answer["want-content-digest"].split(", ")]
    return {name: int(value) for name, value in members}


def without_body(speaker: Speaker, url: str, fields: dict[str, str]) -> Answer:
    """The answer to a PATCH whose body is announced and never sent."""
    with Connection(speaker.url) as connection:
        connection.begin("PATCH", url, fields)
        return connection.read()


@pytest.mark.rule("P-OFFER-1", "P-OFFER-2")
def test_the_dialect_is_offered(speaker: Speaker) -> None:
    """On OPTIONS and on the 201, with the same numbers; a creation that does not ask gets no promise."""
    options = speaker.request("OPTIONS", "/files", TUS)
    created = speaker.post(GRANULE, parallel=True)
    granule, largest = offer(options)
    assert granule == GRANULE
    assert largest % granule == 0
    assert offer(created) == (granule, largest)
    assert wants(created) == wants(options)
    assert {"xxh3-128", "sha-256"} <= set(wants(options)) <= set(ALGORITHMS)
    assert all(1 <= value <= 10 for value in wants(options).values())
    assert "upload-parallel" not in speaker.post(GRANULE)


@pytest.mark.rule("P-CREATE-1", "V-TIME-1")
def test_create(speaker: Speaker) -> None:
    metadata = f"filename {b64(b'film.mkv')}"
    answer = speaker.post(3 * GRANULE, parallel=True, Upload_Metadata=metadata)
    assert (answer.status, answer.offset) == (201, 0)
    assert re.fullmatch(r"/files/[0-9a-f]{32}", answer["location"])
    assert parsedate_to_datetime(answer["upload-expires"]).tzinfo is not None
    head = speaker.head(speaker.url + answer["location"])
    assert head["upload-metadata"] == metadata
    assert missing(head) == [(0, 3 * GRANULE)]


@pytest.mark.rule("P-CREATE-1")
def test_creation_needs_no_sign_of_tus(speaker: Speaker) -> None:
    fields = {"Upload-Length": "10", "Upload-Parallel": "?1", "Content-Length": "0"}
    assert speaker.request("POST", "/files", fields).status == 201


@pytest.mark.parametrize(
    ("length", "granule"),
    [
        (1, 65536),
        (64 * GIB, 65536),
        (64 * GIB + 1, 131072),
        (128 * GIB, 131072),
        (128 * GIB + 1, 262144),
        (1024 * GIB, MIB),
    ],
)
@pytest.mark.rule("P-CREATE-2", "P-OFFER-1")
def test_the_granule_grows_with_the_upload(roomy: ServerProcess, length: int, granule: int) -> None:
    with Speaker(roomy.url) as speaker:
        told, largest = offer(speaker.post(length, parallel=True))
        assert told == granule
        assert largest % granule == 0
        assert largest >= granule


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that does not count the room."""
    with ServerProcess(tmp_path_factory.mktemp("roomy") / "data", overcommit=True) as process:
        yield process


@pytest.mark.rule("P-CHUNK-1", "P-CHUNK-4", "P-COMPLETE-1", "P-STATE-1", "P-STATE-2", "C-OFFSET-1", "C-MIX-2")
def test_chunks_in_any_order_make_the_file(speaker: Speaker, rng: random.Random) -> None:
    """The prefix jumps when a hole closes.

    The last chunk may be short; the upload is complete when asked to be.
    """
    data = rng.randbytes(10 * GRANULE + 12_345)
    upload = speaker.create(len(data))
    places = [0, 1, 2, 4, 5, 8, 10]
    ends = [*places[1:], None]
    order = list(zip(places, ends, strict=True))
    rng.shuffle(order)
    there: set[int] = set()
    for first, end in order:
        piece = data[first * GRANULE : len(data) if end is None else end * GRANULE]
        answer = speaker.chunk(upload, first * GRANULE, piece)
        assert answer.verdict == (204, None)
        assert "upload-expires" in answer
        there.update(range(first, 11 if end is None else end))
        prefix = next((n for n in range(11) if n not in there), None)
        expected = len(data) if prefix is None else prefix * GRANULE
        assert answer.offset == speaker.head(upload).offset == expected
    head = speaker.head(upload)
    assert (head["upload-complete"], head["upload-state"]) == ("?0", "receiving")
    assert speaker.get(upload).verdict == (409, "not-finished")

    answer = speaker.complete(upload, digest(data))
    assert (answer.status, answer["upload-complete"], answer.offset) == (204, "?1", len(data))
    assert digest(data) in answer["repr-digest"].split(", ")
    head = speaker.head(upload)
    assert (head["upload-complete"], head["upload-state"]) == ("?1", "complete")
    assert "upload-expires" not in head
    assert speaker.get(upload).body == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.rule("V-DIGEST-2", "P-CHUNK-3", "P-OFFER-2", "P-DIGEST-1")
def test_every_algorithm_that_is_offered(speaker: Speaker, rng: random.Random, algorithm: str) -> None:
    """Works for chunks and for the whole file, in its canonical form.

    One that is not offered is not known.
    """
    data = rng.randbytes(GRANULE + 777)
    offered = algorithm in wants(speaker.request("OPTIONS", "/files"))
    upload = speaker.create(len(data))
    answer = speaker.chunk(upload, 0, data, algorithm)
    if not offered:
        assert answer.verdict == (400, "unknown-algorithm")
        return
    assert answer.verdict == (204, None)
    other = speaker.create(len(data))
    wrong = speaker.chunk(other, 0, data, Content_Digest=digest(data + b"!", algorithm))
    assert wrong.verdict == (400, "digest-mismatch")
    answer = speaker.complete(upload, digest(data, algorithm))
    assert answer.status == 204
    assert digest(data, algorithm) in answer["repr-digest"].split(", ")


@pytest.mark.rule("V-DIGEST-1")
def test_several_digests_must_all_be_right(speaker: Speaker, rng: random.Random) -> None:
    """Those that are known; one that is not is passed over beside one that is."""
    data = rng.randbytes(100)
    upload = speaker.create(len(data))
    half_wrong = f"{digest(data)}, {digest(b'other', 'xxh3-128')}"
    assert speaker.chunk(upload, 0, data, Content_Digest=half_wrong).verdict == (400, "digest-mismatch")
    with_unknown = f"crc7=:AAAA:, {digest(data)},{digest(data, 'xxh3-128')}"
    assert speaker.chunk(upload, 0, data, Content_Digest=with_unknown).verdict == (204, None)


@pytest.mark.rule("P-CHUNK-1", "P-CHUNK-2")
def test_a_chunk_is_checked_before_its_body_is_read(speaker: Speaker) -> None:
    upload = speaker.create(200 * MIB)
    granule, largest = offer(speaker.request("OPTIONS", "/files"))
    good = chunk_fields(0, bytes(granule))
    answer = without_body(speaker, upload, good | {"Upload-Offset": "1"})
    assert (answer.verdict, answer.json()["granule"]) == ((400, "misaligned-chunk"), granule)
    answer = without_body(speaker, upload, good | {"Content-Length": str(largest + granule)})
    assert (answer.verdict, answer.json()["max-chunk"]) == ((413, "chunk-too-large"), largest)
    answer = without_body(speaker, upload, good | {"Upload-Offset": str(200 * MIB)})
    assert answer.verdict == (400, "out-of-bounds")
    answer = without_body(speaker, upload, {k: v for k, v in good.items() if k != "Content-Digest"})
    assert answer.verdict == (400, "missing-field")
    chunked = {k: v for k, v in good.items() if k != "Content-Length"} | {"Transfer-Encoding": "chunked"}
    assert without_body(speaker, upload, chunked).verdict == (411, "length-required")


@pytest.mark.rule("P-CHUNK-2")
def test_the_largest_and_the_last_chunk(speaker: Speaker, rng: random.Random) -> None:
    """A chunk of exactly M bytes is taken; only the last one may be short, also when it is the only one."""
    _, largest = offer(speaker.request("OPTIONS", "/files"))
    data = rng.randbytes(largest + 1)
    upload = speaker.create(len(data))
    assert speaker.chunk(upload, largest, data[largest:]).verdict == (204, None)
    assert speaker.chunk(upload, 0, data[:largest]).verdict == (204, None)
    assert speaker.complete(upload).status == 204
    tiny = speaker.create(1)
    assert speaker.chunk(tiny, 0, b"x").verdict == (204, None)


@pytest.mark.rule("P-CHUNK-3")
def test_a_chunk_with_a_wrong_digest_is_not_stored(speaker: Speaker, rng: random.Random) -> None:
    data = rng.randbytes(2 * GRANULE)
    upload = speaker.create(len(data))
    assert speaker.chunk(upload, 0, data, Content_Digest=digest(b"")).verdict == (400, "digest-mismatch")
    assert missing(speaker.head(upload)) == [(0, 2 * GRANULE)]
    assert speaker.chunk(upload, 0, data).status == 204


@pytest.mark.rule("P-CHUNK-5")
def test_a_stored_chunk_is_answered_without_its_body(speaker: Speaker, rng: random.Random) -> None:
    """Equal bytes are a 204, others a conflict, and nobody waits for the body.

    Parts of chunks count as well.
    """
    data, other = rng.randbytes(4 * GRANULE), rng.randbytes(4 * GRANULE)
    upload = speaker.create(6 * GRANULE)
    assert speaker.chunk(upload, 0, data).status == 204
    for start, end in [(0, 4), (1, 3), (3, 4)]:
        piece = slice(start * GRANULE, end * GRANULE)
        for algorithm in ("xxh3-128", "sha-256"):
            same = without_body(speaker, upload, chunk_fields(piece.start, data[piece], algorithm))
            assert (same.status, same.offset) == (204, 4 * GRANULE)
            different = without_body(speaker, upload, chunk_fields(piece.start, other[piece], algorithm))
            assert different.verdict == (409, "chunk-conflict")
    assert speaker.stored(upload) == [(0, 4 * GRANULE)]


@pytest.mark.rule("P-CHUNK-6", "P-CHUNK-4")
def test_a_chunk_may_overlap_what_is_stored(speaker: Speaker, rng: random.Random) -> None:
    """Agreeing bytes: the rest is stored. Others: nothing of it is, and what was stored stays."""
    data = rng.randbytes(6 * GRANULE)
    upload = speaker.create(len(data))
    assert speaker.chunk(upload, 2 * GRANULE, data[2 * GRANULE : 4 * GRANULE]).status == 204
    wrong = data[GRANULE : 2 * GRANULE] + rng.randbytes(GRANULE)
    assert speaker.chunk(upload, GRANULE, wrong).verdict == (409, "chunk-conflict")
    last_byte = bytearray(data)
    last_byte[4 * GRANULE - 1] ^= 1
    assert speaker.chunk(upload, 0, bytes(last_byte)).verdict == (409, "chunk-conflict")
    assert speaker.stored(upload) == [(2 * GRANULE, 2 * GRANULE)]
    assert speaker.chunk(upload, GRANULE, data[GRANULE : 5 * GRANULE]).status == 204
    assert speaker.stored(upload) == [(GRANULE, 4 * GRANULE)]
    assert speaker.chunk(upload, 0, data).status == 204
    assert speaker.complete(upload, digest(data)).status == 204
    assert speaker.get(upload).body == data


@pytest.mark.rule("P-CHUNK-7", "C-OFFSET-1")
def test_many_connections_at_once(two_workers: ServerProcess, rng: random.Random) -> None:
    """Eight connections into two workers; the offset in the answers never shrinks on any of them."""
    data = rng.randbytes(24 * MIB + 17)
    with Speaker(two_workers.url) as speaker:
        upload = speaker.create(len(data))
        places = [(start, min(start + 4 * GRANULE, len(data))) for start in range(0, len(data), 4 * GRANULE)]
        rng.shuffle(places)
        wrong: list[object] = []

        def send(mine: Ranges) -> None:
            last = 0
            with Speaker(two_workers.url) as sender:
                for start, end in mine:
                    answer = sender.chunk(upload, start, data[start:end])
                    if answer.status != 204 or answer.offset < last:
                        wrong.append(answer)
                        return
                    last = answer.offset

        threads = [threading.Thread(target=send, args=(places[n::8],), daemon=True) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(scaled(60))
        assert wrong == []
        assert missing(speaker.head(upload)) == []
        assert speaker.complete(upload, digest(data)).status == 204
        assert speaker.get(upload).body == data


@pytest.mark.rule("P-CHUNK-7", "P-STATE-1")
def test_a_chunk_on_its_way_counts_as_missing(speaker: Speaker, rng: random.Random) -> None:
    """Even with all but its last byte there; a second writer of its range is not held up."""
    data = rng.randbytes(2 * GRANULE)
    upload = speaker.create(len(data))
    with Connection(speaker.url) as connection:
        connection.begin("PATCH", upload, chunk_fields(0, data))
        connection.send(data[:-1])
        assert missing(speaker.head(upload)) == [(0, 2 * GRANULE)]
        assert speaker.chunk(upload, 0, data).status == 204
        connection.send(data[-1:])
        assert connection.read().verdict == (204, None)


@pytest.mark.rule("P-STATE-1", "V-MISSING-1", "P-CACHE-1", "D-JSON-1", "P-RETRY-1")
def test_a_hundred_missing_ranges_and_more(speaker: Speaker) -> None:
    """HEAD shows the first hundred and says that there are others; filling what it shows ends it."""
    granules = 260
    data = random.Random(1).randbytes(granules * GRANULE)
    upload = speaker.create(len(data))
    for n in range(1, granules, 2):
        assert speaker.chunk(upload, n * GRANULE, data[n * GRANULE : (n + 1) * GRANULE]).status == 204
    head = speaker.head(upload)
    assert head["cache-control"] == "no-store"
    assert missing(head) == [(n * GRANULE, GRANULE) for n in range(0, 200, 2)]
    assert has_more(head)
    rounds = 0
    while holes := missing(head):
        for offset, length in holes:
            assert speaker.chunk(upload, offset, data[offset : offset + length]).status == 204
        head = speaker.head(upload)
        rounds += 1
        assert rounds <= 2
    assert "upload-missing" not in head
    assert speaker.complete(upload, digest(data)).status == 204


@pytest.mark.rule("P-DIGEST-1")
def test_digests_given_at_creation_are_verified(speaker: Speaker, rng: random.Random) -> None:
    data = rng.randbytes(GRANULE + 5)
    right = f"{digest(data)}, {digest(data, 'md5')}"
    for given, verdict in [
        (right, (204, None)),
        (f"{digest(data)}, {digest(b'', 'md5')}", (422, "upload-digest-mismatch")),
    ]:
        upload = speaker.create(len(data), Upload_Digest=given)
        assert speaker.chunk(upload, 0, data).status == 204
        assert speaker.complete(upload).verdict == verdict
        tus = speaker.create(len(data), parallel=False, Upload_Digest=given)
        assert speaker.patch(tus, 0, data).verdict == verdict


@pytest.mark.rule("P-DIGEST-2")
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512", "md5"])
def test_the_wanted_digest_is_in_the_answer(speaker: Speaker, rng: random.Random, algorithm: str) -> None:
    """Asked for at creation, it is there at the end without being said again; bytes may come in any order."""
    data = rng.randbytes(4 * GRANULE)
    upload = speaker.create(len(data), Want_Repr_Digest=f"{algorithm}=10")
    for n in (2, 0, 3, 1):
        assert speaker.chunk(upload, n * GRANULE, data[n * GRANULE : (n + 1) * GRANULE]).status == 204
    answer = speaker.complete(upload)
    assert answer.status == 204
    assert digest(data, algorithm) in answer["repr-digest"].split(", ")
    assert digest(data, algorithm) in speaker.get(upload)["repr-digest"].split(", ")


@pytest.mark.rule("P-COMPLETE-2", "V-MISSING-1")
def test_completing_too_early_tells_what_is_missing(speaker: Speaker) -> None:
    upload = speaker.create(4 * GRANULE)
    assert speaker.chunk(upload, GRANULE, bytes(GRANULE)).status == 204
    answer = speaker.complete(upload)
    assert answer.verdict == (409, "missing-ranges")
    assert missing(answer) == [(0, GRANULE), (2 * GRANULE, 2 * GRANULE)]
    assert speaker.head(upload)["upload-state"] == "receiving"
    assert speaker.chunk(upload, 0, bytes(GRANULE)).status == 204


@pytest.mark.rule("P-COMPLETE-3", "P-STATE-2")
def test_a_wrong_digest_fails_the_upload(speaker: Speaker, rng: random.Random) -> None:
    """Nothing is published, and the answer holds what the server computed. DELETE frees it."""
    data = rng.randbytes(GRANULE)
    upload = speaker.create(len(data))
    assert speaker.chunk(upload, 0, data).status == 204
    answer = speaker.complete(upload, digest(b"another file"))
    assert answer.verdict == (422, "upload-digest-mismatch")
    assert digest(data) in answer["repr-digest"].split(", ")
    document = answer.json()
    computed = {b64(raw_digest("sha-256", data)), raw_digest("sha-256", data).hex()}
    expected = {b64(raw_digest("sha-256", b"another file")), raw_digest("sha-256", b"another file").hex()}
    assert any(value in str(document["computed"]) for value in computed)
    assert any(value in str(document["expected"]) for value in expected)

    assert speaker.head(upload)["upload-state"] == "failed"
    assert speaker.get(upload).verdict == (409, "not-finished")
    assert speaker.chunk(upload, 0, data).verdict == (409, "upload-failed")
    assert speaker.patch(upload, len(data), b"").verdict == (409, "upload-failed")
    assert speaker.complete(upload, digest(data)).verdict == (409, "upload-failed")
    state = speaker.status(upload)
    assert (state["state"], bool(state["error"])) == ("failed", True)
    assert speaker.delete(upload).status == 204
    assert speaker.head(upload).status == 404


@pytest.mark.rule("P-COMPLETE-4", "P-STATE-2")
def test_a_long_verification_is_answered_202(start_server: StartServer, rng: random.Random) -> None:
    """With no patience at all the answer says that the work goes on; HEAD tells when it has ended."""
    server = start_server("--patience", "0")
    data = rng.randbytes(32 * MIB)
    with Speaker(server.url) as speaker:
        upload = speaker.create(len(data))
        for start in range(0, len(data), 8 * MIB):
            assert speaker.chunk(upload, start, data[start : start + 8 * MIB]).status == 204
        answer = speaker.complete(upload, digest(data, "sha-512"))
        assert answer.status == 202
        assert int(answer["retry-after"]) > 0
        assert answer["upload-complete"] == "?0"
        states = []

        def ask() -> bool:
            states.append(speaker.head(upload)["upload-state"])
            return states[-1] == "complete"

        eventually(ask, within=30)
        assert set(states) <= {"verifying", "complete"}
        assert speaker.complete(upload, digest(data, "sha-512")).status == 204
        assert speaker.get(upload).body == data


@pytest.mark.rule("P-COMPLETE-5")
def test_completing_again(speaker: Speaker, rng: random.Random) -> None:
    data = rng.randbytes(1000)
    upload = speaker.create(len(data))
    assert speaker.chunk(upload, 0, data).status == 204
    assert speaker.complete(upload, digest(data)).status == 204
    for given in (None, digest(data), digest(data, "md5")):
        answer = speaker.complete(upload, given)
        assert (answer.status, answer["upload-complete"]) == (204, "?1")
    assert speaker.complete(upload, digest(b"")).verdict == (409, "chunk-conflict")
    assert speaker.complete(upload, digest(b"", "md5")).verdict == (409, "chunk-conflict")
    assert speaker.get(upload).body == data


@pytest.mark.rule("P-COMPLETE-1", "P-COMPLETE-5")
def test_completing_from_two_connections_at_once(two_workers: ServerProcess, rng: random.Random) -> None:
    """Both are told the same, whichever worker they reach."""
    data = rng.randbytes(8 * MIB)
    with Speaker(two_workers.url) as speaker:
        upload = speaker.create(len(data))
        assert speaker.chunk(upload, 0, data).status == 204
        answers: list[Answer] = []

        def ask() -> None:
            with Speaker(two_workers.url) as each:
                answers.append(each.complete(upload, digest(data)))

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(scaled(30))
        assert [a.verdict for a in answers] == [(204, None)] * 6, answers
        assert speaker.get(upload).body == data


@pytest.mark.rule("P-CACHE-1", "T-HEAD-1")
def test_states_are_not_to_be_kept(speaker: Speaker) -> None:
    upload = speaker.create(10)
    for answer in (
        speaker.head(upload),
        speaker.request("GET", f"/api/uploads/{upload.rsplit('/', 1)[-1]}"),
        speaker.request("GET", "/api/uploads"),
    ):
        assert answer["cache-control"] == "no-store"


@pytest.mark.rule("C-MIX-1", "C-MIX-2", "C-MIX-3", "T-PATCH-5", "C-OFFSET-1")
def test_tus_and_chunks_on_one_upload(speaker: Speaker, rng: random.Random) -> None:
    """A tus client goes on where chunks left holes, and a chunk where a tus PATCH stopped within a granule."""
    data = rng.randbytes(8 * GRANULE)
    for parallel in (True, False):
        upload = speaker.create(len(data), parallel=parallel)
        assert speaker.chunk(upload, 3 * GRANULE, data[3 * GRANULE : 5 * GRANULE]).status == 204
        answer = speaker.patch(upload, 0, data[: GRANULE + 1000])
        assert (answer.status, answer.offset) == (204, GRANULE + 1000)
        assert speaker.chunk(upload, GRANULE, data[GRANULE : 2 * GRANULE]).offset == 2 * GRANULE

        answer = speaker.patch(upload, 2 * GRANULE, data[2 * GRANULE :])
        assert (answer.status, answer.offset) == (204, 3 * GRANULE)
        head = speaker.head(upload)
        assert (head.offset, missing(head)) == (5 * GRANULE, [(5 * GRANULE, 3 * GRANULE)])

        answer = speaker.patch(upload, 5 * GRANULE, data[5 * GRANULE :])
        assert (answer.status, answer.offset) == (204, len(data))
        assert speaker.head(upload)["upload-complete"] == "?1"
        assert speaker.get(upload).body == data


@pytest.mark.rule("C-MIX-1", "C-MIX-2")
def test_chunks_finish_what_tus_began(speaker: Speaker, rng: random.Random) -> None:
    """A chunk never completes an upload; the request to complete does, or an empty tus PATCH at the end."""
    data = rng.randbytes(3 * GRANULE)
    for finish_by_tus in (True, False):
        upload = speaker.create(len(data), parallel=False)
        assert speaker.patch(upload, 0, data[:GRANULE]).status == 204
        assert speaker.chunk(upload, GRANULE, data[GRANULE:]).offset == len(data)
        head = speaker.head(upload)
        assert (head.offset, head["upload-complete"]) == (len(data), "?0")
        answer = speaker.patch(upload, len(data), b"") if finish_by_tus else speaker.complete(upload)
        assert answer.status == 204
        assert speaker.head(upload)["upload-complete"] == "?1"
        assert speaker.get(upload).body == data


@pytest.mark.rule("C-MIX-1", "P-STATE-1")
def test_a_tus_client_sees_a_plain_upload(speaker: Speaker, rng: random.Random) -> None:
    """An upload for parallel chunks has all that a tus client asks for."""
    data = rng.randbytes(100_000)
    upload = speaker.create(len(data))
    head = speaker.request("HEAD", upload, TUS)
    assert (head.offset, head["upload-length"], head["tus-resumable"]) == (0, str(len(data)), "1.0.0")
    assert offer(head)[0] == GRANULE
    fields = {**TUS_BODY, "Upload-Offset": "0"}
    assert speaker.request("PATCH", upload, fields, data).offset == len(data)
    assert speaker.get(upload).body == data


@pytest.mark.rule("P-COMPLETE-1")
def test_an_empty_file_in_parallel(speaker: Speaker) -> None:
    """No chunk is needed: it is completed as it is."""
    upload = speaker.create(0)
    assert missing(speaker.head(upload)) == []
    fields = {"Content-Type": CHUNK, "Upload-Complete": "?1", "Upload-Digest": digest(b"")}
    assert speaker.request("PATCH", upload, fields, b"").status == 204
    assert speaker.get(upload).body == b""


@pytest.mark.rule("D-JSON-1", "P-STATE-2")
def test_the_state_as_json(speaker: Speaker, rng: random.Random) -> None:
    data = rng.randbytes(4 * GRANULE)
    metadata = f"filename {b64('Grüße.txt'.encode())},filetype {b64(b'text/plain')}"
    upload = speaker.create(len(data), Upload_Metadata=metadata)
    assert speaker.chunk(upload, 2 * GRANULE, data[2 * GRANULE : 3 * GRANULE]).status == 204
    state = speaker.status(upload)
    assert state["id"] == upload.rsplit("/", 1)[-1]
    assert state["url"].endswith(f"/files/{state['id']}")
    assert (state["state"], state["length"], state["offset"]) == ("receiving", len(data), 0)
    assert (state["received"], state["parallel"], state["error"]) == (GRANULE, True, None)
    assert state["name"] == "Grüße.txt"
    assert {"metadata", "created", "expires", "digests"} <= set(state)
    assert state["ranges"] == [[2 * GRANULE, GRANULE]]
    assert state["missing"] == [[0, 2 * GRANULE], [3 * GRANULE, GRANULE]]
    assert state["next"] is None
    first = speaker.status(upload, "?limit=1")
    assert first["next"] is not None
    assert first["missing"] == [[0, 2 * GRANULE]]
    second = speaker.status(upload, f"?limit=1&after={first['next']}")
    assert [*first["ranges"], *second["ranges"]] == [[2 * GRANULE, GRANULE]]

    assert speaker.chunk(upload, 0, data).status == 204
    assert speaker.complete(upload, digest(data)).status == 204
    state = speaker.status(upload)
    assert (state["state"], state["missing"], state["offset"]) == ("complete", [], len(data))
    assert speaker.request("GET", "/api/uploads/" + "0" * 32).verdict == (404, "not-found")


@pytest.mark.rule("D-JSON-2")
def test_the_list_of_uploads(start_server: StartServer) -> None:
    """Newest first, by state, in pages that neither repeat nor leave out."""
    with Speaker(start_server().url) as speaker:
        created = [speaker.create(10, parallel=False).rsplit("/", 1)[-1] for _ in range(7)]
        for each in created[::3]:
            assert speaker.patch(f"{speaker.files}/{each}", 0, b"0123456789").status == 204

        def listed(query: str) -> list[str]:
            found: list[str] = []
            page = speaker.request("GET", f"/api/uploads?{query}").json()
            while True:
                found += [each["id"] for each in page["uploads"]]
                if page["next"] is None:
                    return found
                page = speaker.request("GET", f"/api/uploads?{query}&before={page['next']}").json()

        assert listed("") == created[::-1]
        assert listed("limit=2") == created[::-1]
        assert listed("state=complete&limit=1") == created[::3][::-1]
        assert set(listed("state=receiving")) == set(created) - set(created[::3])
        assert listed("state=failed") == []
