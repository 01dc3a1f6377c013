"""tus 1.0.0 over the wire: core, creation, creation-with-upload, expiration, checksum, termination."""

import random
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS, TUS_BODY, Speaker, b64, digest, missing, raw_digest
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection

EXTENSIONS = {"creation", "creation-with-upload", "expiration", "checksum", "termination"}
LONGEST = "999999999999999"
"""The largest integer of structured fields (RFC 9651, section 3.3.1), and so the longest upload."""


@pytest.mark.rule("T-OPTIONS-1", "T-VERSION-2", "P-OFFER-1", "P-OFFER-2")
def test_options_tells_what_is_spoken(speaker: Speaker) -> None:
    for target, fields in (("/files", {}), ("/files", {"Tus-Resumable": "0.2.2"})):
        answer = speaker.request("OPTIONS", target, fields)
        assert answer.status == 204
        assert answer["tus-version"] == "1.0.0"
        assert answer["tus-resumable"] == "1.0.0"
        assert set(answer["tus-extension"].split(",")) >= EXTENSIONS
        assert {"sha1", "md5", "sha256"} <= set(answer["tus-checksum-algorithm"].split(","))
        assert answer["upload-parallel"].startswith("?1;granule=65536;max-chunk=")
        assert answer["tus-max-size"] == LONGEST


@pytest.mark.rule("T-OPTIONS-1", "T-CREATE-2")
def test_a_limit_is_told_and_kept(start_server: StartServer) -> None:
    server = start_server("--max-size", "1000")
    with Speaker(server.url) as speaker:
        assert speaker.request("OPTIONS", "/files")["tus-max-size"] == "1000"
        assert speaker.post(1001).verdict == (413, "upload-too-large")
        assert speaker.post(1000).status == 201


@pytest.mark.rule("T-CREATE-2", "V-MISSING-1")
def test_the_longest_upload_of_all(start_server: StartServer) -> None:
    """Every number in the answers is one that structured fields can carry; one byte more is refused."""
    server = start_server(overcommit=True)
    with Speaker(server.url) as speaker:
        assert speaker.post(int(LONGEST) + 1).verdict == (413, "upload-too-large")
        upload = speaker.create(int(LONGEST))
        assert missing(speaker.head(upload)) == [(0, int(LONGEST))]


@pytest.mark.rule("T-VERSION-2")
def test_every_answer_names_the_version(speaker: Speaker) -> None:
    upload = speaker.create(10, parallel=False)
    answers = [
        speaker.head(upload),
        speaker.get(upload),
        speaker.patch(upload, 5, b"x"),
        speaker.patch(upload, 0, b"0123456789"),
        speaker.get(upload),
        speaker.head(upload + "0"),
        speaker.post(None),
        speaker.request("PUT", upload),
        speaker.delete(upload),
    ]
    assert [a.status for a in answers] == [200, 409, 409, 204, 200, 404, 400, 405, 204]
    assert {a["tus-resumable"] for a in answers} == {"1.0.0"}


@pytest.mark.rule("T-VERSION-1")
def test_another_version_is_refused_before_anything_else(speaker: Speaker) -> None:
    """Also where the upload does not exist and everything else is wrong as well."""
    upload = speaker.create(10, parallel=False)
    old = {"Tus-Resumable": "0.2.2"}
    for method, target in [
        ("POST", "/files"),
        ("PATCH", upload),
        ("PATCH", "/files/nobody"),
        ("GET", "/files/nobody"),
        ("DELETE", upload),
    ]:
        answer = speaker.request(method, target, old, b"")
        assert answer.verdict == (412, "version-not-supported")
        assert answer["tus-version"] == "1.0.0"
    answer = speaker.request("HEAD", upload, old)
    assert (answer.status, answer["tus-version"]) == (412, "1.0.0")
    assert speaker.head(upload).status == 200


@pytest.mark.rule("T-VERSION-1")
def test_reading_and_ending_do_without_the_version(speaker: Speaker) -> None:
    upload = speaker.create(4, parallel=False)
    assert speaker.request("HEAD", upload).offset == 0
    assert speaker.patch(upload, 0, b"four").status == 204
    assert speaker.request("GET", upload).body == b"four"
    assert speaker.request("DELETE", upload).status == 204


