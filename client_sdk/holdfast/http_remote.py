"""A file at an HTTP server.

Rule of this file: bytes of two versions never get into one file (protocol.md, G-GET-1 to 8). The first answer says what
version there is: it is to the range from 0 on, so that its bytes are of use and a server without ranges needs no second
request. Each further range is asked for with If-Range, and taken only if the answer is a 206 with exactly that range,
that length and that validator. Redirects are followed for the first answer, and the caller's header fields and
credentials go no further than to the origin that they were given for.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from msgspec.structs import replace

from holdfast._transport import Incoming, Session
from holdfast._wire import Sink
from holdfast.errors import BrokenProtocol, HoldfastError
from holdfast.limiter import Limiter
from holdfast.outcome import from_violation
from holdfast.remote import Answer, OtherVersion, Since, Version, Wanted
from holdfast_protocol import client as protocol
from holdfast_protocol import fields
from holdfast_protocol import headers as names
from holdfast_protocol.client import Reaction, Refusal, ViolationError
from holdfast_protocol.messages import Headers, Request, Span
from holdfast_protocol.names import safe_name
from holdfast_protocol.problem import FieldError

REDIRECTS: Final = (301, 302, 303, 307, 308)
MOST_REDIRECTS: Final = 10
CODINGS: Final = ("gzip", "deflate")
"""Those that can be taken off."""
COMPRESSED: Final = (".gz", ".tgz", ".svgz")
"""Names of files that are meant to stay compressed, whatever the server calls their coding."""
DATE_MARGIN: Final = 60.0
"""Seconds that a file must have lain unchanged for its date to be a strong validator (RFC 9110, section 8.8.2.2)."""


class HttpRemote:
    """See Remote. `session` is for its URL."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.url: str = session.endpoint
        self.limiter: Limiter = session.limiter
        self._place = self.url
        """Where redirects have led."""

    @asynccontextmanager
    async def first(self, since: Since | None = None) -> AsyncIterator[Answer]:
        """See Remote. An answer with status 206 or 200; all others are errors."""
        place, plain = self.url, False
        if since is not None and since.pin.startswith("mdtm "):
            since = None  # it was an FTP server's
        for _ in range(MOST_REDIRECTS):
            sent = {} if plain else {names.RANGE: "bytes=0-"}
            if since is not None:
                sent = _pinned(since.span, since.pin)
            async with self._session.open(Request("GET", place, sent), stream=True) as incoming:
                if incoming.status in REDIRECTS:
                    place = self._redirected(place, incoming)
                elif since is not None and incoming.status in (200, 412, 416):
                    since = None
                elif incoming.status == 416 and not plain:
                    # An empty file has no first byte (RFC 9110, section 15.5.17); others may know no open ranges.
                    plain = True
                else:
                    version = await self._version(incoming, since)
                    if since is not None and version.pin != since.pin:
                        since = None  # it does not know If-Range
                        continue
                    self._place = place
                    yield _HttpAnswer(incoming, version, since.span.start if since is not None else 0)
                    return
        raise BrokenProtocol(f"{self.url} redirects more than {MOST_REDIRECTS} times; is that URL right?")

    @asynccontextmanager
    async def range(self, version: Version, span: Span) -> AsyncIterator[Answer]:
        """See Remote."""
        assert version.pin is not None
        request = Request("GET", self._place, _pinned(span, version.pin))
        async with self._session.open(request, stream=True) as incoming:
            if self._place != self.url and incoming.status in (401, 403, 404, 410):
                # The place that was redirected to was for a time only. The first answer finds out where it is now.
                raise OtherVersion
            await self._check(incoming, version, span)
            yield _HttpAnswer(incoming, version, span.start)

    async def beside(self, suffix: str) -> bytes | None:
        """See Remote. A URL with a query is not one to which something can be appended."""
        parts = urlsplit(self.url)
        if parts.query or parts.path.endswith("/"):
            return None
        url = urlunsplit(parts._replace(path=parts.path + suffix))
        try:
            for _ in range(MOST_REDIRECTS):
                async with self._session.open(Request("GET", url)) as incoming:
                    if incoming.status in REDIRECTS:
                        url = self._redirected(url, incoming)
                        continue
                    return (await incoming.answer()).body if incoming.status == 200 else None
        except HoldfastError:
            pass
        return None

    async def settle(self, version: Version) -> None:
        """See Remote: each range was pinned."""

    async def _version(self, incoming: Incoming, since: Since | None) -> Version:
        head = incoming.headers
        if incoming.status not in (200, 206):
            raise await self._refused(incoming)
        try:
            size = None
            if incoming.status == 206:
                given = head.one(names.CONTENT_RANGE) or ""
                start, end, size = fields.parse_content_range(given)
                wanted = since.span if since is not None else Span(0, end if size is None else size)
                if Span(start, end) != wanted:
                    raise BrokenProtocol(f"{self.url} answered {given!r} to the range from {wanted.start} on")
            elif (length := head.one(names.CONTENT_LENGTH)) is not None:
                size = fields.parse_integer(names.CONTENT_LENGTH, length)
            said = head.get(names.REPR_DIGEST)
            digests = fields.parse_digests(names.REPR_DIGEST, said) if said is not None else ()
            if (said := head.get(names.DIGEST)) is not None:
                digests = digests or fields.parse_legacy_digests(said)
        except FieldError as error:
            raise BrokenProtocol(f"{self.url}: a field of the answer is malformed: {error}") from error
        pin = None
        if incoming.status == 206 and size is not None:
            pin = since.pin if since is not None and _is_pinned(head, since.pin) else _validator(head)
        version = Version(size, pin, digests, self._name(head.get(names.CONTENT_DISPOSITION)))
        return self._decoded(version, head.get(names.CONTENT_ENCODING))

    def _decoded(self, version: Version, coding: str | None) -> Version:
        """Without its content coding: that is of the way, and what it says of length and digest is of the coded."""
        found = [each for part in (coding or "").split(",") if (each := part.strip().lower()) not in ("", "identity")]
        if not found or version.name.lower().endswith(COMPRESSED):
            return version
        if len(found) > 1 or found[0] not in CODINGS:
            raise BrokenProtocol(
                f"{self.url} answers in the content coding {', '.join(found)}, which was not asked for and is not known"
                " here; ask for the file under a name that is served as it is"
            )
        return replace(version, size=None, pin=None, digests=(), coded=True)

    def _redirected(self, place: str, incoming: Incoming) -> str:
        target = urljoin(place, incoming.headers.get(names.LOCATION) or "")
        before, after = urlsplit(place), urlsplit(target)
        if after.scheme not in ("http", "https") or not after.hostname or target == place:
            raise BrokenProtocol(f"{place} redirects to nowhere ({incoming.status}); is that URL right?")
        if before.scheme == "https" and after.scheme == "http":
            raise BrokenProtocol(f"{place} redirects from https to {target}; download that, if you trust it")
        return urlunsplit(after._replace(netloc=after.netloc.rpartition("@")[2], fragment=""))

    async def _check(self, incoming: Incoming, version: Version, span: Span) -> None:
        said = incoming.headers.get(names.CONTENT_RANGE) or ""
        if incoming.status == 416 and fields.parse_unsatisfied_range(said) == version.size:
            raise BrokenProtocol(
                f"{self.url} has {version.size} bytes and refuses the range {span.start} to {span.end}"
            )
        if incoming.status in (200, 412, 416, *REDIRECTS):
            raise OtherVersion
        if incoming.status != 206:
            raise await self._refused(incoming)
        try:
            exact = fields.parse_content_range(said) == (span.start, span.end, version.size)
        except FieldError:
            exact = False
        if not exact:
            raise BrokenProtocol(f"{self.url} answered {said!r} to the range {span.start} to {span.end}")
        if not _is_pinned(incoming.headers, version.pin or ""):
            raise OtherVersion

    async def _refused(self, incoming: Incoming) -> Refusal:
        try:
            refusal = protocol.refused(await incoming.answer(), time.time())
        except ViolationError as error:
            raise from_violation(error, self.url) from error
        if refusal.reaction is not Reaction.RETRY:
            refusal.reaction = Reaction.FAIL
        return refusal

    def _name(self, disposition: str | None) -> str:
        said = fields.parse_disposition(disposition) if disposition is not None else None
        return safe_name(said or unquote(urlsplit(self.url).path.rstrip("/").rpartition("/")[2]), "download")


