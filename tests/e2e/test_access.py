"""Uploads of others are not there: every method, dialect and path, for every kind of stranger.

The application runs under a plain uvicorn in a thread, and as `holdfast serve` with two workers, where connections to
both of them take turns; a callable is its authority. What the other authorities do, their own tests show.
"""

import base64
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope
from tests.e2e.test_embedding import served
from tests.support.people import ALL, PEOPLE, authority
from tests.support.process import ServerProcess
from tests.support.speaker import CHUNK, TUS, TUS_BODY, Speaker, chunk_fields
from tests.support.wire import Answer, Connection, Fields

from holdfast_server import Settings, create_app
from holdfast_server.auth import SCOPES, Principal, Scope
from holdfast_server.catalog.sqlite import SqliteCatalog
from holdfast_server.storage.local import LocalStorage

DRAFT = {"Upload-Draft-Interop-Version": "8"}
IN_A_REQUEST: ContextVar[bool] = ContextVar("IN_A_REQUEST", default=False)
"""Not so in what the server does by itself, beside requests."""
NEVER = "0123456789abcdef" * 2


class Caller(Speaker):
    """Speaks with a token; "" for none."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url)
        self.fields = {"Authorization": f"Bearer {token}"} if token else {}

    def request(self, method: str, target: str, fields: Fields = (), body: bytes | None = None) -> Answer:
        return super().request(method, target, [*dict(fields).items(), *self.fields.items()], body)


@pytest.fixture(scope="module", params=["in a thread", "two workers"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "in a thread":
        yield request.getfixturevalue("url_here")
        return
    options = ("--authority", "tests.support.people:authority")
    with ServerProcess(tmp_path_factory.mktemp("access") / "data", *options, workers=2) as process:
        yield process.url


@pytest.fixture(scope="module")
def url_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of an application in this process, so that what it does can be seen."""
    app = create_app(Settings(tmp_path_factory.mktemp("access") / "data"), authority)

    async def marked(scope: ASGIScope, receive: Receive, send: Send) -> None:
        IN_A_REQUEST.set(scope["type"] == "http")
        await app(scope, receive, send)

    with served(marked, "httptools") as found:
        yield found


@contextmanager
def callers(url: str, *tokens: str) -> Iterator[list[Caller]]:
    found = [Caller(url, token) for token in tokens]
    try:
        yield found
    finally:
        for each in found:
            each.close()


REQUESTS: list[tuple[str, str, dict[str, str], bytes | None]] = [
    ("HEAD", "/files/{id}", TUS, None),
    ("HEAD", "/files/{id}", DRAFT, None),
    ("GET", "/files/{id}", {}, None),
    ("GET", "/files/{id}", {"Range": "bytes=0-1"}, None),
    ("GET", "/files/{id}", {"Upload-Draft-Interop-Version": "9"}, None),
    ("PATCH", "/files/{id}", {**TUS_BODY, "Upload-Offset": "0"}, b"x"),
    ("PATCH", "/files/{id}", {**TUS_BODY, "Upload-Offset": "10"}, b""),
    ("PATCH", "/files/{id}", chunk_fields(0, b"0123456789"), b"0123456789"),
    ("PATCH", "/files/{id}", {"Content-Type": CHUNK, "Upload-Offset": "0", "Upload-Hole": "10"}, b""),
    ("PATCH", "/files/{id}", {"Content-Type": CHUNK, "Upload-Complete": "?1"}, b""),
    (
        "PATCH",
        "/files/{id}",
        {**DRAFT, "Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?1"},
        b"0123456789",
    ),
    ("POST", "/files/{id}", {**TUS, "X-HTTP-Method-Override": "DELETE"}, b""),
    ("DELETE", "/files/{id}", TUS, None),
    ("DELETE", "/files/{id}", DRAFT, None),
    ("GET", "/api/uploads/{id}", {}, None),
    ("HEAD", "/api/uploads/{id}", {}, None),
    ("GET", "/api/uploads/{id}?after=0&limit=5", {}, None),
    ("GET", "/api/uploads/{id}/history", {}, None),
]


