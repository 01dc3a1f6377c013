"""Who asks is settled on the head, before anything else.

Rule of this file: every request has a principal in its scope before any endpoint sees it, or it is answered 401
(A-HEAD-1); endpoints ask `principal_of` and never look for credentials themselves. What needs no credential is listed
here, and everything that is not listed needs one.
"""

import inspect
import time
from collections.abc import Callable, Collection
from typing import Final, cast
from urllib.parse import parse_qs

from msgspec.structs import replace
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast_protocol import fields, headers
from holdfast_protocol import server as rules
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_server.auth import EVERYBODY, Authority, Principal, Request
from holdfast_server.auth.authority import unauthenticated
from holdfast_server.http.answers import answer_problem, head_of
from holdfast_server.http.cors import Cors
from holdfast_server.http.hosts import Hosts
from holdfast_server.http.proxies import forwarded_host

_PRINCIPAL: Final = "holdfast.principal"
_OPEN: Final = frozenset({"/", "/health/live", "/health/ready"})
_OPEN_BELOW: Final = ("/page/",)
SOON: Final = 1.0
"""Seconds for which what an authority has said needs not to be asked for again (A-AGAIN-1)."""
_BEARER: Final = "bearer."
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


def limits_for(scope: Scope, limits: rules.Limits, length: int | None = None) -> rules.Limits:
    """What is taken from the one who asks, for an upload of this length if there is one (A-SIGN-3). Raises ProblemError
    413."""
    most = principal_of(scope).max_size if _PRINCIPAL in scope else None
    if most is None or most >= limits.max_size:
        return limits
    if length is not None and length > most:
        raise rules.too_large(most)
    return replace(limits, max_size=most)


def granted(scope: Scope, wanted: rules.Create) -> rules.Create:
    """What is made of a creation that its principal may ask for. Raises ProblemError 403 (A-SCOPE-1, A-SIGN-3)."""
    who = principal_of(scope)
    if wanted.body is not None:
        who.require("write")
    if who.grant is None:
        return wanted
    if who.grant.types:
        values = fields.parse_metadata(wanted.metadata) if wanted.metadata else {}
        said = values.get("filetype") or values.get("type") or b""
        who.grant.check(said.decode("utf-8", "replace"), wanted.filename)
    return wanted if who.grant.name is None else replace(wanted, filename=who.grant.name)


class Guard:
    """Pure ASGI middleware. Without an authority everybody may do everything who asks by a name of `hosts`."""

    def __init__(
        self,
        app: ASGIApp,
        authority: Authority | None = None,
        cors_origins: Collection[str] = (),
        hosts: Hosts | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._cors = Cors(cors_origins)
        self._authority = authority
        self._hosts = hosts or Hosts()
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            try:
                self._check_origin(scope)
                scope[_PRINCIPAL] = self._everybody(scope) if self._authority is None else await self._find(scope)
            except ProblemError as problem:
                await turn_away(problem, scope, send)
                return
        elif scope["type"] == "http" and self._authority is None:
            scope[_PRINCIPAL] = self._everybody(scope)
        elif scope["type"] == "http" and not _is_open(scope):
            scope[_PRINCIPAL] = await self._find(scope)
        await self._app(scope, receive, send)

    def _check_origin(self, scope: Scope) -> None:
        """A browser lets every page open a WebSocket to everywhere, and leaves it to the server (A-ORIGIN-1)."""
        head = head_of(scope)
        origin = head.get(headers.ORIGIN)
        if origin is None or origin.partition("://")[2] in (head.get(headers.HOST), forwarded_host(scope)):
            return
        if not self._cors.allows(origin):
            raise ProblemError(
                "not-permitted", "Pages of this origin may not speak to this server; --cors-origin says which ones may."
            )

    def _everybody(self, scope: Scope) -> Principal:
        """Raises ProblemError 421 (A-HOST-1)."""
        # Not X-Forwarded-Host, also from where a proxy may be: a page can write that, and this it cannot.
        self._hosts.check(head_of(scope).get(headers.HOST))
        return EVERYBODY

    async def _find(self, scope: Scope) -> Principal:
        client = scope.get("client")
        request = Request(
            method=scope.get("method", "GET"),
            path=_path(scope),
            query=scope["query_string"].decode("latin-1"),
            headers=_with_token(scope, head_of(scope)),
            peer=None if client is None else client[0],
        )
        found = await self._ask(request)
        since = self._monotonic()

        async def confirm() -> None:
            if self._monotonic() - since >= SOON:
                await self._ask(request)

        return replace(found, confirm=confirm)

    async def _ask(self, request: Request) -> Principal:
        assert self._authority is not None
        found = self._authority(request)
        if inspect.isawaitable(found):
            found = await found
        if found is None:
            raise unauthenticated()
        return found


def _with_token(scope: Scope, head: Headers) -> Headers:
    """A page cannot send `Authorization` with a WebSocket; it names `bearer.TOKEN` as a subprotocol (A-HEAD-3)."""
    if scope["type"] == "websocket" and headers.AUTHORIZATION not in head:
        for each in scope.get("subprotocols", ()):
            if each.startswith(_BEARER):
                return Headers([*head, (headers.AUTHORIZATION, f"Bearer {each.removeprefix(_BEARER)}")])
    return head


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", "").rstrip("/"))


def _is_open(scope: Scope) -> bool:
    """Is it the same for everybody, and tells nothing of any upload (A-OPEN-1)?"""
    path = _path(scope)
    return scope["method"] == "OPTIONS" or path in _OPEN or path.startswith(_OPEN_BELOW)


async def turn_away(problem: ProblemError, scope: Scope, send: Send) -> None:
    """A WebSocket that is not accepted: with the document where the server can, else with a bare 403."""
    if _REFUSAL not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
        return

    async def renamed(message: object) -> None:
        assert isinstance(message, dict)
        await send({**message, "type": "websocket." + message["type"]})

    await answer_problem(renamed, problem)
