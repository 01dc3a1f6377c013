"""What a command is asked to transfer: names on the command line, folders, patterns, and files of jobs (-i).

Rule of this file: a line of a file of jobs is a command line of its own, quoted as a shell has it, with those options
that belong to one file; what it does not say is as on the command line. A line that cannot be read is named by its
number and stops nobody but itself, unless --strict is given. What nobody can tell beforehand, such as a file that is
not there, is left to the transfer to say.
"""

import glob
import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import click
from msgspec import Struct, field
from msgspec.structs import replace

from holdfast.errors import without_secrets

RELATIVE_PATH: Final = "relativePath"
"""Metadata: where a file lies in the folder that was sent, that folder's name first, as Uppy has it."""
MOST_NAMED: Final = 20


class Job(Struct, frozen=True):
    """One file: what it is called on the command line, and what is said of it beside the options of the command."""

    name: str
    said: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    relative: str | None = None
    """Its place in the folder that was sent."""
    line: str | None = None
    """`line 3 of list.txt`, if it comes from there."""
    problem: str | None = None
    """Why it cannot be begun."""
    size: int | None = None
    """In bytes, if it is known before it is begun."""

    @property
    def shown(self) -> str:
        """Its name as people and scripts see it: a URL may have a password or a signature in it."""
        return without_secrets(self.name)

    @property
    def alone(self) -> bool:
        """What is wrong with it is no matter of the whole command."""
        return self.line is not None or self.problem is not None


class Lines:
    """Reads lines as `command` would read its arguments, of which `options` may be given, and `more`."""

    def __init__(self, command: click.Command, options: Collection[str], more: Iterable[click.Option] = ()) -> None:
        names = {name for each in more for name in (each.name,)}
        params = [each for each in command.params if each.name in options and each.name not in names]
        line = click.Command(command.name, params=[*params, *more], add_help_option=False)
        self._context = click.Context(line)
        self._parser = line.make_parser(self._context)
        (self._argument,) = [each.name or "" for each in params if isinstance(each, click.Argument)]

    def read(self, file: TextIO) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Of each line: its number in words, the names on it, and the options on it; `problem` is what is wrong."""
        called = "standard input" if is_standard_input(file) else file.name
        for number, text in enumerate(file, start=1):
            line = text.strip()
            if not line or line.startswith("#"):
                continue
            where = f"line {number} of {called}"
            try:
                names, said = self._parse(line)
            except (click.UsageError, ValueError) as error:
                message = error.format_message() if isinstance(error, click.UsageError) else str(error)
                yield where, where, {"problem": message.rstrip(".")}
                continue
            for name in names:
                yield where, name, said

    def _parse(self, line: str) -> tuple[list[str], dict[str, Any]]:
        if is_plain(line):
            return [line], {}
        values, _, given = self._parser.parse_args(shlex.split(line))
        options = [each for each in given if isinstance(each, click.Option)]
        said = {each.name or "": each.type_cast_value(self._context, values[each.name]) for each in options}
        named = values.get(self._argument)
        names = list(named) if isinstance(named, list | tuple) else []
        if (url := said.pop("url", None)) is not None:
            names.append(url)
        if not names:
            raise click.UsageError("it names nothing to transfer")
        return names, said


def is_standard_input(file: TextIO) -> bool:
    """What -i - opens."""
    return getattr(file, "name", "<stdin>") in ("-", "<stdin>")


def is_plain(line: str) -> bool:
    """It is one name as it stands: a URL, or a file that is there, whatever a shell would make of its letters."""
    if line.startswith(("http://", "https://", "ftp://", "ftps://")):
        return not any(letter.isspace() for letter in line)
    return not line.startswith("-") and os.path.lexists(line)


def read_jobs(lines: Lines, file: TextIO | None, priority: int, *, strict: bool) -> Iterator[Job]:
    """The jobs of a file. Raises click.UsageError that names the bad lines, if `strict`."""
    if file is None:
        return
    bad = []
    found = []
    for where, name, said in lines.read(file):
        problem = said.get("problem")
        if problem is not None:
            bad.append(f"{where}: {problem}")
        found.append(Job(name, said, said.get("priority", priority), line=where, problem=problem))
    if bad and strict:
        more = [f"and {len(bad) - MOST_NAMED} more"] if len(bad) > MOST_NAMED else []
        raise click.UsageError("; ".join(bad[:MOST_NAMED] + more))
    yield from found


def files_of(job: Job, *, recursive: bool) -> Iterator[Job]:
    """The files that a name stands for: itself, what a pattern matches, or what is in a folder."""
    if job.problem is not None or job.name == "-":
        yield job
    elif os.path.lexists(job.name):
        if not Path(job.name).is_dir():
            yield job
        elif recursive:
            yield from _inside(job)
        else:
            yield replace(job, problem=f"{job.name} is a folder; give --recursive to send what is in it")
    elif glob.has_magic(job.name):
        matches = sorted(glob.glob(job.name, recursive=True))  # noqa: PTH207 - Path.glob has no rooted patterns
        if not matches:
            yield replace(job, problem=f"nothing matches {job.name}")
        for match in matches:
            # Those that ** finds have their files beside them in the list.
            if not Path(match).is_dir() or (recursive and "**" not in job.name):
                yield from files_of(replace(job, name=match), recursive=recursive)
    else:
        yield job


def _inside(job: Job) -> Iterator[Job]:
    top = Path(job.name)
    called = top.name if top.name not in ("", "..") else top.resolve().name
    problems: list[OSError] = []
    for folder, below, names in os.walk(top, onerror=problems.append):
        below.sort()
        for name in sorted(names):
            path = Path(folder, name)
            yield replace(job, name=str(path), relative=(called / path.relative_to(top)).as_posix())
    for error in problems:
        yield replace(job, name=str(error.filename), problem=f"{error.filename} cannot be read ({error.strerror})")
