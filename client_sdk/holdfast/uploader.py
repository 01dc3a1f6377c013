"""Sends one file: the driver of an upload.

Rule of this file: a file that is the same (path, size, time, edges) to the same endpoint with the same metadata is
the same upload, in whatever process; one that changed is another one. The journal only says where to ask, and what
the server answers goes before it. An upload that cannot be continued is begun anew once, and not in a circle. One
that somebody else began (`resume`) is gone on with and nothing else: it is neither begun anew nor removed.

    run - open, lock, ask what is offered (discovery.py), create or resume
        - parallel.py    one reader, N senders, complete
        - sequential.py  one PATCH at a time (tus, the IETF draft); at tus a small file goes with the creation
        - concatenation.py  parts, each sent so, several at a time (tus)
"""

import contextlib
import math
import mimetypes
import secrets
import time
from collections.abc import Mapping
from pathlib import PurePath
from typing import Final, Literal, TypeAlias

import anyio
from anyio import to_thread
from msgspec.structs import replace

from holdfast._transport import Session
from holdfast.concatenation import ConcatenationRoad
from holdfast.discovery import DISCOVERIES
from holdfast.errors import (
    ConnectionFailed,
    HoldfastError,
    ServerRefused,
    SourceChanged,
    UsageError,
    VerificationFailed,
)
from holdfast.journal import Journal, TransferLock, UploadRecord, upload_key
from holdfast.outcome import UploadResult
from holdfast.parallel import ParallelRoad
from holdfast.planner import MIB
from holdfast.progress import State as Stage
from holdfast.progress import Tracker
from holdfast.rates import Share
from holdfast.sending import StartAgain, Upload, UploadJob
from holdfast.sequential import SequentialRoad, arrived_damaged, read_whole
from holdfast.sources import Source
from holdfast.splitting import Part, split
from holdfast_protocol import client as protocol
from holdfast_protocol.client import Created, Reaction, Refusal
from holdfast_protocol.digest import Digest, chunk_algorithm
from holdfast_protocol.discovery import CONCATENATION, WITH_UPLOAD, Services
from holdfast_protocol.ietf_client import NOT_SPOKEN, Guest
from holdfast_protocol.messages import Span
from holdfast_protocol.size_limits import SizeLimits

Spoken: TypeAlias = Literal["parallel", "tus", "ietf"]

CHANGES_FOLLOWED: Final = 5
SMALL: Final = MIB
"""Bytes of a file that goes with the creation: what is lost with the answer to it is no more than this."""


