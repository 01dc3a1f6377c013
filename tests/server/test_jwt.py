"""JWT: what is taken, and every way to forge one that is known."""

import base64
import contextlib
import hashlib
import hmac
import http.server
import inspect
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt as jose
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth import Principal, Request
from holdfast_server.auth import jwt as rules
from holdfast_server.auth.jwks import FRESH, MOST, PAUSE, KeyAddress, KeyFile, check_address, fetched
from holdfast_server.auth.jwt import Jwt

pytestmark = pytest.mark.anyio

RSA = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}, private=True)
OTHER = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"}, private=True)
EC = ECKey.generate_key("P-256", {"kid": "ec"}, private=True)
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"}, private=True)
ALGORITHMS = ("RS256", "ES256", "Ed25519")
NOW = 1_800_000_000.0


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def published(*keys: Any) -> bytes:
    return json.dumps(KeySet(list(keys)).as_dict(private=False)).encode()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(published(RSA, EC, ED))
    return path


def claims(**changes: Any) -> dict[str, Any]:
    found = {
        "iss": "https://id.example",
        "aud": "files",
        "sub": "alice",
        "exp": NOW + 600,
        "scope": "create write openid",
    }
    found |= changes
    return {name: value for name, value in found.items() if value is not None}


def signed(key: Any = RSA, algorithm: str = "RS256", said: dict[str, Any] | None = None, **header: Any) -> str:
    head = {"alg": algorithm, "kid": key.kid, **header}
    return jose.encode({k: v for k, v in head.items() if v is not None}, said or claims(), key, algorithms=[algorithm])


async def ask(authority: Jwt, token: str) -> Principal | None:
    found = authority(Request("GET", "/", "", Headers({"Authorization": f"Bearer {token}"}), None))
    return await found if inspect.isawaitable(found) else found


def over(path: Path, clock: Clock | None = None) -> Jwt:
    return Jwt("https://id.example", "files", KeyFile(path), ALGORITHMS, now=clock or Clock())


async def code(authority: Jwt, token: str) -> str:
    try:
        return "nobody" if await ask(authority, token) is None else "somebody"
    except ProblemError as problem:
        return problem.code if problem.status == 401 else "another status"


@pytest.mark.rule("A-JWT-1")
@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "Ed25519")])
async def test_a_good_one_is_taken(keys: Path, key: Any, algorithm: str) -> None:
    said = claims(aud=["other", "files"], projects=["films"], project="books")
    who = await ask(over(keys), signed(key, algorithm, said))
    assert who is not None
    assert (who.owner, sorted(who.scopes)) == ("alice", ["create", "write"])
    assert (sorted(who.projects), who.project) == (["books", "films"], "books")
    assert who.expires == NOW + 600 + rules.LEEWAY


def hand_made(header: dict[str, Any], said: dict[str, Any], secret: bytes | None) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{part(header)}.{part(said)}"
    mac = b"" if secret is None else hmac.digest(secret, text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@pytest.mark.rule("A-JWT-1", "A-HEAD-2")
async def test_forgeries_are_not(keys: Path) -> None:
    """No signature, another algorithm, a public key for a secret, another key under a known name, changed claims."""
    good = signed()
    head, body, mac = good.split(".")
    stranger = RSAKey.generate_key(2048, {"kid": "one"}, private=True)
    pem = RSA.as_pem(private=False)
    root = base64.urlsafe_b64encode(json.dumps(claims(sub="root", scope="operate")).encode()).rstrip(b"=").decode()
    forged = [
        hand_made({"alg": "none"}, claims(), None),
        hand_made({"alg": "None", "kid": "one"}, claims(), None),
        hand_made({"alg": "HS256", "kid": "one"}, claims(), pem),
        hand_made({"alg": "HS256", "kid": "one"}, claims(), published(RSA)),
        hand_made({"alg": "HS256"}, claims(), b""),
        hand_made({"alg": "RS256", "kid": "one"}, claims(), None),
        hand_made({"alg": "RS256", "kid": "one", "jwk": OctKey.import_key("x" * 32).as_dict()}, claims(), b"x" * 32),
        signed(stranger),
        signed(RSA, "RS512"),
        signed(RSA, "PS256"),
        signed(OTHER, kid="one"),
        signed(OTHER),
        signed(RSA, kid="ec"),
        signed(RSA, kid=None),
        signed(EC, "ES256", kid="one"),
        signed(jku="https://evil.example/jwks", kid="evil"),
        f"{head}.{root}.{mac}",
        f"{head}.{body}.",
        f"{head}.{body}.{mac[:-4]}",
        "..", "a.b.c", f"{head}.{body}.{mac}".swapcase(),
        hand_made({"alg": "RS256", "kid": "one", "crit": ["exp"], "exp": 1}, claims(), b"x"),
    ]  # fmt: skip
    authority = over(keys)
    for token in forged:
        assert await code(authority, token) == "unauthenticated", token
    assert await code(authority, good + "." + mac) == "nobody"
    assert await code(authority, "x" * rules.LONGEST + "..") == "nobody"
    assert await code(authority, good) == "somebody"


@pytest.mark.rule("A-JWT-1", "A-HEAD-2")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"iss": "https://evil.example"}, "unauthenticated"),
        ({"iss": None}, "unauthenticated"),
        ({"aud": "other"}, "unauthenticated"),
        ({"aud": None}, "unauthenticated"),
        ({"sub": None}, "unauthenticated"),
        ({"sub": ""}, "unauthenticated"),
        ({"sub": "a\nb"}, "unauthenticated"),
        ({"sub": 7}, "unauthenticated"),
        ({"exp": None}, "unauthenticated"),
        ({"exp": "soon"}, "unauthenticated"),
        ({"exp": 1e400}, "unauthenticated"),
        ({"projects": "films"}, "unauthenticated"),
        ({"exp": NOW - rules.LEEWAY - 1}, "credential-expired"),
        ({"nbf": NOW + rules.LEEWAY + 5}, "unauthenticated"),
        ({"exp": NOW - 5, "nbf": NOW + 5}, "somebody"),
    ],
)
async def test_claims_have_to_be_right(keys: Path, changes: dict[str, Any], expected: str) -> None:
    assert await code(over(keys), signed(said=claims(**changes))) == expected


