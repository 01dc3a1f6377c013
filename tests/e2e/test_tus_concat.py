"""tus 1.0.0 over the wire: concatenation and concatenation-unfinished."""

import hashlib
import random

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS, TUS_BODY, Speaker, digest
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection

MIB = 1 << 20


def part(speaker: Speaker, data: bytes, stored: int | None = None) -> str:
    """A partial upload of which the first `stored` bytes are sent, or all of them; its URL."""
    upload = speaker.create(len(data), parallel=False, Upload_Concat="partial")
    sent = data[:stored]
    if sent:
        assert speaker.patch(upload, 0, sent, Upload_Concat="partial").verdict == (204, None)
    return upload


def join(speaker: Speaker, *urls: str, **other: str) -> Answer:
    fields = {**TUS, "Upload-Concat": "final;" + " ".join(urls)}
    fields.update({name.replace("_", "-"): value for name, value in other.items()})
    return speaker.request("POST", "/files", fields, b"")


def joined(speaker: Speaker, *urls: str) -> str:
    """A final upload that must be accepted; its URL."""
    answer = join(speaker, *urls)
    assert answer.status == 201, answer
    assert "upload-expires" not in answer
    return speaker.url + answer["location"]


def complete(speaker: Speaker, upload: str) -> bool:
    return speaker.head(upload)["upload-state"] == "complete"


def path(url: str) -> str:
    return "/files/" + url.rsplit("/", 1)[-1]


@pytest.mark.rule("T-CONCAT-1", "T-CONCAT-3", "T-CONCAT-4", "T-CONCAT-6")
def test_parts_become_one_file(speaker: Speaker, rng: random.Random) -> None:
    """In the order of the list, by absolute and by relative URLs; the file is there with the 201."""
    assert {"concatenation", "concatenation-unfinished"} <= set(
        speaker.request("OPTIONS", "/files")["tus-extension"].split(",")
    )
    one, two, three = rng.randbytes(100_001), rng.randbytes(65_536), rng.randbytes(7)
    urls = [part(speaker, data) for data in (three, one, two)]
    value = f"final;{path(urls[1])} {urls[2]} {path(urls[0])[1:]}"
    answer = speaker.post(None, Upload_Concat=value, Upload_Metadata="filename am9pbmVk")
    assert answer.status == 201
    upload = speaker.url + answer["location"]
    head = speaker.head(upload)
    assert head["upload-concat"] == value
    assert (head.offset, head["upload-length"]) == (165_544, "165544")
    assert (head["upload-complete"], head["upload-state"]) == ("?1", "complete")
    assert head["upload-metadata"] == "filename am9pbmVk"
    answer = speaker.get(upload)
    assert (answer.status, answer.body) == (200, one + two + three)
    assert 'filename="joined"' in answer["content-disposition"]
    assert speaker.status(upload)["concat"] == value


@pytest.mark.rule("T-CONCAT-2", "T-CONCAT-6")
def test_a_part_is_no_file(speaker: Speaker) -> None:
    upload = part(speaker, b"whole")
    head = speaker.head(upload)
    assert (head.offset, head["upload-length"], head["upload-concat"]) == (5, "5", "partial")
    assert (head["upload-complete"], head["upload-state"]) == ("?0", "receiving")
    assert "upload-expires" in head
    assert speaker.get(upload).verdict == (409, "not-finished")
    assert speaker.complete(upload).verdict == (400, "conflicting-fields")
    assert speaker.patch(upload, 5, b"").verdict == (204, None)
    assert speaker.patch(upload, 5, b"x").verdict == (413, "length-exceeded")
    listed = speaker.request("GET", "/api/uploads?state=complete&limit=1000").json()["uploads"]
    assert upload.rsplit("/", 1)[-1] not in {each["id"] for each in listed}


@pytest.mark.rule("T-CONCAT-2", "T-CONCAT-3")
def test_parts_are_used_again(speaker: Speaker) -> None:
    """Listed twice, and in several finals, also after one of those was deleted."""
    one, two = part(speaker, b"one "), part(speaker, b"two ")
    first = joined(speaker, one, two, one, one)
    assert speaker.get(first).body == b"one two one one "
    second = joined(speaker, two, one)
    assert speaker.delete(first).status == 204
    assert speaker.get(second).body == b"two one "
    assert speaker.get(joined(speaker, one)).body == b"one "
    assert speaker.delete(one).status == 204
    assert speaker.get(second).body == b"two one "


