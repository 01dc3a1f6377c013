"""What the requests of this process are bringing, while they bring it.

Rule of this file: it costs a writer some microseconds for each slice that it has written, and nobody waits here. Bytes
that have landed and are not committed are `arriving`; they may still come to nothing. Whoever wants to know listens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holdfast_server.uploads.upload import Upload

Listener = Callable[[Upload], None]
"""Told that something has changed of an upload, and what was last known of it. Must not block."""


class Arrival:
    """The bytes of one request."""

    __slots__ = ("_activity", "_upload", "size")

    def __init__(self, activity: "Activity", upload: Upload) -> None:
        self._activity = activity
        self._upload = upload
        self.size: int = 0

    def landed(self, size: int) -> None:
        """So many bytes of this request are written and not yet stored for good."""
        self.size = size
        self._activity.stored(self._upload)

    def stored(self, upload: Upload, left: int = 0) -> None:
        """All that had landed is stored, but for so many bytes."""
        self.size = left
        self._upload = upload
        self._activity.stored(upload)


class Activity:
    """Everything that is going on in this process."""

    def __init__(self) -> None:
        self._arrivals: dict[str, set[Arrival]] = {}
        self._steps: dict[str, str] = {}
        self._listener: Listener | None = None

    def listen(self, listener: Listener | None) -> None:
        """There is one listener at a time."""
        self._listener = listener

    @contextmanager
    def arrival(self, upload: Upload) -> Iterator[Arrival]:
        """A request that brings bytes, for as long as it runs."""
        arrival = Arrival(self, upload)
        self._arrivals.setdefault(upload.id, set()).add(arrival)
        try:
            yield arrival
        finally:
            mine = self._arrivals[upload.id]
            mine.discard(arrival)
            if not mine:
                del self._arrivals[upload.id]
            if arrival.size:
                arrival.landed(0)  # they came to nothing

    @contextmanager
    def step(self, upload: Upload, name: str) -> Iterator[None]:
        """A step of the pipeline that the state does not tell."""
        self._steps[upload.id] = name
        self.stored(upload)
        try:
            yield
        finally:
            del self._steps[upload.id]

    def stored(self, upload: Upload) -> None:
        """This is what is known of an upload now."""
        if self._listener is not None:
            self._listener(upload)

    def arriving(self, upload_id: str) -> int:
        """Bytes of running requests that are not stored yet."""
        return sum(arrival.size for arrival in self._arrivals.get(upload_id, ()))

    def is_running(self, upload_id: str) -> bool:
        """Does a request of this process bring bytes for it, however slowly?"""
        return upload_id in self._arrivals

    def step_of(self, upload_id: str) -> str | None:
        """Where in the pipeline it is, if the state does not tell."""
        return self._steps.get(upload_id)
