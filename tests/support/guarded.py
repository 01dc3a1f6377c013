"""A server that asks who sends a request, by each kind of credential, and those who speak to it."""

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from msgspec.structs import replace

from holdfast_server import Principal, sign_upload
from holdfast_server.auth import SCOPES, Scope
from holdfast_server.auth.tokens import made, without
from tests.support.process import ServerProcess
from tests.support.speaker import Speaker
from tests.support.wire import Answer, Fields

KEY = secrets.token_hex(32)
EC = ECKey.generate_key("P-256", {"kid": "one"}, private=True)
ALL: frozenset[Scope] = SCOPES - {"operate"}


class Guarded(ServerProcess):
    """A server with tokens of `PEOPLE`, JWT and signed URLs."""

    def __init__(self, home: Path, workers: int, people: Mapping[str, Principal] | None = None) -> None:
        self.tokens, self.key = home / "tokens.toml", home / "key"
        self.token: dict[str, str] = {}
        self.id: dict[str, str] = {}
        self.workers = workers
        self._people = dict(PEOPLE if people is None else people)
        self._secrets = {name: secrets.token_bytes(36) for name in self._people}
        self._write_tokens()
        self.key.write_text(KEY)
        self._jwks = home / "jwks.json"
        self.publish(EC)
        options = ["--tokens", str(self.tokens), "--signing-key", str(self.key)]
        options += ("--jwt-keys", str(self._jwks), "--jwt-issuer", "id", "--jwt-audience", "files")
        super().__init__(home / "data", *options, workers=workers)

    def __enter__(self) -> "Guarded":
        self.start()
        return self

    def _write_tokens(self) -> None:
        tables = []
        for name, who in self._people.items():
            self.id[name], self.token[name], table = made(who, self._secrets[name])
            tables.append(table)
        new = self.tokens.with_suffix(".new")
        new.write_text("\n".join(tables))
        new.replace(self.tokens)

    def publish(self, *keys: ECKey) -> None:
        """Has JWTs verified by these keys."""
        new = self._jwks.with_suffix(".new")
        new.write_bytes(json.dumps(KeySet(list(keys)).as_dict(private=False)).encode())
        new.replace(self._jwks)

    def expire(self, name: str) -> None:
        """The time of this token is over, and was for long."""
        self._people[name] = replace(self._people[name], expires=1_000_000_000.0)
        self._write_tokens()

    def revoke(self, name: str) -> None:
        new = self.tokens.with_suffix(".new")
        new.write_text(without(self.tokens.read_text(), self.id[name]))
        new.replace(self.tokens)

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token[name]}"}

    def signed(self, path: str = "/files", **how: Any) -> str:
        if path == "/files":
            how = {"owner": "alice", **how}
        return sign_upload(self.url + path, KEY, **how)


PEOPLE = {
    "alice": Principal("alice", ALL),
    "bob": Principal("bob", ALL),
    "reader": Principal("alice", frozenset({"read"})),
    "late": Principal("alice", ALL, expires=1_000_000_000.0),
    "leaving": Principal("alice", ALL),
}


class As(Speaker):
    """Speaks with the token of somebody."""

    def __init__(self, server: Guarded, name: str) -> None:
        super().__init__(server.url)
        self._bearer = server.bearer(name)

    def request(self, method: str, target: str, fields: Fields = (), body: bytes | None = None) -> Answer:
        return super().request(method, target, {**dict(fields), **self._bearer}, body)


def jwt_of(key: ECKey = EC, **changes: object) -> str:
    claims = {"iss": "id", "aud": "files", "sub": "alice", "exp": time.time() + 600, "scope": "create write read"}
    return jwt.encode({"alg": "ES256", "kid": key.kid or ""}, claims | changes, key)
