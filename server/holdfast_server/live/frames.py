"""What is told, as bytes: each frame is encoded once, whoever gets it and however it travels.

Rule of this file: what a payload says of an upload is decided here (L-PAYLOAD-1), from a snapshot and what is known of
its movement, and the same for frames and for JSON.
"""

import struct
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from holdfast_protocol import live
from holdfast_protocol.live import Place
from holdfast_server.catalog.base import Event, Sample
from holdfast_server.uploads.upload import State, Upload

_TEXT: Final = 0x81
"""A whole message of text (RFC 6455, section 5.2)."""
PING: Final = b"\x89\x00"
"""A ping of RFC 6455."""
RUN: Final = 64
"""So many frames are written without waiting for more."""


class Frame:
    """One message to clients. Of two frames with the same `key` only the newer one needs to be told."""

    __slots__ = ("_event", "_message", "_place", "_type", "json", "key")

    def __init__(self, content: Mapping[str, Any], key: Hashable = None, place: Place | None = None) -> None:
        """`place` is where a client may go on from that has seen this one."""
        self.json: bytes = live.encode(content)
        self.key: Hashable = key
        self._type: str = content["type"]
        self._place = place
        self._message: bytes | None = None
        self._event: bytes | None = None

    def __len__(self) -> int:
        return len(self.json)

    @property
    def message(self) -> bytes:
        """As a WebSocket carries it."""
        if self._message is None:
            size = len(self.json)
            if size < 126:
                head = bytes((_TEXT, size))
            elif size < 1 << 16:
                head = struct.pack("!BBH", _TEXT, 126, size)
            else:
                head = struct.pack("!BBQ", _TEXT, 127, size)
            self._message = head + self.json
        return self._message

    @property
    def event(self) -> bytes:
        """As a stream of server-sent events carries it."""
        if self._event is None:
            number = b"" if self._place is None else b"id: %s\n" % str(self._place).encode()
            self._event = b"event: %s\n%sdata: %s\n\n" % (self._type.encode(), number, self.json)
        return self._event


class Run:
    """Frames that go out together, joined once for all who get the same."""

    __slots__ = ("_event", "_message", "frames")

    def __init__(self, told: Sequence[Frame]) -> None:
        self.frames: Sequence[Frame] = told
        self._message: bytes | None = None
        self._event: bytes | None = None

    @property
    def message(self) -> bytes:
        if self._message is None:
            self._message = b"".join([frame.message for frame in self.frames])
        return self._message

    @property
    def event(self) -> bytes:
        if self._event is None:
            self._event = b"".join([frame.event for frame in self.frames])
        return self._event


def runs(told: Sequence[Frame]) -> list[Run]:
    """The same frames, as they are written."""
    return [Run(told[start : start + RUN]) for start in range(0, len(told), RUN)]


class Motion(Struct, frozen=True):
    """What is known of an upload beside its state."""

    arriving: int = 0
    speed: float | None = None
    step: str | None = None


STILL: Final = Motion()


def time_text(epoch: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds")


def percent(received: int, length: int | None) -> float | None:
    if length is None:
        return None
    return round(100 * min(received, length) / length, 2) if length else 100.0


def step_of(state: str, previous: str | None = None) -> str | None:
    """Where in the pipeline an upload is, or where it ended."""
    if state == State.COMPLETE:
        return None
    if state == State.VERIFYING or (state != State.RECEIVING and previous == State.VERIFYING):
        return "verifying"
    return "receiving"


def payload(upload: Upload, motion: Motion, now: float) -> dict[str, Any]:
    """L-PAYLOAD-1."""
    verifying = upload.whole and upload.error is not None
    step = step_of(upload.state, State.VERIFYING if verifying else None)
    if step is not None:  # what is complete is at no step, whatever was told of it before
        step = motion.step or step
    reached = upload.received + motion.arriving
    eta = None
    if motion.speed and upload.length is not None and upload.state is State.RECEIVING:
        eta = round(max(0, upload.length - reached) / motion.speed, 1)
    return {
        "task_id": upload.id,
        "name": upload.name,
        "owner": upload.owner,
        "project": upload.project,
        "status": upload.state,
        "progress": percent(reached, upload.length),
        "current_step": step,
        "total_steps": len(live.STEPS),
        "completed_steps": len(live.STEPS) if step is None else live.STEPS.index(step),
        "message": _message(upload, step, bool(motion.speed or motion.arriving)),
        "length": upload.length,
        "received": upload.received,
        "arriving": motion.arriving,
        "prefix": upload.prefix,
        "speed": None if motion.speed is None else round(motion.speed, 1),
        "eta": eta,
        "errors": upload.errors,
        "retries": upload.retries,
        "error": None if upload.error is None else {"code": upload.error, "detail": upload.error_detail},
        "started": time_text(upload.created),
        "timestamp": time_text(now),
    }


def _message(upload: Upload, step: str | None, moves: bool) -> str:
    match upload.state:
        case State.COMPLETE:
            return "Complete: verified and published."
        case State.FAILED:
            return upload.error_detail or f"Failed: {upload.error}."
        case State.EXPIRED:
            return "It was not finished in time and was removed."
        case State.TERMINATED:
            return "It was removed."
        case State.VERIFYING if step == "publishing":
            return "The file is being published."
        case State.VERIFYING:
            return "All bytes are here and are being verified."
        case State.RECEIVING if moves:
            return "Bytes are arriving."
        case State.RECEIVING if upload.errors > upload.retries:
            return "The last request failed; waiting for the client to go on."
        case State.RECEIVING if upload.whole:
            return "All bytes are here; waiting for the client to complete the upload."
        case _:
            return "Waiting for bytes."


def progress(upload: Upload, motion: Motion, now: float) -> Frame:
    return Frame(live.envelope("progress", payload(upload, motion, now), task_id=upload.id), upload.id)


def status(epoch: str, event: Event) -> Frame:
    """L-STATUS-1."""
    data = event.data
    told = payload(
        Upload(
            id=event.upload,
            state=State(data["state"]),
            length=data["length"],
            parallel=False,
            granule=0,
            metadata=None,
            name=data["name"],
            created=data["created"],
            updated=event.at,
            expires=None,
            prefix=data["prefix"],
            received=data["received"],
            error=data.get("error"),
            error_detail=data.get("error_detail"),
            owner=event.owner,
            project=event.project,
            errors=data["errors"],
            retries=data["retries"],
        ),
        Motion(step=step_of(data["state"], data["previous"])),
        event.at,
    )
    told |= {"event": event.type, "previous": data["previous"]}
    beside = {"task_id": event.upload, "epoch": epoch, "offset": event.seq}
    return Frame(live.envelope("status", told, **beside), event.seq, Place(epoch, event.seq))


def sample(sample: Sample, length: int | None) -> dict[str, Any]:
    """L-HISTORY-1."""
    return {
        "timestamp": time_text(sample.at),
        "received": sample.received,
        "progress": percent(sample.received + sample.arriving, length),
        "speed": None if sample.speed is None else round(sample.speed, 1),
        "status": sample.state,
        "current_step": sample.step,
        "errors": sample.errors,
        "retries": sample.retries,
    }
