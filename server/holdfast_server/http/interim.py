"""Interim answers: 104 Upload Resumption Supported, where the server can send it.

Rule of this file: an interim answer goes only to a client that has named a version of the draft that is known, and
only where the ASGI server advertises the extension `http.response.informational` (`uvicorn_protocol` does). It is a
promise like any other: it tells committed bytes and no others.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import anyio
from starlette.types import Scope, Send

from holdfast_protocol import headers
from holdfast_protocol.dialects import ietf
from holdfast_protocol.problem import ProblemError
from holdfast_server.catalog.base import CatalogError
from holdfast_server.http.answers import encode
from holdfast_server.http.guard import principal_of
from holdfast_server.uploads.service import Uploads

EXTENSION: Final = "http.response.informational"
INTERVAL: Final = 1.0
"""Seconds between two tellings of the offset."""


class Interim:
    """The interim answers of one request; silent where there are to be none."""

    def __init__(self, scope: Scope, send: Send, spoken: ietf.Spoken) -> None:
        self._send = send
        self._who = principal_of(scope)
        self._draft = spoken.draft
        self._able = spoken.named and EXTENSION in (scope.get("extensions") or {})

    async def tell(self, others: Mapping[str, str]) -> None:
        if self._able:
            await self._send(
                {
                    "type": EXTENSION,
                    "status": headers.STATUS_RESUMPTION_SUPPORTED,
                    "headers": encode(ietf.interim_fields(self._draft, others)),
                }
            )

    @asynccontextmanager
    async def progress(self, uploads: Uploads, upload_id: str, offset: int) -> AsyncIterator[None]:
        """Tells the offset whenever it has grown beyond `offset`, at most every second, while the block runs.

        An exception leaves the block as it is, not in a group.
        """
        if not self._able or not self._draft.progress:
            yield
            return
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, uploads, upload_id, offset)
            try:
                yield
            except Exception as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _follow(self, uploads: Uploads, upload_id: str, offset: int) -> None:
        while True:
            await anyio.sleep(INTERVAL)
            try:
                upload = await uploads.find(self._who, upload_id)
            except (ProblemError, CatalogError, OSError):
                return  # the request itself will say what is wrong
            if upload.prefix > offset:
                offset = upload.prefix
                await self.tell({headers.UPLOAD_OFFSET: str(offset)})
