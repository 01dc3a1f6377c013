"""Quotas raced from many connections to two workers: they hold exactly, and no byte is counted that is not there.

Rule of this file: 50 clients ask for the same at the same moment; as many get it as the quota has room for, and after
everything is removed everything is free again.
"""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, TUS_BODY, Speaker
from tests.support.wire import Answer

from holdfast_server.auth import SCOPES, Principal
from holdfast_server.auth.tokens import made

CLIENTS = 50
SIZE = 1000


def race(server: ServerProcess, method: str, targets: list[str], fields: dict[str, str], body: bytes) -> list[Answer]:
    """One request of every client, all of them sent when all are connected."""
    ready = threading.Barrier(CLIENTS)

    def ask(target: str) -> Answer:
        with Speaker(server.url) as speaker:
            assert speaker.request("GET", "/health/live").status == 200
            ready.wait(60)
            return speaker.request(method, target, fields, body)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(ask, targets))


def verdicts(answers: list[Answer]) -> dict[Any, int]:
    return dict(Counter(answer.verdict for answer in answers))


def remove_all(server: ServerProcess) -> None:
    with Speaker(server.url) as speaker:
        while uploads := speaker.request("GET", "/api/uploads").json()["uploads"]:
            for upload in uploads:
                assert speaker.delete(upload["url"]).status == 204


CREATIONS = {
    "tus": ({**TUS, "Upload-Length": str(SIZE)}, b""),
    "parallel": ({**TUS, "Upload-Length": str(SIZE), "Upload-Parallel": "?1"}, b""),
    "draft": ({"Upload-Draft-Interop-Version": "9", "Upload-Complete": "?0", "Upload-Length": str(SIZE)}, b""),
    "in one piece": ({**TUS_BODY, "Upload-Length": str(SIZE)}, bytes(SIZE)),
}


@pytest.mark.rule("Q-RACE-1", "Q-BYTES-1")
def test_bytes_are_taken_once(start_server: StartServer, workers: int) -> None:
    server = start_server("--max-stored", str(20 * SIZE + SIZE - 1), workers=workers)
    for fields, body in CREATIONS.values():
        for _ in range(2):  # and again, when all was given back
            answers = race(server, "POST", ["/files"] * CLIENTS, fields, body)
            assert verdicts(answers) == {(201, None): 20, (507, "quota-exceeded"): CLIENTS - 20}
            problem = next(answer.json() for answer in answers if answer.status == 507)
            assert problem["limit"] == 20 * SIZE + SIZE - 1
            assert problem["needed"] == SIZE
            remove_all(server)
        assert not any((server.data / "files").iterdir())


@pytest.mark.rule("Q-RACE-1", "Q-UPLOADS-1")
def test_uploads_at_once_are_taken_once(start_server: StartServer, workers: int) -> None:
    server = start_server("--max-uploads", "10", workers=workers)
    answers = race(server, "POST", ["/files"] * CLIENTS, CREATIONS["tus"][0], b"")
    assert verdicts(answers) == {(201, None): 10, (429, "too-many-uploads"): CLIENTS - 10}
    assert {answer.get("retry-after") for answer in answers if answer.status == 429} == {"30"}
    with Speaker(server.url) as speaker:
        url = next(answer["location"] for answer in answers if answer.status == 201)
        assert speaker.patch(url, 0, bytes(SIZE)).status == 204  # complete: there is room for another one
        assert speaker.post(SIZE).status == 201
        assert speaker.post(SIZE).verdict == (429, "too-many-uploads")


@pytest.mark.rule("Q-RACE-1", "Q-BYTES-1")
def test_bytes_of_unknown_lengths_are_taken_once(start_server: StartServer) -> None:
    """Nobody has said how much will come: what is stored in the end is within the quota, and what was told is there."""
    server = start_server("--max-stored", str(20 * SIZE), workers=2)
    with Speaker(server.url) as speaker:
        made = [speaker.request("POST", "/files", {**TUS, "Upload-Defer-Length": "1"}, b"") for _ in range(CLIENTS)]
        urls = [answer["location"] for answer in made]
        answers = race(server, "PATCH", urls, {**TUS_BODY, "Upload-Offset": "0"}, bytes(SIZE))
        found = verdicts(answers)
        assert set(found) <= {(204, None), (507, "quota-exceeded")}
        assert found[204, None] <= 20
        stored = [speaker.head(url).offset for url in urls]
        assert sum(stored) <= 20 * SIZE
        assert all(offset == SIZE for offset, answer in zip(stored, answers, strict=True) if answer.status == 204)
        left = 20 * SIZE - sum(stored)
        assert speaker.post(left + 1).verdict == (507, "quota-exceeded")
        assert left == 0 or speaker.post(left).status == 201


@pytest.mark.rule("Q-RACE-1", "Q-BYTES-1", "Q-UPLOADS-1")
def test_each_owner_has_his_own(start_server: StartServer, tmp_path: Path) -> None:
    """By tokens, to two workers: what one takes, the other does not lose."""
    tokens, table = {}, ""
    for number, owner in enumerate(("alice", "bob")):
        _, tokens[owner], line = made(Principal(owner, SCOPES - {"operate"}), bytes([number]) * 36)
        table += line
    (tmp_path / "tokens.toml").write_text(table)
    options = ("--tokens", str(tmp_path / "tokens.toml"), "--owner-stored", str(10 * SIZE), "--owner-uploads", "8")
    server = start_server(*options, workers=2)
    for owner in ("alice", "bob"):
        fields = {**CREATIONS["tus"][0], "Authorization": f"Bearer {tokens[owner]}"}
        assert verdicts(race(server, "POST", ["/files"] * CLIENTS, fields, b"")) == {
            (201, None): 8,
            (429, "too-many-uploads"): CLIENTS - 8,
        }
        whole = {**CREATIONS["in one piece"][0], "Authorization": f"Bearer {tokens[owner]}", "Upload-Length": "2001"}
        with Speaker(server.url) as speaker:
            refused = speaker.request("POST", "/files", whole, bytes(2001))
        assert refused.verdict in ((507, "quota-exceeded"), (429, "too-many-uploads"))
