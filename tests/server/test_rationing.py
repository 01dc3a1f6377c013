"""Requests and bytes a second: `holdfast_server.http.rationing`, by a clock that the tests move."""

from typing import Any

import pytest
from tests.server.test_pace import Clock

from holdfast_protocol.problem import ProblemError
from holdfast_server.http.answers import ARRIVED
from holdfast_server.http.pace import CHARGE
from holdfast_server.http.rationing import BURST, SWEEP, Buckets, Rationing


class Asked:
    """An application that counts the requests that come through to it."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)


async def ask(app: Rationing, client: str | None = "192.0.2.7", **more: Any) -> Any:
    scope = {"type": "http", "client": None if client is None else (client, 1), **more}
    await app(scope, None, None)  # type: ignore[arg-type]
    return scope


@pytest.mark.rule("H-RATE-1")
@pytest.mark.anyio
async def test_who_asks_too_often_is_refused_and_told_until_when() -> None:
    clock, asked = Clock(), Asked()
    app = Rationing(asked, 10, None, clock)
    for _ in range(int(10 * BURST)):
        await ask(app)
    with pytest.raises(ProblemError) as refused:
        await ask(app)
    assert (refused.value.code, refused.value.status) == ("too-many-requests", 429)
    assert refused.value.headers["Retry-After"] == "1"
    await ask(app, "192.0.2.8")  # somebody else
    clock.now += 0.1
    await ask(app)
    with pytest.raises(ProblemError):
        await ask(app)
    clock.now += 1000
    for _ in range(int(10 * BURST)):
        await ask(app)
    with pytest.raises(ProblemError):
        await ask(app)


@pytest.mark.rule("H-RATE-1")
@pytest.mark.anyio
async def test_a_rate_below_one_lets_one_through_at_a_time() -> None:
    clock = Clock()
    app = Rationing(Asked(), 0.1, None, clock)
    await ask(app)
    with pytest.raises(ProblemError) as refused:
        await ask(app)
    assert refused.value.headers["Retry-After"] == "10"
    clock.now += 10
    await ask(app)


@pytest.mark.rule("H-RATE-2")
@pytest.mark.anyio
async def test_who_sends_too_much_is_slowed_down_and_then_refused() -> None:
    clock, asked = Clock(), Asked()
    app = Rationing(asked, None, 1000, clock)
    charge = (await ask(app))[CHARGE]
    assert charge(2000) == 0
    assert charge(500) == pytest.approx(0.5)
    await ask(app)  # what it owes takes half a second
    assert charge(1500) == pytest.approx(2.0)
    with pytest.raises(ProblemError) as refused:
        await ask(app)
    assert refused.value.headers["Retry-After"] == "2"
    clock.now += 1.5
    await ask(app)


@pytest.mark.rule("H-RATE-2")
@pytest.mark.anyio
async def test_a_body_that_was_there_at_once_is_charged_once() -> None:
    app = Rationing(Asked(), None, 1000, Clock())
    scope = await ask(app, extensions={ARRIVED: {"body": lambda: bytes(2000)}})
    assert scope["extensions"][ARRIVED]["body"]() == bytes(2000)
    assert scope["extensions"][ARRIVED]["body"]() == bytes(2000)
    assert scope[CHARGE](2000) == 0
    assert scope[CHARGE](100) == pytest.approx(0.1)


@pytest.mark.anyio
async def test_a_client_that_is_not_known_is_not_bounded() -> None:
    asked = Asked()
    app = Rationing(asked, 0.1, 1, Clock())
    for _ in range(5):
        await ask(app, None)
    assert len(asked.scopes) == 5


def test_clients_that_owe_nothing_are_forgotten() -> None:
    buckets = Buckets(10)
    for number in range(10 * SWEEP):
        buckets.take(f"client {number}", 1, float(number))
    assert len(buckets._full) <= SWEEP