@pytest.mark.rule("T-METHOD-1")
def test_the_method_can_be_overridden(speaker: Speaker) -> None:
    upload = speaker.create(4, parallel=False)
    patch = {**TUS_BODY, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert speaker.request("POST", upload, patch, b"four").verdict == (204, None)
    assert speaker.request("POST", upload, {**TUS, "X-HTTP-Method-Override": "DELETE"}, b"").status == 204
    assert speaker.head(upload).status == 404


@pytest.mark.rule("T-CREATE-1", "T-HEAD-1", "V-TIME-1", "V-META-1")
def test_create_and_ask(speaker: Speaker) -> None:
    """The metadata comes back byte for byte, odd blanks and all."""
    metadata = f"filename {b64('Grüße.txt'.encode())} , is_confidential,empty ,type {b64(b'text/plain')}"
    answer = speaker.post(1234, Upload_Metadata=metadata)
    assert answer.status == 201
    assert answer["location"].startswith("/files/")
    assert len(answer["location"]) == len("/files/") + 32
    head = speaker.head(speaker.url + answer["location"])
    assert head.status == 200
    assert (head.offset, head["upload-length"]) == (0, "1234")
    assert head["upload-metadata"] == metadata
    assert head["upload-complete"] == "?0"
    assert head["upload-state"] == "receiving"
    assert head["cache-control"] == "no-store"
    assert head["upload-expires"].endswith(" GMT")
    assert parsedate_to_datetime(head["upload-expires"]) >= parsedate_to_datetime(answer["upload-expires"])


@pytest.mark.rule("V-ID-1")
def test_ids_cannot_be_guessed(speaker: Speaker) -> None:
    """32 lower-case hexadecimal digits, in which no place is the same for all."""
    ids = [speaker.create(1).rsplit("/", 1)[-1] for _ in range(40)]
    assert all(len(each) == 32 and set(each) <= set("0123456789abcdef") for each in ids)
    assert all(len({each[place] for each in ids}) > 4 for place in range(32))


@pytest.mark.rule("T-CREATE-3")
def test_an_empty_file_is_complete_at_once(speaker: Speaker) -> None:
    upload = speaker.create(0, parallel=False)
    head = speaker.head(upload)
    assert (head.offset, head["upload-complete"], head["upload-state"]) == (0, "?1", "complete")
    answer = speaker.get(upload)
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("share", [0, 0.4, 1])
@pytest.mark.rule("T-CREATE-4", "C-MIX-2")
def test_creation_with_upload(speaker: Speaker, rng: random.Random, share: float) -> None:
    data = rng.randbytes(200_000)
    first = int(len(data) * share)
    answer = speaker.post(len(data), body=data[:first])
    assert (answer.status, answer.offset) == (201, first)
    upload = speaker.url + answer["location"]
    if first < len(data):
        assert speaker.head(upload)["upload-complete"] == "?0"
        assert speaker.patch(upload, first, data[first:]).status == 204
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-CREATE-4")
def test_a_body_of_another_type_is_not_read(speaker: Speaker) -> None:
    fields = {**TUS, "Upload-Length": "5", "Content-Type": "text/plain", "Content-Length": "5"}
    with Connection(speaker.url) as connection:
        connection.begin("POST", "/files", fields)
        answer = connection.read()
    assert answer.status == 201
    assert speaker.head(speaker.url + answer["location"]).offset == 0


@pytest.mark.rule("T-PATCH-1", "T-PATCH-2", "C-MIX-2", "T-EXPIRE-1", "V-TIME-1")
def test_patches_in_order_complete_the_upload(speaker: Speaker, rng: random.Random) -> None:
    data = rng.randbytes(500_000)
    upload = speaker.create(len(data), parallel=False)
    offset = 0
    while offset < len(data):
        piece = data[offset : offset + rng.randint(1, 150_000)]
        answer = speaker.patch(upload, offset, piece)
        offset += len(piece)
        assert (answer.status, answer.offset) == (204, offset)
        assert ("upload-expires" in answer) == (offset < len(data))
    head = speaker.head(upload)
    assert (head["upload-complete"], head["upload-state"]) == ("?1", "complete")
    assert missing(head) == []
    assert speaker.get(upload).body == data
    assert speaker.patch(upload, len(data), b"").verdict == (204, None)
    assert speaker.patch(upload, len(data), b"x").verdict == (403, "final-upload")
    assert speaker.patch(upload, 0, b"").verdict == (403, "final-upload")
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-1")
def test_the_checks_of_a_patch_come_in_order(speaker: Speaker) -> None:
    """With everything wrong at once the first check speaks; mend it, and the next one does."""
    upload = speaker.create(10, parallel=False)
    fields = {**TUS, "Content-Type": "text/plain", "Upload-Offset": "x", "Content-Length": "1000"}

    def ask(url: str, **change: str) -> Answer:
        fields.update({name.replace("_", "-"): value for name, value in change.items()})
        with Connection(speaker.url) as connection:
            connection.begin("PATCH", url, fields)
            return connection.read()

    assert ask(upload[:-1]).verdict == (404, "not-found")
    assert ask(upload).verdict == (415, "unsupported-media-type")
    assert ask(upload, Content_Type=TUS_BODY["Content-Type"]).verdict == (400, "malformed-field")
    answer = ask(upload, Upload_Offset="5")
    assert (answer.verdict, answer.offset) == ((409, "offset-mismatch"), 0)
    assert ask(upload, Upload_Offset="0").verdict == (413, "length-exceeded")
    assert speaker.patch(upload, 0, b"0123456789").status == 204

    failed = speaker.create(1)
    speaker.chunk(failed, 0, b"x")
    assert speaker.complete(failed, digest(b"y")).status == 422
    assert ask(failed, Content_Type="text/plain").verdict == (409, "upload-failed")


@pytest.mark.rule("T-PATCH-6")
def test_a_body_in_pieces_of_unknown_length(speaker: Speaker, rng: random.Random) -> None:
    """Transfer-Encoding: chunked needs no Content-Length."""
    data = rng.randbytes(300_000)
    upload = speaker.create(len(data), parallel=False)
    with Connection(speaker.url) as connection:
        fields = {**TUS_BODY, "Upload-Offset": "0", "Transfer-Encoding": "chunked"}
        connection.begin("PATCH", upload, fields)
        for start in range(0, len(data), 70_000):
            piece = data[start : start + 70_000]
            connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.send(b"0\r\n\r\n")
        answer = connection.read()
    assert (answer.status, answer.offset) == (204, len(data))
    assert speaker.get(upload).body == data


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("sha1", "sha"),
        ("sha256", "sha-256"),
        ("sha512", "sha-512"),
        ("md5", "md5"),
        ("crc32c", "crc32c"),
        ("xxh64", "xxh64"),
        ("xxh3-64", "xxh3-64"),
        ("xxh3-128", "xxh3-128"),
        ("blake3", "blake3"),
    ],
)
@pytest.mark.rule("V-CHECKSUM-1", "T-CHECKSUM-1")
def test_checksums(speaker: Speaker, rng: random.Random, name: str, algorithm: str) -> None:
    """A wrong one changes nothing, a right one is stored, a cut one is discarded."""
    data = rng.randbytes(100_000)
    upload = speaker.create(len(data), parallel=False)
    right = f"{name} {b64(raw_digest(algorithm, data[:60_000]))}"
    wrong = f"{name} {b64(raw_digest(algorithm, data))}"
    assert speaker.patch(upload, 0, data[:60_000], Upload_Checksum=wrong).verdict == (
        460,
        "checksum-mismatch",
    )
    assert speaker.head(upload).offset == 0
    with Connection(speaker.url) as connection:
        fields = {**TUS_BODY, "Upload-Offset": "0", "Content-Length": "60000", "Upload-Checksum": right}
        connection.begin("PATCH", upload, fields)
        connection.send(data[:59_999])
    assert speaker.head(upload).offset == 0
    answer = speaker.patch(upload, 0, data[:60_000], Upload_Checksum=right)
    assert (answer.status, answer.offset) == (204, 60_000)
    assert speaker.patch(upload, 60_000, data[60_000:]).status == 204
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-DELETE-1", "T-EXPIRE-2")
@pytest.mark.parametrize("finished", [False, True])
def test_termination(speaker: Speaker, finished: bool) -> None:
    upload = speaker.create(8, parallel=False)
    assert speaker.patch(upload, 0, b"12345678" if finished else b"1234").status == 204
    assert speaker.delete(upload).status == 204
    assert speaker.head(upload).status == 404
    assert speaker.get(upload).verdict == (404, "not-found")
    assert speaker.patch(upload, 4, b"5678").verdict == (404, "not-found")
    assert speaker.delete(upload).verdict == (404, "not-found")


