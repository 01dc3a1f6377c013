"""Every rule of protocol.md has a test, and every mark names a rule that there is.

Rule of this file: ids are read from the tables of protocol.md, marks from the source of the tests; nothing
else has to be kept up to date by hand.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
PROTOCOL = TESTS.parent / "protocol.md"


def rules() -> set[str]:
    """The ids in the first column of the tables of protocol.md."""
    ids = re.findall(r"^\| ([A-Z]+(?:-[A-Z]+)+-\d+) \|", PROTOCOL.read_text(), re.MULTILINE)
    assert len(ids) == len(set(ids)), "an id stands twice in protocol.md"
    return set(ids)


def marks() -> Iterator[tuple[str, str]]:
    """`(id, place)` for every id in a `pytest.mark.rule(...)` of the test tree."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="mark"), attr="rule"), args=arguments):
                    for argument in arguments:
                        place = f"{path.relative_to(TESTS)}:{argument.lineno}"
                        assert isinstance(argument, ast.Constant), f"{place}: write the id as a literal"
                        yield str(argument.value), place
                case _:
                    pass


def test_every_rule_has_a_test() -> None:
    held = {rule for rule, _ in marks()}
    assert rules() - held == set()


def test_every_mark_names_a_rule() -> None:
    known = rules()
    assert [(rule, place) for rule, place in marks() if rule not in known] == []


def test_the_tables_are_found() -> None:
    """Guards the test itself: a changed layout of protocol.md must not leave nothing to check."""
    found = rules()
    assert {rule.split("-")[0] for rule in found} >= {"V", "T", "P", "C", "D"}
    assert len(found) > 40
