"""How many connections there are, in all and of each client: who is let in.

Rule of this file: a connection that would be one too many is answered before a byte of it is read, with a status that
may pass (429, 503) and the time to try again; where many are refused at once, they are closed without a word. The last
ones are kept for clients that have few, so that one who takes all that he can get does not shut out the others. All
worker processes count together, where they have a board to tell each other on; one that lets somebody in has told so
before it looks what the others have, so that together they never let in too many.
"""

import ipaddress
from collections import Counter
from collections.abc import Sequence
from typing import Final

from holdfast_protocol import headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.http.proxies import Network
from holdfast_server.storage.board import CONNECTIONS, Board

KEPT: Final = 8
"""One of so many connections is kept for clients with fewer than `FEW`."""
FEW: Final = 8
ALL: Final = ""
"""Under this name the connections of everybody are told."""
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
    """The connections of a process, and what `board` tells of the others. `most` in all, `here` in this process, `each`
    of one client; None: no limit. `proxies` are networks of those that speak for many clients, and may have any number.
    """

    def __init__(
        self,
        most: int | None = None,
        each: int | None = None,
        proxies: Sequence[Network] = (),
        here: int | None = None,
        board: Board | None = None,
    ) -> None:
        self._most = most
        self._here = here
        self._each = each
        self._proxies = proxies
        self._board = board
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
        self._add(client, 1)
        problem = self._refusal(client)
        if problem is not None:
            self._add(client, -1)
        return problem

    def leave(self, client: str | None) -> None:
        self._add(client, -1)

    def _add(self, client: str | None, more: int) -> None:
        self._open += more
        if client is not None:
            self._of[client] += more
        if self._board is not None:
            self._board.tell(CONNECTIONS, ALL, self._open)
            if client is not None:
                self._board.tell(CONNECTIONS, client, self._of[client])
        if client is not None and not self._of[client]:
            del self._of[client]

    def _refusal(self, client: str | None) -> ProblemError | None:
        """Why the last one that was counted may not stay."""
        has, there = 0 if client is None else self._of[client] - 1, self._open - 1
        before = there
        if self._board is not None:
            before += int(sum(self._board.others(CONNECTIONS, ALL)))
            has += 0 if client is None else int(sum(self._board.others(CONNECTIONS, client)))
        if _are_too_many(before, self._most, has) or _are_too_many(there, self._here, has):
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
        return None

    def turn_away(self) -> bool:
        """Is there time to tell one that was refused why? Then `turned_away` has to be called when he is gone."""
        if self._refused >= MOST_ANSWERED:
            return False
        self._refused += 1
        return True

    def turned_away(self) -> None:
        self._refused -= 1


def _are_too_many(before: int, most: int | None, has: int) -> bool:
    """Where so many are already, and so many of them are this client's."""
    return most is not None and (before >= most or (has >= FEW and before >= most - most // KEPT))
