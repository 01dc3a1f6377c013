"""Answers, written to ASGI."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from starlette.types import Scope, Send

from holdfast_protocol import headers
from holdfast_protocol.fields import format_problem
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError

NOSNIFF = {headers.CONTENT_TYPE_OPTIONS: "nosniff"}


TRAILERS = "holdfast.request.trailers"
"""The extension of a scope by which a server says that it reads trailers: in its `fields`, a list of pairs of bytes,
they are once the body has ended (T-TRAILER-1)."""


ARRIVED = "holdfast.request.arrived"
"""The extension of a scope by which a server shows what has come of the body, without taking it: its `body` gives all
of it as bytes, or None if there is more to come."""
_HEAD = "holdfast.head"
PEER = "holdfast.peer"
"""The extension of a scope by which a server says that it can tell whether the client is still there: its `gone` is
to be called for that."""


def head_of(scope: Scope) -> Headers:
    """The request's fields. Copied: some servers add trailers to the list of the scope later. Read once a request."""
    found = scope.get(_HEAD)
    if found is None:
        found = scope[_HEAD] = _fields(scope["headers"])
    return cast("Headers", found)


def arrived(scope: Scope) -> bytes:
    """The body, if it is here already; empty if not, or if this server cannot tell."""
    extension = scope.get("extensions", {}).get(ARRIVED)
    return b"" if extension is None else extension["body"]() or b""


def trailers_of(scope: Scope) -> Callable[[], Headers] | None:
    """How to ask for the fields behind the body once it has ended; None if this server cannot read them."""
    extension = scope.get("extensions", {}).get(TRAILERS)
    return None if extension is None else lambda: _fields(extension["fields"])


def gone_of(scope: Scope) -> Callable[[], bool]:
    """How to ask whether the connection is gone; False is the answer where the server cannot tell."""
    extension = scope.get("extensions", {}).get(PEER)
    return _not_known_to_be_gone if extension is None else extension["gone"]


def _not_known_to_be_gone() -> bool:
    return False


def _fields(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    return Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs])


def encode(fields: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]


async def start(send: Send, status: int, fields: Mapping[str, str]) -> None:
    """Sends the head of an answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": encode(fields),
        }
    )


async def answer(send: Send, status: int, fields: Mapping[str, str] | None = None, body: bytes = b"") -> None:
    """Sends a whole answer. With 204 and 304 there is no body and no length."""
    fields = dict(fields or {})
    if status not in (204, 304):
        fields.setdefault(headers.CONTENT_LENGTH, str(len(body)))
    await start(send, status, fields)
    await send({"type": "http.response.body", "body": body})


async def answer_json(send: Send, value: Any, *, head: bool = False) -> None:
    body = json.dumps(value, ensure_ascii=False).encode()
    fields = {
        headers.CONTENT_TYPE: "application/json",
        headers.CACHE_CONTROL: "no-store",
        headers.CONTENT_LENGTH: str(len(body)),
        **NOSNIFF,
    }
    await answer(send, 200, fields, b"" if head else body)


async def answer_problem(send: Send, problem: ProblemError, *, head: bool = False) -> None:
    """V-PROBLEM-1; with `head` V-PROBLEM-2."""
    body = problem.to_json()
    await answer(send, problem.status, problem_fields(problem, body, head=head), b"" if head else body)


def problem_fields(problem: ProblemError, body: bytes, *, head: bool = False) -> dict[str, str]:
    """The fields of an answer with this document, or to HEAD, which has none."""
    told = {headers.UPLOAD_PROBLEM: format_problem(problem.code, problem.detail)} if head else {}
    return {
        **told,
        headers.CONTENT_TYPE: headers.MEDIA_PROBLEM,
        headers.CACHE_CONTROL: "no-store",
        headers.CONTENT_LENGTH: str(len(body)),
        **NOSNIFF,
        **problem.headers,
    }


def not_allowed(methods: tuple[str, ...]) -> ProblemError:
    allowed = ", ".join(methods)
    return ProblemError("method-not-allowed", f"Use {allowed} here.", headers={headers.ALLOW: allowed})
