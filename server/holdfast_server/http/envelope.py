"""What holds for every request and every answer, whoever makes it.

Rule of this file: the method that counts and the version of tus are settled before anything else is looked at
(T-METHOD-1, T-VERSION-1), every answer says `Tus-Resumable` (T-VERSION-2) and what CORS asks for (T-CORS-1), and no
error leaves without a problem document (V-PROBLEM-1).
"""

import logging
from collections.abc import Collection
from itertools import chain
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast_protocol import headers
from holdfast_protocol import server as rules
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.catalog.base import CatalogError
from holdfast_server.http.answers import answer_problem, head_of
from holdfast_server.http.cors import Cors
from holdfast_server.uploads.core import is_full, no_space

logger: Final = logging.getLogger(__name__)

_TUS_RESUMABLE = (headers.TUS_RESUMABLE.lower().encode(), headers.TUS_PROTOCOL_VERSION.encode())


class Envelope:
    """Pure ASGI middleware around everything. Of the target and the fields of a request `max_head` bytes are taken."""

    def __init__(self, app: ASGIApp, max_head: int, cors_origins: Collection[str] = ()) -> None:
        self._app = app
        self._max_head = max_head
        self._cors = Cors(cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_signed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), _TUS_RESUMABLE, *allowed]
                if bodiless:  # the client has not asked by HEAD, so a length would be that of a body that follows
                    message["headers"] = [field for field in message["headers"] if field[0] != b"content-length"]
                    message["headers"].append((b"content-length", b"0"))
            await send(message)

        fields = head_of(scope)
        method = rules.effective_method(scope["method"], fields)
        allowed = self._cors.fields(method, fields)
        bodiless = method == "HEAD" != scope["method"]
        if method != scope["method"]:
            scope = {**scope, "method": method}
        try:
            self._check_size(scope, fields)
            rules.check_version(method, fields)
            await self._app(scope, receive, send_signed)
            return
        except ProblemError as error:
            problem = error
        except Exception as error:
            if isinstance(error, OSError) and is_full(error):
                problem = no_space()
            else:
                logger.exception("%s %s failed", method, scope["path"])
                problem = _failure(error)
        if started:
            raise problem  # the head is out: all that can be done is to break the connection
        await answer_problem(send_signed, problem, head=method == "HEAD")

    def _check_size(self, scope: Scope, fields: Headers) -> None:
        """H-HEAD-1, where the server in front has not done it."""
        size = len(scope["path"]) + len(scope["query_string"]) + sum(map(len, chain.from_iterable(fields)))
        if size > self._max_head:
            raise ProblemError("headers-too-large", f"The head has {size} bytes; {self._max_head} are taken.")


def _failure(error: Exception) -> ProblemError:
    if isinstance(error, CatalogError):
        return ProblemError("overloaded", "The server is busy. Try again in a moment.", headers={"Retry-After": "1"})
    return ProblemError(
        "internal-error", "The server failed. What is stored stays; ask with HEAD and go on from there."
    )
