"""`/api` and `/health`: states as JSON, for people's programs and for operators (D-JSON-1, D-JSON-2)."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from holdfast_protocol import fields
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_server.auth.principal import EVERYBODY, STATE, Principal
from holdfast_server.http.answers import answer_json, not_allowed
from holdfast_server.http.files import upload_id, upload_url
from holdfast_server.http.guard import principal_of
from holdfast_server.live import frames
from holdfast_server.live.hub import Hub
from holdfast_server.uploads.service import Uploads
from holdfast_server.uploads.upload import State, Upload

MOST_RANGES = 10_000
MOST_UPLOADS = 1_000
MOST_SAMPLES = 1_000


class Api:
    """All endpoints that answer JSON. `uploads` raises ProblemError 503 while the application does not run."""

    def __init__(self, uploads: Callable[[], Uploads], hub: Callable[[], Hub]) -> None:
        self._uploads = uploads
        self._hub = hub

    async def uploads(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = _reading(scope)
        who = principal_of(scope)
        who.require("read", "watch")
        query = _Query(scope)
        state = query.state()
        limit = query.integer("limit", 100, 1, MOST_UPLOADS)
        before = query.cursor("before")
        found = await self._uploads().list(who, state, before, limit)
        following = f"{found[-1].created!r}~{found[-1].id}" if len(found) == limit else None
        page = {"uploads": [self._summary(scope, upload) for upload in found], "next": following}
        await answer_json(send, page, head=method == "HEAD")

    async def upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = _reading(scope)
        who = principal_of(scope)
        who.require(*STATE)
        query = _Query(scope)
        after = query.integer("after", 0, 0, 10**18)
        limit = query.integer("limit", 1000, 1, MOST_RANGES)
        uploads = self._uploads()
        upload, missing = await uploads.state(who, upload_id(scope), 1)
        missing = await uploads.missing(upload, after, limit)
        stored = await uploads.stored(upload, after, limit)
        ends = [ranges[-1][1] for ranges in (missing.ranges, stored) if len(ranges) == limit]
        following = min(ends, default=None)
        if following is not None and following < upload.reach:
            # Both lists of a page reach equally far, so that the next page goes on where this one ends.
            missing.ranges[:] = _until(missing.ranges, following)
            stored = _until(stored, following)
        else:
            following = None
        state = self._summary(scope, upload) | {
            "ranges": [[start, end - start] for start, end in stored],
            "missing": [[start, end - start] for start, end in missing.ranges],
            "next": following,
        }
        await answer_json(send, state, head=method == "HEAD")

    async def history(self, scope: Scope, receive: Receive, send: Send) -> None:
        """L-HISTORY-1."""
        method = _reading(scope)
        who = principal_of(scope)
        who.require(*STATE)
        limit = _Query(scope).integer("limit", 100, 1, MOST_SAMPLES)
        upload = await self._uploads().find(who, upload_id(scope))
        samples = await self._hub().catalog.samples(upload.id, limit)
        told = [frames.sample(sample, upload.length) for sample in samples]
        await answer_json(send, {"samples": told}, head=method == "HEAD")

    async def stats(self, scope: Scope, receive: Receive, send: Send) -> None:
        """L-STATS-1."""
        method = _reading(scope)
        who = principal_of(scope)
        who.require("watch")
        await answer_json(send, await self._hub().stats(who), head=method == "HEAD")

    def _summary(self, scope: Scope, upload: Upload) -> dict[str, Any]:
        hub = self._hub()
        return _summary(scope, upload) | {"progress": frames.payload(upload, hub.motion(upload.id), hub.now())}

    async def credential(self, scope: Scope, receive: Receive, send: Send) -> None:
        """D-JSON-3."""
        method = _reading(scope)
        who = principal_of(scope)
        left = None if who.grant is None else await self._uploads().left(who.grant)
        await answer_json(send, _credential(who, left), head=method == "HEAD")

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The process answers."""
        await answer_json(send, {"status": "live", "pid": os.getpid()}, head=_reading(scope) == "HEAD")

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The process has its catalog and takes uploads."""
        await self._uploads().list(EVERYBODY, None, None, 1)
        await answer_json(send, {"status": "ready", "pid": os.getpid()}, head=_reading(scope) == "HEAD")


def _reading(scope: Scope) -> str:
    method = str(scope["method"])
    if method not in ("GET", "HEAD"):
        raise not_allowed(("GET", "HEAD"))
    return method


def _until(ranges: Any, end: int) -> list[tuple[int, int]]:
    return [(first, min(last, end)) for first, last in ranges if first < end]


def _time(epoch: float | None) -> str | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds")


def _summary(scope: Scope, upload: Upload) -> dict[str, Any]:
    metadata = fields.parse_metadata(upload.metadata) if upload.metadata else {}
    error = None if upload.error is None else {"code": upload.error, "detail": upload.error_detail}
    return {
        "id": upload.id,
        "url": upload_url(scope, upload),
        "state": upload.state.value,
        "length": upload.length,
        "offset": upload.prefix,
        "received": upload.received,
        "name": upload.name,
        "metadata": {key: value.decode("utf-8", "replace") for key, value in metadata.items()},
        "created": _time(upload.created),
        "updated": _time(upload.updated),
        "expires": _time(upload.expires),
        "parallel": upload.parallel,
        "concat": upload.concat,
        "owner": upload.owner,
        "project": upload.project,
        "granule": upload.granule,
        "digests": {digest.algorithm: digest.hex for digest in upload.computed},
        "error": error,
    }


def _credential(who: Principal, left: int | None) -> dict[str, Any]:
    signature = None
    if who.only is not None:
        grant = who.grant
        signature = {
            "upload": who.only or None,
            "uses": None if grant is None else grant.uses,
            "left": left,
            "types": [] if grant is None else list(grant.types),
            "name": None if grant is None else grant.name,
        }
    return {
        "owner": who.owner,
        "scopes": sorted(who.scopes),
        "projects": sorted(who.projects | ({who.project} if who.project is not None else frozenset())),
        "expires": _time(who.expires),
        "max_size": who.max_size,
        "signature": signature,
    }


class _Query:
    def __init__(self, scope: Scope) -> None:
        self._values = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)

    def _one(self, name: str) -> str | None:
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) != 1:
            raise FieldError(name, "give it once").as_problem()
        return str(values[0])

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        raw = self._one(name)
        if raw is None:
            return default
        try:
            value = fields.parse_integer(name, raw)
        except FieldError as error:
            raise error.as_problem() from None
        if not least <= value <= most:
            raise ProblemError("malformed-field", f"{name} is from {least} to {most}.", {"field": name})
        return value

    def state(self) -> State | None:
        raw = self._one("state")
        try:
            return None if raw is None else State(raw)
        except ValueError:
            names = ", ".join(State)
            raise ProblemError("malformed-field", f"state is one of {names}.", {"field": "state"}) from None

    def cursor(self, name: str) -> tuple[float, str] | None:
        raw = self._one(name)
        if raw is None:
            return None
        created, _, last = raw.partition("~")
        try:
            return float(created), last
        except ValueError:
            raise ProblemError(
                "malformed-field", f"{name} is the `next` of the page before.", {"field": name}
            ) from None
