"""What each server offers, asked once.

Rule of this file: an endpoint is asked by OPTIONS once in a process, however many clients and threads there are; what
it said is remembered for an hour, so that a process that runs for weeks notices a new server. No answer, or a bad one,
is never an error: the server is taken for plain tus. Which version of the IETF draft an origin has shown to understand
is remembered as long as the process runs; it is where the next upload begins to try.
"""

import threading
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import anyio

from holdfast._transport import Session
from holdfast.errors import BrokenProtocol, ConnectionFailed
from holdfast_protocol.discovery import Services, discover
from holdfast_protocol.drafts import Draft
from holdfast_protocol.ietf_client import Guest, drafts_from

REMEMBERED: Final = 3600.0
"""Seconds."""
PATIENCE: Final = 10.0
"""Seconds for an answer. Without one the upload can do without."""


class Discoveries:
    """What endpoints have said. `clock` is monotonic, in seconds. Any thread may call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._known: dict[str, tuple[float, Services]] = {}
        self._drafts: dict[str, Draft] = {}

    async def services(self, session: Session) -> Services:
        """What the server of this session offers: one exchange, or none if it is known. Raises nothing of ours."""
        async with session.asking:
            with self._guard:
                found = self._known.get(session.endpoint)
            if found is not None and self._clock() - found[0] < REMEMBERED:
                return found[1]
            services = Services(lasting=False)
            with anyio.move_on_after(PATIENCE):
                try:
                    services = await session.exchange(discover(session.endpoint))
                except (ConnectionFailed, BrokenProtocol):
                    # If there is no server, the next request will say so in its own words.
                    return services
            if services.lasting:
                with self._guard:
                    self._known[session.endpoint] = (self._clock(), services)
            return services

    def guest(self, session: Session, services: Services, size: int | None) -> Guest:
        """One who speaks the draft to the server of this session, in the version that it is known to understand."""
        with self._guard:
            known = self._drafts.get(_origin(session))
        return Guest(size, drafts_from(known or services.draft))

    def learn(self, session: Session, guest: Guest) -> None:
        """Remember which version was understood."""
        if guest.draft is not None:
            with self._guard:
                self._drafts[_origin(session)] = guest.draft

    def forget(self) -> None:
        """Ask everybody again."""
        with self._guard:
            self._known.clear()
            self._drafts.clear()


def _origin(session: Session) -> str:
    return "://".join(urlsplit(session.endpoint)[:2])


DISCOVERIES: Final = Discoveries()
"""Those of this process."""
