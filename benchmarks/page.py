"""docs/benchmarks.md and its plots, from what lies in benchmarks/results.

Rule of this file: the words of the page are written by hand and stay; what is between the markers is replaced as a
whole. Every figure on the page comes from a run, and the machine, the versions and the date stand beside it.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import goals
from benchmarks.units import size_text

PICTURES: Final = "benchmarks"
"""The folder of the plots, beside the page that shows them."""
DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- written by make benchpage -->", "<!-- end -->"


def facts(document: dict[str, Any]) -> str:
    """A sentence about the machine."""
    machine = document["machine"]
    return (
        f"{machine['cores']} cores ({machine['architecture']}), {size_text(machine['memory'])} of memory, "
        f"{machine['kernel']}, {machine['file system']}, Python {machine['python']}"
    )


def between(documents: Sequence[dict[str, Any]], sections: Sequence[str]) -> str:
    """What goes between the markers."""
    machines = list(dict.fromkeys(facts(document) for document in documents))
    found: dict[str, str] = {}
    for document in documents:
        found |= document["versions"]
    named = ", ".join(f"{name} {number}" for name, number in sorted(found.items(), key=lambda item: item[0].lower()))
    days = sorted({document["when"][:10] for document in documents})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    aims = goals.table({document["family"]: document for document in documents})
    lines = [
        f"Measured {when} on {'; and on '.join(machines)}.",
        "",
        f"Versions: {named}.",
        "",
        "## Aims",
        "",
        *aims,
        "",
    ]
    return "\n".join([*lines, *sections])


def publish(results: Path, families: Sequence[str], docs: Path = DOCS) -> int:
    """Write the page; 0, or 1 if there is nothing to show."""
    there = [name for name in families if (results / f"{name}.json").exists()]
    if not there:
        print("There are no results; say make bench first.", file=sys.stderr)
        return 1
    documents = [json.loads((results / f"{name}.json").read_text()) for name in there]
    sections = [(results / f"{name}.md").read_text() for name in there]
    page = docs / "benchmarks.md"
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page.name} has lost the markers {BEGIN} and {END}")
    shutil.rmtree(docs / PICTURES, ignore_errors=True)
    (docs / PICTURES).mkdir()
    for section in sections:
        for picture in sorted((results / PICTURES).glob("*.svg")):
            if f"({PICTURES}/{picture.name})" in section:
                shutil.copy(picture, docs / PICTURES / picture.name)
    page.write_text(f"{before}{BEGIN}\n\n{between(documents, sections).rstrip()}\n\n{END}{after}")
    few = [document["family"] for document in documents if document["rounds"] < 5]
    if few:
        print(f"Fewer than 5 rounds: {', '.join(few)}.", file=sys.stderr)
    print("\n".join(goals.table({document["family"]: document for document in documents})))
    print(f"{page.name}: {', '.join(there)}")
    return 0
