"""What the limits cost those who keep to them: one stream and small files, without limits, with those that there are by
default, and with all that there are.

Rule of this file: all rows are of this server, with the same load, and no limit is met; only the settings differ. What
is compared with is the row without limits.
"""

from typing import Final

from benchmarks.families.slow import turns
from benchmarks.families.small import BYTES, CLIENTS
from benchmarks.families.trust import TIMES
from benchmarks.harness import Bench
from benchmarks.peers import Peer, holdfast
from benchmarks.processes import running
from benchmarks.report import MEMORY, Report, Table, cpu, rate
from benchmarks.units import size_text

NONE: Final = "no limits"
AGAIN: Final = "no limits, again"
NOTE: Final = (
    f"One stream, and files of {size_text(BYTES)} from {CLIENTS} clients in one request each. All limits are those of "
    "connections, requests and bytes a second of a client, speed and time of a request, uploads and bytes in all, and "
    "the types of files, which are looked for in their first bytes. The second row is the first one once more: what "
    f"they differ by says nothing. {TIMES} times a round. On a tmpfs where there is one. The load runs on the same "
    "cores."
)
_OFF: Final = (
    *("--max-connections", "any", "--client-connections", "any", "--max-uploads", "any"),
    *("--min-speed", "0", "--max-request-time", "never"),
)
_QUOTAS: Final = ("--client-requests", "1000000", "--client-rate", "1T", "--max-stored", "100T")
_TYPES: Final = ("--allow-type", "application/*", "--allow-type", "text/*")


def rows() -> dict[str, Peer]:
    ours = holdfast("os", digest=True)
    return {
        NONE: ours.with_options(*_OFF),
        AGAIN: ours.with_options(*_OFF),
        "by default": ours,
        "and rates and quotas": ours.with_options(*_QUOTAS),
        "and types": ours.with_options(*_QUOTAS, *_TYPES),
    }


def run(bench: Bench) -> Report:
    report = Report("limits", "What limits cost", NOTE)
    tables = {
        "stream": Table("limits-stream", "One stream", (rate(), cpu(), MEMORY), base=NONE, fact_titles=()),
        "small": Table(
            "limits-small",
            "Small files",
            (rate("files/s", 1), cpu("s/1,000 files", 1000), MEMORY),
            base=NONE,
            fact_titles=(),
        ),
    }
    report.tables += tables.values()
    there = rows()
    for _, row in bench.turns(list(there)):
        with (
            bench.attempt(tables["small"], "", row) as small,
            bench.attempt(tables["stream"], "", row) as stream,
            running(there[row], bench.memory or bench.folder) as server,
        ):
            turns(bench, server, bench.size, TIMES, {"small": small, "stream": stream})
    return report
