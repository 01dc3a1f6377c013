"""Signed URLs: the right to one upload, or to create one, in the query of a URL.

Rule of this file: a signature says by itself what it allows; the server keeps nothing of it but how often a creation
was used. It never gives the scopes `create` and `operate` to anybody, and it never widens: what an upload's URL carries
after a signed creation is what that signature said. It stands in the query, `signature=CLAIMS.MAC`: the claims are JSON
in base64url, the MAC is HMAC-SHA-256 over them with the key.

    id     the upload; if it is not there the signature is for a creation
    exp    seconds since the epoch
    scp    scopes, for the upload that is named or made
    sub    the owner of what is made             prj   its project
    jti    names the signature                   n     how many uploads it makes
    for    seconds for which an upload that it made may be gone on with
    max    bytes; the largest file               typ   types that are taken: `image/*`, `.jpg`
    nam    the name that the file gets
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

from holdfast_server.auth.authority import Request, expired, unauthenticated
from holdfast_server.auth.principal import SCOPES, Grant, Made, Principal, Scope
from holdfast_server.auth.tokens import name as named
from holdfast_server.auth.watched import Watched

PARAMETER: Final = "signature"
_CONTEXT: Final = b"holdfast signed url 1\n"
_LEAST_KEY: Final = 32
_LONGEST: Final = 4096
_SIGNABLE: Final[frozenset[Scope]] = SCOPES - {"create", "operate"}


class Signatures:
    """An authority over signed URLs. The file has one key a line: the first one signs, all of them verify."""

    def __init__(
        self, path: Path, *, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = Watched(path, parse_keys, monotonic=monotonic)
        self._now = now

    def __call__(self, request: Request) -> Principal | None:
        try:
            given = parse_qs(request.query, max_num_fields=100).get(PARAMETER, [])
        except ValueError:
            return None  # of so many fields none is looked at
        if len(given) != 1:
            return None
        claims = _verified(given[0], self._keys.get())
        if claims["exp"] <= self._now():
            raise expired()
        return self._principal(claims)

    def _principal(self, claims: dict[str, Any]) -> Principal:
        scopes: frozenset[Scope] = frozenset(scope for scope in _SIGNABLE if scope in claims["scp"])
        if "id" in claims:
            return Principal(
                claims.get("sub"), scopes, only=claims["id"], expires=claims["exp"], max_size=claims.get("max")
            )
        grant = Grant(claims["jti"], claims["n"], claims["exp"], tuple(claims.get("typ", ())), claims.get("nam"))

        def follow(upload: Made) -> str:
            inner = {"id": upload.id, "exp": int(upload.created + claims["for"]), "scp": sorted(scopes)}
            inner |= {key: claims[key] for key in ("sub", "max") if key in claims}
            return urlencode({PARAMETER: _signed(inner, self._keys.get()[0])})

        return Principal(
            claims["sub"],
            frozenset({"create", "write"}) if "write" in scopes else frozenset({"create"}),
            project=claims.get("prj"),
            only="",
            expires=claims["exp"],
            max_size=claims.get("max"),
            grant=grant,
            follow=follow,
        )


def sign_upload(
    url: str,
    key: str | bytes,
    *,
    owner: str | None = None,
    project: str | None = None,
    scopes: Collection[Scope] = frozenset({"write"}),
    expires_in: float = 3600.0,
    upload_within: float = 86400.0,
    uses: int = 1,
    max_size: int | None = None,
    types: Sequence[str] = (),
    name: str | None = None,
    now: Callable[[], float] = time.time,
) -> str:
    """The URL with a signature in its query.

    With `.../files` it is the right to create uploads there, `uses` of them, for `owner`, who has to be named, and to
    do with each of them what `scopes` say, for `upload_within` seconds from its creation. `max_size` is in bytes;
    `types` are media types, with `*` for all of a kind, and extensions (`image/*`, `.pdf`); `name` is the name that the
    file gets, whatever the client calls it. With `.../files/ID` it is what `scopes` say, for that upload alone. Good
    for `expires_in` seconds.

    `key` is a line of the file that the server has as `--signing-key`. Raises ValueError for what makes no sense. Does
    not ask the server, and does not block.
    """
    parts = urlsplit(url)
    *_, parent, last = ["", "", *parts.path.rstrip("/").split("/")]
    wrong = set(scopes) - _SIGNABLE
    if wrong or not scopes:
        raise ValueError(f"scopes are some of {', '.join(sorted(_SIGNABLE))}")
    if expires_in <= 0 or upload_within <= 0:
        raise ValueError("expires_in and upload_within are more than 0 seconds")
    if max_size is not None and max_size < 0:
        raise ValueError("max_size is not negative")
    claims: dict[str, Any] = {"exp": int(now() + expires_in), "scp": sorted(scopes)}
    if max_size is not None:
        claims["max"] = max_size
    if last == "files":
        if owner is None:
            raise ValueError("say whose the uploads will be: owner=, or --owner on the command line")
        if uses < 1:
            raise ValueError("uses is 1 or more")
        claims |= {"sub": named(owner, "owner"), "jti": secrets.token_hex(8), "n": uses, "for": int(upload_within)}
        if project is not None:
            claims["prj"] = named(project, "project")
        if types:
            claims["typ"] = list(map(_type, types))
        if name is not None:
            claims["nam"] = named(name, "name")
    elif parent == "files":
        if types or name is not None or project is not None or owner is not None:
            raise ValueError("owner, project, types and name are said for a creation: sign the URL that ends in /files")
        claims["id"] = last
    else:
        raise ValueError(f"this is the URL of no upload and no collection, which end in /files and /files/ID: {url}")
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != PARAMETER]
    signature = _signed(claims, parse_keys(key if isinstance(key, bytes) else key.encode())[0])
    return urlunsplit(parts._replace(query=urlencode([*query, (PARAMETER, signature)])))


def parse_keys(data: bytes) -> list[bytes]:
    """The keys of a file, one a line. Raises ValueError."""
    keys = [line.strip() for line in data.splitlines() if line.strip() and not line.startswith(b"#")]
    if not keys or any(len(key) < _LEAST_KEY for key in keys):
        raise ValueError(
            f"a signing key is a line of {_LEAST_KEY} random characters or more, as of openssl rand -hex 32"
        )
    return keys


def _type(value: str) -> str:
    kind, slash, subtype = value.partition("/")
    if not ((value.startswith(".") and len(value) > 1) or (slash and kind and subtype)):
        raise ValueError(f"a type is image/png, image/* or .png, and not {value!r}")
    return value.lower()


def _signed(claims: dict[str, Any], key: bytes) -> str:
    payload = _base64(json.dumps(claims, separators=(",", ":")).encode())
    return f"{payload}.{_base64(_mac(payload, key))}"


def _mac(payload: str, key: bytes) -> bytes:
    return hmac.digest(key, _CONTEXT + payload.encode("ascii"), hashlib.sha256)


def _verified(signature: str, keys: Sequence[bytes]) -> dict[str, Any]:
    payload, _, mac = signature.partition(".")
    try:
        if len(signature) > _LONGEST:
            raise ValueError("too long")
        given = mac.encode("ascii")
        good = [hmac.compare_digest(_base64(_mac(payload, key)).encode(), given) for key in keys]
        if not any(good):
            raise ValueError("another key, or not signed at all")
    except ValueError:
        raise unauthenticated("The signature of this URL does not hold. Ask for a new one where it is from.") from None
    found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert isinstance(found, dict)  # we have made it
    return found


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
