"""The suite finds what is known to be wrong: run as a command against servers that others wrote.

Rule of this file: each gap that is named here was seen in the source of that version. A suite that finds none of them,
or finds fault with everything, is not to be trusted about our own server either.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import peers, report
from tests.conformance.peers import TUS_NODE, TUSD, Peer
from tests.conformance.rules import BY_ID, DRAFT, RULES
from tests.support.process import environment
from tests.support.waiting import scaled

ROOT = Path(__file__).parents[2]

TUSD_GAPS = {
    "S6": "HEAD is not checked for its version, and 412 comes without Tus-Version",
    "S9": "the method is overridden only on POST",
    "S16": "another Content-Type is 400",
    "S36": "the metadata is written anew, in another order",
    "S77": "relative URLs in Upload-Concat come back absolute",
}
TUSD_DRAFT_GAPS = {
    "R7": "the length that a last append tells is not kept",
    "R8": "an upload is complete when its last byte comes",
    "R24": "a creation is answered without Upload-Complete",
    "R26": "and so is one that breaks off behind its last byte",
    "R30": "409 comes without Upload-Offset",
    "R32": "an append that does not complete the upload is 204, where it has to be 201",
    "R33": "in version 6, an append to a complete upload is no error",
    "R34": "what goes beyond the length is no error",
}
TUSD_DRAFT_KEEPS = {
    "R1",
    "R2",
    "R4",
    "R10",
    "R11",
    "R17",
    "R18",
    "R23",
    "R27",
    "R28",
    "R37",
    "R39",
    "R40",
    "R42",
    "R51",
}
TUSD_DRAFT_LACKS = {"R15", "R35", "R36"}
TUSD_KEEPS = {"S1", "S10", "S17", "S18", "S19", "S22", "S27", "S31", "S39", "S45", "S63", "S67", "S68", "S73", "S74"}
TUSD_LACKS = {"S48", "S54", "S57", "S60"}

NODE_GAPS = {
    "S6": "another version is 400",
    "S9": "there is no X-HTTP-Method-Override",
    "S16": "another Content-Type is 400, none is 403",
    "S36": "the metadata is taken as text",
    "S48": "an error does not tell Upload-Expires",
}
NODE_KEEPS = {"S1", "S10", "S17", "S18", "S19", "S27", "S31", "S39", "S45", "S63"}
NODE_LACKS = {"S54", "S57", "S60", "S65", "S67", "S73"}
DRAFT_RULES = {rule.id for rule in RULES if rule.protocol == DRAFT and rule.unseen is None}
"""@tus/server does not know the draft."""


@pytest.mark.parametrize(
    ("peer", "gaps", "keeps", "lacks"),
    [
        (TUSD, TUSD_GAPS | TUSD_DRAFT_GAPS, TUSD_KEEPS | TUSD_DRAFT_KEEPS, TUSD_LACKS | TUSD_DRAFT_LACKS),
        (TUS_NODE, NODE_GAPS, NODE_KEEPS, NODE_LACKS | DRAFT_RULES),
    ],
    ids=["tusd", "tus-node-server"],
)
@pytest.mark.timeout(500)
def test_known_gaps_come_out_as_broken(
    peer: Peer, gaps: dict[str, str], keeps: set[str], lacks: set[str], tmp_path: Path
) -> None:
    if reason := peer.missing():
        pytest.skip(reason)
    file = tmp_path / "report.json"
    with peer.running(tmp_path / "peer") as url:
        command = [sys.executable, "-m", "pytest", "tests/conformance", "--server", url, "--report", str(file)]
        run = subprocess.run(
            [*command, "-q", "-n0", "-p", "no:cacheprovider"],
            cwd=ROOT,
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=scaled(450),
            check=False,
        )
    assert run.returncode == 1, f"{run.stdout}\n{run.stderr}"
    found = {entry["id"]: entry["outcome"] for entry in json.loads(file.read_text())["rules"]}
    assert set(found) == set(BY_ID)
    assert {name: found[name] for name in gaps} == dict.fromkeys(gaps, report.BROKEN), run.stdout
    assert {name: found[name] for name in keeps} == dict.fromkeys(keeps, report.KEPT), run.stdout
    assert {name: found[name] for name in lacks} == dict.fromkeys(lacks, report.NOT_OFFERED), run.stdout


def test_a_peer_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "MODULES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TUSD", raising=False)
    assert TUSD.missing() == "tusd is not installed"
    assert TUS_NODE.missing() == "node is not installed"
