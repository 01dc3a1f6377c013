"""Static tokens: long random strings, of which the server keeps only hashes.

Rule of this file: the shape of a token and of the file is known here and nowhere else. A token has 256 bits from the
system's source of randomness, so that a plain SHA-256 of it can be kept: there is nothing to guess that a slow hash
would protect. It is looked up by its hash, so the time that takes says nothing about the tokens that there are.

The file is TOML, one table for each token:

    [[token]]
    id = "k3f92a7d"                      # names it, in lists and to revoke it; also a part of the token
    sha256 = "..."                       # of the token
    owner = "alice"
    scopes = ["create", "write"]
    projects = ["films"]                 # may be left out
    project = "films"                    # where uploads go that name no project; may be left out
    expires = 2027-01-01T00:00:00Z       # may be left out
"""

import base64
import hashlib
import json
import re
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from holdfast_server.auth.authority import Request, expired
from holdfast_server.auth.principal import SCOPES, Principal, Scope
from holdfast_server.auth.watched import Watched

PREFIX: Final = "hft_"
"""So that a token is told apart from other credentials, and found by scanners for secrets that were published."""
_KEYS: Final = {"id", "sha256", "owner", "scopes", "projects", "project", "expires"}
_TABLE: Final = re.compile(r"^\[\[token\]\][^\n]*\n", re.MULTILINE)


class Entry(Struct, frozen=True):
    """What is kept of a token."""

    id: str
    sha256: str
    principal: Principal


Tokens = Mapping[str, Entry]
"""By the hash."""


class TokenFile:
    """An authority over the tokens of a file, which may change at any time."""

    def __init__(
        self, path: Path, *, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._tokens = Watched(path, parse, monotonic=monotonic)
        self._now = now

    def __call__(self, request: Request) -> Principal | None:
        token = request.token
        if token is None or not token.startswith(PREFIX):
            return None
        entry = self._tokens.get().get(hashed(token))
        if entry is None:
            return None
        if entry.principal.expires is not None and entry.principal.expires <= self._now():
            raise expired()
        return entry.principal


def hashed(token: str) -> str:
    """As it stands in the file."""
    return hashlib.sha256(token.encode("latin-1", "replace")).hexdigest()


def parse(data: bytes) -> Tokens:
    """What the file says. Raises ValueError with a sentence that says where it is wrong."""
    tables = tomllib.loads(data.decode("utf-8"))
    if set(tables) - {"token"} or not isinstance(tables.get("token", []), list):
        raise ValueError("the file has [[token]] tables and nothing else")
    entries = [_entry(table) for table in tables.get("token", [])]
    if len({entry.id for entry in entries}) < len(entries):
        raise ValueError("two tokens have the same id")
    return {entry.sha256: entry for entry in entries}


def _entry(table: Any) -> Entry:
    if not isinstance(table, dict) or set(table) - _KEYS or not {"id", "sha256", "owner", "scopes"} <= set(table):
        raise ValueError(f"a token has id, sha256, owner, scopes, and maybe projects, project, expires: {table!r}")
    token_id, digest, expires = table["id"], table["sha256"], table.get("expires")
    if not isinstance(token_id, str) or not re.fullmatch(r"[0-9A-Za-z_-]{1,64}", token_id):
        raise ValueError(f"the id of a token has letters, digits, - and _: {token_id!r}")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"token {token_id}: sha256 has 64 hexadecimal digits")
    if expires is not None and not isinstance(expires, datetime):
        raise ValueError(f"token {token_id}: expires is a time, as 2027-01-01T00:00:00Z")
    if expires is not None and expires.tzinfo is None:
        raise ValueError(f"token {token_id}: expires needs its offset from UTC, as in 2027-01-01T00:00:00Z")
    try:
        who = principal(
            table["owner"],
            table["scopes"],
            table.get("projects", []),
            table.get("project"),
            None if expires is None else expires.timestamp(),
        )
    except ValueError as error:
        raise ValueError(f"token {token_id}: {error}") from None
    return Entry(token_id, digest, who)


def principal(owner: Any, scopes: Any, projects: Any, project: Any = None, expires: float | None = None) -> Principal:
    """A principal of values that somebody wrote. Raises ValueError with a sentence."""
    if not isinstance(scopes, list) or not set(map(str, scopes)) <= SCOPES:
        raise ValueError(f"scopes are some of {', '.join(sorted(SCOPES))}")
    if not isinstance(projects, list):
        raise ValueError("projects is a list of names")
    found = tuple(name(each, "a project") for each in projects)
    default = None if project is None else name(project, "a project")
    members = frozenset(found) if default is None else frozenset((*found, default))
    granted: frozenset[Scope] = frozenset(scopes)
    return Principal(name(owner, "the owner"), granted, members, default, expires=expires)


def name(value: Any, what: str) -> str:
    """A name of an owner or a project: 1 to 255 characters, none of them for control. Raises ValueError."""
    if not isinstance(value, str) or not 1 <= len(value) <= 255 or not value.isprintable():
        raise ValueError(f"{what} is a name of 1 to 255 characters that can be printed, and not {value!r}")
    return value


def made(who: Principal, random: bytes) -> tuple[str, str, str]:
    """A new token of 36 bytes of randomness: its id, the token, and its table for the file."""
    if len(random) != 36:
        raise ValueError("36 bytes are needed")
    token_id = random[:4].hex()
    token = f"{PREFIX}{token_id}_{base64.urlsafe_b64encode(random[4:]).rstrip(b'=').decode()}"
    lines = [
        "[[token]]",
        f"id = {_text(token_id)}",
        f"sha256 = {_text(hashed(token))}",
        f"owner = {_text(who.owner or '')}",
        f"scopes = {_list(sorted(who.scopes))}",
    ]
    if who.projects:
        lines.append(f"projects = {_list(sorted(who.projects))}")
    if who.project is not None:
        lines.append(f"project = {_text(who.project)}")
    if who.expires is not None:
        lines.append(f"expires = {datetime.fromtimestamp(who.expires, UTC).isoformat(timespec='seconds')}")
    table = "\n".join(lines) + "\n"
    parse(table.encode())
    return token_id, token, table


def without(text: str, token_id: str) -> str:
    """The text of a file without the table of one token. Raises KeyError if it has none."""
    starts = [match.start() for match in _TABLE.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        if token_id in {entry.id for entry in parse(text[start:end].encode()).values()}:
            return text[:start] + text[end:]
    raise KeyError(token_id)


def _text(value: str) -> str:
    # A string of JSON is one of TOML, as long as nothing in it is a surrogate.
    return json.dumps(value, ensure_ascii=False)


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"
