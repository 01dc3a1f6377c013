"""Uploads and stores for the tests of the catalog.

Rule of this file: an implementation of the port is a row of `OPENERS`, and with that all contract tests run over it.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from holdfast_server.catalog.base import Catalog, Quota
from holdfast_server.catalog.sqlite import open_sqlite
from holdfast_server.uploads.upload import State, Upload

Opener = Callable[..., AbstractAsyncContextManager[Catalog]]
"""Takes a Quota, or nothing."""

OPENERS: Final[dict[str, Callable[[Path, Quota], AbstractAsyncContextManager[Catalog]]]] = {
    "sqlite": lambda folder, quota: open_sqlite(folder / "catalog.sqlite", "os", quota),
}


def fresh(number: int = 1, **changes: Any) -> Upload:
    """A new upload whose id ends in `number`, of 1000 bytes, created at that second."""
    upload = Upload(
        id=f"{number:032x}",
        state=State.RECEIVING,
        length=1000,
        parallel=True,
        granule=65536,
        metadata=None,
        name="file",
        created=float(number),
        updated=float(number),
        expires=None,
    )
    return replace(upload, **changes)


async def add(catalog: Catalog, number: int = 1, **changes: Any) -> Upload:
    """Create a new upload, whatever room there is."""
    upload = fresh(number, **changes)
    await catalog.create(upload, room=None)
    return upload


async def become(catalog: Catalog, upload: Upload, state: State, *, now: float = 50.0, **more: Any) -> Upload:
    """Take an upload to a state from whatever state it is in, with its bytes if the state needs them."""
    if state in (State.VERIFYING, State.COMPLETE):
        await catalog.commit(upload.id, [(0, upload.reach)], now=now, expires=upload.expires)
    more = {"expires": upload.expires, "event": f"became-{state}"} | more
    return await catalog.transition(upload.id, sources=set(State), to=state, now=now, **more)


def told(upload: Upload, previous: State | None) -> dict[str, Any]:
    """The data of an event that says that an upload is this now, if there is no error."""
    return {
        "state": upload.state,
        "previous": previous,
        "name": upload.name,
        "length": upload.length,
        "received": upload.received,
        "prefix": upload.prefix,
        "created": upload.created,
        "errors": upload.errors,
        "retries": upload.retries,
    }