@pytest.mark.rule("T-CONCAT-1", "T-CREATE-3")
def test_empty_parts(speaker: Speaker) -> None:
    empty, some = part(speaker, b""), part(speaker, b"some")
    assert speaker.head(empty)["upload-state"] == "receiving"
    assert speaker.get(joined(speaker, empty, some, empty)).body == b"some"
    upload = joined(speaker, empty, empty)
    head = speaker.head(upload)
    assert (head.offset, head["upload-length"], head["upload-complete"]) == (0, "0", "?1")
    assert speaker.get(upload).body == b""


@pytest.mark.rule("T-CONCAT-4", "T-CONCAT-6", "T-CONCAT-5")
def test_a_final_may_come_before_its_parts(speaker: Speaker, rng: random.Random) -> None:
    """It is answered at once, shows no offset, and is there when the last byte of the last part is."""
    data = rng.randbytes(300_000)
    one, two = part(speaker, data[:100_000], 1), part(speaker, data[100_000:], 0)
    upload = joined(speaker, one, two)
    head = speaker.head(upload)
    assert (head.status, head["upload-length"], head["upload-state"]) == (200, "300000", "receiving")
    for name in ("upload-offset", "upload-expires", "upload-missing", "upload-parallel", "upload-defer-length"):
        assert name not in head
    assert speaker.get(upload).verdict == (409, "not-finished")
    assert speaker.patch(upload, 0, b"x").verdict == (403, "final-upload")
    assert speaker.patch(two, 0, data[100_000:]).status == 204
    assert "upload-offset" not in speaker.head(upload)
    assert speaker.patch(one, 1, data[1:100_000]).status == 204
    eventually(lambda: complete(speaker, upload))
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-CONCAT-1", "T-CONCAT-4", "T-CONCAT-6", "T-DEFER-2")
def test_parts_of_unknown_length(speaker: Speaker) -> None:
    """The final's length is told as soon as that of its last part is."""
    answer = speaker.post(None, Upload_Concat="partial", Upload_Defer_Length="1")
    deferred = speaker.url + answer["location"]
    upload = joined(speaker, deferred, part(speaker, b" world"), deferred)
    head = speaker.head(upload)
    assert "upload-length" not in head
    assert "upload-defer-length" not in head
    assert speaker.patch(deferred, 0, b"he", Upload_Length="5").status == 204
    assert speaker.head(upload)["upload-length"] == "16"
    assert speaker.patch(deferred, 2, b"llo").status == 204
    eventually(lambda: complete(speaker, upload))
    assert speaker.get(upload).body == b"hello worldhello"


@pytest.mark.rule("T-CONCAT-1", "T-CREATE-4")
def test_a_part_may_come_with_its_creation(speaker: Speaker) -> None:
    answer = speaker.post(5, body=b"hello", Upload_Concat="partial")
    assert (answer.status, answer.offset) == (201, 5)
    assert speaker.get(joined(speaker, answer["location"])).body == b"hello"


@pytest.mark.rule("T-CONCAT-1", "C-MIX-1")
def test_a_part_may_come_in_chunks(speaker: Speaker, rng: random.Random) -> None:
    data = rng.randbytes(2 * GRANULE)
    first = part(speaker, data, 0)
    upload = joined(speaker, first, first)
    assert speaker.chunk(first, GRANULE, data[GRANULE:]).status == 204
    assert speaker.chunk(first, 0, data[:GRANULE]).status == 204
    eventually(lambda: complete(speaker, upload))
    assert speaker.get(upload).body == data + data


@pytest.mark.rule("T-CONCAT-4", "T-PATCH-4")
def test_the_last_bytes_of_a_part_that_are_cut_off_count(speaker: Speaker) -> None:
    """The request is never whole, but the part is."""
    first = part(speaker, b"0123456789", 0)
    upload = joined(speaker, first)
    with Connection(speaker.url) as connection:
        connection.begin("PATCH", first, {**TUS_BODY, "Upload-Offset": "0", "Transfer-Encoding": "chunked"})
        connection.send(b"a\r\n0123456789\r\n")
        eventually(lambda: speaker.head(first).offset == 10)
    eventually(lambda: complete(speaker, upload))
    assert speaker.get(upload).body == b"0123456789"


