"""A creation that comes twice, with the key by which it is known again (protocol.md, section 4)."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, TUS_BODY, Speaker, b64, digest
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection


def key_of(rng: random.Random) -> str:
    return f'"{rng.randbytes(16).hex()}"'


def named(speaker: Speaker, name: str) -> list[dict[str, Any]]:
    """The uploads of that name, in whatever state."""
    found = speaker.get("/api/uploads?limit=1000").json()["uploads"]
    return [each for each in found if each["name"] == name]


@pytest.fixture
def key(rng: random.Random) -> str:
    return key_of(rng)


@pytest.mark.rule("K-KEY-1", "P-OFFER-1")
@pytest.mark.parametrize(
    "how",
    [
        {"length": 10},
        {"length": 10, "parallel": True},
        {"length": None, "Upload_Defer_Length": "1"},
        {"length": 10, "Upload_Concat": "partial"},
        {"length": 0},
        {"length": 10, "body": b"0123456789"},
        {"length": 10, "body": b"012"},
    ],
    ids=lambda how: ",".join(map(str, how.values())),
)
def test_the_second_creation_is_told_of_the_first_upload(speaker: Speaker, key: str, how: dict[str, Any]) -> None:
    assert ";keys" in speaker.request("OPTIONS", speaker.files)["upload-parallel"]
    first, second, other = (
        speaker.post(**how, Idempotency_Key=each) for each in (key, key, f'"{key.strip(chr(34))[::-1]}"')
    )
    assert [each.status for each in (first, second, other)] == [201] * 3
    assert first["location"] == second["location"] != other["location"]
    assert first.offset == second.offset == len(how.get("body", b""))
    if how.get("parallel"):
        assert first["upload-parallel"] == second["upload-parallel"]


@pytest.mark.rule("K-KEY-1")
def test_the_body_of_the_second_one_is_not_read(server: ServerProcess, speaker: Speaker, key: str) -> None:
    first = speaker.post(6, body=b"abcdef", Idempotency_Key=key)
    with Connection(server.url) as connection:
        fields = {**TUS_BODY, "Upload-Length": "6", "Idempotency-Key": key, "Content-Length": "6"}
        connection.begin("POST", "/files", fields)
        second = connection.read()
    assert (second.status, second["location"], second.offset) == (201, first["location"], 6)
    assert speaker.get(first["location"]).body == b"abcdef"


@pytest.mark.rule("K-KEY-1")
@pytest.mark.parametrize("size", [10, 100_000])
def test_of_many_at_once_one_makes_the_upload(two_workers: ServerProcess, key: str, size: int) -> None:
    """Over both workers, with and without the bytes: one upload, and everybody is told of it."""
    name = key.strip('"')
    data = bytes(size)

    def ask(number: int) -> Answer:
        with Speaker(two_workers.url) as speaker:
            body = data if number % 2 else None
            return speaker.post(size, body=body, Idempotency_Key=key, Upload_Metadata=f"filename {b64(name.encode())}")

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(24)))
    assert {each.status for each in answers} == {201}
    assert len({each["location"] for each in answers}) == 1
    with Speaker(two_workers.url) as speaker:
        (only,) = named(speaker, name)
        url = answers[0]["location"]
        offset = speaker.head(url).offset
        if offset < size:
            assert speaker.patch(url, offset, data[offset:]).status == 204
        assert speaker.status(url)["state"] == "complete"
        assert only["id"] in url
        assert speaker.get(url).body == data


@pytest.mark.rule("K-KEY-2", "T-CREATE-4")
@pytest.mark.parametrize("keyed", [True, False], ids=["with a key", "without"])
@pytest.mark.parametrize("size", [10_000, 300_000])
def test_a_body_that_is_cut_off_stays_for_whoever_has_the_key(
    server: ServerProcess, speaker: Speaker, key: str, rng: random.Random, keyed: bool, size: int
) -> None:
    data, name = rng.randbytes(size), rng.randbytes(8).hex()
    fields = {"Upload-Length": str(size), "Upload-Metadata": f"filename {b64(name.encode())}"}
    fields |= {"Idempotency-Key": key} if keyed else {}
    with Connection(server.url) as connection:
        connection.begin("POST", "/files", {**TUS_BODY, **fields, "Content-Length": str(size)})
        connection.send(data[: size // 3])
        eventually(lambda: len(named(speaker, name)) == 1)
    if not keyed:
        eventually(lambda: named(speaker, name) == [])
        return
    again = speaker.request("POST", "/files", {**TUS, **fields}, b"")
    assert again.status == 201
    url = again["location"]
    eventually(lambda: speaker.head(url).offset == size // 3)
    assert speaker.patch(url, size // 3, data[size // 3 :]).status == 204
    assert speaker.get(url).body == data
    assert len(named(speaker, name)) == 1


@pytest.mark.rule("K-KEY-2")
def test_whoever_has_the_key_takes_over_from_a_creation_that_stalls(
    server: ServerProcess, speaker: Speaker, key: str, rng: random.Random
) -> None:
    data = rng.randbytes(200_000)
    with Connection(server.url) as connection:
        fields = {**TUS_BODY, "Upload-Length": "200000", "Idempotency-Key": key, "Content-Length": "200000"}
        connection.begin("POST", "/files", fields)
        connection.send(data[:150_000])
        found: list[Answer] = []

        def asked() -> bool:
            found.append(speaker.post(200_000, Idempotency_Key=key))
            return speaker.head(found[-1]["location"]).offset == 150_000

        eventually(asked)
        assert speaker.patch(found[-1]["location"], 150_000, data[150_000:]).offset == 200_000
        assert connection.read().verdict == (409, "fenced")
    assert {each["location"] for each in found} == {found[0]["location"]}
    assert speaker.get(found[0]["location"]).body == data


@pytest.mark.rule("K-KEY-2")
@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_refused_body_leaves_the_key_as_new(speaker: Speaker, key: str, rng: random.Random, size: int) -> None:
    data = rng.randbytes(size)
    wrong = digest(b"other")
    answer = speaker.post(size, body=data, Idempotency_Key=key, Upload_Digest=wrong)
    assert answer.verdict == (422, "upload-digest-mismatch")
    right = speaker.post(size, body=data, Idempotency_Key=key, Upload_Digest=digest(data))
    assert (right.status, right.offset) == (201, size)
    assert speaker.get(right["location"]).body == data


@pytest.mark.rule("K-KEY-1")
@pytest.mark.parametrize("end", ["removed", "failed"])
def test_an_upload_that_is_no_more_is_created_anew(speaker: Speaker, key: str, end: str) -> None:
    first = speaker.post(3, parallel=True, Idempotency_Key=key)["location"]
    if end == "removed":
        assert speaker.delete(first).status == 204
    else:
        assert speaker.chunk(first, 0, b"abc").status == 204
        assert speaker.complete(first, digest(b"xyz")).status == 422
    second = speaker.post(3, parallel=True, Idempotency_Key=key)
    assert second.status == 201
    assert second["location"] != first
    assert second.offset == 0


@pytest.mark.rule("K-KEY-4")
def test_a_key_for_another_creation_is_refused(speaker: Speaker, key: str) -> None:
    said = f"filename {b64(b'a')},project {b64(b'p')}"
    first = speaker.post(10, Idempotency_Key=key, Upload_Metadata=said)
    turned = ", ".join(reversed(said.split(",")))
    assert speaker.post(10, Idempotency_Key=key, Upload_Metadata=turned)["location"] == first["location"]
    others: list[dict[str, Any]] = [
        {"length": 11, "Upload_Metadata": said},
        {"length": 10},
        {"length": 10, "Upload_Metadata": f"filename {b64(b'b')}"},
        {"length": 10, "Upload_Metadata": said, "Upload_Concat": "partial"},
    ]
    for other in others:
        assert speaker.post(**other, Idempotency_Key=key).verdict == (422, "key-reused")


@pytest.mark.rule("K-KEY-1")
@pytest.mark.parametrize("value", ["abc", '""', "5", f'"{"k" * 129}"'])
def test_a_key_that_is_no_string_is_refused(speaker: Speaker, value: str) -> None:
    for parallel in (False, True):
        assert speaker.post(10, parallel=parallel, Idempotency_Key=value).verdict == (400, "malformed-field")


@pytest.mark.rule("K-KEY-1")
def test_a_server_that_was_started_anew_knows_it_still(tmp_path: Path, key: str) -> None:
    with ServerProcess(tmp_path / "data") as server, Speaker(server.url) as speaker:
        first = speaker.post(6, body=b"abcdef", Idempotency_Key=key)["location"]
        speaker.close()
        server.restart()
        assert speaker.post(6, Idempotency_Key=key)["location"] == first
