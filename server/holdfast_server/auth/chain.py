"""Which authorities a server has, and in which order they are asked.

Rule of this file: each kind of credential has one authority, told by its shape: a signature in the query, a token of
ours, a JWT. What none of them is for goes to the callable of whoever carries the application. A request with a
signature is judged by that alone, so that a page that also sends a token of its own gets no more by it.
"""

import importlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from holdfast_server.auth.authority import Authority, Request
from holdfast_server.auth.principal import Principal
from holdfast_server.auth.signing import PARAMETER, Signatures
from holdfast_server.auth.tokens import PREFIX, TokenFile
from holdfast_server.settings import Settings

if TYPE_CHECKING:
    from holdfast_server.auth.jwt import Jwt

_MARK = PARAMETER + "="


class Chain:
    """An authority made of several."""

    def __init__(
        self,
        signatures: Signatures | None = None,
        tokens: TokenFile | None = None,
        jwt: "Jwt | None" = None,
        other: Authority | None = None,
    ) -> None:
        self._signatures = signatures
        self._tokens = tokens
        self._jwt = jwt
        self._other = other

    def __call__(self, request: Request) -> Principal | Awaitable[Principal | None] | None:
        if self._signatures is not None and _MARK in request.query:
            return self._signatures(request)
        found: Principal | Awaitable[Principal | None] | None = None
        token = request.token
        if token is not None:
            if self._tokens is not None and token.startswith(PREFIX):
                found = self._tokens(request)
            elif self._jwt is not None:
                found = self._jwt(request)
        if found is None and self._other is not None:
            return self._other(request)
        return found


def authority_of(settings: Settings, other: Authority | None = None) -> Authority | None:
    """What the settings ask for, and `other` behind it; None if nothing asks who sends a request.

    Raises OSError and ValueError if a file cannot be read, and ImportError with what to install.
    """
    if settings.authority is not None:
        other = imported(settings.authority)
    signatures = None if settings.signing_key is None else Signatures(settings.signing_key)
    tokens = None if settings.tokens is None else TokenFile(settings.tokens)
    jwt = _jwt(settings)
    if signatures is None and tokens is None and jwt is None:
        return other
    return Chain(signatures, tokens, jwt, other)


def _jwt(settings: Settings) -> "Jwt | None":
    said = (settings.jwt_keys, settings.jwt_issuer, settings.jwt_audience)
    if said == (None, None, None):
        return None
    keys, issuer, audience = said
    if keys is None or issuer is None or audience is None:
        raise ValueError("for JWT the keys, the issuer and the audience have to be said, all three")
    try:
        from holdfast_server.auth.jwks import KeyAddress, KeyFile, check_address
        from holdfast_server.auth.jwt import Jwt
    except ImportError as error:
        raise ImportError(f'JWT needs more than is installed ({error}): pip install "holdfast[jwt]"') from error
    if "://" in keys:
        check_address(keys)
        return Jwt(issuer, audience, KeyAddress(keys), settings.jwt_algorithms)
    return Jwt(issuer, audience, KeyFile(Path(keys)), settings.jwt_algorithms)


def imported(where: str) -> Authority:
    """`package.module:name`. Raises ValueError if there is no such callable."""
    module, _, attribute = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{where} cannot be imported ({error}); write it as package.module:name") from error
    if not callable(found):
        raise ValueError(f"{where} is not to be called")
    return cast("Callable[[Request], Principal | Awaitable[Principal | None] | None]", found)