@pytest.mark.rule("T-CONCAT-5")
def test_a_final_takes_no_bytes(speaker: Speaker) -> None:
    """403 whatever else is wrong; neither the final nor its part changes."""
    one = part(speaker, b"one")
    upload = joined(speaker, one)
    assert speaker.patch(upload, 3, b"").verdict == (403, "final-upload")
    assert speaker.patch(upload, 0, b"two").verdict == (403, "final-upload")
    assert speaker.chunk(upload, 0, b"two").verdict == (403, "final-upload")
    assert speaker.complete(upload).verdict == (403, "final-upload")
    answer = speaker.request("PATCH", upload, {**TUS, "Content-Type": "text/plain"}, b"")
    assert answer.verdict == (403, "final-upload")
    assert speaker.get(upload).body == b"one"
    assert speaker.head(one).offset == 3


@pytest.mark.rule("T-CONCAT-1", "T-CONCAT-3")
def test_what_cannot_be_put_together_is_refused(speaker: Speaker) -> None:
    one, gone = part(speaker, b"one"), part(speaker, b"gone")
    assert speaker.delete(gone).status == 204
    plain = speaker.create(3, parallel=False)
    final = joined(speaker, one)
    foreign = f"http://elsewhere.example{path(one)}"
    for url in (
        gone,
        plain,
        final,
        foreign,
        f"/files/{'0' * 32}",
        "/files/nobody",
        "/",
        f"{one}?a",
        f"/api/uploads{path(one)[6:]}",
    ):
        assert join(speaker, one, url).verdict == (400, "malformed-field"), url
    for value in ("", "final", "final;", "Partial", f"final;{one}  {one}", "part"):
        assert speaker.post(None, Upload_Concat=value).verdict == (400, "malformed-field"), value
    assert join(speaker, one, Upload_Length="3").verdict == (400, "conflicting-fields")
    assert join(speaker, one, Upload_Defer_Length="1").verdict == (400, "conflicting-fields")
    answer = speaker.request("POST", "/files", {**TUS_BODY, "Upload-Concat": f"final;{one}"}, b"two")
    assert answer.verdict == (400, "conflicting-fields")
    answer = speaker.post(3, parallel=True, Upload_Concat="partial")
    assert answer.verdict == (400, "conflicting-fields")
    assert speaker.post(3, Upload_Concat="partial", Upload_Digest=digest(b"one")).verdict == (400, "conflicting-fields")


@pytest.mark.rule("T-CONCAT-3", "T-CONCAT-7")
def test_the_limit_holds_for_the_sum(start_server: StartServer) -> None:
    server = start_server("--max-size", "10")
    with Speaker(server.url) as speaker:
        one = part(speaker, b"123456")
        assert join(speaker, one, one).verdict == (413, "upload-too-large")
        answer = speaker.post(None, Upload_Concat="partial", Upload_Defer_Length="1")
        deferred = speaker.url + answer["location"]
        upload = joined(speaker, one, deferred)
        assert speaker.patch(deferred, 0, b"12345", Upload_Length="5").status == 204
        assert speaker.head(upload)["upload-state"] == "failed"
        assert speaker.status(upload)["error"]["code"] == "upload-too-large"


@pytest.mark.rule("T-CONCAT-4", "P-DIGEST-1")
@pytest.mark.parametrize("right", [True, False])
def test_a_final_can_be_verified(speaker: Speaker, right: bool) -> None:
    urls = [part(speaker, b"hello "), part(speaker, b"world")]
    answer = join(speaker, *urls, Upload_Digest=digest(b"hello world" if right else b"other"))
    assert answer.status == 201
    head = speaker.head(speaker.url + answer["location"])
    assert head["upload-state"] == ("complete" if right else "failed")
    assert head["repr-digest"] == digest(b"hello world")


@pytest.mark.rule("T-CONCAT-7")
def test_a_final_fails_without_its_part(speaker: Speaker) -> None:
    one, two = part(speaker, b"one", 1), part(speaker, b"two")
    upload = joined(speaker, one, two)
    assert speaker.delete(two).status == 204
    head = speaker.head(upload)
    assert (head.status, head["upload-state"]) == (200, "failed")
    assert "upload-offset" not in head
    assert speaker.patch(upload, 0, b"x").verdict == (403, "final-upload")
    assert speaker.status(upload)["error"]["code"] == "data-lost"
    assert speaker.delete(upload).status == 204
    assert speaker.head(one).offset == 1