def seen(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    return answer.status, [field for field in answer.fields if field[0] != "date"], answer.body


@pytest.mark.rule("A-OWNER-1", "A-SCOPE-1")
@pytest.mark.parametrize("state", ["empty", "begun", "complete", "removed"])
def test_the_upload_of_another_is_as_one_that_never_was(url: str, state: str) -> None:
    """Status, every field but the date, and body are those of an id that was never given; nothing changes."""
    with callers(url, "alice", "bob") as (alice, bob):
        upload = alice.create(10, parallel=state == "begun", Upload_Metadata="filename c2VjcmV0")
        if state == "begun":
            assert alice.patch(upload, 0, b"012").status == 204
        elif state == "complete":
            assert alice.patch(upload, 0, b"0123456789").status == 204
        elif state == "removed":
            assert alice.delete(upload).status == 204
        before = seen(alice.head(upload))
        known = upload.rsplit("/", 1)[1]
        for method, target, fields, body in REQUESTS:
            answers = [bob.request(method, target.format(id=each), fields, body) for each in (known, NEVER)]
            assert seen(answers[0]) == seen(answers[1]), (method, target, fields)
            assert answers[0].status == 404, (method, target, fields)
        assert seen(alice.head(upload)) == before


@pytest.mark.rule("A-OWNER-1")
def test_lists_have_what_one_may_see(url: str) -> None:
    with callers(url, "alice", "bob", "carol", "root") as (alice, bob, carol, root):
        mine = alice.create(3)
        shared = carol.create(3)
        assert shared.split("/")[-1] in listed(alice)
        assert mine.split("/")[-1] in listed(alice)
        assert mine.split("/")[-1] not in listed(carol)
        assert {mine.split("/")[-1], shared.split("/")[-1]}.isdisjoint(listed(bob))
        assert {mine.split("/")[-1], shared.split("/")[-1]} <= set(listed(root))
        assert alice.head(shared).status == 200
        assert alice.status(shared)["project"] == "films"
        assert root.status(mine)["owner"] == "alice"


def listed(caller: Caller) -> list[str]:
    found: list[str] = []
    query = "?limit=1000"
    while True:
        page: Any = caller.request("GET", "/api/uploads" + query).json()
        found += [upload["id"] for upload in page["uploads"]]
        if page["next"] is None:
            return found
        query = f"?limit=1000&before={page['next']}"


@pytest.mark.rule("A-OWNER-1", "T-CONCAT-3")
def test_a_part_of_another_is_none(url: str) -> None:
    with callers(url, "alice", "bob") as (alice, bob):
        part = alice.create(3, parallel=False, Upload_Concat="partial")
        assert alice.patch(part, 0, b"abc").status == 204
        paths = [part.removeprefix(url), f"/files/{NEVER}"]
        answers = [bob.post(None, Upload_Concat=f"final;{path}") for path in paths]
        assert [answer.status for answer in answers] == [400, 400]
        texts = [
            answer.body.decode().replace(path.split("/")[-1], "ID") for answer, path in zip(answers, paths, strict=True)
        ]
        assert texts[0] == texts[1]
        assert alice.post(None, Upload_Concat=f"final;{paths[0]}").status == 201


@pytest.mark.rule("A-PROJECT-1")
def test_an_upload_goes_into_a_project_of_ones_own(url: str) -> None:
    with callers(url, "alice", "bob") as (alice, bob):
        fields = {**TUS, "Upload-Length": "3"}
        created = alice.request("POST", "/files?project=films", fields, b"")
        assert created.status == 201
        assert alice.status(created["location"])["project"] == "films"
        for draft in ({}, {**DRAFT, "Upload-Complete": "?0"}):
            refused = [bob.request("POST", f"/files?project={p}", {**fields, **draft}, b"") for p in ("films", "none")]
            assert [answer.json()["code"] for answer in refused] == ["not-permitted", "not-permitted"]
            assert refused[0].body == refused[1].body
        assert bob.request("POST", "/files?project=a&project=b", fields, b"").json()["code"] == "malformed-field"
        secret = base64.b64encode(b"films").decode()
        climbing = bob.post(3, Upload_Metadata=f"project {secret},owner {base64.b64encode(b'alice').decode()}")
        state = bob.status(climbing["location"])
        assert (state["owner"], state["project"]) == ("bob", None)


@pytest.mark.rule("A-HEAD-1", "A-OPEN-1")
def test_without_a_credential_nothing_but_what_is_for_all(url: str) -> None:
    with callers(url, "", "wrong", "alice") as (nobody, wrong, alice):
        upload = alice.create(10).rsplit("/", 1)[1]
        for caller in (nobody, wrong):
            for method, target, fields, body in [*REQUESTS, ("POST", "/files", {**TUS, "Upload-Length": "1"}, b"")]:
                for known in (upload, NEVER):
                    answer = caller.request(method, target.format(id=known), fields, body)
                    assert answer.status == 401, (method, target)
                    assert answer["www-authenticate"].startswith("Bearer")
                    if method == "HEAD":
                        assert answer["upload-problem"].startswith('unauthenticated;detail="Say who you are')
                    else:
                        assert answer.json()["code"] == "unauthenticated"
                        assert not answer.all("upload-problem")
            assert caller.request("GET", "/nowhere").status == 401
            assert caller.request("OPTIONS", "/files").status == 204
            assert caller.request("OPTIONS", f"/files/{upload}").status == 204
            assert caller.request("GET", "/health/ready").status == 200
            assert caller.request("GET", "/health/live").status == 200


@pytest.mark.rule("A-HEAD-1")
def test_the_body_is_not_waited_for(url: str) -> None:
    """The answer comes on the head, whatever the head says of a body."""
    with Connection(url) as connection:
        connection.begin("PATCH", f"/files/{NEVER}", {**TUS_BODY, "Upload-Offset": "0", "Content-Length": "1000000"})
        assert connection.read().status == 401


@pytest.mark.rule("A-SCOPE-1")
def test_what_a_scope_is_needed_for(tmp_path: Path, rng: random.Random) -> None:
    """Each scope alone, against every request; what is missing is said in words, and is the same for every id."""
    needs: dict[str, set[Scope]] = {
        "HEAD": {"read", "write", "watch"}, "GET": {"read"}, "PATCH": {"write"}, "DELETE": {"delete"},
    }  # fmt: skip
    people = {scope: Principal("alice", frozenset({scope})) for scope in SCOPES - {"operate"}} | {
        "all": PEOPLE["alice"]
    }
    app = create_app(tmp_path / "data", lambda request: people.get(request.token or ""))
    with served(app, "httptools") as url, callers(url, "all", *sorted(ALL)) as (alice, *others):
        upload = alice.create(10).rsplit("/", 1)[1]
        for scope, caller in zip(sorted(ALL), others, strict=True):
            for method, target, fields, body in REQUESTS:
                if "Override" in str(fields):
                    continue
                needed = needs["HEAD" if target.startswith("/api") else method]
                statuses = {}
                for known in (upload, NEVER):
                    if scope in needed and method in ("PATCH", "DELETE") and known == upload:
                        continue
                    answer = caller.request(method, target.format(id=known), fields, body)
                    statuses[known] = answer.status
                    if scope not in needed and method != "HEAD":
                        assert answer.json()["code"] == "missing-scope"
                        assert set(answer.json()["scopes"]) == needed
                assert (set(statuses.values()) == {403}) == (scope not in needed), (scope, method, target, statuses)
            created = caller.request("POST", "/files", {**TUS, "Upload-Length": "3"}, b"").status
            assert created == (201 if scope == "create" else 403)
            with_body = caller.request("POST", "/files", {**TUS_BODY, "Upload-Length": "3"}, b"abc")
            assert with_body.status == 403
            assert caller.request("GET", "/api/uploads").status == (200 if scope in ("read", "watch") else 403)
        assert alice.request("POST", "/files", {**TUS_BODY, "Upload-Length": "3"}, b"abc").status == 201


@pytest.mark.rule("A-OWNER-1", "L-RIGHT-1")
@pytest.mark.parametrize("state", ["begun", "complete"])
def test_no_more_work_is_done_for_anothers_than_for_none(
    url_here: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So there is nothing to be told by time: the same questions to the catalog, none of them for all that it has of an
    upload, and none to the storage."""
    with callers(url_here, "alice", "bob") as (alice, bob):
        upload = alice.create(10, parallel=False)
        assert alice.patch(upload, 0, b"012" if state == "begun" else b"0123456789").status == 204
        known = upload.rsplit("/", 1)[1]
        work: list[str] = []
        for owner in (SqliteCatalog, LocalStorage):
            for name, function in inspect.getmembers(owner, inspect.isfunction):
                if not name.startswith("_") and name != "changed":
                    monkeypatch.setattr(owner, name, counting(work, f"{owner.__name__}.{name}", function))
        for method, target, fields, body in [*REQUESTS, ("GET", "/api/events?topic=upload:{id}", {}, None)]:
            counts = []
            for each in (known, NEVER):
                work.clear()
                assert bob.request(method, target.format(id=each), fields, body).status == 404
                counts.append([*work])
            assert counts[0] == counts[1], (method, target, fields)
            assert set(counts[0]) <= {"SqliteCatalog.whose"}


def counting(work: list[str], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **named: Any) -> Any:
        if IN_A_REQUEST.get():
            work.append(name)
        return method(*args, **named)

    return counted
