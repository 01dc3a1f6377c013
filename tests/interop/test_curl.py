"""The walk by hand of protocol.md, run as it stands there, with curl and openssl against a real server.

Rule of this file: the lines are taken from the page. Only the two addresses are put in: the server's, and
the one that the answer to the creation names.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.interop.clients import CURL
from tests.support.process import ServerProcess, environment
from tests.support.waiting import scaled

PROTOCOL = Path(__file__).parents[2] / "protocol.md"
TOOLS = ("bash", "curl", "openssl")

pytestmark = [
    pytest.mark.client(CURL),
    *(pytest.mark.skipif(not shutil.which(tool), reason=f"{tool} is not installed") for tool in TOOLS),
]


def lines_by_hand() -> str:
    """The `sh` block of the section "By hand"."""
    section = PROTOCOL.read_text().split("\n### By hand\n", 1)[1]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def run(script: str, folder: Path) -> str:
    """What bash prints for it. Nothing may appear on standard error, and the last line must succeed."""
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert result.stderr == ""
    return result.stdout


@pytest.mark.rule("P-CREATE-1", "P-CHUNK-4", "P-STATE-1", "P-COMPLETE-1", "D-GET-1")
def test_the_walk_by_hand_works_as_it_is_written(server: ServerProcess, tmp_path: Path) -> None:
    script = lines_by_hand()
    before, assignment, after = re.split(r"^(UPLOAD=.*\n)", script, maxsplit=1, flags=re.MULTILINE)
    assert re.fullmatch(r"UPLOAD=http://127\.0\.0\.1:8000/files/\.\.\.\n", assignment)
    before, addresses = re.subn(r"^URL=.*$", f"URL={server.url}/files", before, flags=re.MULTILINE)
    assert addresses == 1

    created = run(before, tmp_path)
    assert created.startswith("HTTP/1.1 201 ")
    location = re.search(r"^location: (\S+)", created, re.MULTILINE | re.IGNORECASE)
    assert location

    definitions = "".join(re.findall(r"^\w+\(\) \{.*\n", before, re.MULTILINE))
    walked = run(f"{definitions}UPLOAD={server.url}{location[1]}\n{after}", tmp_path)
    statuses = re.findall(r"^HTTP/1\.1 (\d{3})", walked, re.MULTILINE)
    assert statuses == ["204", "204", "200", "204", "204"]
    promised = re.search(r"-> (Upload-Missing: .*)$", after, re.MULTILINE)
    assert promised
    assert promised[1].lower() in walked.lower()
    assert walked.endswith("same\n")
