"""A server is killed with SIGKILL in the middle of an upload and started again: how long until it tells the offset?

Rule of this file: half of a file has been sent in one PATCH that is still open when the server is killed. The clock
runs from the start of the new process to its first true answer to HEAD. What it kept is what that answer says.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Bench, load, taking_part
from benchmarks.load.wire import Connection, RefusedError, Segment
from benchmarks.peers import RESUMABLE_UPLOAD, RUSTUS, TUS_NODE_PEER, TUSD_PEER, TUSPYSERVER, holdfast
from benchmarks.processes import FailedError, Running, running, start
from benchmarks.report import SECONDS, Report, Sample, Table, more
from benchmarks.units import KIB, MIB, size_text

MOST: Final = 64 * MIB
"""The largest upload that is broken off."""
PER_FILE: Final = 2 * MIB
LIMIT: Final = 10.0
"""Seconds after which an upload that HEAD does not know is lost."""
NOTE: Final = (
    "Half of the bytes of one PATCH have been sent when the server is killed. `kept` is the offset after the "
    "restart, in units of what was sent; bytes in the buffers of the socket at that moment nobody can keep. The "
    "other case: the same beside many small files that were complete before."
)


def _begin(server: Running, source: Path, size: int) -> tuple[Connection, str]:
    """An open PATCH of `size` bytes of which half has been sent, and the path of its upload."""
    connection = Connection(server.port)
    fields = (f"Upload-Length: {size}", *server.peer.fields)
    location = connection.tus("POST", server.peer.collection, *fields).expect(201).location
    file = os.open(source, os.O_RDONLY)
    try:
        connection.begin_patch(location, Segment(file, 0, size), size // 2)
    finally:
        os.close(file)
    return connection, location


def _until_told(port: int, location: str) -> int:
    """The offset, as soon as HEAD tells it."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            with Connection(port) as connection:
                answer = connection.tus("HEAD", location)
            if answer.status == 200:
                return int(answer.field("upload-offset") or 0)
            told = f"HEAD is answered {answer.status}"
        except (OSError, RefusedError) as error:
            told = str(error)
        if time.monotonic() > deadline:
            raise FailedError(f"the upload is lost: {told}")
        time.sleep(0.005)


def run(bench: Bench) -> Report:
    report = Report("recovery", "Recovery after kill -9", NOTE)
    others = [TUSD_PEER, RUSTUS, TUS_NODE_PEER, TUSPYSERVER, RESUMABLE_UPLOAD]
    there = taking_part(report, [holdfast("os"), holdfast("ack"), *others])
    size = min(bench.size, MOST)
    kept = more("kept", "kept", "of what was sent")
    table = Table("recovery", f"Restart, {size_text(size)} broken off", (SECONDS, kept), base="tusd")
    table.say(list(there.values()))
    report.tables.append(table)
    files = max(16, bench.size // PER_FILE)
    cases = {"alone": 0, f"beside {files:,} files": files}
    source = bench.source(size)
    for case, row in bench.turns(list(there), list(cases)):
        peer = there[row]
        if not bench.wanted(table, case, row):
            continue
        with bench.attempt(table, case, row) as samples, running(peer, bench.folder) as server:
            if cases[case]:
                job: dict[str, Any] = {"way": "two", "size": 4 * KIB, "clients": 16, "limit": 60.0, "most": cases[case]}
                load(server, "files", collection=peer.collection, fields=peer.fields, **job)
            connection, location = _begin(server, source, size)
            with connection:
                server.kill()
            began = time.perf_counter()
            again = start(peer, server.data, server.port)
            try:
                offset = _until_told(again.port, location)
                samples.append(Sample(time.perf_counter() - began, more={"kept": offset / (size // 2)}))
            finally:
                again.kill()
    return report
