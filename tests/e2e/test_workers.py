"""Several worker processes on one port."""

import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import pytest
from tests.support.process import ServerProcess
from tests.support.speaker import Speaker
from tests.support.waiting import scaled
from tests.support.workers import worker_of


def test_connections_are_spread_over_the_workers(two_workers: ServerProcess) -> None:
    """Of 60 neither has fewer than 10, but once in ten million times."""
    with ExitStack() as stack:
        counts = Counter(worker_of(stack.enter_context(Speaker(two_workers.url))) for _ in range(60))
    assert len(counts) == 2
    assert min(counts.values()) >= 10


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_refused(two_workers: ServerProcess, workers: str) -> None:
    """Workers share it among themselves and with nobody else."""
    port = two_workers.url.rsplit(":", 1)[1]
    second = subprocess.run(
        [sys.executable, "-m", "holdfast_server", "--port", port, "--workers", workers],
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
        cwd=two_workers.data.parent,
    )
    assert second.returncode == 1
    assert f"Cannot listen on 127.0.0.1 port {port}" in second.stderr
