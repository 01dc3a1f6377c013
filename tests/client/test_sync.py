"""The blocking client."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from tests.client.loopback import Loopback

MakeFile = Callable[..., Path]


def test_one_line_up_and_one_line_down(make_file: MakeFile, loopback: Loopback, tmp_path: Path) -> None:
    path = make_file(300_000)
    seen: list[holdfast.Progress] = []
    result = holdfast.upload(path, to=loopback.url, state=tmp_path / "state", progress=seen.append)
    assert bytes(loopback.only().data) == path.read_bytes()
    assert seen[-1].state is holdfast.State.COMPLETED
    assert seen[-1].accepted == 300_000
    back = holdfast.download(result.url, tmp_path / "back", state=tmp_path / "state")
    assert back.path.read_bytes() == path.read_bytes()
    assert back.digest == result.digest


def test_several_threads_share_a_client(make_file: MakeFile, loopback: Loopback, tmp_path: Path) -> None:
    files = [make_file(200_000 + number, f"f{number}") for number in range(6)]
    results: list[holdfast.UploadResult] = []
    with holdfast.Client(state=tmp_path / "state") as client:

        def send(path: Path) -> None:
            results.append(client.upload(path, loopback.url))

        threads = [threading.Thread(target=send, args=(path,)) for path in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert {result.path for result in results} == set(files)
    assert len({result.url for result in results}) == 6


def test_errors_come_out_of_the_call(make_file: MakeFile, loopback: Loopback, tmp_path: Path) -> None:
    loopback.order("POST", "answer", status=403)
    with holdfast.Client(state=tmp_path / "state") as client, pytest.raises(holdfast.NotAuthorized):
        client.upload(make_file(10), loopback.url)


def test_a_watcher_that_raises_stops_the_transfer(make_file: MakeFile, loopback: Loopback, tmp_path: Path) -> None:
    """The caller's exception comes out, and the upload can go on later."""

    def stop(progress: holdfast.Progress) -> None:
        if progress.state is holdfast.State.IN_PROGRESS:
            raise KeyError("enough")

    loopback.order("PATCH", "stall")
    path = make_file(300_000)
    with holdfast.Client(state=tmp_path / "state") as client:
        with pytest.raises(KeyError, match="enough"):
            client.upload(path, loopback.url, progress=stop)
        client.upload(path, loopback.url)
    assert bytes(loopback.only().data) == path.read_bytes()


@pytest.mark.parametrize(
    "arguments", [{"protocol": "ftp"}, {"checksum": "crc8"}, {"concurrency": 0}, {"chunk_size": 0}]
)
def test_arguments_that_make_no_sense(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(holdfast.UsageError) as caught:
        holdfast.upload(tmp_path / "x", to="http://127.0.0.1:1/files", state=tmp_path / "s", **arguments)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
