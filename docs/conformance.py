"""Writes the outcomes in docs/conformance.md: `make conformance`.

Rule of this file: every outcome in that document comes from a run of tests/conformance that was made here and now,
against our own server on each of its roads, tusd and @tus/server; if one of them is not there, nothing is written.
"""

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.conformance.peers import TUS_NODE, TUSD, Peer
from tests.conformance.report import Verdict, by_protocol, counted, read_json, table
from tests.conformance.rules import TITLES

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- written by make conformance -->", "<!-- end -->"

Column = tuple[str, list[Verdict]]

ROADS = {
    "one-worker": "1 worker",
    "two-workers": "2 workers",
    "uvicorn": f"plain uvicorn {version('uvicorn')}",
    "granian": f"granian {version('granian')}",
}


def run(folder: Path, *options: str) -> None:
    """The suite, with its report in `folder`. Broken rules are an outcome; anything else that goes wrong is not."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/conformance",
        "-q",
        "-n0",
        "--report",
        str(folder / "report.json"),
    ]
    if not options:
        command += ["-m", "holds"]
    result = subprocess.run([*command, *options], cwd=ROOT, check=False, capture_output=True, text=True)
    if result.returncode not in (0, 1):
        raise SystemExit(f"{result.stdout}\n{result.stderr}")


def own(folder: Path) -> list[Column]:
    run(folder)
    title = f"Holdfast {version('holdfast')}"
    return [
        (f"{title}, {words}", read_json((folder / f"report-{name}.json").read_text())) for name, words in ROADS.items()
    ]


def other(peer: Peer, folder: Path) -> Column:
    if reason := peer.missing():
        raise SystemExit(f"{reason}; nothing was written.")
    with peer.running(folder / "peer") as url:
        run(folder, "--server", url)
    return f"{peer.name} {peer.version()}", read_json((folder / "report.json").read_text())


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("own", "tusd", "node")]
        for folder in folders:
            folder.mkdir()
        columns = [other(TUSD, folders[1]), other(TUS_NODE, folders[2])]
        columns = own(folders[0]) + columns
    parts = []
    for protocol, title in TITLES.items():
        own_columns = [(name, by_protocol(verdicts)[protocol]) for name, verdicts in columns]
        lines = [f"- {name}: {counted(verdicts)}" for name, verdicts in own_columns]
        print("\n".join([title, *lines]))
        parts += [f"### {title}", "", *lines, "", *table(own_columns), ""]
    written = "\n".join([BEGIN, "", *parts, END])
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(before + written + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
