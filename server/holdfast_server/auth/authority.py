"""The port of authentication.

Rule of this file: an authority decides on the head of a request and on nothing else, so that it can be asked before
anything of the body is read.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from holdfast_protocol.messages import Headers
from holdfast_server.auth.principal import Principal


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request, as an authority sees it."""

    method: str
    """The one that counts (T-METHOD-1); `GET` for a WebSocket."""
    path: str
    """Without the prefix where the application is mounted."""
    query: str
    headers: Headers
    peer: str | None
    """The address of the client, or None where the server does not know it."""

    @property
    def bearer(self) -> str | None:
        """The token of `Authorization: Bearer ...` (RFC 6750), or None."""
        value = self.headers.get("Authorization")
        if value is None:
            return None
        scheme, _, token = value.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None


Authority: TypeAlias = Callable[[Request], Principal | Awaitable[Principal | None] | None]
"""Says who has sent a request; None: nobody that it knows. It may be asked again for the same request.

A ProblemError that it raises is the answer. It is called on the event loop: one that has to wait is a coroutine
function.
"""
