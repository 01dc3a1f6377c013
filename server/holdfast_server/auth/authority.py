"""The port of authentication.

Rule of this file: an authority decides on the head of a request and on nothing else, so that it can be asked before
anything of the body is read.
"""

import base64
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from msgspec import Struct

from holdfast_protocol import headers
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth.principal import Principal


class Request(Struct, frozen=True):
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
    def token(self) -> str | None:
        """What `Authorization` brings: the token of `Bearer` (RFC 6750), or the password of `Basic` (RFC 7617), so that
        clients that only know names and passwords can send a token too. None if there is none."""
        value = self.headers.get(headers.AUTHORIZATION)
        if value is None:
            return None
        scheme, _, rest = value.partition(" ")
        match scheme.lower():
            case "bearer":
                return rest.strip()
            case "basic":
                try:
                    decoded = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
                except ValueError:
                    return None
                return decoded.partition(":")[2]
            case _:
                return None


Authority: TypeAlias = Callable[[Request], Principal | Awaitable[Principal | None] | None]
"""Says who has sent a request; None: nobody that it knows. It may be asked again for the same request.

A ProblemError that it raises is the answer. It is called on the event loop: one that has to wait is a coroutine
function.
"""


def expired() -> ProblemError:
    """A-HEAD-2."""
    return ProblemError(
        "credential-expired",
        "The credential was good once, and its time is over. What is stored stays; go on with a new one.",
        headers={headers.WWW_AUTHENTICATE: 'Bearer realm="holdfast", error="invalid_token"'},
    )


def unauthenticated(detail: str | None = None) -> ProblemError:
    """A-HEAD-1."""
    return ProblemError(
        "unauthenticated",
        detail or "Say who you are: send Authorization: Bearer with a token that this server knows.",
        headers={headers.WWW_AUTHENTICATE: 'Bearer realm="holdfast"'},
    )
