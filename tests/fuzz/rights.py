"""Credentials, and messages of watchers: what strangers send before anybody knows who they are.

Rule of this file: as in `targets`. No input is good but those that were made with the key, to the last character.
"""

import asyncio
import inspect
import json
from base64 import urlsafe_b64encode
from contextlib import suppress
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import KeySet, OctKey

from holdfast_protocol.live import EventStream, MessageError, Place, Topic, parse_message
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth.authority import Request
from holdfast_server.auth.jwt import Jwt
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


class _Jwks:
    """In the place of keys that may be new."""

    def known(self) -> KeySet:
        return KeySet([_OCT])

    async def newer(self, known: object) -> None:
        return None


_OCT: Final = OctKey.import_key({"kty": "oct", "k": "a" * 64, "kid": "one"})
CLAIMS: Final = {"iss": "id", "aud": "files", "sub": "alice", "exp": int(NOW) + 60, "scope": "read"}
HEADER: Final = {"alg": "HS256", "kid": "one"}
GOOD_JWT: Final = jwt.encode(HEADER, CLAIMS, _OCT)
JWT: Final = Jwt("id", "files", _Jwks(), ("HS256",), now=lambda: NOW)  # type: ignore[arg-type]


def web_token(data: bytes) -> None:
    """A token as it comes; a line of its own with header, claims and signature, not encoded yet; and claims that the
    issuer has signed, whatever they are."""
    text = data.decode("latin-1")
    found = _asked(text)
    assert found is None or text.strip().rpartition(".")[0] == GOOD_JWT.rpartition(".")[0]
    parts = data.split(b"\n", 2)
    made = ".".join(urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts)
    found = _asked(made)
    assert found is None or made.rpartition(".")[0] == GOOD_JWT.rpartition(".")[0]
    with suppress(ValueError, RecursionError):
        claims = json.loads(data)
        if isinstance(claims, dict):
            found = _asked(jwt.encode(HEADER, CLAIMS | claims, _OCT))
            assert found is None or found.expires > NOW


def _asked(token: str) -> Any:
    request = Request("POST", "/files", "", Headers([("Authorization", f"Bearer {token}")]), None)
    try:
        found = JWT(request)
        return asyncio.run(found) if inspect.iscoroutine(found) else found
    except ProblemError:
        return None


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
