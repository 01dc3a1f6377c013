"""Who we are, for each server: tokens, and user names with passwords.

Rule of this file: what is secret goes to the origin that it is meant for and nowhere else; it is in no journal, no log
and no message. The first of these that there is for an origin is used:

    user:password@ in the URL                 Basic
    the header Authorization of the caller    as it stands
    `token` of the client                     Bearer; a function is asked again when a server refuses what it gave
    $HOLDFAST_TOKEN                           Bearer; only for the hosts of $HOLDFAST_TOKEN_HOST, if that is set
    $NETRC, else ~/.netrc                     Basic, for a `machine` with the name of the host
"""

import base64
import contextlib
import inspect
import logging
import netrc
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import anyio
from anyio import to_thread
from msgspec import Struct, field

from holdfast.errors import NotAuthorized, UsageError
from holdfast_protocol import headers as names

TOKEN_VARIABLE: Final = "HOLDFAST_TOKEN"  # noqa: S105 - the name of a variable
HOST_VARIABLE: Final = "HOLDFAST_TOKEN_HOST"
NETRC_VARIABLE: Final = "NETRC"
PATIENCE: Final = 60.0
"""Seconds that a function may take to give a token."""

Login: TypeAlias = tuple[str, str]
"""User name and password."""
TokenHook: TypeAlias = Callable[[str], "str | Awaitable[str | None] | None"]
"""Gives the token for an origin (`https://host:port`), or None for none; may be an `async def`. Asked before the first
request to the origin, and once more when the server answers 401 or 403. A plain function is called in a worker
thread."""
Token: TypeAlias = str | TokenHook

_TOKEN: Final = re.compile(r"[!-~]+")
_log = logging.getLogger("holdfast")


def netrc_login(host: str) -> Login | None:
    """What netrc(5) has for a machine: user name and password. `default` is for nobody.

    A file that cannot be read is as good as none, and so is one that $NETRC names and that is not there; a warning is
    logged, once in a process. Blocks for a disk access.
    """
    said = os.environ.get(NETRC_VARIABLE)
    path = Path(said or "~/.netrc")
    with contextlib.suppress(RuntimeError):  # nobody knows where this user is at home
        path = path.expanduser()
    if not path.is_file():
        if said and said != os.devnull:
            _pass_over(path, f"{NETRC_VARIABLE} names it, but there is no such file")
        return None
    try:
        # Without a name the module also looks whether others may read the file.
        found = netrc.netrc(str(path) if said else None).hosts.get(host)
    except (netrc.NetrcParseError, OSError, UnicodeError) as error:
        reason = error.msg if isinstance(error, netrc.NetrcParseError) else type(error).__name__
        _pass_over(path, reason)
        return None
    return (found[0] or "", found[2] or "") if found is not None else None


@cache
def _pass_over(path: Path, reason: str) -> None:
    # Each transfer looks for its own.
    _log.warning("%s is not used: %s", path, reason)


def environment_token(host: str, port: int | None) -> str | None:
    """The token of the environment for a host, if it is meant for it. Raises UsageError if it is none."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    hosts = {each.strip().lower() for each in os.environ.get(HOST_VARIABLE, "").split(",")} - {""}
    if not token or (hosts and not hosts & {host, f"{host}:{port}"}):
        return None
    return _checked(token, f"the variable {TOKEN_VARIABLE}")


class _Origin(Struct):
    """What is known of one origin."""

    token: str | None = None
    asked: bool = False
    asking: anyio.Lock = field(default_factory=anyio.Lock)


class Keyring:
    """The credentials of one client. Belongs to one event loop. Raises UsageError for a token that is none."""

    def __init__(self, token: Token | None = None) -> None:
        self._token = _checked(token, "token") if isinstance(token, str) else token
        self._origins: dict[str, _Origin] = {}

    @property
    def explicit(self) -> bool:
        """The caller gave a token."""
        return self._token is not None

    def key(self, origin: str, login: Login | None, extra: Mapping[str, str]) -> "Key":
        """What requests to an origin show. `login` is that of the URL, `extra` the fields that the caller gave."""
        if login is not None:
            return Key(origin, _basic(login))
        if any(name.lower() == names.AUTHORIZATION.lower() for name in extra):
            return Key(origin, None)
        if self._token is not None:
            if isinstance(self._token, str):
                return Key(origin, f"Bearer {self._token}")
            return Key(origin, None, self)
        parts = urlsplit(origin)
        host = parts.hostname or ""
        if (token := environment_token(host, parts.port)) is not None:
            return Key(origin, f"Bearer {token}")
        found = netrc_login(host)
        return Key(origin, _basic(found) if found is not None else None)

    async def token(self, origin: str, refused: str | None = None) -> str | None:
        """The token of the hook for an origin; a new one if it is still the one that was refused.

        Raises NotAuthorized if the hook fails, or has no other one.
        """
        known = self._origins.setdefault(origin, _Origin())
        async with known.asking:
            if known.asked and (refused is None or known.token != refused):
                return known.token
            token = await self._ask(origin)
            if refused is not None and token == refused:
                raise NotAuthorized(
                    f"{origin} refuses the token, and the hook gave the same one again; it has to give a new one",
                    status=401,
                )
            known.token, known.asked = token, True
            return token

    async def _ask(self, origin: str) -> str | None:
        hook = self._token
        assert callable(hook)
        try:
            with anyio.fail_after(PATIENCE):
                answer = await to_thread.run_sync(hook, origin, abandon_on_cancel=True)
                token = await answer if inspect.isawaitable(answer) else answer
        except TimeoutError:
            raise NotAuthorized(
                f"no token for {origin}: the hook gave none within {PATIENCE:.0f} seconds", status=401
            ) from None
        except Exception as error:
            raise NotAuthorized(
                f"no token for {origin}: the hook raised {type(error).__name__}: {error}", status=401
            ) from error
        return None if token is None else _checked(token, "what the hook gave")


class Key(Struct, frozen=True):
    """What requests to one origin show: a field that does not change, or the token of the moment."""

    origin: str
    field: str | None
    keyring: Keyring | None = None

    @property
    def renewable(self) -> bool:
        """There is a hook to ask for another token."""
        return self.keyring is not None

    async def shown(self) -> str | None:
        """The value of Authorization for the next request, None for none. Raises NotAuthorized."""
        if self.keyring is None:
            return self.field
        token = await self.keyring.token(self.origin)
        return None if token is None else f"Bearer {token}"

    async def renew(self, shown: str | None) -> None:
        """A request that showed this was refused: have another one. Raises NotAuthorized if there is none."""
        assert self.keyring is not None
        await self.keyring.token(self.origin, (shown or "").removeprefix("Bearer "))


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


def _checked(token: object, what: str) -> str:
    # It is not shown, whatever it is.
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise UsageError(f"{what} is no token: a token is printable ASCII without blanks")
    return token