class Uploader:
    """Runs one UploadJob."""

    def __init__(
        self,
        job: UploadJob,
        session: Session,
        journal: Journal,
        tracker: Tracker,
        share: Share,
    ) -> None:
        self._job = job
        self._session = session
        self._journal = journal
        self._tracker = tracker
        self._share = share
        self._endpoint = session.endpoint
        self._services: Services | None = None
        self._guest: Guest | None = None
        """Speaks the IETF draft, if that is what is spoken."""

    async def run(self) -> UploadResult:
        """Send the file, or what the server lacks of it. Raises HoldfastError; see errors.py."""
        for change in range(CHANGES_FOLLOWED + 1):
            assert self._job.given.open is not None
            source = await to_thread.run_sync(self._job.given.open)
            try:
                return await self._locked(source)
            except SourceChanged:
                if self._job.on_change != "restart" or change == CHANGES_FOLLOWED:
                    raise
                self._tracker.retries += 1
                self._tracker.accepted = 0
                self._tracker.enter(Stage.STARTING, f"{source.name} changed; it is sent anew")
            finally:
                source.close()
        raise AssertionError("the loop ends by return or raise")

    async def _locked(self, source: Source) -> UploadResult:
        metadata = described(source, self._job.metadata)
        key = upload_key(self._endpoint, source.fingerprint, metadata)
        lock = await to_thread.run_sync(self._journal.lock, key, source.name, self._job.id)
        finished = False
        try:
            await self._choose(source)
            try:
                result = await self._once_more(source, key, lock, metadata)
            except ServerRefused as error:
                if self._job.dialect != "auto" or error.code != NOT_SPOKEN:
                    raise
                # It named neither tus nor the draft, and does not understand the draft.
                self._guest = None
                result = await self._once_more(source, key, lock, metadata)
            finished = True
            return result
        finally:
            with anyio.CancelScope(shield=True):
                if not finished:
                    await to_thread.run_sync(lambda: self._journal.pause_upload(key, wire=lock.wire))
                await to_thread.run_sync(lambda: self._journal.unlock(key, lock, forget=finished))

    async def _once_more(
        self, source: Source, key: str, lock: TransferLock, metadata: Mapping[str, bytes]
    ) -> UploadResult:
        for last in (False, True):
            record = await to_thread.run_sync(self._journal.find_upload, key)
            if self._job.resume:
                return await self._others(source, key, lock, record)
            if record is not None and not record.done and (record.expires or math.inf) <= self._session.clock.time():
                await to_thread.run_sync(self._journal.forget_upload, key)
                self._tracker.enter(Stage.STARTING, f"what was begun has expired at {record.url}; it is begun anew")
                record = None
            try:
                if record is None or (record.asked is not None and not record.url):
                    return await self._fresh(source, key, lock, metadata, record.asked if record else None)
                upload = self._upload(source, lock, record.url, key)
                upload.expires = record.expires
                if not record.url:
                    upload.url, self._tracker.size = self._endpoint, source.size
                    parts = await to_thread.run_sync(self._journal.find_parts, key)
                    return await self._in_parts(upload, key, metadata, parts)
                return await self._resumed(upload, key, record)
            except StartAgain as again:
                await self._abandon(source, key, lock)
                if last:
                    raise again.reason from again
                self._tracker.retries += 1
                self._tracker.accepted = 0
                self._tracker.enter(Stage.STARTING, f"{again.reason.message}; it is begun anew")
            except (SourceChanged, VerificationFailed):
                # What is on the server is of a version that is gone, or is damaged: nobody can continue it.
                await self._abandon(source, key, lock)
                raise
        raise AssertionError("the loop ends by return or raise")

    async def _choose(self, source: Source) -> None:
        """Which dialect is spoken."""
        services = await self._offered()
        drafted = self._job.dialect == "auto" and not services.tus and not services.parallel
        if self._job.dialect == "ietf" or drafted:
            self._guest = DISCOVERIES.guest(self._session, services, source.size)

    async def _others(self, source: Source, key: str, lock: TransferLock, record: UploadRecord | None) -> UploadResult:
        """Go on with an upload that somebody else began."""
        if record is None:
            url = self._endpoint
            begin = self._journal.begin_upload
            await to_thread.run_sync(lambda: begin(key, source.fingerprint, endpoint=url, url=url))
            record = UploadRecord(key, source.fingerprint.path, url, url, source.size)
        try:
            return await self._resumed(self._upload(source, lock, record.url, key), key, record)
        except StartAgain as again:
            await to_thread.run_sync(self._journal.forget_upload, key)
            raise again.reason from again
        except (SourceChanged, VerificationFailed):
            await to_thread.run_sync(self._journal.forget_upload, key)
            raise

    def _upload(self, source: Source, lock: TransferLock, url: str, key: str) -> Upload:
        def keep(expires: float) -> None:
            self._journal.keep_upload_until(key, expires)

        speech = self._guest or protocol
        return Upload(self._job, self._session, self._tracker, lock, source, url, self._share, keep, speech)

    async def _fresh(
        self,
        source: Source,
        key: str,
        lock: TransferLock,
        metadata: Mapping[str, bytes],
        asked: str | None = None,
    ) -> UploadResult:
        """Begin an upload; with `asked` it may be there already, from an earlier call that did not hear of it."""
        upload = self._upload(source, lock, self._endpoint, key)
        self._tracker.size = source.size
        services = await self._offered()
        if self._guest is not None:
            return await self._drafted(upload, key, metadata, services, self._guest)
        taken = SizeLimits(max_size=services.max_size)
        if (why := taken.unmet(source.size)) is not None:
            raise self._outside(source, why)
        as_tus = self._job.dialect == "tus" or (self._job.dialect == "auto" and not services.parallel)
        near = self._session.limiter.controller.near
        parts = split(source.size, self._job.concurrency, near=near)
        if as_tus and services.offers(CONCATENATION) and parts:
            await to_thread.run_sync(
                lambda: self._journal.begin_upload(
                    key, source.fingerprint, endpoint=self._endpoint, url="", parts=parts
                )
            )
            return await self._in_parts(upload, key, metadata, parts)
        if services.parallel and not as_tus:
            upload.agree(services.wants)
        again = services.keys and asked is not None
        if not services.keys:
            asked = None
        elif asked is None:
            asked = secrets.token_hex(16)
            await to_thread.run_sync(
                lambda: self._journal.begin_upload(
                    key, source.fingerprint, endpoint=self._endpoint, url="", asked=asked
                )
            )
        in_one = as_tus or (services.keys and self._job.dialect == "auto")
        small = 0 < source.size <= min(SMALL, self._job.chunk_size or SMALL)
        tried = in_one and small and not again and services.offers(WITH_UPLOAD)
        async with upload.connection():
            created, whole = await self._create(upload, metadata, services, whole=tried, asked=asked)
        upload.url = created.url
        upload.expires = created.expires
        if asked is None:
            await to_thread.run_sync(
                lambda: self._journal.begin_upload(
                    key, source.fingerprint, endpoint=self._endpoint, url=created.url, expires=created.expires
                )
            )
        elif not whole:
            await to_thread.run_sync(self._journal.place_upload, key, created.url, created.expires)
        if tried or again:
            upload.chunks += whole
            if whole and created.said_offset:
                state = protocol.State(created.offset, source.size, complete=created.offset == source.size)
            else:
                state = await upload.state()
            return await self._send(upload, key, state, begun=not again)
        state = protocol.State(
            offset=created.offset,
            length=source.size,
            complete=source.size == 0 and created.offer is None,
            missing=protocol.Missing(protocol.spans_of(source.size)) if created.offer is not None else None,
            offer=created.offer,
            wants=created.wants,
        )
        return await self._send(upload, key, state)

    async def _drafted(
        self, upload: Upload, key: str, metadata: Mapping[str, bytes], services: Services, guest: Guest
    ) -> UploadResult:
        """Begin an upload of the IETF draft, and send it."""
        source = upload.source
        if (why := services.limits.unmet(upload.size)) is not None:
            raise self._outside(source, why)
        attempts = upload.attempts()
        async with upload.connection():
            while True:
                try:
                    created = await upload.exchange(guest.create(self._endpoint, metadata=metadata, now=time.time()))
                    break
                except (Refusal, ConnectionFailed) as error:
                    await upload.recover(error, attempts)
        upload.url, upload.expires = created.url, created.expires
        upload.limits = services.limits.then(created.limits)
        if (why := upload.limits.unmet(upload.size)) is not None:
            await self._remove(upload, created.url)
            raise self._outside(source, why)
        await to_thread.run_sync(
            lambda: self._journal.begin_upload(
                key, source.fingerprint, endpoint=self._endpoint, url=created.url, expires=created.expires
            )
        )
        return await self._send(upload, key, protocol.State(0, upload.size, created.complete))

    def _outside(self, source: Source, why: str) -> ServerRefused:
        return ServerRefused(
            f"{self._endpoint} {why}, and {source.name} has {source.size}; nothing was sent",
            status=413,
            code="upload-too-large",
        )

    async def _create(
        self,
        upload: Upload,
        metadata: Mapping[str, bytes],
        services: Services,
        *,
        whole: bool,
        asked: str | None,
    ) -> tuple[Created, bool]:
        """Begin the upload, with `whole` together with all its bytes; whether they went with it. Raises HoldfastError.

        With `asked` one that was begun already is found, and no other one begun.
        """
        attempts = upload.attempts()
        damaged = 0
        while True:
            content, checksum, body = None, None, None
            if whole:
                content = Span(0, upload.size)
                checksum, body = await read_whole(
                    upload,
                    content,
                    memoryview(bytearray(content.length)),
                    services.checksum if asked is None else None,
                )
                await to_thread.run_sync(upload.source.check)
            steps = protocol.create(
                self._endpoint,
                upload.size,
                metadata=metadata,
                parallel=self._job.dialect != "tus" and not whole,
                want=upload.algorithm,
                content=content,
                checksum=checksum,
                digest=upload.digest() if whole and asked is not None else None,
                key=asked,
                now=time.time(),
            )
            try:
                return await upload.exchange(steps, body), whole
            except (Refusal, ConnectionFailed) as error:
                damaged += isinstance(error, Refusal) and error.reaction is Reaction.REPEAT
                if damaged > 1:
                    raise arrived_damaged(upload.source.name) from error
                await upload.recover(error, attempts)
                if asked is not None and isinstance(error, ConnectionFailed):
                    # It may have come, or a part of it. Whoever asks for the same again is told what is there.
                    whole = False

    async def _resumed(self, upload: Upload, key: str, record: UploadRecord) -> UploadResult:
        self._tracker.size = upload.size
        async with upload.connection():
            state = await upload.state()
        if state.offer is not None and self._job.dialect != "tus":
            upload.agree(state.wants)
        if state.complete:
            known = (*state.digests, *([record.digest] if record.digest is not None else []))
            digest = next((each for each in known if each.algorithm == upload.algorithm), None)
            if digest is None:
                await upload.hash_up_to(upload.size)
                digest = upload.digest()
            self._tracker.resumed = upload.size
            upload.accepted(upload.size)
            spoken: Spoken = "ietf" if self._guest is not None else "parallel" if state.offer else "tus"
            return await self._finished(upload, key, digest, spoken, there=True, wire=record.wire)
        return await self._send(upload, key, state)

    async def _send(self, upload: Upload, key: str, state: protocol.State, *, begun: bool = False) -> UploadResult:
        """Bring what is missing. `begun`: what the server has already was sent by this call."""
        self._tracker.url = upload.url
        if state.length is None:
            # Chunks wait until the length is known (T-DEFER-4); a PATCH in order says it.
            state = replace(state, offer=None, missing=None)
        elif state.offer is None and self._job.dialect == "parallel":
            raise UsageError(f"{self._endpoint} does not speak the parallel dialect; use --protocol auto or tus")
        missing = state.missing.spans if state.missing is not None else protocol.spans_of(upload.size, state.offset)
        stored = upload.size - sum(span.length for span in missing)
        if state.missing is not None and state.missing.more:
            stored = state.offset
        self._tracker.resumed = 0 if begun else stored
        upload.accepted(stored)
        if state.offer is not None and self._job.dialect != "tus":
            parallel = ParallelRoad(upload, state)
            digest = await parallel.run()
            return await self._finished(upload, key, digest, "parallel")
        services = await self._offered()
        checksum = services.checksum
        spoken: Spoken = "tus"
        if self._guest is not None:
            DISCOVERIES.learn(self._session, self._guest)
            checksum = chunk_algorithm(services.wants) if services.wants else None
            spoken = "ietf"
        async with upload.connection():
            digest = await SequentialRoad(upload, state, checksum).run()
        return await self._finished(upload, key, digest, spoken)

    async def _in_parts(
        self, upload: Upload, key: str, metadata: Mapping[str, bytes], parts: tuple[Part, ...]
    ) -> UploadResult:
        def keep(part: Part) -> None:
            self._journal.keep_part(key, part)

        road = ConcatenationRoad(upload, parts, metadata, keep, (await self._offered()).checksum)
        await road.send()
        upload.url = await road.join()
        await to_thread.run_sync(self._journal.join_parts, key, upload.url)
        await road.check(upload.url)
        return await self._finished(upload, key, upload.digest(), "tus")

    async def _offered(self) -> Services:
        """What the server offers: the same for the whole of this upload, also if the server does not say it well."""
        if self._services is None:
            self._services = await DISCOVERIES.services(self._session)
        return self._services

    async def _finished(
        self,
        upload: Upload,
        key: str,
        digest: Digest,
        protocol_name: Spoken,
        *,
        there: bool = False,
        wire: int = 0,
    ) -> UploadResult:
        wire = max(upload.lock.wire, wire)
        await to_thread.run_sync(lambda: self._journal.finish_upload(key, url=upload.url, digest=digest, wire=wire))
        return UploadResult(
            url=upload.url,
            path=self._job.given.path,
            size=upload.size,
            digest=digest,
            seconds=self._tracker.elapsed,
            bytes_sent=wire,
            bytes_resent=max(0, wire - (upload.size - upload.sparse)),
            bytes_resumed=self._tracker.resumed,
            retries=self._tracker.retries,
            chunks=upload.chunks,
            concurrency=self._tracker.peak,
            protocol=protocol_name,
            bytes_sparse=upload.sparse,
            already_there=there,
        )

    async def _abandon(self, source: Source, key: str, lock: TransferLock) -> None:
        """Forget an upload that nobody will continue, and free the server of it; else it expires there."""
        record = await to_thread.run_sync(self._journal.find_upload, key)
        if record is None:
            return
        parts = await to_thread.run_sync(self._journal.find_parts, key)
        await to_thread.run_sync(self._journal.forget_upload, key)
        for url in [record.url, *(part.url for part in parts)]:
            if url:
                await self._remove(self._upload(source, lock, url, key), url)

    async def _remove(self, upload: Upload, url: str) -> None:
        with anyio.move_on_after(10), contextlib.suppress(Refusal, HoldfastError):
            await upload.exchange(upload.speech.terminate(url, now=time.time()))


def described(source: Source, metadata: Mapping[str, bytes]) -> dict[str, bytes]:
    """The metadata that goes with a file: its name and, if it can be guessed, its type, as tus clients give them."""
    found = {"filename": source.name.encode("utf-8", "surrogateescape")}
    kind = _type_of(source.name)
    if kind is not None:
        found["filetype"] = kind.encode()
    return found | dict(metadata)


def _type_of(name: str) -> str | None:
    """As Python knows it, else the machine, whose list takes longer to read than a small file to send."""
    ending = PurePath(name).suffix.lower()
    if not ending:
        return None
    return mimetypes.types_map.get(ending) or mimetypes.guess_type(name)[0]
