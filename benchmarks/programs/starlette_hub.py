"""A hub as one writes it with Starlette: a set of sockets, and a loop that sends to each. starlette_hub.py PORT

What there is to tell comes by UDP on the same port.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PORT = int(sys.argv[1])
clients: set[WebSocket] = set()
messages: asyncio.Queue[bytes] = asyncio.Queue()


class Feed(asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, addr: object) -> None:
        messages.put_nowait(data)


async def broadcast() -> None:
    while True:
        upload, received, arriving, _ = json.loads(await messages.get())["moves"][0]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        payload = {
            "task_id": upload, "name": "file", "owner": None, "project": "live", "status": "receiving",
            "progress": 50.0, "current_step": "receiving", "total_steps": 3, "completed_steps": 0,
            "message": "Bytes are arriving.", "length": 1 << 30, "received": received, "arriving": arriving,
            "prefix": 0, "speed": 1000000.5, "eta": 12.5, "errors": 0, "retries": 0, "error": None, "started": now,
            "timestamp": now,
        }  # fmt: skip
        frame = {"v": 1, "type": "progress", "task_id": upload, "payload": payload}
        text = json.dumps(frame, separators=(",", ":"))
        for client in list(clients):
            await client.send_text(text)


async def watch(socket: WebSocket) -> None:
    await socket.accept()
    clients.add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        clients.discard(socket)


async def answer(request: object) -> Response:
    return Response()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Feed, local_addr=("127.0.0.1", PORT))
    task = loop.create_task(broadcast())
    yield
    task.cancel()


if __name__ == "__main__":
    routes = [WebSocketRoute("/", watch), Route("/", answer, methods=["GET", "OPTIONS"])]
    application = Starlette(routes=routes, lifespan=lifespan)
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=PORT,
        log_level="error",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
    )
