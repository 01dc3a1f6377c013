"""Checks the documents against what there is: `make docs`.

Rule of this file: what a document names must exist, and every setting must be documented. Links to files and headings,
commands with their subcommands and options, targets of make, environment variables, and the syntax of Python examples
are looked at; addresses elsewhere are not, so that it works without a network.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from holdfast.cli import main as holdfast
from holdfast_server.cli import serve

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "protocol.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = ("Makefile", ".ci/run", "protocol/**/*.py", "server/**/*.py", "client_sdk/**/*.py", "tests/**/*.py")

Complaints = Iterator[str]


def anchors(document: Path) -> set[str]:
    """The names of the headings, as they stand in links."""
    headings = re.findall(r"^#+ (.+)$", without_code(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def check_links(document: Path) -> Complaints:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (document.parent / path).resolve() if path else document
        if not other.exists():
            yield f"{target} is not there"
        elif anchor and anchor not in anchors(other):
            yield f"{target}: there is no such heading"


def commands(text: str) -> Iterator[list[str]]:
    """Each `holdfast ...` in shell blocks and in code within sentences, as words."""
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]+)`", without_code(text))
    for line in lines:
        for found in re.findall(r"(?:^|\$\(|\| )holdfast ([^#|)]*)", line.strip()):
            yield found.split()


def check_commands(document: Path) -> Complaints:
    context = click.Context(holdfast)
    for words in commands(document.read_text()):
        command = holdfast.get_command(context, words[0]) if words else None
        if words and words[0].startswith("-"):
            continue
        if command is None:
            yield f"holdfast {' '.join(words)}: there is no such command"
            continue
        while isinstance(command, click.Group) and len(words) > 1:
            inner = command.get_command(context, words[1])
            if inner is None:
                break
            command, words = inner, words[1:]
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in words[1:]:
            if word.startswith("-") and word != "-" and word.partition("=")[0] not in known | {"--help"}:
                yield f"holdfast {' '.join(words)}: there is no option {word}"


def check_targets(document: Path) -> Complaints:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = document.read_text()
    named = re.findall(r"`make ([a-z]+)[^`]*`", text)
    named += [name for block in blocks(text, "sh") for name in re.findall(r"^make ([a-z]+)", block, re.MULTILINE)]
    for name in named:
        if name not in targets:
            yield f"make {name}: there is no such target"


def check_variables(document: Path) -> Complaints:
    known = set(environment_of_serve())
    for pattern in SOURCES:
        for source in ROOT.glob(pattern):
            known |= set(re.findall(r"HOLDFAST_[A-Z_]+", source.read_text()))
    for name in sorted(set(re.findall(r"HOLDFAST_[A-Z_]+", document.read_text())) - known):
        yield f"{name}: nothing reads it"


def check_python(document: Path) -> Complaints:
    for block in blocks(document.read_text(), "python"):
        try:
            compile(block, str(document), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError as error:
            yield f"an example in Python is malformed in its line {error.lineno}: {error.msg}"


def environment_of_serve() -> dict[str, str]:
    """Environment variable and option of each setting of the server."""
    return {
        "HOLDFAST_" + parameter.name.upper(): parameter.opts[0]
        for parameter in serve.params
        if isinstance(parameter, click.Option) and parameter.name is not None
    }


def check_settings(document: Path) -> Complaints:
    """Every setting of the server is a row of the page for operators."""
    if document.name != "operations.md":
        return
    text = document.read_text()
    for variable, option in environment_of_serve().items():
        if f"| `{option}` | `{variable}`" not in text:
            yield f"{option} ({variable}) has no row in the table of settings"


CHECKS: tuple[Callable[[Path], Complaints], ...] = (
    check_links,
    check_commands,
    check_targets,
    check_variables,
    check_python,
    check_settings,
)


def main() -> int:
    wrong = [
        f"{document.relative_to(ROOT)}: {complaint}"
        for document in DOCUMENTS
        for check in CHECKS
        for complaint in check(document)
    ]
    for line in wrong:
        print(line)
    if not wrong:
        print(f"{len(DOCUMENTS)} documents hold.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