class _HttpAnswer:
    """See Answer."""

    def __init__(self, incoming: Incoming, version: Version, start: int) -> None:
        self._incoming = incoming
        self.version = version
        self.start = start

    def carry(self, sink: Sink, wanted: Wanted) -> AsyncIterator[int]:
        """See Answer."""
        return self._incoming.carry(sink, wanted, decode=self.version.coded)


def _pinned(span: Span, pin: str) -> dict[str, str]:
    """The fields that ask for a range of a version."""
    return {names.RANGE: f"bytes={span.start}-{span.end - 1}", names.IF_RANGE: pin}


def _validator(head: Headers) -> str | None:
    """What If-Range may be sent with: a strong ETag, else a date that is surely of one version alone."""
    etag = head.get(names.ETAG)
    if etag is not None:
        with contextlib.suppress(FieldError):
            tags = fields.parse_entity_tags(etag)
            if tags != "*" and len(tags) == 1 and not tags[0].weak:
                return etag
        return None
    modified, now = head.get(names.LAST_MODIFIED), head.get(names.DATE)
    if modified is None or now is None:
        return None
    then, sent = fields.parse_http_date(modified), fields.parse_http_date(now)
    return modified if then is not None and sent is not None and sent - then >= DATE_MARGIN else None


def _is_pinned(head: Headers, pin: str) -> bool:
    """A 206 is of that version. It must repeat an ETag; a date it may leave out (RFC 9110, section 15.3.7)."""
    etag, modified = head.get(names.ETAG), head.get(names.LAST_MODIFIED)
    return etag == pin if pin.startswith('"') else etag is None and modified in (None, pin)
