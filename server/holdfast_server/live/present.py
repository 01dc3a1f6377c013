"""How far everything is that some topics tell of, for those who begin to watch them now (L-SUB-3).

Rule of this file: whoever asks gets what the catalog had at that moment or later, never what it had before: so what he
was told already is in it, and what follows comes after it. Those who come together share one look, and its bytes.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

import anyio
from msgspec import Struct, field

from holdfast_protocol.live import Kind, Topic
from holdfast_server.catalog.base import Catalog, Watched
from holdfast_server.live.frames import Frame, Run, runs
from holdfast_server.uploads.upload import Upload

MOST_STATES: Final = 1000
"""Uploads in the present state of topics that are not one upload, at most."""
KEPT: Final = 0.05
"""Seconds for which a look serves those who come later, if nothing was written to the catalog meanwhile: bytes that are
arriving may have come on."""
MOST_LOOKS: Final = 16


class Present(Struct, frozen=True):
    """What is told of it, and whether there are uploads beyond that."""

    runs: Sequence[Run]
    more: bool


class _Look(Struct):
    """The newest one at the same topics."""

    turn: anyio.Lock = field(default_factory=anyio.Lock)
    begun: int = 0
    """How many there were; the newest has begun."""
    version: int | None = None
    """Of the catalog, before it was looked at."""
    at: float = 0.0
    found: Present | None = None


class Presents:
    """The present of all topics. `state` makes the frame of an upload, `monotonic` is a clock in seconds."""

    def __init__(self, catalog: Catalog, state: Callable[[Upload], Frame], monotonic: Callable[[], float]) -> None:
        self._catalog = catalog
        self._state = state
        self._monotonic = monotonic
        self._looks: dict[Hashable, _Look] = {}

    async def of(self, topics: Sequence[Topic]) -> Present:
        """Waits for the catalog, or for another one who looks."""
        key = frozenset(topics)
        look = self._looks.get(key)
        if look is None:
            if len(self._looks) >= MOST_LOOKS:
                self._looks.clear()  # whoever waits for one has it in hand
            look = self._looks[key] = _Look()
        asked = look.begun
        async with look.turn:
            version, now = self._catalog.version(), self._monotonic()
            fresh = look.begun > asked or (version == look.version and now - look.at < KEPT)
            if look.found is None or not fresh:
                look.begun, look.found = look.begun + 1, None
                look.version, look.at = version, now
                look.found = await self._look(topics)
            return look.found

    def forget(self, now: float) -> None:
        """To be called now and then: what is old serves nobody."""
        for key in [key for key, look in self._looks.items() if now - look.at >= KEPT and not look.turn.locked()]:
            del self._looks[key]

    async def _look(self, topics: Sequence[Topic]) -> Present:
        more = False
        found: dict[str, Upload] = {}
        for topic in topics:
            if topic.kind is Kind.UPLOAD:
                upload = await self._catalog.get(topic.name)
                if upload is not None:
                    found[upload.id] = upload
        groups = [topic for topic in topics if topic.kind is not Kind.UPLOAD]
        if groups:
            moving = await self._catalog.moving(watched(groups), MOST_STATES + 1)
            more = len(moving) > MOST_STATES
            found |= {upload.id: upload for upload in moving[:MOST_STATES]}
        return Present(runs([self._state(upload) for upload in found.values()]), more)


def watched(topics: Iterable[Topic]) -> Watched:
    """The uploads of these topics, as the catalog is asked for them."""
    names: dict[Kind, set[str]] = {kind: set() for kind in Kind}
    for topic in topics:
        names[topic.kind].add(topic.name)
    return Watched(
        frozenset(names[Kind.UPLOAD]),
        frozenset(names[Kind.OWNER]),
        frozenset(names[Kind.PROJECT]),
        bool(names[Kind.ALL]),
    )
