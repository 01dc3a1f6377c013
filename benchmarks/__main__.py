"""The command line of the benchmarks: `python -m benchmarks --size 1GiB --rounds 5 --only ingest`.

Rule of this file: a scenario is a module with `run(size, rounds, folder) -> Report`, listed in SCENARIOS.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import ingest
from benchmarks.harness import Report, parse_size

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS: dict[str, Callable[[int, int, Path], Report]] = {"ingest": ingest.run}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--size", type=parse_size, default=parse_size("1GiB"), help="bytes moved in one measurement")
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of every peer; medians of at least 5 mean something"
    )
    parser.add_argument("--only", choices=sorted(SCENARIOS), help="one scenario instead of all")
    parser.add_argument("--data", type=Path, default=ROOT / ".cache", help="where to make a folder for the data")
    options = parser.parse_args()
    if options.rounds < 5:
        print(
            f"{options.rounds} rounds only show that it runs; five or more give a median to speak of.", file=sys.stderr
        )
    options.data.mkdir(parents=True, exist_ok=True)
    for name in [options.only] if options.only else SCENARIOS:
        folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.data))
        try:
            if shutil.disk_usage(folder).free < 3 * options.size:
                print(f"{folder} has no room for three times {options.size} bytes; say DATA=folder", file=sys.stderr)
                return 1
            report = SCENARIOS[name](options.size, options.rounds, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(report.markdown())
        print(f"\nAll samples: {report.save(ROOT / 'benchmarks' / 'results').relative_to(ROOT)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
