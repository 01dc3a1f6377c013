"""Which inputs are worth keeping: those that run lines, in an order, that no shorter one runs.

Rule of this file: only lines of our own packages count.
"""

import sys
from types import FrameType
from typing import Any, Final

from tests.fuzz.targets import TARGETS

_OURS: Final = ("/holdfast_protocol/", "/holdfast_server/", "/client_sdk/holdfast/")

Step = tuple[str, int, int]


def steps(target: str, data: bytes) -> set[Step]:
    """File, line, and the line that was run before it, of everything that an input runs."""
    found: set[Step] = set()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        if not any(ours in file for ours in _OURS):
            return None
        before = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            if event == "line":
                found.add((file, before, frame.f_lineno))
                before = frame.f_lineno
            return step

        return step

    traced = sys.gettrace()
    sys.settrace(enter)
    try:
        TARGETS[target](data)
    finally:
        sys.settrace(traced)
    return found


def least(target: str, inputs: set[bytes]) -> set[bytes]:
    """Enough of them, the shortest ones, to run all that all of them run."""
    kept, seen = set[bytes](), set[Step]()
    for data in sorted(inputs, key=lambda each: (len(each), each)):
        new = steps(target, data) - seen
        if new:
            kept.add(data)
            seen |= new
    return kept
