"""The modules of the page that know neither elements nor requests, in Node: tests/page/node.

Rule of this file: every file there is one test here.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.waiting import scaled

HERE = Path(__file__).parent / "node"


@pytest.mark.parametrize("file", sorted(file.name for file in HERE.iterdir()))
@pytest.mark.rule("V-MISSING-1", "V-META-1", "P-OFFER-1", "P-CHUNK-2", "C-MIX-3", "L-BACKOFF-1", "D-JSON-3")
def test_modules(file: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    result = subprocess.run(
        [node, "--test", "--test-reporter=tap", str(HERE / file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(100),
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