@pytest.mark.rule("A-JWT-1")
@pytest.mark.parametrize("scope", [None, "", ["write"], "everything", 5])
async def test_without_a_scope_it_may_do_nothing(keys: Path, scope: Any) -> None:
    who = await ask(over(keys), signed(said=claims(scope=scope)))
    assert who is not None
    assert who.scopes == frozenset()


@pytest.mark.rule("A-HEAD-2")
async def test_what_was_verified_is_remembered_and_expires_all_the_same(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    verified: list[object] = []
    decode = jose.decode

    def counted(*args: Any, **named: Any) -> Any:
        verified.append(args)
        return decode(*args, **named)

    monkeypatch.setattr(jose, "decode", counted)
    authority = over(keys, clock)
    token = signed(said=claims(exp=NOW + 40))
    for _ in range(5):
        assert await code(authority, token) == "somebody"
    assert len(verified) == 1
    clock.now += rules.REMEMBERED
    assert await code(authority, token) == "somebody"
    assert len(verified) == 2
    clock.now = NOW + 40 + rules.LEEWAY
    assert await code(authority, token) == "credential-expired"
    clock.now = NOW - 3600
    assert await code(authority, token) == "somebody"
    monkeypatch.setattr(rules, "MOST_REMEMBERED", 2)
    for number in range(5):
        await ask(authority, signed(said=claims(jti=str(number))))
    assert len(authority._remembered) <= 3


async def test_an_algorithm_that_is_not_known_cannot_be_set(keys: Path) -> None:
    for algorithms in (("none",), ("RS256", "none"), ()):
        with pytest.raises(ValueError, match="algorithms"):
            Jwt("i", "a", KeyFile(keys), algorithms)


@pytest.mark.rule("A-JWT-1")
async def test_keys_are_fetched_seldom_and_a_new_one_is_found() -> None:
    clock, fetched = Clock(0.0), []
    answer: bytes | Exception = published(RSA)

    def fetch(url: str) -> bytes:
        fetched.append(url)
        if isinstance(answer, Exception):
            raise answer
        return answer

    keys = KeyAddress("https://id.example/jwks", monotonic=clock, fetch=fetch)
    authority = Jwt("https://id.example", "files", keys, ALGORITHMS, now=Clock())
    assert await code(authority, signed()) == "somebody"
    for number in range(5):
        assert await code(authority, signed(OTHER, said=claims(jti=str(number)))) == "unauthenticated"
    assert len(fetched) == 1
    answer = published(RSA, OTHER)
    clock.now += PAUSE
    assert await code(authority, signed(OTHER)) == "somebody"
    assert len(fetched) == 2
    answer = OSError("the line is cut")
    clock.now += FRESH
    assert await code(authority, signed(said=claims(jti="x"))) == "somebody"
    assert len(fetched) == 3
    answer = published(OTHER)
    clock.now += FRESH
    assert await code(authority, signed(said=claims(jti="y"))) == "unauthenticated"


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"keys": 5}', b'{"keys": [{"kty": "RSA", "n": "!"}]}', OSError()])
async def test_without_any_keys_it_is_503(answer: bytes | Exception) -> None:
    def fetch(url: str) -> bytes:
        if isinstance(answer, Exception):
            raise answer
        return answer

    authority = Jwt("i", "a", KeyAddress("https://id.example/jwks", fetch=fetch), ALGORITHMS)
    with pytest.raises(ProblemError) as caught:
        await ask(authority, signed())
    assert caught.value.status == 503


@pytest.mark.parametrize("url", ["http://id.example/jwks", "ftp://id.example", "https:///x", "file:///etc/passwd"])
def test_keys_come_by_a_way_that_nobody_can_change(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        check_address(url)
    check_address("https://id.example/jwks")
    check_address("http://127.0.0.1:9000/jwks")


@pytest.mark.rule("A-JWT-1")
def test_keys_come_over_http_whole_and_bounded(tmp_path: Path) -> None:
    """What is no 200, redirects somewhere, or has no end is not taken."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path:
                case "/keys?a=b":
                    self._answer(200, published(RSA))
                case "/elsewhere":
                    self._answer(302, b"", ("Location", "/keys?a=b"))
                case "/long":
                    self._answer(200, b" " * (MOST + 1))
                case _:
                    self._answer(404, b"")

        def _answer(self, status: int, body: bytes, *fields: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in (("Content-Length", str(len(body))), *fields):
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            assert fetched(f"{url}/keys?a=b") == published(RSA)
            for path, words in (("/elsewhere", "302"), ("/long", "more than"), ("/nowhere", "404")):
                with pytest.raises(ValueError, match=words):
                    fetched(url + path)
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(OSError, match="refused"):
        fetched(url + "/keys")
