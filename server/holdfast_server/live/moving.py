"""Uploads that move: how many bytes are arriving, how fast, seen over all processes.

Rule of this file: it forgets whatever has not moved for `REMEMBERED` seconds, and keeps so many points of each that its
speed can be told, so its size depends on what moves now and on nothing else. It reads no clock and asks nobody.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from holdfast_server.live.frames import STILL, Motion
from holdfast_server.uploads.upload import Upload

REMEMBERED: Final = 10.0
"""Seconds without a move after which an upload is forgotten here, and what a process has told of it."""
WINDOW: Final = 5.0
"""Seconds over which speed is told..."""
STOPPED: Final = 2.5
"""...and without a move for so long there is none."""
CLOSEST: Final = 0.05
"""Seconds between two points."""


HERE: Final = ""
"""This process, among those that tell of moves."""


class Course:
    """One upload that moves."""

    __slots__ = ("_points", "_told", "id", "moved_at", "received", "stopped", "upload")

    def __init__(self, upload_id: str) -> None:
        self.id: str = upload_id
        self.upload: Upload | None = None
        """The newest snapshot that came by; None: only another process has told of it."""
        self.received: int = 0
        self.moved_at: float = 0.0
        self.stopped: bool = False
        self._points: deque[tuple[float, int]] = deque()
        self._told: dict[str, tuple[float, int, str | None]] = {}

    def move(self, source: str, received: int, arriving: int, step: str | None, at: float) -> None:
        """What a process, `source`, knows of it now."""
        self._told[source] = (at, arriving, step)
        self.received = max(self.received, received)
        self.moved_at = at
        self.stopped = False
        points = self._points
        if len(points) > 1 and at - points[-2][0] < CLOSEST:
            points.pop()
        points.append((at, self.received + self.arriving))
        while len(points) > 2 and points[1][0] < at - WINDOW:
            points.popleft()

    @property
    def here(self) -> bool:
        """Do its bytes come to this process?"""
        return HERE in self._told

    @property
    def arriving(self) -> int:
        return sum(arriving for _, arriving, _ in self._told.values())

    def motion(self, now: float) -> Motion:
        step = next((step for _, _, step in self._told.values() if step is not None), None)
        return Motion(self.arriving, self.speed(now), step)

    def speed(self, now: float) -> float | None:
        """Bytes a second; None if it has stopped, or has begun just now."""
        if now - self.moved_at > STOPPED or len(self._points) < 2:
            return None
        (first, begin), (_, end) = self._points[0], self._points[-1]
        return max(0.0, (end - begin) / max(now - first, CLOSEST))

    def forget(self, now: float) -> None:
        """What processes have told that tell no more."""
        for source in [s for s, (at, _, _) in self._told.items() if now - at > REMEMBERED]:
            del self._told[source]


class Moving:
    """All of them, by id."""

    def __init__(self) -> None:
        self._courses: dict[str, Course] = {}

    def __iter__(self) -> Iterator[Course]:
        return iter(list(self._courses.values()))

    def __len__(self) -> int:
        return len(self._courses)

    def course(self, upload_id: str) -> Course:
        """That of an upload, which begins now if there is none."""
        found = self._courses.get(upload_id)
        if found is None:
            found = self._courses[upload_id] = Course(upload_id)
        return found

    def get(self, upload_id: str) -> Course | None:
        """That of an upload, if it moves."""
        return self._courses.get(upload_id)

    def motion(self, upload_id: str, now: float) -> Motion:
        found = self._courses.get(upload_id)
        return STILL if found is None else found.motion(now)

    def forget(self, now: float) -> None:
        """To be called now and then."""
        for course in self:
            course.forget(now)
            if now - course.moved_at > REMEMBERED:
                del self._courses[course.id]

    def end(self, upload_id: str) -> None:
        """It has come to its end and moves no more."""
        self._courses.pop(upload_id, None)


def total(courses: Iterable[tuple[Course, Upload]], now: float) -> dict[str, object]:
    """Of several, in one (L-PROGRESS-2): all but the time."""
    uploads = received = arriving = length = 0
    speed = 0.0
    known = True
    for course, upload in courses:
        uploads += 1
        received += max(course.received, upload.received)
        arriving += course.arriving
        speed += course.speed(now) or 0.0
        known = known and upload.length is not None
        length += upload.length or 0
    reached = received + arriving
    return {
        "uploads": uploads,
        "length": length if known else None,
        "received": received,
        "arriving": arriving,
        "progress": round(100 * min(reached, length) / length, 2) if known and length else None,
        "speed": round(speed, 1),
        "eta": round(max(0, length - reached) / speed, 1) if known and speed else None,
    }