@pytest.mark.rule("T-DELETE-1")
def test_termination_gives_the_room_back(start_server: StartServer, rng: random.Random) -> None:
    """Neither bytes on their way nor a published file stay on the disk."""
    server = start_server()

    def used() -> int:
        files = [path.stat() for path in server.data.rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]
        return sum(each.st_blocks * 512 for each in files)

    with Speaker(server.url) as speaker:
        before = used()
        one, two = speaker.create(3 << 20, parallel=False), speaker.create(4 << 20, parallel=False)
        assert speaker.patch(one, 0, rng.randbytes(3 << 20)).status == 204
        assert speaker.patch(two, 0, rng.randbytes(2 << 20)).status == 204
        assert used() >= before + (5 << 20)
        assert speaker.delete(one).status == 204
        assert speaker.delete(two).status == 204
        eventually(lambda: used() <= before)


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that keeps an unfinished upload for a second and a half."""
    data = tmp_path_factory.mktemp("forgetful") / "data"
    with ServerProcess(data, expire_after=1.5) as process:
        yield process


@pytest.mark.parametrize("begun", ["empty", "prefix", "chunk", "whole"])
@pytest.mark.rule("T-EXPIRE-2")
def test_an_upload_expires_in_any_state(forgetful: ServerProcess, begun: str) -> None:
    """410 for every request from then on, and no byte of it is served."""
    data = b"e" * (2 * GRANULE)
    with Speaker(forgetful.url) as speaker:
        upload = speaker.create(len(data))
        match begun:
            case "prefix":
                assert speaker.patch(upload, 0, data[:1000]).status == 204
            case "chunk":
                assert speaker.chunk(upload, GRANULE, data[GRANULE:]).status == 204
            case "whole":
                assert speaker.chunk(upload, 0, data).status == 204
        assert speaker.head(upload).status == 200
        eventually(lambda: speaker.head(upload).status == 410, every=0.05)
        assert speaker.patch(upload, 0, b"x").verdict == (410, "gone")
        assert speaker.chunk(upload, 0, data).verdict == (410, "gone")
        assert speaker.complete(upload).verdict == (410, "gone")
        assert speaker.get(upload).verdict == (410, "gone")
        assert "upload-offset" not in speaker.head(upload)


@pytest.mark.rule("T-EXPIRE-1", "T-EXPIRE-2")
def test_a_finished_upload_does_not_expire(forgetful: ServerProcess) -> None:
    with Speaker(forgetful.url) as speaker:
        finished = speaker.create(4, parallel=False)
        assert speaker.patch(finished, 0, b"four").status == 204
        other = speaker.create(4, parallel=False)
        eventually(lambda: speaker.head(other).status == 410, every=0.05)
        head = speaker.head(finished)
        assert (head.status, head["upload-complete"]) == (200, "?1")
        assert "upload-expires" not in head
        assert speaker.get(finished).body == b"four"


@pytest.mark.rule("T-EXPIRE-1")
def test_stored_bytes_put_the_expiry_off(forgetful: ServerProcess) -> None:
    """An upload that goes on slowly outlives one that was created after it and left alone."""
    with Speaker(forgetful.url) as speaker:
        slow = speaker.create(10_000, parallel=False)
        offset = 0

        def left_alone_is_gone(url: str) -> bool:
            nonlocal offset
            answer = speaker.patch(slow, offset, b"s")
            assert answer.status == 204
            assert "upload-expires" in answer
            offset += 1
            return speaker.head(url).status == 410

        for _ in range(2):
            alone = speaker.create(10, parallel=False)
            eventually(lambda: left_alone_is_gone(alone), every=0.1)  # noqa: B023
        assert speaker.head(slow).offset == offset


@pytest.mark.rule("T-EXPIRE-1")
def test_errors_tell_the_expiry_too(speaker: Speaker) -> None:
    upload = speaker.create(10, parallel=False)
    answer = speaker.patch(upload, 5, b"x")
    assert answer.verdict == (409, "offset-mismatch")
    assert answer["upload-expires"] == speaker.head(upload)["upload-expires"]
