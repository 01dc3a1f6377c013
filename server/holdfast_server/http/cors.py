"""Which pages of other sites may speak to this server: CORS (the Fetch standard, section 3.2).

Rule of this file: without a setting nothing is allowed and nothing is said. An allowed origin gets the same fields on
every answer, errors too, because a browser hides an answer without them; a preflight is the answer to OPTIONS that
everybody gets, with three fields more (T-CORS-1, T-CORS-2).
"""

from collections.abc import Collection
from typing import Final

from holdfast_protocol import headers
from holdfast_protocol.messages import Headers

_METHODS: Final = "POST, HEAD, PATCH, OPTIONS, GET, DELETE"
_MAX_AGE: Final = "86400"
_ALLOWED: Final = ", ".join(
    (
        headers.AUTHORIZATION,
        headers.CONTENT_TYPE,
        headers.UPLOAD_LENGTH,
        headers.UPLOAD_OFFSET,
        headers.UPLOAD_METADATA,
        headers.UPLOAD_DEFER_LENGTH,
        headers.UPLOAD_CONCAT,
        headers.UPLOAD_CHECKSUM,
        headers.TUS_RESUMABLE,
        headers.METHOD_OVERRIDE,
        headers.REQUEST_ID,
        headers.REQUESTED_WITH,
        headers.UPLOAD_COMPLETE,
        headers.UPLOAD_INCOMPLETE,
        headers.UPLOAD_DRAFT_INTEROP_VERSION,
        headers.UPLOAD_PARALLEL,
        headers.UPLOAD_DIGEST,
        headers.UPLOAD_HOLE,
        headers.IDEMPOTENCY_KEY,
        headers.PREFER,
        headers.CONTENT_DIGEST,
        headers.WANT_REPR_DIGEST,
        headers.RANGE,
        headers.IF_RANGE,
        headers.IF_MATCH,
        headers.IF_NONE_MATCH,
    )
)
_EXPOSED: Final = ", ".join(
    (
        headers.LOCATION,
        headers.UPLOAD_OFFSET,
        headers.UPLOAD_LENGTH,
        headers.UPLOAD_METADATA,
        headers.UPLOAD_DEFER_LENGTH,
        headers.UPLOAD_CONCAT,
        headers.UPLOAD_EXPIRES,
        headers.TUS_RESUMABLE,
        headers.TUS_VERSION,
        headers.TUS_EXTENSION,
        headers.TUS_MAX_SIZE,
        headers.TUS_CHECKSUM_ALGORITHM,
        headers.UPLOAD_COMPLETE,
        headers.UPLOAD_LIMIT,
        headers.UPLOAD_DRAFT_INTEROP_VERSION,
        headers.UPLOAD_PARALLEL,
        headers.UPLOAD_MISSING,
        headers.UPLOAD_PROBLEM,
        headers.UPLOAD_STATE,
        headers.UPLOAD_STEP,
        headers.CONTENT_DIGEST,
        headers.REPR_DIGEST,
        headers.WANT_CONTENT_DIGEST,
        headers.RETRY_AFTER,
        headers.ACCEPT_RANGES,
        headers.CONTENT_DISPOSITION,
        headers.CONTENT_RANGE,
        headers.ETAG,
        headers.WWW_AUTHENTICATE,
    )
)

Pairs = list[tuple[bytes, bytes]]


class Cors:
    """What is added to answers. `origins` are as browsers spell them (`https://example.org`), or `*` for all."""

    def __init__(self, origins: Collection[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def allows(self, origin: str) -> bool:
        return self._any or origin.lower() in self._origins

    def fields(self, method: str, head: Headers) -> Pairs:
        """The fields of the answer to this request, as ASGI has them."""
        if not self._origins:
            return []
        found = {} if self._any else {headers.VARY: headers.ORIGIN}
        origin = head.get(headers.ORIGIN)
        if origin is not None and self.allows(origin):
            found[headers.ALLOW_ORIGIN] = "*" if self._any else origin
            found[headers.EXPOSE_HEADERS] = _EXPOSED
            if method == "OPTIONS":
                found[headers.ALLOW_METHODS] = _METHODS
                found[headers.ALLOW_HEADERS] = _ALLOWED
                found[headers.MAX_AGE] = _MAX_AGE
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in found.items()]
