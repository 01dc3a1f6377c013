"""How many connections there are, in all and of each client: who is let in.

Rule of this file: a connection that would be one too many is answered before a byte of it is read, with a status that
may pass (429, 503) and the time to try again; where many are refused at once, they are closed without a word. The last
ones are kept for clients that have few, so that one who takes all that he can get does not shut out the others.
"""

import ipaddress
from collections import Counter
from collections.abc import Sequence
from typing import Final

from holdfast_protocol import headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.http.proxies import Network

KEPT: Final = 8
"""One of so many connections is kept for clients with fewer than `FEW`."""
FEW: Final = 8
MOST_ANSWERED: Final = 256
"""So many refused connections at a time are answered, and kept open until the answer may have been read."""


def client_of(address: str) -> str:
    """Who stands behind an address: of IPv6 the network of 64 bits, for who has one address there has all of them."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(found) >> 64 << 64)}/64"


class Doors:
    """The connections of one process. `most` in all and `each` of one client; None: no limit. `proxies` are networks
    of those that speak for many clients, and may have any number."""

    def __init__(self, most: int | None = None, each: int | None = None, proxies: Sequence[Network] = ()) -> None:
        self._most = most
        self._each = each
        self._proxies = proxies
        self._of: Counter[str] = Counter()
        self._open = 0
        self._refused = 0

    def client(self, address: str | None) -> str | None:
        """Whose connection it is that comes from there; None: nobody's in particular."""
        if not address:
            return None
        if self._proxies:
            try:
                found = ipaddress.ip_address(address.partition("%")[0])
            except ValueError:
                return address
            found = getattr(found, "ipv4_mapped", None) or found
            if any(found in each for each in self._proxies):
                return None
        return client_of(address)

    def enter(self, client: str | None) -> ProblemError | None:
        """Lets one more in, who has to `leave`; or says why not. None is nobody in particular."""
        has = 0 if client is None else self._of[client]
        most = self._most
        if most is not None and (self._open >= most or (has >= FEW and self._open >= most - most // KEPT)):
            return ProblemError(
                "overloaded",
                "The server has as many connections as it takes. Try again in some seconds.",
                headers={headers.RETRY_AFTER: "5"},
            )
        if self._each is not None and has >= self._each:
            return ProblemError(
                "too-many-connections",
                f"This client has {has} connections here, and may have no more at once. "
                "Use those that are open, or close some.",
                {"limit": self._each},
                {headers.RETRY_AFTER: "5"},
            )
        self._open += 1
        if client is not None:
            self._of[client] = has + 1
        return None

    def leave(self, client: str | None) -> None:
        self._open -= 1
        if client is not None:
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]

    def turn_away(self) -> bool:
        """Is there time to tell one that was refused why? Then `turned_away` has to be called when he is gone."""
        if self._refused >= MOST_ANSWERED:
            return False
        self._refused += 1
        return True

    def turned_away(self) -> None:
        self._refused -= 1
