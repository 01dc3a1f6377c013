"""The public keys that JWTs are verified with, from a file or from the address of whoever issues the tokens.

Rule of this file: keys are fetched when they are needed and not known, never more often than `PAUSE`, one request at a
time; a set that was fetched is good for `FRESH`, and stands beyond that for as long as no newer one can be had. An
answer is bounded in time and size, and redirects are not followed: the address is the one that the operator gave.
"""

import http.client
import json
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from holdfast_protocol.problem import ProblemError
from holdfast_server.auth.watched import Watched

logger: Final = logging.getLogger(__name__)

FRESH: Final = 600.0
PAUSE: Final = 30.0
TIMEOUT: Final = 5.0
MOST: Final = 256 * 1024
_TYPES: Final = ("RSA", "EC", "OKP", "oct")


def parse(data: bytes) -> KeySet:
    """A JWK set (RFC 7517, section 5). Raises ValueError."""
    try:
        found = json.loads(data)
        if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
            raise ValueError("this is no JWK set: it has no list `keys`")
        known = [key for key in found["keys"] if isinstance(key, dict) and key.get("kty") in _TYPES]
        return KeySet.import_key_set({"keys": known})
    except JoseError as error:
        raise ValueError(f"this is no JWK set: {error}") from error


class KeyFile:
    """Keys of a file."""

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._keys = Watched(path, parse, monotonic=monotonic)

    def known(self) -> KeySet:
        return self._keys.get()

    async def newer(self, than: KeySet | None) -> KeySet | None:
        """Another set than that, if there is one."""
        found = self._keys.get()
        return None if found is than else found


class KeyAddress:
    """Keys behind `https://...`, or `http://` on this machine."""

    def __init__(
        self,
        url: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        fetch: "Callable[[str], bytes] | None" = None,
    ) -> None:
        self._url = url
        self._monotonic = monotonic
        self._fetch = fetch or fetched
        self._keys: KeySet | None = None
        self._tried = -PAUSE
        self._got = 0.0
        self._lock = anyio.Lock()

    def known(self) -> KeySet | None:
        """None if they have to be asked for."""
        if self._keys is not None and self._monotonic() - self._got < FRESH:
            return self._keys
        return None

    async def newer(self, than: KeySet | None) -> KeySet | None:
        """Another set than that, if there is one, and it was not asked for a moment ago.

        Raises ProblemError 503 if no keys at all can be had.
        """
        async with self._lock:
            if self._keys is not None and self._keys is not than and self.known() is not None:
                return self._keys  # somebody else has asked meanwhile
            now = self._monotonic()
            if now - self._tried >= PAUSE:
                self._tried = now
                try:
                    data = await anyio.to_thread.run_sync(self._fetch, self._url)
                    self._keys, self._got = parse(data), self._monotonic()
                except (OSError, ValueError, http.client.HTTPException) as error:
                    logger.error("the keys at %s cannot be had: %s", self._url, error)
                    self._got = now - FRESH + PAUSE  # what is known is good until it is asked for again
            if self._keys is None:
                raise ProblemError(
                    "overloaded",
                    "The keys that credentials are verified with cannot be had at the moment. Try again soon.",
                    headers={"Retry-After": str(round(PAUSE))},
                )
            return None if self._keys is than else self._keys


def check_address(url: str) -> None:
    """Raises ValueError unless keys may come from there: nobody on the way may change them."""
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.hostname is None or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ValueError("keys come by https://, or by http:// from this machine")


def fetched(url: str) -> bytes:
    """Blocks. Raises OSError, HTTPException, and ValueError for an answer that is none."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Accept": "application/jwk-set+json, application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"the answer is {answer.status}, and not 200")
        data = answer.read(MOST + 1)
        if len(data) > MOST:
            raise ValueError(f"the answer has more than {MOST} bytes")
        return data
    finally:
        connection.close()
