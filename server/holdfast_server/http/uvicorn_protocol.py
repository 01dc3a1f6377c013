"""uvicorn's HTTP protocol, with nothing lost, and with trailers.

Rule of this file: it mends what cannot be mended from inside an ASGI application. uvicorn answers `http.disconnect`
before it has handed over the bytes that came before the connection was lost, and with them a cut-off request would
lose what T-PATCH-4 promises to keep. And it appends trailers to the header fields of the scope, often before the
application has seen those, so that nobody could tell them apart (T-TRAILER-1). Where another server runs the
application, everything else still holds.
"""

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from holdfast_server.http.answers import TRAILERS


class HoldfastProtocol(HttpToolsProtocol):
    """To be given to uvicorn as `http=`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = _keeping(self.app)

    def on_headers_complete(self) -> None:
        trailers: list[tuple[bytes, bytes]] = []
        self.scope["extensions"] = {TRAILERS: {"fields": trailers}}
        super().on_headers_complete()
        if (
            self.parser is not None and not self.parser.should_upgrade()
        ):  # there is no body then, and the fields are looked at again
            self.headers = trailers


def _keeping(app: ASGIApp) -> ASGIApp:
    async def keeping(scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(receive, "__self__", None)
        if not isinstance(cycle, RequestResponseCycle):
            await app(scope, receive, send)
            return

        async def receive_all() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and cycle.body:
                body, cycle.body = bytes(cycle.body), bytearray()
                return {"type": "http.request", "body": body, "more_body": cycle.more_body}
            return message

        await app(scope, receive_all, send)

    return keeping
