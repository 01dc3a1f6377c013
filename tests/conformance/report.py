"""What came out, rule by rule: on the terminal, as Markdown, as JSON.

Rule of this file: a rule is broken if any test that holds it failed, kept if at least one passed and none failed,
and not offered if all of them were skipped because the server does not offer what the rule is about. A rule that no
test of this run looked at was not observed, and the report says why.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.conformance.rules import BY_ID, RULES, Rule

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
        """Every rule there is, by number."""
        return [self._verdict(rule) for rule in sorted(RULES, key=lambda rule: int(rule.id[1:]))]

    def _verdict(self, rule: Rule) -> Verdict:
        entries = self.tests.get(rule.id, [])
        for wanted, outcome in (("failed", BROKEN), ("passed", KEPT), (NOT_OFFERED, NOT_OFFERED)):
            said = [words for entry, words in entries if entry == wanted]
            if said:
                return Verdict(rule, outcome, "" if outcome == KEPT else said[0])
        said = [words for _, words in entries]
        return Verdict(rule, NOT_OBSERVED, rule.unseen or (said[0] if said else "no test of this run looked"))


def as_json(server: str, verdicts: list[Verdict]) -> str:
    document: dict[str, Any] = {
        "server": server,
        "counts": {outcome: sum(v.outcome == outcome for v in verdicts) for outcome in OUTCOMES},
        "rules": [
            {
                "id": v.rule.id,
                "level": v.rule.level,
                "extension": v.rule.extension,
                "rule": v.rule.sentence,
                "outcome": v.outcome,
                "why": v.why,
            }
            for v in verdicts
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def as_markdown(server: str, verdicts: list[Verdict]) -> str:
    lines = [f"# tus 1.0.0 at {server}", "", counted(verdicts), "", *table([("outcome", verdicts)]), ""]
    lines += [f"- {verdict.rule.id}: `{verdict.why}`" for verdict in verdicts if verdict.outcome == BROKEN]
    return "\n".join(lines) + "\n"


def table(columns: list[tuple[str, list[Verdict]]]) -> list[str]:
    """The lines of a table with one row a rule and one column a server."""
    titles = ["id", "level", "rule", *(title for title, _ in columns)]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for row in zip(*(verdicts for _, verdicts in columns), strict=True):
        rule = row[0].rule
        outcomes = [f"**{v.outcome}**" if v.outcome == BROKEN else v.outcome for v in row]
        lines.append("| " + " | ".join([rule.id, rule.level, rule.sentence, *outcomes]) + " |")
    return lines


def counted(verdicts: list[Verdict]) -> str:
    """`60 kept, 2 broken, ...`"""
    return ", ".join(f"{sum(v.outcome == outcome for v in verdicts)} {outcome}" for outcome in OUTCOMES) + "."


def read_json(text: str) -> list[Verdict]:
    """What `as_json` wrote."""
    return [Verdict(BY_ID[entry["id"]], entry["outcome"], entry["why"]) for entry in json.loads(text)["rules"]]
