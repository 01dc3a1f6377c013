"""What came out, rule by rule: on the terminal, as Markdown, as JSON.

Rule of this file: a rule is broken if any test that holds it failed, kept if at least one passed and none failed,
and not offered if all of them were skipped because the server does not offer what the rule is about. A rule that no
test of this run looked at was not observed, and the report says why.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.conformance.rules import BY_ID, RULES, TITLES, Rule

KEPT: Final = "kept"
BROKEN: Final = "broken"
NOT_OFFERED: Final = "not offered"
NOT_OBSERVED: Final = "not observed"
OUTCOMES: Final = (KEPT, BROKEN, NOT_OFFERED, NOT_OBSERVED)


@dataclass(frozen=True)
class Verdict:
    """A rule and what became of it. `why` is the first failure, or the reason why there is none to tell."""

    rule: Rule
    outcome: str
    why: str = ""


@dataclass
class Book:
    """Collects the tests of one server. `tests` has `(outcome of the test, what it said)` for each rule."""

    tests: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def enter(self, ids: Iterable[str], outcome: str, said: str) -> None:
        for each in ids:
            self.tests.setdefault(each, []).append((outcome, said))

    def verdicts(self) -> list[Verdict]:
        """Every rule there is, by protocol and number."""
        return [self._verdict(rule) for rule in RULES]

    def _verdict(self, rule: Rule) -> Verdict:
        entries = self.tests.get(rule.id, [])
        outcomes = {"failed": BROKEN, "passed": KEPT, NOT_OBSERVED: NOT_OBSERVED, NOT_OFFERED: NOT_OFFERED}
        for wanted, outcome in outcomes.items():
            said = [words for entry, words in entries if entry == wanted]
            if said:
                return Verdict(rule, outcome, "" if outcome == KEPT else said[0])
        return Verdict(rule, NOT_OBSERVED, rule.unseen or "no test of this run looked")


def by_protocol(verdicts: list[Verdict]) -> dict[str, list[Verdict]]:
    """The same, apart for each protocol."""
    return {protocol: [v for v in verdicts if v.rule.protocol == protocol] for protocol in TITLES}


def as_json(server: str, verdicts: list[Verdict]) -> str:
    document: dict[str, Any] = {
        "server": server,
        "counts": {
            protocol: {outcome: sum(v.outcome == outcome for v in own) for outcome in OUTCOMES}
            for protocol, own in by_protocol(verdicts).items()
        },
        "rules": [
            {
                "id": v.rule.id,
                "level": v.rule.level,
                "protocol": v.rule.protocol,
                "source": v.rule.source,
                "rule": v.rule.sentence,
                "outcome": v.outcome,
                "why": v.why,
            }
            for v in verdicts
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def as_markdown(server: str, verdicts: list[Verdict]) -> str:
    lines = [f"# {server}", ""]
    for protocol, own in by_protocol(verdicts).items():
        lines += [f"## {TITLES[protocol]}", "", counted(own), "", *table([("outcome", own)]), ""]
        lines += [f"- {verdict.rule.id}: `{verdict.why}`" for verdict in own if verdict.outcome == BROKEN]
    return "\n".join(lines) + "\n"


def table(columns: list[tuple[str, list[Verdict]]]) -> list[str]:
    """The lines of a table with one row a rule and one column a server."""
    titles = ["id", "level", "rule", "source", *(title for title, _ in columns)]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for row in zip(*(verdicts for _, verdicts in columns), strict=True):
        rule = row[0].rule
        outcomes = [f"**{v.outcome}**" if v.outcome == BROKEN else v.outcome for v in row]
        lines.append("| " + " | ".join([rule.id, rule.level, rule.sentence, rule.source, *outcomes]) + " |")
    return lines


def counted(verdicts: list[Verdict]) -> str:
    """`60 kept, 2 broken, ...`"""
    return ", ".join(f"{sum(v.outcome == outcome for v in verdicts)} {outcome}" for outcome in OUTCOMES) + "."


def read_json(text: str) -> list[Verdict]:
    """What `as_json` wrote."""
    return [Verdict(BY_ID[entry["id"]], entry["outcome"], entry["why"]) for entry in json.loads(text)["rules"]]
