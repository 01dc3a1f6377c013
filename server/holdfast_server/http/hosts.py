"""By which names this server may be asked where nobody has to say who he is.

Rule of this file: a page of another site can have its own name point to this machine (DNS rebinding); to the browser it
is of the server's origin then, and what it asks for looks like what a local program asks for. What gives it away is the
name, in `Host`. So without credentials a request is answered only by an address, `localhost`, or a name that the server
was told (A-HOST-1). Nobody but the one who set it up can have these point elsewhere.
"""

import ipaddress
from collections.abc import Collection
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from holdfast_protocol import headers
from holdfast_protocol.problem import ProblemError

ANY: Final = "*"


class Hosts:
    """`allowed` are names, without ports, or `*` for all; `public_url` has one more."""

    def __init__(self, allowed: Collection[str] = (), public_url: str | None = None) -> None:
        self._any = ANY in allowed
        names = [*allowed, "localhost"]
        if public_url is not None:
            names.append(urlsplit(public_url).hostname or "")
        self._names = frozenset(_plain(name) for name in names)

    def check(self, host: str | None) -> None:
        """Raises ProblemError 421. `host` is the value of `Host`; None: there is none, and no browser asks so."""
        if self._any or host is None:
            return
        name = _name(host)
        if name not in self._names and not name.endswith(".localhost") and not _is_address(name):
            raise ProblemError(
                "host-not-allowed",
                f"This server does not answer to the name {name[:100]!r}. Ask it by its address or as localhost; or "
                "have it started with --allowed-host and that name, or with credentials.",
                {"host": name},
                {headers.CACHE_CONTROL: "no-store"},
            )


def _name(host: str) -> str:
    """The name or address in `name`, `name:80`, `192.0.2.1:80`, `[::1]:80`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return _plain(host.rpartition(":")[0] if ":" in host else host)


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


@lru_cache(maxsize=128)  # most clients ask by one of a few
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
