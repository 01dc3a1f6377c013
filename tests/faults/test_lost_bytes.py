"""What the server finds at its start when somebody, or something, was at its folder (upkeep)."""

import random

import pytest
from tests.conftest import StartServer
from tests.support.speaker import GRANULE, Speaker, digest, missing


@pytest.mark.parametrize("how", ["truncated", "removed"])
@pytest.mark.rule("T-LOST-1", "P-STATE-2")
def test_an_upload_whose_bytes_are_gone_says_so(start_server: StartServer, rng: random.Random, how: str) -> None:
    """An acknowledged byte that is gone from the disk is never passed over: the upload has failed."""
    data = rng.randbytes(8 * GRANULE)
    server = start_server()
    with Speaker(server.url) as speaker:
        upload, other = speaker.create(len(data)), speaker.create(len(data))
        for url in (upload, other):
            assert speaker.chunk(url, 4 * GRANULE, data[4 * GRANULE :]).status == 204
    server.kill()
    path = server.data / "incoming" / upload.rsplit("/", 1)[-1]
    if how == "removed":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.truncate(6 * GRANULE)
    server.start()
    with Speaker(server.url) as speaker:
        assert speaker.head(upload).get("upload-state") == "failed"
        assert speaker.chunk(upload, 0, data[:GRANULE]).verdict == (409, "data-lost")
        assert speaker.delete(upload).status == 204
        assert missing(speaker.head(other)) == [(0, 4 * GRANULE)]


@pytest.mark.rule("T-DELETE-1")
def test_orphans_are_collected(start_server: StartServer, rng: random.Random) -> None:
    """Bytes that the catalog knows nothing of are removed at the start; what is not ours is left alone."""
    data = rng.randbytes(3 * GRANULE)
    server = start_server()
    with Speaker(server.url) as speaker:
        upload = speaker.create(len(data), parallel=False)
        assert speaker.patch(upload, 0, data).status == 204
    server.kill()
    orphan, ghost = server.data / "incoming" / ("0" * 32), server.data / "files" / ("1" * 32 + "-ghost.bin")
    theirs = server.data / "files" / "notes.txt"
    for path in (orphan, ghost, theirs):
        path.write_bytes(b"left over")
    server.start()
    with Speaker(server.url) as speaker:
        assert digest(speaker.get(upload).body) == digest(data)
    assert not orphan.exists()
    assert not ghost.exists()
    assert theirs.exists()
