"""What is remembered of progress: samples of each upload, for as long as settings say; and how long events are kept.

Rule of this file: the process to which bytes come takes the samples, once a second at most, all in one transaction.
What is too old is removed in small pieces while everything else goes on.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from holdfast_server.catalog.base import CatalogError, Sample
from holdfast_server.live import frames
from holdfast_server.live.hub import UNFINISHED, Hub
from holdfast_server.live.moving import Course
from holdfast_server.settings import Settings
from holdfast_server.uploads.upload import State

logger: Final = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two samples of an upload, at least."""
CLEAN_INTERVAL: Final = 300.0
MOST_AT_ONCE: Final = 1000
"""Uploads of which a sample is taken in one second."""


class History:
    """Belongs to the hub of this process. It is kept while it is `running`."""

    def __init__(self, hub: Hub, settings: Settings) -> None:
        self._hub = hub
        self._settings = settings
        self._sampled: dict[str, float] = {}  # when what was sampled last had moved

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Takes samples, and removes what is old, for as long as the block lasts."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sample_forever)
            tasks.start_soon(self._clean_forever)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _sample_forever(self) -> None:
        while True:
            await anyio.sleep(INTERVAL)
            try:
                await self.sample()
            except (OSError, CatalogError) as error:
                logger.warning("the history of progress cannot be written for now: %s", error)

    async def sample(self) -> None:
        """Samples what has moved here since the last time, and what has come to its end."""
        hub = self._hub
        mine = {course.id: course for course in hub.moving if course.here}
        fresh = [course for course in mine.values() if self._sampled.get(course.id) != course.moved_at]
        ended = [each for each in self._sampled if each not in mine and not hub.is_running(each)]
        samples = [sample for course in fresh[:MOST_AT_ONCE] if (sample := await self._sample(course)) is not None]
        for upload_id in ended:
            upload = await hub.catalog.get(upload_id)
            if upload is not None and upload.state is State.VERIFYING:
                continue  # its end is still to come
            del self._sampled[upload_id]
            if upload is not None and upload.state not in UNFINISHED:
                step = frames.step_of(upload.state)
                end = (upload.received, 0, None, upload.errors, upload.retries)
                samples.append(Sample(upload.id, hub.now(), upload.state, step, *end))
        if samples:
            await hub.catalog.add_samples(samples, most=self._settings.history_samples)

    async def _sample(self, course: Course) -> Sample | None:
        self._sampled[course.id] = course.moved_at
        upload = await self._hub.catalog.get(course.id)
        if upload is None:
            return None
        if upload.state not in UNFINISHED:
            self._hub.moving.end(course.id)  # and the next time it is sampled as it ended
            return None
        motion = self._hub.motion(course.id)
        step = motion.step or frames.step_of(upload.state)
        told = (upload.received, motion.arriving, motion.speed, upload.errors, upload.retries)
        return Sample(upload.id, self._hub.now(), State(upload.state), step, *told)

    async def _clean_forever(self) -> None:
        settings, catalog = self._settings, self._hub.catalog
        while True:
            try:
                now = self._hub.now()
                await catalog.drop_samples(now - settings.history_keep)
                await catalog.trim(now - settings.log_keep, settings.log_events)
            except (OSError, CatalogError) as error:
                logger.error("old events and samples could not be removed for now: %s", error)
            await anyio.sleep(min(CLEAN_INTERVAL, max(1.0, min(settings.history_keep, settings.log_keep) / 4)))
