"""The blocking client, where it is not as the asynchronous one: threads, callbacks, Ctrl-C.

What both can do is tested by the same tests over both, see `face` in conftest.py.
"""

import inspect
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import AsyncClient, Client, State, Transfer, TransferQueue
from holdfast.sync import SyncTransfer, SyncTransferQueue
from tests.client.loopback import Loopback
from tests.support.process import CommandLine, environment
from tests.support.waiting import eventually, scaled

MIB = 1024 * 1024
MakeFile = Callable[..., Path]


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [(SyncTransfer, Transfer), (SyncTransferQueue, TransferQueue), (Client, AsyncClient)],
)
def test_the_blocking_one_has_all_that_the_other_has(blocking: type[Any], asynchronous: type[Any]) -> None:
    """Names, arguments and defaults; but for what is the client's own affair."""
    own = {"age", "begun", "called_off", "interrupt", "run", "belongs_to", "unseen_error", "open", "start", "enter"}
    own |= {"leave", "reordered", "call", "unseen_errors", "failure"}
    names = {name for name in vars(asynchronous) if not name.startswith("_")} - own
    assert names <= {name for name in dir(blocking) if not name.startswith("_")}
    for name in ({"__init__"} if blocking is Client else set()) | names:
        mine, theirs = getattr(blocking, name), getattr(asynchronous, name)
        if isinstance(theirs, property):
            assert (mine.fset is None) == (theirs.fset is None), name
        else:
            assert list(inspect.signature(mine).parameters) == list(inspect.signature(theirs).parameters), name
            for key, each in inspect.signature(theirs).parameters.items():
                assert inspect.signature(mine).parameters[key].default == each.default, (name, key)


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_the_one_line_has_all_arguments(direction: str) -> None:
    of_client = inspect.signature(AsyncClient).parameters
    of_call = inspect.signature(getattr(AsyncClient, direction)).parameters
    found = set(inspect.signature(getattr(holdfast, direction)).parameters)
    assert set(of_call) - {"self", "priority"} <= found
    assert found <= {*of_client, *of_call, "progress"}


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
    with Client(state=tmp_path / "state") as client:

        def send(path: Path) -> None:
            results.append(client.upload(path, loopback.url).result())

        threads = [threading.Thread(target=send, args=(path,)) for path in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert {result.path for result in results} == set(files)
    assert len({result.url for result in results}) == 6


def test_a_callback_may_block_and_use_the_client(make_file: MakeFile, loopback: Loopback, tmp_path: Path) -> None:
    """It runs in a thread of its own; the queue tells which transfer it is about."""
    ended: list[tuple[str, int]] = []
    with Client(state=tmp_path / "state") as client:

        def end(transfer: SyncTransfer[Any]) -> None:
            ended.append((transfer.name, client.queue.statistics.done))
            assert transfer.wait() is State.COMPLETED

        client.queue.on_end(end)
        one = client.upload(make_file(1000, "one"), loopback.url)
        one.on_end(end)
        client.queue.join()
    assert [name for name, _ in ended] == [one.name] * 2


def test_a_callback_that_raises_harms_nobody(
    make_file: MakeFile, loopback: Loopback, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(progress: holdfast.Progress) -> None:
        raise KeyError("enough")

    with caplog.at_level(logging.ERROR, "holdfast"):
        result = holdfast.upload(make_file(300_000), loopback.url, state=tmp_path / "state", progress=stop)
    assert result.size == 300_000
    assert "enough" in caplog.text


def test_what_nobody_waited_for_is_raised_at_the_end(make_file: MakeFile, loopback: Loopback, tmp_path: Path) -> None:
    loopback.order("POST", "answer", status=403)
    with pytest.raises(holdfast.NotAuthorized), Client(state=tmp_path / "state") as client:
        client.upload(make_file(10), loopback.url)


def test_what_has_ended_can_be_asked_after_its_client(make_file: MakeFile, loopback: Loopback, tmp_path: Path) -> None:
    with Client(state=tmp_path / "state") as client:
        good, bad = client.upload(b"abc", loopback.url), client.upload(tmp_path / "nowhere", loopback.url)
        queue = client.queue
        bad.wait()
        assert bad.error is not None
    assert (good.result().size, good.wait(), good.progress.accepted) == (3, State.COMPLETED, 3)
    assert [progress.state for progress in good] == [State.COMPLETED]
    assert (queue.join().completed, queue.statistics.failed) == (1, 1)
    with pytest.raises(holdfast.SourceUnreadable):
        bad.result()
    good.pause()
    good.cancel()
    assert good.state is State.COMPLETED


def test_a_client_is_used_inside_its_block(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"):
        Client(state=tmp_path).upload(b"", "http://127.0.0.1:1/files")


SCRIPT = """
import sys, holdfast
holdfast.upload(sys.argv[1], sys.argv[2], chunk_size=1048576, concurrency=1)
"""


def test_ctrl_c_ends_a_script_and_the_same_script_goes_on(
    make_file: MakeFile, loopback: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(4 * MIB)
    words = [sys.executable, "-c", SCRIPT, str(path), loopback.url]
    loopback.order("PATCH", "stall", when=lambda seen: seen.is_chunk and seen.offset == 2 * MIB)
    with subprocess.Popen(words, env=environment(holdfast_command.home), stderr=subprocess.PIPE) as process:
        eventually(lambda: len(loopback.chunks()) == 3, within=30)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=scaled(20))
    assert b"KeyboardInterrupt" in told
    before = len(loopback.chunks())
    subprocess.run(words, env=environment(holdfast_command.home), check=True, timeout=scaled(60))
    assert bytes(loopback.only().data) == path.read_bytes()
    assert len(loopback.chunks()) == before + 2


@pytest.mark.parametrize(
    "arguments", [{"protocol": "ftp"}, {"checksum": "crc8"}, {"concurrency": 0}, {"chunk_size": 0}]
)
def test_arguments_that_make_no_sense(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(holdfast.UsageError) as caught:
        holdfast.upload(tmp_path / "x", to="http://127.0.0.1:1/files", state=tmp_path / "s", **arguments)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
