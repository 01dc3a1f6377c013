"""One target under atheris: `python -m tests.fuzz.atheris_run TARGET [OPTIONS OF LIBFUZZER] FOLDER...`.

Rule of this file: it is the only one that imports atheris, which is installed beside the project by `make fuzz` and not
with it: there are versions of Python that it is not built for.
"""

import sys

import atheris

with atheris.instrument_imports(include=["holdfast", "holdfast_protocol", "holdfast_server", "tests.fuzz", "http_sf"]):
    from tests.fuzz.targets import TARGETS

atheris.enabled_hooks.add("RegEx")
atheris.enabled_hooks.add("str")
target = TARGETS[sys.argv.pop(1)]
atheris.Setup(sys.argv, target)
atheris.Fuzz()
