"""What the server is at when all bytes are there, told to whoever asks, and in the client's `Transfer`."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from tests.e2e.test_embedding import served
from tests.support.speaker import CHUNK, GRANULE, TUS_BODY, Speaker, digest
from tests.support.waiting import eventually, scaled

import holdfast
from holdfast_server import create_app
from holdfast_server.storage.local import LocalStorage


@pytest.fixture
def rename(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that publishes no file before this is set."""
    free, publish = threading.Event(), LocalStorage._publish

    def slow(self: LocalStorage, upload_id: str, name: str) -> None:
        assert free.wait(scaled(30))
        publish(self, upload_id, name)

    monkeypatch.setattr(LocalStorage, "_publish", slow)
    yield free
    free.set()


@pytest.mark.rule("P-COMPLETE-4", "P-STATE-2", "L-PAYLOAD-1")
def test_a_server_that_publishes_says_so(tmp_path: Path, rng: random.Random, rename: threading.Event) -> None:
    """To HEAD, and to the completing request, which waits no longer than its client would."""
    data = rng.randbytes(2 * GRANULE)
    completing = {"Content-Type": CHUNK, "Content-Length": "0", "Upload-Complete": "?1", "Upload-Digest": digest(data)}
    with served(create_app(tmp_path / "data"), "httptools") as url, Speaker(url) as speaker:
        upload = speaker.create(len(data))
        assert speaker.chunk(upload, 0, data).status == 204
        assert "upload-step" not in speaker.head(upload)

        def told() -> tuple[int, str, str]:
            answer = speaker.request("PATCH", upload, {**completing, "Prefer": "respond-async, wait=1"})
            assert (answer["retry-after"], answer["upload-complete"]) == ("0", "?0")
            return answer.status, answer["upload-state"], answer["upload-step"]

        eventually(lambda: told() == (202, "verifying", "publishing"))
        head = speaker.head(upload)
        assert (head["upload-state"], head["upload-step"]) == ("verifying", "publishing")
        assert speaker.status(upload)["progress"]["current_step"] == "publishing"
        rename.set()
        assert speaker.request("PATCH", upload, completing).status == 204
        head = speaker.head(upload)
        assert (head["upload-state"], "upload-step" in head) == ("complete", False)
        assert speaker.status(upload)["progress"]["current_step"] is None


@pytest.mark.rule("T-PATCH-8")
def test_a_tus_client_has_nothing_more_to_send(tmp_path: Path, rng: random.Random, rename: threading.Event) -> None:
    """It is answered as always, and one that knows the other fields asks again."""
    data = rng.randbytes(2 * GRANULE)
    with served(create_app(tmp_path / "data"), "httptools") as url, Speaker(url) as speaker:
        upload = speaker.create(len(data))
        assert speaker.patch(upload, 0, data[:GRANULE]).status == 204
        fields = {**TUS_BODY, "Upload-Offset": str(GRANULE), "Prefer": "wait=1"}
        answer = speaker.request("PATCH", upload, fields, data[GRANULE:])
        assert (answer.status, answer.offset, answer["retry-after"]) == (204, len(data), "0")
        assert answer["upload-state"] == "verifying"

        def told() -> tuple[int, int | None, str, str]:
            answer = speaker.patch(upload, len(data), b"")
            return answer.status, answer.offset, answer["retry-after"], answer["upload-step"]

        eventually(lambda: told() == (204, len(data), "1", "publishing"))
        rename.set()
        eventually(lambda: "upload-state" not in speaker.patch(upload, len(data), b""))
        assert speaker.get(upload).body == data


@pytest.mark.parametrize("how", ["parallel", "tus", "ietf", "stream"])
@pytest.mark.rule("P-COMPLETE-4", "T-PATCH-8", "I-ANSWER-1")
def test_the_step_shows_in_the_transfer(
    tmp_path: Path, rng: random.Random, rename: threading.Event, how: Literal["parallel", "tus", "ietf", "stream"]
) -> None:
    """And the transfer is not complete before the file is there, however it was sent."""
    data = rng.randbytes(100 * GRANULE)
    with served(create_app(tmp_path / "data"), "httptools") as url, holdfast.Client() as client:
        if how == "stream":
            transfer = client.upload(iter([data[: len(data) // 2], data[len(data) // 2 :]]), f"{url}/files", name="s")
        else:
            transfer = client.upload(data, f"{url}/files", name="whole", protocol=how)
        eventually(lambda: (transfer.progress.state, transfer.progress.step) == ("verifying", "publishing"))
        assert not transfer.done
        rename.set()
        with Speaker(url) as speaker:
            assert speaker.get(urlsplit(transfer.result().url).path).body == data
        assert (transfer.progress.state, transfer.progress.step) == ("completed", None)
