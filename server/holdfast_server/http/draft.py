"""What `/files` and `/files/{id}` answer to those who speak the IETF draft.

Rule of this file: as in `files`, nothing is decided here. The version that is spoken comes with every call, and what
differs between versions stays behind it, in `holdfast_protocol.drafts`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.types import Receive, Scope, Send

from holdfast_protocol import headers
from holdfast_protocol import server as rules
from holdfast_protocol.dialects import ietf
from holdfast_protocol.drafts import Draft
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_server.http import downloads
from holdfast_server.http.answers import answer, gone_of, head_of
from holdfast_server.http.body import reading
from holdfast_server.http.guard import granted, limits_for, place_of, principal_of
from holdfast_server.http.interim import Interim
from holdfast_server.settings import Settings
from holdfast_server.uploads.incoming import Incoming
from holdfast_server.uploads.service import Cut, Uploads
from holdfast_server.uploads.upload import State, Upload


class DraftFiles:
    """`url` makes the URL of an upload: the one of interim and final answers (I-INTERIM-2). `working` is what an answer
    has that comes before the file is published, to a client that would wait for so many seconds.
    """

    def __init__(
        self,
        uploads: Callable[[], Uploads],
        settings: Settings,
        url: Callable[[Scope, Upload], str],
        working: Callable[[Upload, int | None], dict[str, str]],
    ) -> None:
        self._uploads = uploads
        self._settings = settings
        self._url = url
        self._working = working

    async def create(self, spoken: ietf.Spoken, scope: Scope, receive: Receive, send: Send) -> None:
        uploads, draft, head = self._uploads(), spoken.draft, head_of(scope)
        interim = Interim(scope, send, spoken)
        async with self._refusing(scope, uploads, draft, None):
            wanted = granted(scope, ietf.create(head, limits_for(scope, uploads.limits), draft))
            who = principal_of(scope)
            project = place_of(scope)
            upload = await uploads.create(
                who, wanted.without_body(), lambda: self._body(scope, receive), project=project
            )
        location = {headers.LOCATION: self._url(scope, upload)}
        limits = ietf.upload_limits(draft, upload, uploads.limits, uploads.now())
        await interim.tell({**location, **limits})
        try:
            if wanted.body is not None:
                # The client may know the URL by now: whatever happens to the body, the upload stays.
                async with self._refusing(scope, uploads, draft, upload.id, location):
                    upload = await self._append(uploads, upload, wanted.body, interim, scope, receive)
        except Cut:
            return
        fields = ietf.upload_fields(draft, upload, uploads.limits, uploads.now())
        await answer(send, _status(upload, 201), {**location, **fields, **self._working(upload, None)})

    async def head(self, spoken: ietf.Spoken, upload_id: str, scope: Scope, send: Send) -> None:
        uploads, draft = self._uploads(), spoken.draft
        async with self._refusing(scope, uploads, draft, None):
            ietf.check_asking(head_of(scope), draft)
            upload = await uploads.settled(principal_of(scope), upload_id, gone_of(scope))
            rules.check_not_failed(upload)
        await answer(send, 204, ietf.state_fields(draft, upload, uploads.limits, uploads.now()))

    async def get(self, spoken: ietf.Spoken, upload_id: str, scope: Scope, send: Send) -> None:
        """Where a complete upload is, comes with the file; where another one is, as with HEAD."""
        uploads, draft = self._uploads(), spoken.draft
        async with self._refusing(scope, uploads, draft, None):
            upload = await uploads.find(principal_of(scope), upload_id)
        if upload.state is State.COMPLETE:
            fields = ietf.state_fields(draft, upload, uploads.limits, uploads.now())
            await downloads.download(uploads, upload, scope, send, fields)
        else:
            await self.head(spoken, upload_id, scope, send)

    async def patch(self, spoken: ietf.Spoken, upload_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        uploads, draft, head = self._uploads(), spoken.draft, head_of(scope)
        interim = Interim(scope, send, spoken)
        try:
            async with self._refusing(scope, uploads, draft, upload_id):
                upload = await uploads.find(principal_of(scope), upload_id)
                match ietf.patch(head, upload, limits_for(scope, uploads.limits, upload.length), draft):
                    case rules.Append() as wanted:
                        upload = await self._append(uploads, upload, wanted, interim, scope, receive)
                    case rules.Complete() as wanted:
                        upload = await uploads.complete(principal_of(scope), upload, wanted)
        except Cut:
            return
        fields = ietf.upload_fields(draft, upload, uploads.limits, uploads.now())
        done = 204 if upload.state is State.COMPLETE else draft.appended
        await answer(send, _status(upload, done), {**fields, **self._working(upload, wanted.wait)})

    async def delete(self, spoken: ietf.Spoken, upload_id: str, scope: Scope, send: Send) -> None:
        async with self._refusing(scope, self._uploads(), spoken.draft, None):
            ietf.check_asking(head_of(scope), spoken.draft)
            await self._uploads().terminate(principal_of(scope), upload_id)
        await answer(send, 204)

    async def _append(
        self, uploads: Uploads, upload: Upload, wanted: rules.Append, interim: Interim, scope: Scope, receive: Receive
    ) -> Upload:
        async with interim.progress(uploads, upload.id, wanted.offset), self._body(scope, receive) as body:
            return await uploads.append(principal_of(scope), upload, wanted, body)
        raise AssertionError("neither block swallows an exception")

    @asynccontextmanager
    async def _refusing(
        self,
        scope: Scope,
        uploads: Uploads,
        draft: Draft,
        upload_id: str | None,
        location: dict[str, str] | None = None,
    ) -> AsyncIterator[None]:
        """Has problems leave as the draft knows them, with where the upload is, if it is about one."""
        try:
            yield
        except (ProblemError, FieldError) as error:
            problem = error.as_problem() if isinstance(error, FieldError) else error
            upload = None
            if upload_id is not None:
                try:
                    upload = await uploads.find(principal_of(scope), upload_id)
                except ProblemError as gone:
                    location = None
                    problem = gone if problem.code == "not-found" else problem  # the one who asks may know why
            refused = ietf.refusal(problem, draft, uploads.limits, upload, uploads.now())
            refused.headers = {**refused.headers, **(location or {})}
            raise refused from error

    def _body(self, scope: Scope, receive: Receive) -> AbstractAsyncContextManager[Incoming]:
        return reading(scope, receive, self._settings, rules.read_content_length(head_of(scope)))


def _status(upload: Upload, status: int) -> int:
    return 202 if upload.state is State.VERIFYING else status
