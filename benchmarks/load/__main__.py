"""`python -m benchmarks.load`: one job as a line of JSON on standard input, its result as a line on standard output.

Rule of this file: a result has `seconds`, or `error` in its place, and always `cpu`: the seconds of CPU that this
process has used while the job ran, but for what it prepared before its clock began.
"""

import json
import sys
import time
from typing import Any

from benchmarks.load import bulk, small, watchers

JOBS: dict[str, Any] = {
    "streams": bulk.streams,
    "puts": bulk.puts,
    "chunks": bulk.chunks,
    "parts": bulk.parts,
    "partials": bulk.partials,
    "final": bulk.final,
    "reads": bulk.reads,
    "files": small.files,
    "heads": small.heads,
    "press": small.press,
    "requests": small.requests,
    "watchers": watchers.watchers,
}


def main() -> None:
    job = json.loads(sys.stdin.readline())
    work = JOBS[job.pop("kind")]
    before = time.process_time()
    try:
        found = work(**job)
        result = found if isinstance(found, dict) else {"seconds": found}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    result["cpu"] = time.process_time() - before - result.pop("prepared", 0.0)
    print(json.dumps(result), flush=True)


main()
