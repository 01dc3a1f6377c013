"""Every rule has a test or a reason why it cannot have one, and every mark names a rule.

Rule of this file: marks are read from the source of the tests, rules from rules.py; the document is compared with them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.report import (
    BROKEN,
    KEPT,
    NOT_OBSERVED,
    NOT_OFFERED,
    Book,
    as_json,
    as_markdown,
    by_protocol,
    counted,
    read_json,
)
from tests.conformance.rules import BY_ID, DRAFT, EXTENSIONS, MAY, MUST, RULES, SHOULD, TITLES, TUS

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "conformance.md"


def marks() -> Iterator[tuple[str, str]]:
    """`(id, place)` for every id in a `pytest.mark.holds(...)`."""
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="mark"), attr="holds"), args=arguments):
                    for argument in arguments:
                        assert isinstance(argument, ast.Constant), f"{path.name}:{argument.lineno}: write a literal"
                        yield str(argument.value), f"{path.name}:{argument.lineno}"
                case _:
                    pass


def test_every_rule_has_a_test_or_a_reason() -> None:
    held = {name for name, _ in marks()}
    assert {rule.id for rule in RULES if rule.unseen is None} == held


def test_every_mark_names_a_rule() -> None:
    assert [(name, place) for name, place in marks() if name not in BY_ID] == []


def test_the_rules_are_whole() -> None:
    """S1 to S79 and R1 to R51, each once, each with a sentence, a level, a source and an extension that there is."""
    wanted = {TUS: [f"S{number}" for number in range(1, 80)], DRAFT: [f"R{number}" for number in range(1, 52)]}
    assert {protocol: [rule.id for rule in RULES if rule.protocol == protocol] for protocol in TITLES} == wanted
    for rule in RULES:
        assert rule.level in (MUST, SHOULD, MAY)
        assert rule.sentence.endswith(".")
        assert rule.source
        assert rule.extension is None or rule.extension in EXTENSIONS


def test_the_suite_does_not_know_our_server() -> None:
    """No module here imports our packages; `conftest.py` starts our server as a process."""
    for path in sorted(HERE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            assert not [name for name in names if name.startswith("holdfast")], path.name


def test_the_document_lists_every_rule() -> None:
    """In the words of rules.py: `make conformance` writes it."""
    rows = re.findall(r"^\| ([SR]\d+) \| (\w+) \| (.+?) \| (.+?) \| ", DOCUMENT.read_text(), re.MULTILINE)
    assert rows == [(rule.id, rule.level, rule.sentence, rule.source) for rule in RULES]


def test_one_failure_breaks_a_rule() -> None:
    """Whatever else passed or was skipped; a rule with nothing but skips is not offered, one without tests unseen."""
    book = Book()
    book.enter(["S1", "S2"], "passed", "")
    book.enter(["S1"], NOT_OFFERED, "checksum")
    book.enter(["S2"], "failed", "assert 400 == 412")
    book.enter(["S3"], NOT_OFFERED, "checksum")
    book.enter(["S4"], NOT_OBSERVED, "it takes too long")
    verdicts = {verdict.rule.id: verdict for verdict in book.verdicts()}
    assert [verdicts[f"S{n}"].outcome for n in (1, 2, 3, 4, 5)] == [
        KEPT,
        BROKEN,
        NOT_OFFERED,
        NOT_OBSERVED,
        NOT_OBSERVED,
    ]
    assert verdicts["S2"].why == "assert 400 == 412"
    assert read_json(as_json("http://127.0.0.1:1/files", book.verdicts())) == book.verdicts()
    tus, draft = by_protocol(book.verdicts()).values()
    assert counted(tus) == "1 kept, 1 broken, 1 not offered, 76 not observed."
    assert counted(draft) == "0 kept, 0 broken, 0 not offered, 51 not observed."


def test_each_protocol_has_its_section() -> None:
    """In a report about a server that breaks a rule of each."""
    book = Book()
    book.enter(["S6", "R8"], "failed", "what came")
    sections = as_markdown("http://127.0.0.1:1/files", book.verdicts()).split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == list(TITLES.values())
    for section, rule in zip(sections, ("S6", "R8"), strict=True):
        assert f"- {rule}: `what came`" in section
        assert set(re.findall(r"^\| ([SR])\d", section, re.MULTILINE)) == {rule[0]}
