"""What processes cost, and that all of them end."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest
from benchmarks.peers import Peer
from benchmarks.processes import FailedError, family, running, spend

BURN = "import os, time\nwhile time.process_time() < {0}: pass\n"
SERVER = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    if connection.recv(65536).startswith(b"OPTIONS"):
        connection.sendall(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
    elif os.fork() == 0:
        import time
        room = bytearray(48 * 1024 * 1024)
        while time.process_time() < 0.3: pass
        connection.sendall(b"done")
        os._exit(0)
    else:
        os.wait()
    connection.close()
"""


def burner(name: str = "burner", program: str = SERVER) -> Peer:
    return Peer(name, lambda port, data: [sys.executable, "-c", program, str(port)])


def test_a_command_is_charged_for_itself_and_for_its_children(tmp_path: Path) -> None:
    child = f"[sys.executable, '-c', {BURN.format(0.2)!r}]"
    program = (
        f"import subprocess, sys\nsubprocess.run({child}, check=True)\n{BURN.format(0.2)}print(time.process_time())"
    )
    spent = spend([sys.executable, "-c", program], tmp_path)
    assert float(spent.output) >= 0.2
    assert spent.cpu >= float(spent.output) + 0.2
    assert spent.seconds >= 0.4


def test_a_command_is_not_told_what_would_change_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOLDFAST_DURABILITY", "PYTHONDONTWRITEBYTECODE", "AND_THIS"):
        monkeypatch.setenv(name, "1")
    program = "import os; print({'HOLDFAST_DURABILITY', 'PYTHONDONTWRITEBYTECODE', 'AND_THIS'} & {*os.environ})"
    assert spend([sys.executable, "-c", program], tmp_path).output == "{'AND_THIS'}\n"


def test_the_memory_of_a_command_is_its_peak(tmp_path: Path) -> None:
    spent = spend(
        [sys.executable, "-c", "import time; room = bytearray(96 << 20); del room; time.sleep(0.3)"], tmp_path
    )
    assert spent.memory >= 96 << 20


def test_a_command_that_fails_or_takes_too_long_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="ended with 3: so it is"):
        spend([sys.executable, "-c", "print('so it is'); raise SystemExit(3)"], tmp_path)
    began = time.monotonic()
    with pytest.raises(FailedError, match="ended with -9"):
        spend([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path, limit=0.3)
    assert time.monotonic() - began < 300


def test_a_server_is_charged_for_children_that_have_ended(tmp_path: Path) -> None:
    with running(burner(), tmp_path) as server:
        with server.metered() as meter, socket.create_connection(("127.0.0.1", server.port)) as asking:
            asking.sendall(b"burn")
            assert asking.recv(10) == b"done"
            assert asking.recv(10) == b""
        assert meter.cpu >= 0.28
        with server.metered() as idle:
            pass
        assert idle.cpu < meter.cpu
        assert idle.memory > 0


def test_a_server_ends_with_its_children_and_its_data(tmp_path: Path) -> None:
    with running(burner(), tmp_path) as server:
        pids = family(server.process.pid)
        assert server.data.is_dir()
    assert server.process.returncode is not None
    assert not server.data.exists()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_server_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=r"burner does not answer: .*no such thing"):  # noqa: SIM117
        with running(burner(program="import sys; sys.exit('no such thing')"), tmp_path):
            pass
