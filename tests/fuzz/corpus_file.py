"""The corpus of a target: one file, an input a line.

Rule of this file: an input is written as a bytes literal, so that a change of the corpus can be read.
"""

import ast
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"


def read(target: str) -> list[bytes]:
    path = FOLDER / f"{target}.txt"
    return [ast.literal_eval(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def write(target: str, inputs: set[bytes]) -> None:
    """Shortest first. What was there is replaced."""
    lines = [repr(each) for each in sorted(inputs, key=lambda each: (len(each), each))]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines), "ascii")