@pytest.mark.rule("T-CONCAT-2")
def test_a_part_outlives_the_finals_that_wait_for_it(start_server: StartServer) -> None:
    """One part is left alone for long, while another one goes on slowly; both are gone in the end."""
    server = start_server(expire_after=1.5)
    with Speaker(server.url) as speaker:
        done, slow, alone = part(speaker, b"done"), part(speaker, b"s" * 1000, 1), part(speaker, b"alone")
        upload = joined(speaker, done, slow)
        offset = 1

        def alone_is_gone() -> bool:
            nonlocal offset
            assert speaker.patch(slow, offset, b"s").status == 204
            offset += 1
            return speaker.head(alone).status == 410

        eventually(alone_is_gone, every=0.1)
        assert (speaker.head(done).status, speaker.head(upload).status) == (200, 200)
        assert speaker.patch(slow, offset, b"s" * (1000 - offset)).status == 204
        eventually(lambda: complete(speaker, upload))
        assert speaker.get(upload).body == b"done" + b"s" * 1000
        eventually(lambda: speaker.head(done).status == 410 and speaker.head(slow).status == 410, every=0.1)
        assert speaker.head(upload).status == 200


@pytest.mark.rule("T-CONCAT-2")
def test_a_final_whose_parts_never_come_expires(start_server: StartServer) -> None:
    server = start_server(expire_after=0.8)
    with Speaker(server.url) as speaker:
        never = part(speaker, b"never", 1)
        upload = joined(speaker, never)
        eventually(lambda: speaker.head(upload).status == 410 and speaker.head(never).status == 410, every=0.1)


@pytest.mark.rule("T-CONCAT-4")
def test_a_waiting_final_survives_a_kill(start_server: StartServer) -> None:
    server = start_server()
    with Speaker(server.url) as speaker:
        one, two = part(speaker, b"one", 1), part(speaker, b"two")
        upload = joined(speaker, one, two)
        server.kill()
        server.start()
        assert speaker.patch(one, 1, b"ne").status == 204
        eventually(lambda: complete(speaker, upload))
        assert speaker.get(upload).body == b"onetwo"


@pytest.mark.rule("T-CONCAT-4")
def test_a_kill_while_it_is_put_together(start_server: StartServer, rng: random.Random) -> None:
    """Nobody has to ask for it: the next start goes on."""
    server = start_server("--durability", "os")
    data = rng.randbytes(16 * MIB + 1)
    with Speaker(server.url) as speaker:
        one = part(speaker, data)
        with Connection(speaker.url) as connection:
            connection.begin("POST", "/files", {**TUS, "Upload-Concat": "final;" + " ".join([one] * 16)})

            def found() -> list[str]:
                listed = speaker.request("GET", "/api/uploads").json()["uploads"]
                return [speaker.url + each["url"] for each in listed if each["concat"] != "partial"]

            eventually(found, every=0.002)
            (upload,) = found()
            server.kill()
        server.start()
        eventually(lambda: list((server.data / "files").iterdir()), every=0.05)
        eventually(lambda: complete(speaker, upload))
        assert speaker.head(one).offset == len(data)
        expected = hashlib.sha256()
        for _ in range(16):
            expected.update(data)
        assert hashlib.sha256(speaker.get(upload).body).digest() == expected.digest()


@pytest.mark.rule("T-CONCAT-4")
def test_parts_that_end_in_several_processes(two_workers: ServerProcess, rng: random.Random) -> None:
    """Whichever worker stores the last byte, the final is put together, once."""
    data = rng.randbytes(400_000)
    with Speaker(two_workers.url) as one, Speaker(two_workers.url) as two:
        for _ in range(5):
            urls = [part(one, data[start : start + 100_000], 0) for start in range(0, 400_000, 100_000)]
            upload = joined(one, *urls)
            for number, url in enumerate(urls):
                speaker = (one, two)[number % 2]
                assert speaker.patch(url, 0, data[number * 100_000 : (number + 1) * 100_000]).status == 204
            eventually(lambda: complete(two, upload))  # noqa: B023
            assert one.get(upload).body == data
