"""Completions: each shell runs what `holdfast completion` prints, and completes with it."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from holdfast.journal import Journal
from holdfast.ledger import Asked
from tests.support.process import CommandLine, environment
from tests.support.terminal import Terminal
from tests.support.waiting import eventually, scaled

ASK = """
eval "$(holdfast completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_holdfast_completion holdfast
printf '%s\\n' "${COMPREPLY[@]}"
"""

ZSH = """
autoload -U compinit && compinit -u
eval "$(holdfast completion zsh)"
tell() { print -r -- $BUFFER >> told; zle kill-whole-line }
zle -N tell
bindkey '^T' tell
: > told
"""


def variables(home: Path) -> dict[str, str]:
    """An environment in which `holdfast` is a command."""
    tools = home / "bin"
    tools.mkdir(exist_ok=True)
    command = tools / "holdfast"
    command.write_text(f"#!{sys.executable}\nfrom holdfast.cli import main\nmain()\n")
    command.chmod(0o755)
    found = environment(home)
    return found | {"PATH": f"{tools}{os.pathsep}{found['PATH']}"}


def said_by(home: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        env=variables(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def completed(home: Path, *words: str) -> list[str]:
    """What bash makes of these words, the last of which is being typed."""
    return said_by(home, "bash", "--norc", "-c", ASK, "bash", *words).split()


def test_bash_completes_commands_options_choices_and_files(holdfast_command: CommandLine) -> None:
    home = holdfast_command.home
    (home / "film.mkv").touch()
    assert completed(home, "holdfast", "tr") == ["transfers"]
    assert completed(home, "holdfast", "transfers", "p") == ["pause"]
    assert completed(home, "holdfast", "upload", "--conc") == ["--concurrency"]
    assert completed(home, "holdfast", "upload", "--protocol", "p") == ["parallel"]
    assert completed(home, "holdfast", "completion", "f") == ["fish"]


def test_bash_completes_the_ids_of_transfers(holdfast_command: CommandLine) -> None:
    home = holdfast_command.home
    state = home / ".local" / "state" / "holdfast"
    state.mkdir(parents=True)
    journal = Journal(state)
    for id_ in ("abc", "xyz"):
        journal.ledger.note(Asked(id_, "upload", "/a", "http://host/files"))
    journal.ledger.keep([])
    journal.close()
    assert completed(home, "holdfast", "transfers", "show", "x") == ["xyz"]


def test_fish_completes(holdfast_command: CommandLine) -> None:
    """`complete -C` is what it would offer for a line; the words stand before a tab and what they mean."""
    home = holdfast_command.home
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed: apt install fish")
    (home / "film.mkv").touch()
    lines = ["holdfast tr", "holdfast upload --conne", "holdfast upload --protocol p", "holdfast upload fil"]
    asked = "; ".join(f"complete -C '{line}'; echo -" for line in lines)
    said = said_by(home, fish, "--no-config", "-c", f"holdfast completion fish | source; {asked}")
    words = [line.partition("\t")[0] for line in said.splitlines()]
    assert [word for word in words if word] == [
        "transfers", "-", "--connections", "-", "parallel", "-", "film.mkv", "-",
    ]  # fmt: skip


def test_zsh_completes(holdfast_command: CommandLine) -> None:
    """At its prompt, where a tab is typed; a key of ours tells what the line has become."""
    home = holdfast_command.home
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not installed: apt install zsh")
    (home / "film.mkv").touch()
    (home / "setup").write_text(ZSH)
    with Terminal(home, command=[zsh, "-f", "-i"], variables=variables(home) | {"PS1": "ready> "}) as terminal:
        terminal.shows("ready> ")
        terminal.type(b". ./setup\n")
        eventually(lambda: (home / "told").exists(), within=30, what="the setup of zsh")
        expected = []
        for typed, whole in (
            ("tr", "transfers"),
            ("upload --conne", "upload --connections"),
            ("upload --protocol p", "upload --protocol parallel"),
            ("upload fil", "upload film.mkv"),
        ):
            terminal.type(f"holdfast {typed}\t\x14".encode())
            expected.append(f"holdfast {whole}")
            told = eventually(partial(lines_of, home / "told", len(expected)), within=30, what=whole)
            assert [line.rstrip() for line in told] == expected


def lines_of(path: Path, count: int) -> list[str]:
    """The lines of a file, when there are so many."""
    lines = path.read_text().splitlines()
    return lines if len(lines) >= count else []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, holdfast_command: CommandLine) -> None:
    done = holdfast_command.run("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_HOLDFAST_COMPLETE={shell}_complete" in done.stdout
    assert holdfast_command.run("completion", "csh").returncode == 2
