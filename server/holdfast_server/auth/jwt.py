"""JSON Web Tokens (RFC 7519), signed by somebody whom the operator trusts.

Rule of this file: the algorithms are those of the settings and nothing that a token says; issuer, audience and expiry
must be there and right; what a token may do is its claim `scope`. A token that was verified is remembered for at most
`REMEMBERED` and no longer than it is valid.

Claims: `sub` is the owner; `scope` has scopes with blanks between them (RFC 8693, section 4.2), and what is not one of
ours is passed over; `projects` is a list of names and `project` one, both may be left out.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from holdfast_server.auth.authority import Request, expired, unauthenticated
from holdfast_server.auth.jwks import KeyAddress, KeyFile
from holdfast_server.auth.principal import SCOPES, Principal
from holdfast_server.auth.tokens import principal

ALGORITHMS: Final = frozenset(
    [
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "Ed25519",
        "EdDSA",
        "HS256",
        "HS384",
        "HS512",
    ]
)
"""Those that can be set; `none` is not among them."""
REMEMBERED: Final = 60.0
MOST_REMEMBERED: Final = 4096
LEEWAY: Final = 30
"""Seconds by which the clocks of issuer and server may differ."""
LONGEST: Final = 8192
"""Bytes of a token that are looked at."""


class Jwt:
    """An authority over tokens of one issuer for one audience."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: KeyFile | KeyAddress,
        algorithms: tuple[str, ...],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        unknown = set(algorithms) - ALGORITHMS
        if unknown or not algorithms:
            raise ValueError(f"algorithms are some of {', '.join(sorted(ALGORITHMS))}")
        self._keys = keys
        self._algorithms = algorithms
        self._now = now
        self._claims = {
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": audience},
            "exp": {"essential": True},
            "sub": {"essential": True},
        }
        self._remembered: OrderedDict[str, tuple[float, float, Principal]] = OrderedDict()

    def __call__(self, request: Request) -> Principal | Awaitable[Principal | None] | None:
        token = request.token
        if token is None or token.count(".") != 2 or len(token) > LONGEST:
            return None
        now = self._now()
        known = self._remembered.get(token)
        if known is not None:
            since, until, who = known
            if since <= now < until:
                return who
            del self._remembered[token]
        return self._verified(token, now)

    async def _verified(self, token: str, now: float) -> Principal:
        keys = self._keys.known()
        if keys is None:
            keys = await self._keys.newer(None)
        assert keys is not None
        try:
            claims = self._decoded(token, keys)
        except InvalidKeyIdError:
            newer = await self._keys.newer(keys)  # the issuer has a new key, or somebody made one up
            if newer is None:
                raise _invalid("it was signed with a key that its issuer does not have") from None
            claims = self._decoded_again(token, newer)
        who = self._checked(claims, now)
        assert who.expires is not None
        self._remembered[token] = (now, min(now + REMEMBERED, who.expires), who)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return who

    def _decoded(self, token: str, keys: KeySet) -> dict[str, Any]:
        try:
            return jwt.decode(token, keys, algorithms=self._algorithms).claims
        except InvalidKeyIdError:
            raise
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise _invalid("its signature does not hold, or it is not of an algorithm that is taken here") from error

    def _decoded_again(self, token: str, keys: KeySet) -> dict[str, Any]:
        try:
            return self._decoded(token, keys)
        except InvalidKeyIdError:
            raise _invalid("it was signed with a key that its issuer does not have") from None

    def _checked(self, claims: dict[str, Any], now: float) -> Principal:
        registry = jwt.JWTClaimsRegistry(now=int(now), leeway=LEEWAY, **self._claims)  # type: ignore[arg-type]
        try:
            registry.validate(claims)
        except ExpiredTokenError:
            raise expired() from None
        except (JoseError, ValueError, TypeError) as error:
            raise _invalid("it is not from the issuer, or not for the audience or the time, that are taken") from error
        scope = claims.get("scope", "")
        granted = [each for each in scope.split() if each in SCOPES] if isinstance(scope, str) else []
        try:
            return principal(
                claims["sub"], granted, claims.get("projects", []), claims.get("project"), float(claims["exp"]) + LEEWAY
            )
        except (ValueError, TypeError, OverflowError) as error:
            raise _invalid("its claims make no sense here") from error


def _invalid(reason: str) -> Exception:
    return unauthenticated(f"This token is not taken: {reason}. Get a new one from its issuer.")
