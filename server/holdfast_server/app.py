"""The ASGI application: serve it, or mount it in another one."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast_protocol.live import CREDENTIAL_PATH, EVENTS_PATH, LIVE_PATH
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth import Authority
from holdfast_server.auth.chain import authority_of
from holdfast_server.catalog.base import Quota
from holdfast_server.catalog.sqlite import open_sqlite
from holdfast_server.http.api import Api
from holdfast_server.http.envelope import Envelope
from holdfast_server.http.files import Files
from holdfast_server.http.guard import Guard
from holdfast_server.http.hosts import Hosts
from holdfast_server.http.live import Live
from holdfast_server.http.proxies import Proxies
from holdfast_server.http.rationing import Rationing
from holdfast_server.live.history import History
from holdfast_server.live.hub import Hub
from holdfast_server.page.assets import Page
from holdfast_server.settings import Limits, Settings
from holdfast_server.storage.local import LocalStorage
from holdfast_server.storage.neighbours import Neighbours
from holdfast_server.uploads.service import Uploads


class _Site:
    """What lives from the application's start to its end."""

    def __init__(self) -> None:
        self.uploads: Uploads | None = None
        self.hub: Hub | None = None

    def get(self) -> Uploads:
        if self.uploads is None:
            raise ProblemError(
                "overloaded", "The server is not ready yet. Try again in a moment.", headers={"Retry-After": "1"}
            )
        return self.uploads

    def get_hub(self) -> Hub:
        self.get()
        assert self.hub is not None
        return self.hub


def create_app(settings: Settings | str | os.PathLike[str], authority: Authority | None = None) -> Starlette:
    """The application over one data folder: `Settings`, or just the folder.

    `authority` says who has sent a request, where the settings name no other one that does. Without any everybody
    may do everything who asks by an address, as localhost, or by a name of `allowed_hosts` (A-HOST-1), and whoever
    carries the application has to see to that. Raises OSError, ValueError and
    ImportError if what the settings say of credentials cannot be used.

    Nothing is opened before its lifespan starts. Mounted in another application, that one's lifespan has to enter
    ours: `async with uploads_app.router.lifespan_context(uploads_app)`. `app.state.stop()` tells it that the process
    is about to end.
    """
    if not isinstance(settings, Settings):
        settings = Settings(data=Path(settings))
    asked = authority_of(settings, authority)
    site = _Site()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        settings.data.mkdir(parents=True, exist_ok=True)
        storage = LocalStorage(settings.data, settings.durability)
        async with open_sqlite(
            settings.data / "catalog.sqlite", durability=settings.durability, quota=_quota(settings.limits)
        ) as catalog:
            uploads = Uploads(catalog, storage, settings)
            neighbours = Neighbours(settings.data / "live", time.monotonic)
            with neighbours.there():
                hub = Hub(uploads, catalog, neighbours, settings)
                async with uploads.running(), hub.running(), History(hub, settings).running():
                    site.uploads, site.hub = uploads, hub
                    try:
                        yield
                    finally:
                        site.uploads = site.hub = None

    page = Page()
    api = Api(site.get, site.get_hub)
    live = Live(site.get_hub)
    files = Files(site.get, settings, lambda upload_id: site.get_hub().motion(upload_id).step)
    app = _Application(
        routes=[
            Route("/files/{id}", _Endpoint(files.upload)),
            Route("/files", _Endpoint(files.collection)),
            Route("/files/", _Endpoint(files.collection)),
            Route("/api/uploads", _Endpoint(api.uploads)),
            Route("/api/uploads/{id}", _Endpoint(api.upload)),
            Route("/api/uploads/{id}/history", _Endpoint(api.history)),
            Route("/api/stats", _Endpoint(api.stats)),
            Route(CREDENTIAL_PATH, _Endpoint(api.credential)),
            Route(EVENTS_PATH, _Endpoint(live.events)),
            Route(LIVE_PATH, _Endpoint(live.socket)),
            WebSocketRoute(LIVE_PATH, _Endpoint(live.socket)),
            Route("/", _Endpoint(page.index)),
            Route("/page/{name}", _Endpoint(page.asset)),
            Route("/health/live", _Endpoint(api.live)),
            Route("/health/ready", _Endpoint(api.ready)),
        ],
        lifespan=lifespan,
    )
    app.settings = settings
    app.authority = asked
    app.files = files
    app.router.redirect_slashes = False

    async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") == "OPTIONS" and scope["path"].removeprefix(scope.get("root_path", "")) == "*":
            await files.collection(scope, receive, send)  # what holds for the whole server (I-LIMIT-2)
        else:
            await _nowhere(scope, receive, send)

    app.router.default = elsewhere

    def stop() -> None:
        if site.uploads is not None:
            site.uploads.stop()
        if site.hub is not None:
            site.hub.stop()

    app.state.stop = stop
    app.state.board = None  # on which worker processes tell each other of clients; `holdfast serve` has one
    return app


def _quota(limits: Limits) -> Quota:
    return Quota(limits.max_uploads, limits.max_stored, limits.owner_uploads, limits.owner_stored)


class _Application(Starlette):
    """Starlette's own handling of errors is left out: the envelope answers every one."""

    settings: Settings
    authority: Authority | None = None
    files: Files

    def build_middleware_stack(self) -> ASGIApp:
        limits = self.settings.limits
        hosts = Hosts(self.settings.allowed_hosts, self.settings.public_url)
        inner: ASGIApp = Guard(self._route, self.authority, self.settings.cors_origins, hosts)
        rationing = Rationing(inner, limits.client_requests, limits.client_rate, board=self.state.board)
        if rationing.bounds:
            inner = rationing
        if self.settings.trusted_proxies:
            inner = Proxies(inner, self.settings.trusted_proxies)
        return Envelope(inner, limits.max_head, self.settings.cors_origins)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the router, which looks through its list for every request: what is asked for most is found at once."""
        if scope["type"] == "http" and not scope.get("root_path"):
            folder, _, name = scope["path"][1:].partition("/")
            if folder == "files" and not name:
                await self.files.collection(scope, receive, send)
                return
            if folder == "files" and "/" not in name:
                scope["path_params"] = {"id": name}
                await self.files.upload(scope, receive, send)
                return
        await self.router(scope, receive, send)


class _Endpoint:
    """A bound method as an ASGI application: Starlette would take the method itself for a request handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    raise ProblemError("not-found", "There is nothing at this path. Uploads are at /files.")
