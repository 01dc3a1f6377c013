"""Writes the table of docs/interop.md, or compares it with a run: `make clients`.

    python -m docs.interop                  run tests/interop, and write the table from what came out
    python -m docs.interop --check FILE     compare the table with a report that a run of the tests has written

Rule of this file: every row comes from a run of the tests; nothing is written by hand. Where something needed was not
there, so that a test was skipped, nothing is written.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.interop.browser import chromium

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "interop.md"
BEGIN, END = "<!-- written by make clients -->", "<!-- end -->"
HEAD = ["| client | version | what was run | outcome |", "| --- | --- | --- | --- |"]

Entry = dict[str, Any]


def rows(entries: list[Entry]) -> list[str]:
    """The rows of the table, in the order of clients and of their tests."""
    ordered = sorted(entries, key=lambda entry: (entry["client"], entry["version"]))
    return [f"| {entry['client']} | {entry['version']} | {entry['what']} | {entry['outcome']} |" for entry in ordered]


def read(report: Path) -> list[str]:
    """The rows of a report. Ends the program if something was skipped."""
    entries: list[Entry] = json.loads(report.read_text())
    if skipped := [entry for entry in entries if entry["outcome"] == "skipped"]:
        raise SystemExit(f"skipped, so there is nothing to say: {skipped[0]}")
    return rows(entries)


def written() -> list[str]:
    """The rows that stand in the document."""
    table = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    return [line for line in table.splitlines() if line.startswith("| ") and line not in HEAD]


def said(*command: str) -> str:
    """The first line that a program prints about its version."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0].strip()


def machine() -> str:
    """What the run was made with, beside the clients."""
    browser = chromium()
    assert browser is not None
    tools = [f"Python {platform.python_version()}", f"Node {said('node', '--version').removeprefix('v')}"]
    tools.append(" ".join(said(browser, "--version").split()[:2]))
    tools.append(" ".join(said("curl", "--version").split()[:2]))
    return "Made with " + ", ".join(tools) + "."


def check(report: Path) -> int:
    """0 if the document says what the report says, 1 if not; prints what differs."""
    found, stand = read(report), written()
    for line in stand:
        if line not in found:
            print(f"docs/interop.md has, and the run has not: {line}")
    for line in found:
        if line not in stand:
            print(f"the run has, and docs/interop.md has not: {line}")
    if sorted(found) == sorted(stand):  # several processes test, so the order of a run says nothing
        print(f"docs/interop.md holds: {len(stand)} rows.")
        return 0
    print("make clients writes it anew")
    return 1


def write() -> int:
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        command = [sys.executable, "-m", "pytest", "tests/interop", "-q", "-n0", "-m", "client"]
        result = subprocess.run([*command, "--clients-report", str(report)], cwd=ROOT, check=False)
        if result.returncode not in (0, 1):
            raise SystemExit(result.returncode)
        table = read(report)
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(before + "\n".join([BEGIN, "", machine(), "", *HEAD, *table, "", END]) + after)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="The table of docs/interop.md")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare with a report, write nothing")
    given = parser.parse_args()
    return check(given.check) if given.check else write()


if __name__ == "__main__":
    sys.exit(main())
