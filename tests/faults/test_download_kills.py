"""`kill -9` of the client in the middle of a download, again and again.

--download-kills N     how often it is killed (8 if not given)
--download-size SIZE   MiB of the file (96)

Rule of this file: what came twice is counted on both sides: by the client, in the file that outlives it, and by a proxy
before the server, which counts what only ever came into a socket, too.
"""

import hashlib
import json
import random
import time
from pathlib import Path
from typing import Final

import pytest
from tests.support.nginx import Nginx
from tests.support.process import CommandLine
from tests.support.proxy import Proxy

MIB = 1024 * 1024
IN_HAND: Final = 1 * MIB
"""What a kill may cost of what the client has taken from its sockets: what its threads were writing."""
IN_THE_AIR: Final = 48 * MIB
"""What it may cost in all: the kernel takes some MiB for each of eight connections that nobody has read."""


def test_each_run_goes_on(
    tmp_path: Path, holdfast_command: CommandLine, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    """Killed at random moments it is whole in the end, and hardly anything was fetched twice."""
    kills, size = request.config.getoption("download_kills"), request.config.getoption("download_size") * MIB
    target = tmp_path / "copy"
    with Nginx(tmp_path / "nginx") as nginx:
        served = nginx.root / "file"
        sha = hashlib.sha256()
        with served.open("wb") as file:
            for _ in range(size // MIB):
                block = rng.randbytes(MIB)
                sha.update(block)
                file.write(block)
        with Proxy(nginx.url) as proxy:
            command = ["download", f"{proxy.url}/file", "-o", str(target), "--quiet"]
            # So fast that about as many runs as there are to be kills bring all of it.
            command += ["--limit-rate", f"{max(1024, size // 1024 // max(1, kills))}K"]
            killed, empty = 0, 0
            while killed < kills:
                with holdfast_command.started(*command) as process:
                    time.sleep(rng.uniform(0.2, 1.6))
                    if process.poll() is not None:
                        assert process.returncode == 0, (holdfast_command.home / "output.txt").read_text()
                        break
                    process.kill()
                    process.wait()
                killed += 1
                part = target.with_name("copy.part")
                empty += not part.exists()
                assert not target.exists()
            received = size
            if not target.exists():
                checksum = f"sha-256={sha.hexdigest()}"
                done = holdfast_command.run(*command[:4], "--checksum", checksum, "--json", within=120)
                assert done.returncode == 0, done.stderr
                received = json.loads(done.stdout.splitlines()[-2])["bytes_received"]
            came = proxy.down
    found = hashlib.sha256()
    with target.open("rb") as file:
        while block := file.read(MIB):
            found.update(block)
    assert found.hexdigest() == sha.hexdigest()
    assert target.stat().st_size == size
    again = received - size
    print(
        f"{killed} kills of {size // MIB} MiB, {empty} before the first byte: {again / MIB:.2f} MiB were received"
        f" twice, and {(came - size) / MIB:.0f} MiB sent twice"
    )
    assert again <= (killed + 8) * IN_HAND
    assert came - size <= (killed + 1) * IN_THE_AIR
