"""Who asks is settled on the head, before anything else.

Rule of this file: every request has a principal in its scope before any endpoint sees it, or it is answered 401
(A-HEAD-1); endpoints ask `principal_of` and never look for credentials themselves. What needs no credential is listed
here, and everything that is not listed needs one.
"""

import inspect
from typing import Final, cast
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast_protocol import headers
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_server.auth import EVERYBODY, Authority, Principal, Request
from holdfast_server.http.answers import answer_problem, head_of

_PRINCIPAL: Final = "holdfast.principal"
_OPEN: Final = frozenset({"/", "/health/live", "/health/ready"})
_OPEN_BELOW: Final = ("/page/",)
_REFUSAL: Final = "websocket.http.response"


def principal_of(scope: Scope) -> Principal:
    """Who has sent this request. Raises KeyError outside the guard."""
    return cast("Principal", scope[_PRINCIPAL])


def place_of(scope: Scope) -> str | None:
    """The project of the upload that this request makes: `?project=NAME` on the URL of the collection, or what the
    principal has for it (A-PROJECT-1). Raises ProblemError 400, 403."""
    named: list[str] = []
    if scope["query_string"]:
        named = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("project", [])
    if len(named) > 1 or "" in named:
        raise FieldError("project", "name one project, once").as_problem()
    return principal_of(scope).place(named[0] if named else None)


class Guard:
    """Pure ASGI middleware. Without an authority everybody may do everything."""

    def __init__(self, app: ASGIApp, authority: Authority | None = None) -> None:
        self._app = app
        self._authority = authority

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._authority is None:
            scope[_PRINCIPAL] = EVERYBODY
        elif scope["type"] == "http":
            if not _is_open(scope):
                scope[_PRINCIPAL] = await self._find(scope)
        elif scope["type"] == "websocket":
            try:
                scope[_PRINCIPAL] = await self._find(scope)
            except ProblemError as problem:
                await _turn_away(problem, scope, send)
                return
        await self._app(scope, receive, send)

    async def _find(self, scope: Scope) -> Principal:
        assert self._authority is not None
        client = scope.get("client")
        request = Request(
            method=scope.get("method", "GET"),
            path=_path(scope),
            query=scope["query_string"].decode("latin-1"),
            headers=head_of(scope),
            peer=None if client is None else client[0],
        )
        found = self._authority(request)
        if inspect.isawaitable(found):
            found = await found
        if found is None:
            raise unauthenticated()
        return found


def unauthenticated() -> ProblemError:
    """A-HEAD-1."""
    return ProblemError(
        "unauthenticated",
        "Say who you are: send Authorization: Bearer with a token that this server knows.",
        headers={headers.WWW_AUTHENTICATE: 'Bearer realm="holdfast"'},
    )


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", "").rstrip("/"))


def _is_open(scope: Scope) -> bool:
    """Is it the same for everybody, and tells nothing of any upload (A-OPEN-1)?"""
    path = _path(scope)
    return scope["method"] == "OPTIONS" or path in _OPEN or path.startswith(_OPEN_BELOW)


async def _turn_away(problem: ProblemError, scope: Scope, send: Send) -> None:
    """A WebSocket that is not accepted: with the document where the server can, else with a bare 403."""
    if _REFUSAL not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
        return

    async def renamed(message: object) -> None:
        assert isinstance(message, dict)
        await send({**message, "type": "websocket." + message["type"]})

    await answer_problem(renamed, problem)
