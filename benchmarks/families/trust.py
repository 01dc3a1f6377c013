"""What it costs to be asked who one is: one stream and small files, with nobody asking, a token, a JWT.

Rule of this file: all rows are of this server, with the same load; only a line of the heads and the settings differ.
What is compared with is the row where nobody asks.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from benchmarks.families.small import BYTES, CLIENTS, SECONDS, WAYS
from benchmarks.harness import Bench, check_stored, load
from benchmarks.peers import Peer, holdfast
from benchmarks.processes import running
from benchmarks.report import MEMORY, Measure, Report, Sample, Table, cpu, rate
from benchmarks.units import MIB, size_text
from holdfast_server import Principal
from holdfast_server.auth import SCOPES
from holdfast_server.auth.tokens import made

NOBODY: Final = "nobody asks"
AGAIN: Final = "nobody asks, again"
STREAM: Final = "1 stream"
TIMES: Final = 3
"""So often each is measured in a round: a quarter of a second says little."""
MEASURES: Final[tuple[Measure, ...]] = (rate("units/s", 1), cpu("s/1,000 units", 1000), MEMORY)
NOTE: Final = (
    f"Units are MiB of one stream in one PATCH, and files of {size_text(BYTES)} from {CLIENTS} clients. Every request "
    "brings its credential, and the server looks at each: the hash of a token, or a JWT that was verified and is "
    "remembered. The second row is the first one once more: what they differ by says nothing. "
    f"{TIMES} times a round. On a tmpfs where there is one. The load runs on the same cores."
)


@dataclass(frozen=True)
class Row:
    """A server, and the line that goes with every request."""

    peer: Peer
    common: tuple[str, ...] = ()


def rows(folder: Path) -> dict[str, Row]:
    """The servers, whose files of credentials are in a folder."""
    _, token, table = made(Principal("alice", SCOPES), bytes(36))
    (folder / "tokens.toml").write_text(table)
    key = ECKey.generate_key("P-256", {"kid": "one"}, private=True)
    (folder / "jwks.json").write_text(json.dumps(KeySet([key]).as_dict(private=False)))
    claims = {"iss": "id", "aud": "files", "sub": "alice", "exp": time.time() + 86400, "scope": " ".join(SCOPES)}
    signed = jwt.encode({"alg": "ES256", "kid": "one"}, claims, key)
    ours = holdfast("os", digest=True)
    where = ("--jwt-keys", str(folder / "jwks.json"), "--jwt-issuer", "id", "--jwt-audience", "files")
    return {
        NOBODY: Row(ours),
        AGAIN: Row(ours),
        "token": Row(ours.with_options("--tokens", str(folder / "tokens.toml")), (f"Authorization: Bearer {token}",)),
        "JWT": Row(ours.with_options(*where), (f"Authorization: Bearer {signed}",)),
    }


def run(bench: Bench) -> Report:
    report = Report("trust", "Asking who it is", NOTE)
    folder = bench.memory or bench.folder
    there = rows(bench.folder)
    table = Table("trust", "What credentials cost", MEASURES, base=NOBODY, facts={}, fact_titles=())
    report.tables.append(table)
    size = bench.size - bench.size % MIB
    source = str(bench.source(size))
    for _, name in bench.turns(list(there)):
        row = there[name]
        if not bench.wanted(table, STREAM, name):
            continue
        with bench.attempt(table, STREAM, name) as samples, running(row.peer, folder) as server:
            common: dict[str, Any] = {"collection": "/files", "common": row.common, "fields": row.peer.fields}
            small: dict[str, list[Sample]] = {way: [] for way in WAYS}
            streams: list[Sample] = []
            most = max(2 * CLIENTS, bench.size // (128 * 1024))
            for _ in range(TIMES):
                for way, found in small.items():
                    job: dict[str, Any] = {"way": way, "size": BYTES, "clients": CLIENTS, "most": most}
                    result, sample = load(server, "files", **common, **job, limit=2 * SECONDS)
                    found.append(replace(sample, work=result["files"]))
                _, stream = load(server, "streams", writes=size, **common, source=source, size=size, count=1, piece=0)
                streams.append(replace(stream, work=size / MIB))
            check_stored(server.data, int(sum(each.work for found in small.values() for each in found)), BYTES)
            check_stored(server.data, TIMES, size)
            for way, words in WAYS.items():
                table.of(words, name).extend(small[way])
            samples += streams
    return report
