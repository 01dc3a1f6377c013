"""`/files` and `/files/{id}`: the URLs that speak the protocol.

Rule of this file: a decision is made on the head (`holdfast_protocol.dialects`), then the domain is called, then its
answer becomes fields (`holdfast_protocol.server`). Nothing is decided here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from holdfast_protocol import concat, dialects, headers
from holdfast_protocol import server as rules
from holdfast_protocol.dialects import ietf
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_server.auth.principal import STATE
from holdfast_server.auth.principal import Scope as Right
from holdfast_server.http import downloads
from holdfast_server.http.answers import answer, arrived, head_of, not_allowed, trailers_of
from holdfast_server.http.body import reading
from holdfast_server.http.draft import DraftFiles
from holdfast_server.http.guard import granted, limits_for, place_of, principal_of
from holdfast_server.http.proxies import forwarded_host
from holdfast_server.settings import Settings
from holdfast_server.uploads.incoming import Incoming
from holdfast_server.uploads.service import Cut, Uploads
from holdfast_server.uploads.upload import State, Upload

_METHODS = ("HEAD", "GET", "PATCH", "DELETE", "OPTIONS")
_NEEDS: Final[Mapping[str, tuple[Right, ...]]] = {
    "HEAD": STATE,
    "GET": ("read",),
    "PATCH": ("write",),
    "DELETE": ("delete",),
}
_ID = re.compile(r"[0-9a-f]{32}")


def upload_id(scope: Scope) -> str:
    """The id in the path (V-ID-1). Raises ProblemError 404."""
    found = scope["path_params"]["id"]
    if not _ID.fullmatch(found):
        raise ProblemError("not-found", "There is no upload with this id. Create a new one.")
    return str(found)


def upload_url(scope: Scope, upload: Upload) -> str:
    """An absolute path, with the prefix where the application is mounted."""
    return f"{scope.get('root_path', '').rstrip('/')}/files/{upload.id}"


def _parts(scope: Scope, head: Headers, wanted: rules.Create, public_url: str | None) -> Sequence[str]:
    """The ids of the parts of a final. Raises ProblemError 400 (T-CONCAT-3)."""
    if wanted.concat is None or wanted.concat.urls is None:
        return ()
    hosts = [host for host in (head.get(headers.HOST), forwarded_host(scope)) if host]
    if public_url is not None:
        hosts.append(urlsplit(public_url).netloc)
    try:
        return concat.upload_ids(wanted.concat.urls, scope["path"], hosts)
    except FieldError as error:
        raise error.as_problem() from None


@lru_cache(maxsize=8)
def _with_trailers(limits: rules.Limits) -> rules.Limits:
    return replace(limits, trailers=True)


class Files:
    """Both endpoints. `uploads` is there while the application runs; `step_of` tells, by its id, where in the pipeline
    an upload is, if its state does not.
    """

    def __init__(
        self, uploads: Callable[[], Uploads], settings: Settings, step_of: Callable[[str], str | None]
    ) -> None:
        self._uploads = uploads
        self._step_of = step_of
        self._settings = settings
        self._draft = DraftFiles(uploads, settings, self._location, self._working)

    async def collection(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"]:
            case "POST":
                principal_of(scope).require("create")
                spoken = dialects.draft_spoken("POST", head_of(scope))
                if spoken is not None:
                    await self._draft.create(spoken, scope, receive, send)
                else:
                    await self._create(scope, receive, send)
            case "OPTIONS":
                await self._options(scope, send, ("POST", "OPTIONS"))
            case _:
                raise not_allowed(("POST", "OPTIONS"))

    async def upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method == "OPTIONS":
            await self._options(scope, send, _METHODS)
            return
        who = principal_of(scope)
        if method in _NEEDS:
            who.require(*_NEEDS[method])
        found = upload_id(scope)
        spoken = dialects.draft_spoken(method, head_of(scope))
        if spoken is not None:
            await self._speak_draft(spoken, found, scope, receive, send)
            return
        match method:
            case "HEAD":
                await self._head(found, scope, send)
            case "PATCH":
                await self._patch(found, scope, receive, send)
            case "GET":
                uploads = self._uploads()
                await downloads.download(uploads, await uploads.find(who, found), scope, send)
            case "DELETE":
                await self._uploads().terminate(who, found)
                await answer(send, 204)
            case _:
                raise not_allowed(_METHODS)

    async def _speak_draft(
        self, spoken: ietf.Spoken, upload_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        match scope["method"]:
            case "HEAD":
                await self._draft.head(spoken, upload_id, scope, send)
            case "GET":
                await self._draft.get(spoken, upload_id, scope, send)
            case "PATCH":
                await self._draft.patch(spoken, upload_id, scope, receive, send)
            case "DELETE":
                await self._draft.delete(spoken, upload_id, scope, send)
            case _:
                raise not_allowed(_METHODS)

    def _location(self, scope: Scope, upload: Upload) -> str:
        """T-CREATE-1: absolute only if the server was told where clients reach it, for it cannot know that itself."""
        follow = principal_of(scope).follow
        query = "" if follow is None else "?" + follow(upload)
        return (self._settings.public_url or "") + upload_url(scope, upload) + query

    def _limits(self, scope: Scope, length: int | None = None) -> rules.Limits:
        """What is taken, by the server that this request came through, for an upload of this length if there is one."""
        limits = limits_for(scope, self._uploads().limits, length)
        return limits if trailers_of(scope) is None else _with_trailers(limits)

    async def _options(self, scope: Scope, send: Send, methods: tuple[str, ...]) -> None:
        fields = dialects.options_fields(self._limits(scope), head_of(scope))
        await answer(send, 204, fields | {headers.ALLOW: ", ".join(methods)})

    async def _create(self, scope: Scope, receive: Receive, send: Send) -> None:
        uploads = self._uploads()
        head = head_of(scope)
        wanted = dialects.decide_create(head, self._limits(scope))
        who = principal_of(scope)
        wanted = granted(scope, wanted)
        project = place_of(scope)
        parts = _parts(scope, head, wanted, self._settings.public_url)
        try:
            upload = await uploads.create(
                who, wanted, lambda: self._body(scope, head, receive), parts, arrived(scope), project
            )
        except Cut:
            return
        fields = rules.created_fields(upload, uploads.limits)
        await answer(send, 201, {headers.LOCATION: self._location(scope, upload), **fields})

    async def _head(self, upload_id: str, scope: Scope, send: Send) -> None:
        uploads = self._uploads()
        upload, missing = await uploads.state(principal_of(scope), upload_id, rules.MISSING_ON_HEAD)
        step = self._step_of(upload.id) if upload.state is State.VERIFYING else None
        fields = rules.state_fields(upload, missing.ranges, missing.more, uploads.limits, step)
        if upload.state is State.COMPLETE:
            fields |= downloads.file_fields(upload, self._settings.inline_types) | {
                headers.CONTENT_LENGTH: str(upload.reach)
            }
        await answer(send, 200, fields)

    async def _patch(self, upload_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        uploads, who = self._uploads(), principal_of(scope)
        made = uploads.made(who, upload_id) if arrived(scope) else None
        if made is not None:
            done = await self._append_whole(uploads, made, scope)
            if done is not None:
                await answer(send, 204, rules.progress_fields(done))
                return
        upload = await uploads.find(who, upload_id)
        try:
            status, fields = await self._carry_out(uploads, upload, scope, receive)
        except Cut:
            return
        except ProblemError as problem:
            if problem.code == "not-found":
                await uploads.find(who, upload_id)  # it went while it was waited for: the one who asks may know why
            # "Every PATCH answer" says until when the upload is kept (T-EXPIRE-1).
            expires = {k: v for k, v in rules.progress_fields(upload).items() if k == headers.UPLOAD_EXPIRES}
            raise ProblemError(
                problem.code, problem.detail, problem.members, {**expires, **problem.headers}
            ) from problem
        await answer(send, status, fields)

    async def _append_whole(self, uploads: Uploads, made: Upload, scope: Scope) -> Upload | None:
        """All of a small file, for the upload that was made for it just now, without asking what has become of that.
        None if it is something else, or cannot be: that is to be told by what the upload is now.
        """
        try:
            wanted = dialects.decide_patch(head_of(scope), made, self._limits(scope, made.length))
            if isinstance(wanted, rules.Append):
                return await uploads.append_whole(made, wanted, arrived(scope))
        except ProblemError:
            pass
        return None

    async def _carry_out(
        self, uploads: Uploads, upload: Upload, scope: Scope, receive: Receive
    ) -> tuple[int, Mapping[str, str]]:
        head, wait = head_of(scope), None
        match dialects.decide_patch(head, upload, self._limits(scope, upload.length)):
            case rules.Append() as wanted:
                wait = wanted.wait
                done = await uploads.append_whole(upload, wanted, arrived(scope))
                if done is not None:
                    return 204, rules.progress_fields(done)
                async with self._body(scope, head, receive) as body:
                    upload = await uploads.append(principal_of(scope), upload, wanted, body)
            case rules.StoreChunk() as wanted:
                async with self._body(scope, head, receive) as body:
                    upload = await uploads.store_chunk(upload, wanted, body)
            case rules.StoreHole() as wanted:
                upload = await uploads.store_hole(upload, wanted)
            case rules.Complete() as wanted:
                upload = await uploads.complete(principal_of(scope), upload, wanted)
                status = 204 if upload.state is State.COMPLETE else 202
                return status, rules.completed_fields(upload) | self._working(upload, wanted.wait)
            case rules.Acknowledge():
                pass
        return 204, rules.progress_fields(upload) | self._working(upload, wait)

    def _working(self, upload: Upload, wait: int | None) -> dict[str, str]:
        """What an answer has that comes before the file is published."""
        if upload.state is not State.VERIFYING:
            return {}
        return rules.working_fields(self._step_of(upload.id), wait)

    def _body(self, scope: Scope, head: Headers, receive: Receive) -> AbstractAsyncContextManager[Incoming]:
        return reading(scope, receive, self._settings, rules.read_content_length(head))
