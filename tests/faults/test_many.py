"""Ten thousand files, or bytes without end: the client's memory does not grow with them (promise 6).

By default with fewer: `--small-files 10000` and `--stream-size 10240` are the real numbers.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.process import ServerProcess, environment
from tests.support.waiting import scaled

MIB = 1 << 20
SMALL = 10 * 1024
LARGE_FOR_EACH = 215_000
"""Bytes of the large file for each small one: 2 GiB for 10,000."""
SECONDS_FOR_EACH = 0.03
"""For each small file; the large one is held to a rate that makes it last as long, beside them."""

QUEUE = """
import json, re, sys
import anyio
import holdfast

def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

async def main():
    url, state, large, rate, *small = sys.argv[1:]
    ends, looks = [], []
    async with holdfast.AsyncClient(state=state) as client:
        client.queue.on_end(lambda transfer: (ends.append(transfer.name), looks.append(memory("VmRSS"))))
        client.upload(large, url, limit_rate=float(rate))
        for name in small:
            client.upload(name, url)
        summary = await client.queue.join()
    print(json.dumps({
        "before": ends.index(large), "looks": looks, "completed": summary.completed, "total": summary.total,
        "size": summary.size, "accepted": summary.accepted, "fraction": summary.fraction,
    }))

anyio.run(main)
"""

STREAM = """
import re, sys
from holdfast.cli import main
status = main(standalone_mode=False)
print("peak", re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(status or 0)
"""


def test_small_files_are_not_starved_by_a_large_one_and_memory_stays(
    server: ServerProcess, tmp_path: Path, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    """The large one came first and is not yet done when a good part of the small ones are; all end in one summary."""
    count: int = request.config.getoption("small_files")
    folder = tmp_path / "files"
    folder.mkdir()
    names = [folder / f"{number:05}.bin" for number in range(count)]
    for name in names:
        name.write_bytes(rng.randbytes(SMALL))
    large = folder / "large.bin"
    block = rng.randbytes(MIB)
    with large.open("wb") as file:
        for _ in range(max(1, count * LARGE_FOR_EACH // MIB)):
            file.write(block)
    size = large.stat().st_size
    rate = size / max(5.0, count * SECONDS_FOR_EACH)
    words = [sys.executable, "-c", QUEUE, f"{server.url}/files", str(tmp_path / "state"), str(large), str(rate)]
    told = subprocess.run(
        [*words, *map(str, names)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=scaled(30 + count * 0.2),
        check=False,
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["completed"] == found["total"] == count + 1
    assert found["size"] == found["accepted"] == count * SMALL + size
    assert found["fraction"] == 1.0
    assert found["before"] >= count // 10
    looks = found["looks"]
    settled = max(looks[: count // 3])
    assert max(looks[count // 3 :]) <= settled + 24 * MIB
    print(
        f"{count} files of 10 KiB beside one of {size / MIB:.0f} MiB: {found['before']} ended before it;"
        f" memory {settled / MIB:.1f} MiB after a third, {max(looks) / MIB:.1f} MiB at most"
    )


def test_a_stream_of_any_length_fits_into_the_same_memory(
    server: ServerProcess, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A pipe into `holdfast upload -`: the peak of its memory is below 120 MiB, whatever comes."""
    size: int = request.config.getoption("stream_size") * MIB
    words = [sys.executable, "-c", STREAM, "upload", "-", "--to", f"{server.url}/files", "--json"]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path)
    )
    assert process.stdin is not None
    try:
        for number in range(size // MIB):
            process.stdin.write(number.to_bytes(8, "big") * (MIB // 8))
        out, errors = process.communicate(timeout=scaled(60 + size / (20 * MIB)))
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    done = json.loads(out.splitlines()[-2])
    assert (done["event"], done["size"], done["bytes_resent"]) == ("done", size, 0)
    peak = int(errors.split()[-1]) * 1024
    assert peak < 120 * MIB
    print(f"a stream of {size / MIB:.0f} MiB: {peak / MIB:.1f} MiB at most, in {done['seconds']} s")
