"""Slow clients by the hundred, or with `--slow-connections 4000` by the thousand: others go on, and the slow ones go.

Rule of this file: what others lose of their speed is measured by `make bench ONLY=slow`; here they only have to be
served while the slow ones are there. What a slow body had brought is kept when it is ended.
"""

import os
import time

import pytest
from tests.conftest import StartServer
from tests.support.slow import SlowClients
from tests.support.speaker import GRANULE, Speaker
from tests.support.waiting import eventually

MIB = 1 << 20


def serve_everybody(url: str) -> None:
    """One of everything that a client does."""
    data = os.urandom(3 * MIB)
    with Speaker(url) as speaker:
        assert speaker.request("GET", "/health/live").status == 200
        made = speaker.url + speaker.post(len(data))["location"]
        assert speaker.patch(made, 0, data).status == 204
        assert speaker.get(made).body == data
        chunks = speaker.create(2 * GRANULE)
        for offset in (GRANULE, 0):
            assert speaker.chunk(chunks, offset, data[offset : offset + GRANULE]).status == 204
        assert speaker.complete(chunks).status == 204
        small = speaker.post(100, body=data[:100], Content_Type="application/offset+octet-stream")
        assert small.status == 201
        assert speaker.get(small["location"]).body == data[:100]


@pytest.mark.rule("H-SLOW-1", "H-HEAD-2")
@pytest.mark.timeout(240)
def test_slow_clients_stop_nobody_and_are_let_go(
    start_server: StartServer, pytestconfig: pytest.Config, workers: int
) -> None:
    count = int(pytestconfig.getoption("slow_connections"))
    server = start_server("--stall-timeout", "6s", workers=workers)
    before = sum(server.private().values())
    with SlowClients(server.url, count // 2, count - count // 2) as slow:
        assert slow.open == count
        begun = time.monotonic()
        while time.monotonic() < begun + 4:
            serve_everybody(server.url)
        assert sum(server.private().values()) - before < 48 * MIB + count * 64 * 1024
        # A head has six seconds; a body too, at less than 128 bytes a second.
        eventually(lambda: slow.open == 0, within=60, every=0.1, what="the end of all slow connections")
        assert slow.ended["408"] > 0.9 * count, slow.ended
        with Speaker(server.url) as speaker:
            offsets = [speaker.head(url).offset for url in slow.uploads[:20]]
        assert all(1 <= offset <= 60 for offset in offsets), offsets
    serve_everybody(server.url)


@pytest.mark.rule("H-CONN-1")
def test_clients_with_few_connections_come_in_beside_those_with_many(start_server: StartServer) -> None:
    server = start_server("--max-connections", "400", "--client-connections", "any")
    with SlowClients(server.url, 1000, addresses=16) as slow:
        eventually(lambda: slow.open <= 400, within=30, every=0.05, what="the refusal of those that are too many")
        assert slow.open >= 300
        assert set(slow.ended) <= {"503", "closed"}
        serve_everybody(server.url)
