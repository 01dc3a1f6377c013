"""What proxies say of the client that they speak for.

Rule of this file: `X-Forwarded-For`, `-Proto` and `-Host` are believed from the proxies of the list and from nobody
else (A-PROXY-1); with an empty list nobody looks at them. The client is the last address of `X-Forwarded-For` that is
no such proxy, since what stands before that may be made up.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast_protocol import headers
from holdfast_server.http.answers import head_of

UNIX: Final = "unix"
_HOST: Final = "holdfast.forwarded_host"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(proxies: Sequence[str]) -> list[Network]:
    """The list without `unix`. Raises ValueError with a sentence."""
    try:
        return [ipaddress.ip_network(each) for each in proxies if each != UNIX]
    except ValueError as error:
        raise ValueError(f"{error}; write a proxy as 10.0.0.7, 10.0.0.0/8 or unix") from None


def forwarded_host(scope: Scope) -> str | None:
    """The host that a client has asked a trusted proxy for; None if there is nobody to say it."""
    return scope.get(_HOST)


class Proxies:
    """Pure ASGI middleware. Raises ValueError for what is no address."""

    def __init__(self, app: ASGIApp, proxies: Sequence[str]) -> None:
        self._app = app
        self._networks = networks(proxies)
        self._unix = UNIX in proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            client = scope.get("client")
            if self._unix if client is None else self._trusts(client[0]):
                scope = self._believed(scope)
        await self._app(scope, receive, send)

    def _believed(self, scope: Scope) -> Scope:
        head = head_of(scope)
        found = dict(scope)
        host, scheme = head.get(headers.FORWARDED_HOST), head.get(headers.FORWARDED_PROTO)
        if host is not None:
            found[_HOST] = host.rpartition(",")[2].strip()
        if scheme is not None and scheme.rpartition(",")[2].strip().lower() in ("http", "https"):
            found["scheme"] = scheme.rpartition(",")[2].strip().lower()
        for each in reversed((head.get(headers.FORWARDED_FOR) or "").split(",")):
            address = _address(each.strip())
            if address is None:
                break
            found["client"] = (address, 0)
            if not self._trusts(address):
                break
        return found

    def _trusts(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)


def _address(text: str) -> str | None:
    """`192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`."""
    bare = text[1:].partition("]")[0] if text.startswith("[") else text
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return None
