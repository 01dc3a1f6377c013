"""The report of what the tests of clients of others gave (`--clients-report FILE`).

Rule of this file: a test that has named its client and what it does is an entry, and an entry is as good as the worst
run of its test. Names travel with the outcomes of tests, so the report is whole also where several processes test.
"""

import json
from pathlib import Path
from typing import Any

import pytest

WORST = ("failed", "skipped", "passed")
_NAME = "client"


def name(report: pytest.TestReport, client: str, version: str, what: str) -> None:
    """Makes this outcome one of the entry that is so named."""
    report.user_properties = [*report.user_properties, (_NAME, [client, version, what])]


class ClientsReport:
    """A plugin for the process that is told all outcomes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[tuple[str, ...], str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        named: list[Any] = [value for kind, value in report.user_properties if kind == _NAME]
        for value in named:
            key = tuple(value)
            self._outcomes[key] = min(self._outcomes.get(key, "passed"), report.outcome, key=WORST.index)

    def pytest_sessionfinish(self) -> None:
        entries = [
            {"client": client, "version": version, "what": what, "outcome": outcome}
            for (client, version, what), outcome in self._outcomes.items()
        ]
        self._path.write_text(json.dumps(entries, indent=1))
