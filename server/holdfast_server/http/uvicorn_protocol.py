"""uvicorn's HTTP protocol, with nothing lost.

Rule of this file: it mends what cannot be mended from inside an ASGI application. uvicorn answers `http.disconnect`
before it has handed over the bytes that came before the connection was lost, and with them a cut-off request would
lose what T-PATCH-4 promises to keep. It also puts trailers among the fields of the head, or not, as the request was cut
into packets; here they are never there. Where another server runs the application, everything else still holds.
"""

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class HoldfastProtocol(HttpToolsProtocol):
    """To be given to uvicorn as `http=`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = _keeping(self.app)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.parser and not self.parser.should_upgrade():
            self.headers = []  # what comes now are trailers; the scope keeps the list of the head


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
