"""Verify, publish.

Rule of this file: a file is published after its length, its type and all digests that were given for it were verified,
by one atomic rename, and by one process: the one that holds all of the upload. `verifying` is written down before the
work begins, so that a process that dies in the middle leaves something to go on with: at the next start, or when the
completing request is repeated.
"""

import logging
from typing import Final

import anyio
from anyio.abc import TaskGroup

from holdfast_protocol import fields, headers
from holdfast_protocol import server as rules
from holdfast_protocol.digest import Digest, hasher
from holdfast_protocol.problem import ProblemError
from holdfast_server.catalog.base import CatalogError, WrongState
from holdfast_server.uploads import types
from holdfast_server.uploads.core import Core, is_full, no_space
from holdfast_server.uploads.frontier import RUN, Frontier
from holdfast_server.uploads.upload import State, Upload
from holdfast_server.uploads.writers import Writers

logger: Final = logging.getLogger(__name__)

EVERYTHING = 1 << 60
"""An end beyond every upload: whoever has `[0, EVERYTHING)` has all of it."""
_LOOK_AGAIN = 0.05


class Completion:
    """Completes uploads, each in a task of its own that outlives the request."""

    def __init__(self, core: Core, writers: Writers, frontier: Frontier) -> None:
        self._core = core
        self._writers = writers
        self._frontier = frontier
        self._tasks: TaskGroup | None = None
        self._running: dict[str, anyio.Event] = {}
        self._failed: dict[str, OSError | CatalogError] = {}

    def start(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    async def complete(self, upload: Upload, digests: tuple[Digest, ...] = (), wait: float | None = None) -> Upload:
        """Verifies and publishes. The upload that is answered may still be `verifying` when that takes longer than the
        server's patience, or than `wait` seconds.

        Raises ProblemError: `missing-ranges`, `upload-digest-mismatch`, `type-not-allowed`, `upload-failed`,
        `insufficient-storage`.
        """
        if upload.state is State.RECEIVING:
            upload = await self._begin(upload, digests)
        if upload.state is State.COMPLETE:
            return await self._check_same(upload, digests)
        if upload.state is State.VERIFYING:
            upload = await self._wait(upload.id, wait)
        if upload.state is State.FAILED:
            if upload.error == "upload-digest-mismatch":
                raise mismatch(upload)
            if upload.error == "type-not-allowed":
                raise ProblemError(upload.error, upload.error_detail or "")
            rules.check_takes_bytes(upload)
        return upload

    async def _begin(self, upload: Upload, digests: tuple[Digest, ...]) -> Upload:
        if upload.length is None:
            raise rules.length_unknown()
        if not upload.whole:
            missing, more = await self._core.catalog.missing(upload.id, 0, upload.length, rules.MISSING_ON_HEAD)
            raise ProblemError(
                "missing-ranges",
                f"{upload.length - upload.received} bytes are missing. Send them, and then complete.",
                {"missing": [[start, end - start] for start, end in missing], "more": more},
                {headers.UPLOAD_MISSING: fields.format_missing(missing, more), **rules.progress_fields(upload)},
            )
        expected = tuple(dict.fromkeys((*upload.expected, *digests)))
        try:
            return await self._core.catalog.transition(
                upload.id,
                sources={State.RECEIVING},
                to=State.VERIFYING,
                now=self._core.now(),
                expires=upload.expires,
                event="verifying",
                expected=expected,
            )
        except WrongState:
            return await self._core.find(upload.id)  # another request was faster

    async def _wait(self, upload_id: str, wait: float | None) -> Upload:
        """Has the work done, here or by whoever is at it, and waits for it, but not for ever (P-COMPLETE-4)."""
        patience = self._core.settings.patience
        with anyio.move_on_after(patience if wait is None else min(wait, patience)):
            while True:
                self.resume(upload_id)
                await self._running[upload_id].wait()
                failed = self._failed.pop(upload_id, None)
                if failed is not None:
                    raise no_space() if isinstance(failed, OSError) and is_full(failed) else failed
                upload = await self._core.find(upload_id)
                if upload.state is not State.VERIFYING:
                    return upload
                await anyio.sleep(_LOOK_AGAIN)  # another process is at it
        return await self._core.find(upload_id)

    async def _check_same(self, upload: Upload, digests: tuple[Digest, ...]) -> Upload:
        """P-COMPLETE-5. Computes what was not asked for before, if that does not take too long."""
        known = {digest.algorithm for digest in upload.computed}
        hashers = {name: hasher(name) for name in {digest.algorithm for digest in digests} - known}
        if hashers:
            with anyio.move_on_after(self._core.settings.patience) as waiting:
                piece = await self._core.storage.view(upload.id, upload.name)
                if piece is None:
                    raise FileNotFoundError(upload.name)
                try:
                    for start in range(0, upload.received, RUN):
                        await piece.digest(start, min(start + RUN, upload.received), list(hashers.values()))
                finally:
                    piece.release()
            if waiting.cancelled_caught:
                raise ProblemError(
                    "overloaded", "This upload is complete, but to compute that digest of it takes too long here."
                )
            for name in sorted(hashers):
                digest = Digest(name, hashers[name].digest())
                upload = await self._core.catalog.record_digest(upload.id, digest, now=self._core.now())
        if not set(digests) <= set(upload.computed):
            raise ProblemError(
                "chunk-conflict", "This upload is complete, with another digest.", headers=rules.digest_fields(upload)
            )
        return upload

    def resume(self, upload_id: str) -> None:
        """Has an upload that is `verifying` completed, unless this process is at it. Does not block."""
        if upload_id not in self._running:
            assert self._tasks is not None
            self._running[upload_id] = anyio.Event()
            self._tasks.start_soon(self._run, upload_id)

    async def _run(self, upload_id: str) -> None:
        try:
            await self._verify_and_publish(upload_id)
        except WrongState:
            logger.info("upload %s was completed by another process", upload_id)
        except (OSError, CatalogError) as error:
            logger.error("upload %s cannot be completed for now: %s", upload_id, error)
            self._failed[upload_id] = error
        except ProblemError as problem:
            logger.info("upload %s is left to another process: %s", upload_id, problem)
        finally:
            self._running.pop(upload_id).set()

    async def _verify_and_publish(self, upload_id: str) -> None:
        reservation = await self._writers.take_over(upload_id, 0, EVERYTHING)
        try:
            upload = await self._core.find(upload_id)
            if upload.state is not State.VERIFYING:
                return
            size = await self._core.storage.size(upload.id, upload.name)
            if (size or 0) != upload.length:
                await self._end(upload, State.FAILED, "data-lost", "Stored bytes are gone from the disk.")
                return
            refused = await self._check_type(upload)
            if refused is not None:
                await self._end(upload, State.FAILED, refused.code, refused.detail)
                return
            upload = await self._frontier.digests(upload_id)
            if not verified(upload):
                wrong = mismatch(upload)
                await self._end(upload, State.FAILED, wrong.code, wrong.detail)
                return
            with self._core.activity.step(upload, "publishing"):
                await publish(self._core, upload)
        finally:
            reservation.release()

    async def _check_type(self, upload: Upload) -> ProblemError | None:
        """F-TYPE-2."""
        if not self._core.settings.allow_types:
            return None
        head = b""
        if upload.length:
            piece = await self._core.storage.view(upload.id, upload.name)
            if piece is None:
                raise FileNotFoundError(upload.name)
            try:
                head = await piece.read(0, min(types.HEAD, upload.length))
            finally:
                piece.release()
        try:
            types.check_bytes(self._core.settings, upload.name, head)
        except ProblemError as problem:
            return problem
        return None

    async def _end(self, upload: Upload, state: State, error: str, detail: str) -> None:
        await self._core.catalog.transition(
            upload.id,
            sources={State.VERIFYING},
            to=state,
            now=self._core.now(),
            expires=self._core.expiry(),
            event=state.value,
            error=error,
            error_detail=detail,
        )


def verified(upload: Upload) -> bool:
    """Are the digests that were given those that were computed? The latter have to be there."""
    computed = {digest.algorithm: digest for digest in upload.computed}
    return all(computed[digest.algorithm] == digest for digest in upload.expected)


async def publish(core: Core, upload: Upload) -> Upload:
    """The last steps, for whoever holds all of an upload that is `verifying` and `verified`."""
    await core.storage.publish(upload.id, upload.name)
    try:
        return await core.catalog.transition(
            upload.id,
            sources={State.VERIFYING},
            to=State.COMPLETE,
            now=core.now(),
            expires=core.kept_until(),
            event="complete",
        )
    except WrongState:
        # The file has left the place where its lock was: a process that recovers may have gone on with it from there.
        return await core.find(upload.id)


def mismatch(upload: Upload) -> ProblemError:
    """P-COMPLETE-3."""
    return ProblemError(
        "upload-digest-mismatch",
        "The bytes that arrived are not those that the digest was given for, so nothing was published. "
        "DELETE this upload and send the file again.",
        {
            "expected": {digest.algorithm: digest.hex for digest in upload.expected},
            "computed": {digest.algorithm: digest.hex for digest in upload.computed},
        },
        rules.digest_fields(upload),
    )
