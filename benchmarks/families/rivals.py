"""The cases of `ingest` for every server of others that can be had, with a quarter of the bytes.

Rule of this file: nothing of its own; it is apart because slow servers would take most of the time of the comparison.
"""

from benchmarks.families import ingest
from benchmarks.harness import Bench
from benchmarks.peers import RESUMABLE_UPLOAD, RUSTUS, TUS_NODE_PEER, TUSD_PEER, TUSPYSERVER, holdfast
from benchmarks.report import Report

SHARE = 4


def run(bench: Bench) -> Report:
    report = Report("rivals", "Bytes in, all servers", ingest.NOTE)
    others = [TUSD_PEER, RUSTUS, TUS_NODE_PEER, TUSPYSERVER, RESUMABLE_UPLOAD]
    ingest.compare(bench, report, [holdfast("os", digest=True), *others], bench.size // SHARE)
    return report
