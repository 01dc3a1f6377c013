"""Credentials, and messages of watchers: what strangers send before anybody knows who they are.

Rule of this file: as in `targets`. No input is good but those that were made with the key, to the last character.
"""

from contextlib import suppress
from typing import Final

from holdfast_protocol.live import EventStream, MessageError, Place, Topic, parse_message
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth.authority import Request
from holdfast_server.auth.signing import PARAMETER, Signatures
from holdfast_server.auth.tokens import TokenFile, hashed

KEY: Final = b"k" * 64
TOKEN: Final = "hft_" + "a" * 40
NOW: Final = 1e9
SIGNATURE: Final = (
    "eyJleHAiOjEwMDAwMDM2MDAsInNjcCI6WyJ3cml0ZSJdLCJzdWIiOiJhbGljZSIsImp0aSI6IjRiNjJmYWVjY2ZhYz"
    "IzMTAiLCJuIjoxLCJmb3IiOjg2NDAwfQ"
    ".PvYK3p9FlaZkA2t-UEif5WgORC7yiEBAYcXen-fL2GA"
)
"""As `sign_upload` makes one: to create for alice, until 3600 seconds after `NOW`."""
SIGNED: Final = f"{PARAMETER}={SIGNATURE}"


class _Kept:
    """In the place of a file that may change."""

    def __init__(self, value: object) -> None:
        self._value = value

    def get(self) -> object:
        return self._value


def _authorities() -> tuple[Signatures, TokenFile]:
    signatures, tokens = Signatures.__new__(Signatures), TokenFile.__new__(TokenFile)
    signatures._keys = _Kept([KEY])  # type: ignore[assignment]
    signatures._now = lambda: NOW
    tokens._tokens = _Kept({hashed(TOKEN): None})  # type: ignore[assignment]
    return signatures, tokens


SIGNATURES, TOKENS = _authorities()


def credential(data: bytes) -> None:
    """A query, the end of a line, and the value of Authorization."""
    query, _, value = data.decode("latin-1").partition("\n")
    request = Request("POST", "/files", query, Headers([("Authorization", value)]), None)
    token = request.token
    if token is not None and token != TOKEN:
        assert TOKENS(request) is None
    try:
        found = SIGNATURES(request)
    except ProblemError:
        return
    assert found is None or SIGNATURE in query


def watching(data: bytes) -> None:
    """What a watcher sends, and what a watching client reads."""
    text = data.decode("utf-8", "replace")
    with suppress(MessageError):
        message = parse_message(text)
        assert message.action in ("ping", "subscribe", "unsubscribe")
        for topic in message.topics:
            assert Topic.parse(str(topic)) == topic
    with suppress(ValueError):
        place = Place.parse(text)
        assert Place.parse(str(place)) == place
    assert _events(data) == _events(data, 1)


def _events(data: bytes, size: int = 1 << 20) -> list[str] | None:
    """The same, however it is cut."""
    stream, found = EventStream(), list[str]()
    try:
        for start in range(0, len(data), size):
            found += stream.feed(data[start : start + size])
    except ValueError:
        return None
    return found
