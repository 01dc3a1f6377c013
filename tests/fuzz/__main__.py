"""`make fuzz`: lets atheris look for inputs that no input of the corpus is like, and keeps those that bring it further.

Rule of this file: each target runs in a process of its own, for a bounded time. An input that breaks one is added to
the corpus, so that the tests fail until it is mended; the status is 1 then.
"""

import argparse
import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

from tests.fuzz import corpus_file, coverage
from tests.fuzz.seeds import SEEDS, WORDS
from tests.fuzz.targets import TARGETS

WORK: Final = Path(".cache/fuzz")
LONGEST: Final = 600
"""Bytes of an input: what is behind that repeats what is before."""


def fuzz(target: str, seconds: int) -> int:
    """How many inputs break it."""
    folder = WORK / target
    found, broken, words = folder / "found", folder / "broken", folder / "words"
    for each in (found, broken):
        each.mkdir(parents=True, exist_ok=True)
    for old in broken.iterdir():
        old.unlink()
    words.write_text("".join(f"{json.dumps(word)}\n" for word in WORDS).replace("\\r\\n", "\\x0d\\x0a"), "ascii")
    for data in (*SEEDS[target], *corpus_file.read(target)):
        (found / sha256(data).hexdigest()[:40]).write_bytes(data)
    run = [sys.executable, "-m", "tests.fuzz.atheris_run", target, f"-max_len={LONGEST}", "-verbosity=0"]
    run += [f"-dict={words}", f"-artifact_prefix={broken}/", "-timeout=20", "-rss_limit_mb=1024"]
    print(f"{target}: {seconds} s", flush=True)
    ended = subprocess.run([*run, f"-max_total_time={seconds}", "-print_final_stats=1", str(found)], check=False)
    crashes = {path.read_bytes() for path in broken.iterdir()}
    kept = coverage.least(target, {path.read_bytes() for path in found.iterdir()} - crashes) | crashes
    corpus_file.write(target, kept)
    print(f"{target}: {len(kept)} inputs kept, {len(crashes)} that break it", flush=True)
    return len(crashes) or int(ended.returncode not in (0, 77) and not crashes)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"some of {', '.join(TARGETS)}; all if not given")
    parser.add_argument("--seconds", type=int, default=20, help="for each target (20)")
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(TARGETS)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    return 1 if sum(fuzz(target, asked.seconds) for target in asked.targets or TARGETS) else 0


if __name__ == "__main__":
    sys.exit(main())
