"""Several worker processes on one port."""

import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import pytest
from tests.support.process import ServerProcess
from tests.support.speaker import Speaker, b64, raw_digest
from tests.support.waiting import scaled
from tests.support.workers import speakers_by_worker, worker_of


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


@pytest.mark.rule("T-PATCH-2", "T-DELETE-1")
@pytest.mark.parametrize("change", ["deleted", "begun", "finished"])
def test_a_whole_file_meets_what_another_worker_has_made_of_its_upload(change: str, two_workers: ServerProcess) -> None:
    """The worker that made an upload takes all of a small file without asking what has become of it: it is told."""
    mine, other = b"m" * 3000, b"o" * 3000
    with speakers_by_worker(two_workers) as (here, there):
        url = here.create(len(mine), parallel=False)
        match change:
            case "deleted":
                assert there.delete(url).status == 204
                assert here.patch(url, 0, mine).verdict == (404, "not-found")
            case "begun":
                assert there.patch(url, 0, other[:1000]).offset == 1000
                answer = here.patch(url, 0, mine)
                assert (answer.verdict, answer.offset) == ((409, "offset-mismatch"), 1000)
                assert here.patch(url, 1000, other[1000:]).offset == len(other)
            case _:
                assert there.patch(url, 0, other).offset == len(other)
                answer = here.patch(url, 0, mine)
                assert (answer.verdict, answer.offset) == ((403, "final-upload"), len(other))
        if change != "deleted":
            assert here.get(url).body == there.get(url).body == other


@pytest.mark.rule("T-CHECKSUM-1", "T-PATCH-2")
def test_a_whole_file_that_is_refused_may_come_again(two_workers: ServerProcess) -> None:
    data = b"d" * 3000
    with speakers_by_worker(two_workers) as (here, _):
        url = here.create(len(data), parallel=False)
        wrong = "sha1 " + b64(raw_digest("sha", b"e" * 3000))
        assert here.patch(url, 0, data, **{"Upload-Checksum": wrong}).verdict == (460, "checksum-mismatch")
        assert here.patch(url, 0, data).offset == len(data)
        assert here.patch(url, 0, data).verdict == (403, "final-upload")
        assert here.get(url).body == data
