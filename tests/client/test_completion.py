"""Completions: bash runs what `holdfast completion` prints; the others get scripts that name the command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.journal import Journal
from holdfast.ledger import Asked
from tests.support.process import CommandLine, environment
from tests.support.waiting import scaled

ASK = """
eval "$(holdfast completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_holdfast_completion holdfast
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(home: Path, *words: str) -> list[str]:
    """What bash makes of these words, the last of which is being typed."""
    tools = home / "bin"
    tools.mkdir(exist_ok=True)
    command = tools / "holdfast"
    command.write_text(f"#!{sys.executable}\nfrom holdfast.cli import main\nmain()\n")
    command.chmod(0o755)
    variables = environment(home)
    variables["PATH"] = f"{tools}{os.pathsep}{variables['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", *words],
        env=variables,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


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


@pytest.mark.parametrize(("shell", "words"), [("zsh", "#compdef holdfast"), ("fish", "complete --no-files")])
def test_the_other_shells_have_scripts(shell: str, words: str, holdfast_command: CommandLine) -> None:
    done = holdfast_command.run("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout
    assert f"_HOLDFAST_COMPLETE={shell}_complete" in done.stdout
    assert holdfast_command.run("completion", "csh").returncode == 2
