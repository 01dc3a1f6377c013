"""The web page: the files of this folder, served at `/` and below `/page/`.

Rule of this file: what lies in this folder with a type of `_TYPES` is served, and nothing that a request says becomes a
path. The page gets nothing from anywhere else and runs nothing that is not a file of its own (the policy below); its
addresses are relative, so that it works wherever the application is mounted.
"""

import hashlib
from importlib import resources
from typing import Final

from starlette.types import Receive, Scope, Send

from holdfast_protocol import fields, headers
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_server.http.answers import NOSNIFF, answer, head_of, not_allowed

INDEX: Final = "index.html"
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class Page:
    """Both endpoints. The files are read once, when it is made: some hundred KiB."""

    def __init__(self) -> None:
        self._assets = {
            entry.name: _Asset(entry.name, entry.read_bytes())
            for entry in resources.files("holdfast_server.page").iterdir()
            if entry.name.rpartition(".")[2] in _TYPES
        }

    async def index(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._assets[INDEX].answer(scope, send)

    async def asset(self, scope: Scope, receive: Receive, send: Send) -> None:
        asset = self._assets.get(scope["path_params"]["name"])
        if asset is None:
            raise ProblemError("not-found", "The page has no such file.")
        await asset.answer(scope, send)


class _Asset:
    def __init__(self, name: str, content: bytes) -> None:
        self._content = content
        self._tag = fields.EntityTag(hashlib.sha256(content).hexdigest()[:32], weak=False)
        self._fields = {
            headers.CONTENT_TYPE: _TYPES[name.rpartition(".")[2]],
            headers.CONTENT_SECURITY_POLICY: POLICY,
            headers.ETAG: str(self._tag),
            headers.CACHE_CONTROL: "no-cache",  # kept, and asked for with its tag: modules of two versions never meet
            headers.REFERRER_POLICY: "no-referrer",
            headers.OPENER_POLICY: "same-origin",
            headers.CONTENT_LENGTH: str(len(content)),
            **NOSNIFF,
        }

    async def answer(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise not_allowed(("GET", "HEAD"))
        if self._is_known(head_of(scope).get(headers.IF_NONE_MATCH)):
            await answer(send, 304, {name: self._fields[name] for name in (headers.ETAG, headers.CACHE_CONTROL)})
        else:
            await answer(send, 200, self._fields, b"" if scope["method"] == "HEAD" else self._content)

    def _is_known(self, raw: str | None) -> bool:
        if raw is None:
            return False
        try:
            tags = fields.parse_entity_tags(raw, headers.IF_NONE_MATCH)
        except FieldError as error:
            raise error.as_problem() from None
        return tags == "*" or any(tag.value == self._tag.value for tag in tags)
