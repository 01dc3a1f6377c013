"""How much one client may ask for in a second: requests, and bytes.

Rule of this file: who asks too often is refused (429, with the time to try again), who sends or fetches too much is
slowed down, and refused only when what it owes would take longer than a second. Both are buckets that fill up with
time; a client that has been quiet may do at once what it left undone in the last `BURST` seconds. Nothing is kept of
clients whose buckets are full. All worker processes draw from the same buckets, where they have a board to tell each
other on; only what two of them take within the same microsecond may count once.
"""

import math
import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast_protocol import headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.http.answers import ARRIVED
from holdfast_server.http.doors import client_of
from holdfast_server.http.pace import CHARGE
from holdfast_server.storage.board import BYTES, REQUESTS, Board

BURST: Final = 2.0
"""Seconds: so much of its rate a client may take at once."""
PATIENCE: Final = 1.0
"""Seconds: who owes more than its rate in these is refused."""
SWEEP: Final = 4096
"""When so many clients are known, those that owe nothing are forgotten."""


class Buckets:
    """One number for each client: the moment at which its bucket is full again. `rate` is a second. What `board` tells
    of this kind counts too: the clock has to be that of all processes."""

    def __init__(self, rate: float, kind: int = REQUESTS, board: Board | None = None) -> None:
        self._kind = kind
        self._board = board
        self._rate = rate
        self._burst = max(BURST, 1 / rate)
        self._full: dict[str, float] = {}
        self._sweep = SWEEP

    def take(self, client: str, amount: float, now: float) -> float:
        """Takes so much, also if it is not there; the seconds until it would have been, 0 if it was."""
        if len(self._full) >= self._sweep:
            self._full = {each: full for each, full in self._full.items() if full > now}
            self._sweep = max(SWEEP, 2 * len(self._full))
        full = self._full[client] = self._when_full(client, now) + amount / self._rate
        if self._board is not None:
            self._board.tell(self._kind, client, full)
        return max(0.0, full - now - self._burst)

    def wait(self, client: str, amount: float, now: float) -> float:
        """The seconds until so much is there."""
        return max(0.0, self._when_full(client, now) + amount / self._rate - now - self._burst)

    def _when_full(self, client: str, now: float) -> float:
        full = max(self._full.get(client, 0.0), now)
        return full if self._board is None else max((full, *self._board.others(self._kind, client)))


class Rationing:
    """Pure ASGI middleware. `requests` and `rate` (bytes) are a second, None: any number."""

    def __init__(
        self,
        app: ASGIApp,
        requests: float | None,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        board: Board | None = None,
    ) -> None:
        self._app = app
        self._requests = None if requests is None else Buckets(requests, REQUESTS, board)
        self._bytes = None if rate is None else Buckets(rate, BYTES, board)
        self._clock = clock

    @property
    def bounds(self) -> bool:
        """Is there any limit at all?"""
        return self._requests is not None or self._bytes is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client is None or scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        who, now = client_of(client[0]), self._clock()
        if self._requests is not None:
            owed = self._requests.wait(who, 1, now)
            if owed > 0:
                raise _too_many("requests", owed)
            self._requests.take(who, 1, now)
        if self._bytes is not None:
            owed = self._bytes.wait(who, 0, now)
            if owed > PATIENCE:
                raise _too_many("bytes", owed)
            self._account(self._bytes, who, scope)
        await self._app(scope, receive, send)

    def _account(self, buckets: Buckets, who: str, scope: Scope) -> None:
        """Has what is sent and fetched by this request charged to its client, once."""
        paid = 0

        def charge(size: int) -> float:
            nonlocal paid
            free = min(paid, size)
            paid -= free
            return buckets.take(who, size - free, self._clock())

        scope[CHARGE] = charge
        extension = scope.get("extensions", {}).get(ARRIVED)
        if extension is not None:
            body = extension["body"]

            def arrived() -> bytes | None:
                nonlocal paid
                data: bytes | None = body()
                if data and not paid:
                    buckets.take(who, len(data), self._clock())
                    paid = len(data)
                return data

            scope["extensions"][ARRIVED] = {"body": arrived}


def _too_many(what: str, seconds: float) -> ProblemError:
    return ProblemError(
        "too-many-requests",
        f"This client asks for more {what} a second than it may have here. Try again when Retry-After says so.",
        headers={headers.RETRY_AFTER: str(math.ceil(seconds))},
    )
