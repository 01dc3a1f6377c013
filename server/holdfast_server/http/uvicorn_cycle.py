"""What uvicorn has of a request when its connection is lost.

Rule of this file: uvicorn answers `http.disconnect` before it has handed over the bytes that came before the
connection was lost, and with them a cut-off request would lose what T-PATCH-4 promises to keep. They are still in its
own object for the request, and are taken from there, whichever of its protocols carries us.
"""

from starlette.types import Message, Receive
from uvicorn.protocols.http import h11_impl, httptools_impl


def with_what_is_left(receive: Receive) -> Receive:
    """The same messages, with the bytes that are left before `http.disconnect`; of another server as they are."""
    cycle = getattr(receive, "__self__", None)
    if not isinstance(cycle, httptools_impl.RequestResponseCycle | h11_impl.RequestResponseCycle):
        return receive

    async def receive_all() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect" and cycle.body:
            body, cycle.body = bytes(cycle.body), type(cycle.body)()
            return {"type": "http.request", "body": body, "more_body": cycle.more_body}
        return message

    return receive_all
