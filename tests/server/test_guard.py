"""The guard and the proxies before it, by hand-made scopes."""

from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from holdfast_protocol.problem import ProblemError
from holdfast_server.auth import SCOPES, Principal, Request
from holdfast_server.http.guard import Guard, principal_of
from holdfast_server.http.hosts import Hosts
from holdfast_server.http.proxies import Proxies, forwarded_host, networks

pytestmark = pytest.mark.anyio


def scope(kind: str = "http", client: tuple[str, int] | None = ("192.0.2.9", 5), **fields: str) -> Scope:
    head = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in fields.items()]
    found: Scope = {"type": kind, "path": "/api/live", "query_string": b"", "headers": head, "client": client}
    found.update({"method": "GET", "scheme": "http"} if kind == "http" else {"scheme": "ws", "subprotocols": []})
    return found


class Inner:
    """The application behind."""

    def __init__(self) -> None:
        self.seen: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)


async def never() -> Message:
    raise AssertionError("nothing of the body is read")


async def pass_through(app: Any, request: Scope) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(request, never, send)
    return sent


def known(request: Request) -> Principal | None:
    return Principal(request.token, SCOPES) if request.token == "good" else None


@pytest.mark.rule("A-HEAD-1", "A-HEAD-3")
async def test_a_websocket_needs_a_credential_too() -> None:
    inner = Inner()
    guard = Guard(inner, known)
    bare = await pass_through(guard, scope("websocket"))
    assert [message["type"] for message in bare] == ["websocket.close"]
    able = {**scope("websocket"), "extensions": {"websocket.http.response": {}}}
    start, body = await pass_through(guard, able)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert body["type"] == "websocket.http.response.body"
    assert b"unauthenticated" in body["body"]
    assert not inner.seen
    await pass_through(guard, scope("websocket", authorization="Bearer good"))
    await pass_through(guard, {**scope("websocket"), "subprotocols": ["holdfast", "bearer.good"]})
    assert [principal_of(each).owner for each in inner.seen] == ["good", "good"]
    assert await pass_through(guard, {**scope("websocket"), "subprotocols": ["bearer.bad"]})


@pytest.mark.rule("A-ORIGIN-1")
@pytest.mark.parametrize("authority", [None, known])
async def test_a_page_of_another_origin_opens_no_websocket(authority: Any) -> None:
    inner = Inner()
    guard = Guard(inner, authority, ("https://app.example",), Hosts(("files.example",)))
    token: dict[str, Any] = {"authorization": "Bearer good", "host": "files.example"}
    for origin in ("https://evil.example", "null", "https://app.example.evil.example", "http://app.example"):
        (closed,) = await pass_through(guard, scope("websocket", origin=origin, **token))
        assert closed["type"] == "websocket.close"
    assert not inner.seen
    for origin in ("https://app.example", "https://files.example"):
        assert not await pass_through(guard, scope("websocket", origin=origin, **token))
    await pass_through(guard, scope("websocket", **token))
    assert len(inner.seen) == 3


@pytest.mark.rule("A-AGAIN-1")
async def test_the_authority_is_asked_again_after_a_second() -> None:
    now, asked = [0.0], []

    async def authority(request: Request) -> Principal | None:
        asked.append(request)
        return known(request)

    inner = Inner()
    await pass_through(Guard(inner, authority, monotonic=lambda: now[0]), scope(authorization="Bearer good"))
    confirm = principal_of(inner.seen[0]).confirm
    assert confirm is not None
    await confirm()
    assert len(asked) == 1
    now[0] = 1.0
    await confirm()
    assert len(asked) == 2


async def test_an_authority_may_answer_itself() -> None:
    def authority(request: Request) -> Principal | None:
        raise ProblemError("overloaded", "Later.")

    with pytest.raises(ProblemError, match="Later"):
        await pass_through(Guard(Inner(), authority), scope())


SAID = {
    "x_forwarded_for": "6.6.6.6, 203.0.113.5, 10.0.0.2",
    "x_forwarded_proto": "https",
    "x_forwarded_host": "evil.example, files.example",
}


@pytest.mark.rule("A-PROXY-1")
@pytest.mark.parametrize(
    ("client", "proxies", "believed"),
    [
        (("10.0.0.1", 1), ["10.0.0.0/8"], True),
        (("::ffff:10.0.0.1", 1), ["10.0.0.0/8"], True),
        (("2001:db8::1", 1), ["2001:db8::/32", "10.0.0.2"], True),
        (None, ["unix", "10.0.0.2"], True),
        (None, ["10.0.0.0/8"], False),
        (("192.0.2.1", 1), ["10.0.0.0/8", "unix"], False),
        (("127.0.0.1", 1), ["10.0.0.0/8"], False),
    ],
)
async def test_proxies_of_the_list_are_believed(
    client: tuple[str, int] | None, proxies: list[str], believed: bool
) -> None:
    inner = Inner()
    await pass_through(Proxies(inner, proxies), scope("http", client, **SAID))
    (found,) = inner.seen
    if believed:
        assert (found["client"][0], found["scheme"]) == ("203.0.113.5", "https")
        assert forwarded_host(found) == "files.example"
    else:
        assert (found["client"], found["scheme"]) == (client, "http")
        assert forwarded_host(found) is None


@pytest.mark.rule("A-PROXY-1")
@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.5:1234", "203.0.113.5"),
        ("[2001:db8::5]:80", "2001:db8::5"),
        ("nonsense", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("6.6.6.6, nonsense", "10.0.0.1"),
        ("10.9.9.9, 10.0.0.2", "10.9.9.9"),
    ],
)
async def test_what_is_no_address_is_not_believed(said: str, client: str) -> None:
    inner = Inner()
    await pass_through(Proxies(inner, ["10.0.0.0/8"]), scope(client=("10.0.0.1", 1), x_forwarded_for=said))
    assert inner.seen[0]["client"][0] == client


def test_a_list_that_is_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8"):
        networks(["proxy.example"])
