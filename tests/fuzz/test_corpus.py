"""What fuzzing has found, run again: every input of the corpus through its target.

Rule of this file: it needs no fuzzer. `make fuzz` looks for more inputs, and an input that breaks something is in the
corpus from then on.
"""

import pytest

from tests.fuzz import corpus_file
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_corpus_breaks_nothing(target: str) -> None:
    inputs = corpus_file.read(target)
    assert inputs, "make fuzz has not been run"
    for data in inputs:
        try:
            TARGETS[target](data)
        except Exception as error:
            error.add_note(f"{target}: {data!r}")
            raise


def test_every_corpus_has_a_target() -> None:
    assert {path.stem for path in corpus_file.FOLDER.iterdir()} == set(TARGETS)
