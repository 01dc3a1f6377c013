"""What is fuzzed: a function of bytes for each parser, or each few of them, that meets bytes of others.

Rule of this file: a target raises nothing but AssertionError. What a parser may raise by its own word (FieldError,
ProblemError, ViolationError) is an outcome; everything else is a fault. What it takes must survive being written and
read again. A target is a row of `TARGETS`, and the corpus of the same name runs as a test.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from holdfast_protocol import client, concat, dialects, discovery, fields, ietf_client
from holdfast_protocol import server as rules
from holdfast_protocol.dialects import ietf
from holdfast_protocol.digest import Digest, UnknownAlgorithm
from holdfast_protocol.messages import Headers, Response, Span
from holdfast_protocol.names import LONGEST, safe_name
from holdfast_protocol.problem import KINDS, FieldError, ProblemError
from holdfast_server.http.api import _Query
from holdfast_server.http.cors import Cors
from holdfast_server.http.doors import client_of
from holdfast_server.http.hosts import Hosts
from holdfast_server.http.proxies import Proxies, forwarded_host
from holdfast_server.uploads import types
from holdfast_server.uploads.upload import State, Upload
from tests.fuzz import ours, rights
from tests.fuzz.framing import play
from tests.fuzz.sockets import converse

Parser = Callable[[str], Any]
LENGTH: Final = 100_000


def _same(parse: Parser, format_: Callable[[Any], str]) -> Parser:
    """What was read, written and read again is what it was."""

    def both(text: str) -> None:
        found = parse(text)
        if found or isinstance(found, bool | int):
            assert parse(format_(found)) == found, text

    return both


def _ranges(text: str) -> None:
    for start, end in fields.parse_byte_ranges(text, LENGTH) or ():
        assert 0 <= start < end <= LENGTH


def _date(text: str) -> None:
    found = fields.parse_http_date(text)
    if found is not None:
        assert fields.parse_http_date(fields.format_http_date(found)) == found


def _disposition(text: str) -> None:
    found = fields.parse_disposition(text)
    if found is not None:
        name = safe_name(found)
        assert fields.parse_disposition(fields.format_disposition(name)) == name


def _parts(text: str) -> None:
    urls = concat.parse_concat(text).urls
    for each in concat.upload_ids(urls, "/files", ["example.org"]) if urls else ():
        assert len(each) == 32


PARSERS: Final[Sequence[Parser]] = (
    _same(lambda text: fields.parse_integer("X", text), str),
    _same(lambda text: fields.parse_boolean("X", text), fields.format_boolean),
    _same(fields.parse_metadata, fields.format_metadata),
    _same(fields.parse_checksum, fields.format_checksum),
    _same(lambda text: fields.parse_digests("X", text), fields.format_digests),
    _same(fields.parse_limits, fields.format_limits),
    _same(fields.parse_missing, lambda found: fields.format_missing(*found) if found[0] else ""),
    _same(fields.parse_offer, fields.format_offer),
    _ranges,
    _date,
    _disposition,
    _parts,
    fields.parse_content_range,
    fields.parse_entity_tags,
    fields.media_type,
    lambda text: fields.parse_item_integer("X", text),
    lambda text: fields.parse_wants("X", text),
    lambda text: fields.parse_retry_after(text, 0.0),
    client_of,
    _same(fields.parse_problem, lambda found: fields.format_problem(*found)),
    fields.parse_wait,
)


def field(data: bytes) -> None:
    """The first byte chooses the parser, the rest is the value of a field, as HTTP gives it: latin-1."""
    if data:
        try:
            PARSERS[data[0] % len(PARSERS)](data[1:].decode("latin-1"))
        except (FieldError, UnknownAlgorithm):
            return


def name(data: bytes) -> None:
    """A file's name: as a path, as metadata, and percent-encoded."""
    text = data.decode("utf-8", "surrogateescape")
    for raw in (text, data.decode("latin-1"), quote(data)):
        safe = safe_name(raw)
        assert safe
        assert len(safe.encode()) <= LONGEST
        assert safe == safe_name(safe) == unicodedata.normalize("NFC", safe)
        assert safe not in (".", "..")
        assert not set(safe) & set('/\\<>:"|?*\0\r\n')
        assert safe.strip(". ") == safe
        assert Path("folder", safe).parent == Path("folder")


def type_of_file(data: bytes) -> None:
    """A name, a line's end, and the first bytes of the file."""
    called, _, head = data.partition(b"\n")
    found = types.media_types(safe_name(called.decode("utf-8", "replace")), head)
    assert found
    assert all("/" in media for media in found)


LIMITS: Final = rules.Limits(1_000_000, 65536, 100.0, trailers=True, max_metadata=500)


def _view(state: State, length: int | None, concatenated: str | None) -> Upload:
    return Upload(
        id="0" * 32,
        state=state,
        length=length,
        parallel=True,
        granule=65536,
        metadata=None,
        name="a",
        created=0.0,
        updated=0.0,
        expires=9.0,
        prefix=0 if state is State.RECEIVING else length or 0,
        received=0 if state is State.RECEIVING else length or 0,
        computed=(Digest("md5", bytes(16)),),
        concat=concatenated,
    )


VIEWS: Final = tuple(
    _view(state, length, concatenated)
    for state in (State.RECEIVING, State.COMPLETE, State.FAILED)
    for length in (None, 0, LENGTH)
    for concatenated in (None, "partial", "final;/files/a")
)


def _head(lines: Sequence[bytes]) -> Headers:
    pairs = [line.decode("latin-1").partition(":") for line in lines]
    return Headers([(key.strip(), value.strip()) for key, _, value in pairs if key.strip()])


def decision(data: bytes) -> None:
    """The first byte chooses the upload, then come the lines of a head: what every dialect decides on it."""
    if not data:
        return
    view, head = VIEWS[data[0] % len(VIEWS)], _head(data[1:].split(b"\n"))
    spoken = ietf.spoken(head)
    Cors(["https://example.org"]).fields("OPTIONS", head)
    for decide in (
        lambda: dialects.decide_create(head, LIMITS),
        lambda: dialects.decide_patch(head, view, LIMITS),
        lambda: dialects.decide_trailer(head),
        lambda: dialects.options_fields(LIMITS, head),
        lambda: dialects.draft_spoken("POST", head),
        lambda: ietf.create(head, LIMITS, spoken.draft),
        lambda: ietf.patch(head, view, LIMITS, spoken.draft),
        lambda: ietf.check_asking(head, spoken.draft),
        lambda: rules.check_version(rules.effective_method("POST", head), head),
    ):
        try:
            made: Any = decide()
        except FieldError as error:
            _check(error.as_problem())
        except ProblemError as problem:
            _check(problem)
            _check(ietf.refusal(problem, spoken.draft, LIMITS, view, 0.0))
        else:
            if isinstance(made, rules.Create) and made.length is not None:
                assert 0 <= made.length <= LIMITS.max_size
            if isinstance(made, rules.StoreChunk | rules.StoreHole):
                assert view.length is not None
                assert 0 <= made.start < made.end <= view.length


def _check(problem: ProblemError) -> None:
    assert 400 <= KINDS[problem.code].status < 600
    assert problem.to_json()
    for key, value in problem.headers.items():
        assert "\r" not in key + value
        assert "\n" not in key + value


def answer(data: bytes) -> None:
    """What our client reads from a server: a status by the first byte, fields, an empty line, a document."""
    if not data:
        return
    head, _, body = data[1:].partition(b"\n\n")
    statuses = (200, 201, 202, 204, 301, 400, 404, 409, 410, 413, 422, 429, 460, 500, 503, 507)
    response = Response(statuses[data[0] % len(statuses)], _head(head.split(b"\n")), body)
    span = Span(0, 65536)
    guest = ietf_client.Guest(9)
    exchanges: list[Any] = [
        client.create("http://a/files", LENGTH),
        client.query("http://a/files/b"),
        client.query_final("http://a/files/b"),
        client.chunk("http://a/files/b", span, Digest("md5", bytes(16))),
        client.hole("http://a/files/b", span),
        client.complete("http://a/files/b"),
        client.append("http://a/files/b", span),
        client.terminate("http://a/files/b"),
        discovery.discover("http://a/files"),
        guest.query("http://a/files/b"),
        guest.append("http://a/files/b", span),
    ]
    for exchange in exchanges:
        next(exchange)
        try:
            for _ in range(5):  # one asks again at most
                exchange.send(response)
        except (StopIteration, client.ViolationError, client.Refusal):
            continue


_seen: Final[list[Any]] = []


async def _answered(scope: Any, receive: Any, send: Any) -> None:
    _seen.append(scope)


def query(data: bytes) -> None:
    """The query of the JSON API."""
    try:
        asked = _Query({"query_string": data})
    except ValueError:
        raise AssertionError(data) from None
    for ask in (
        lambda: asked.integer("limit", 1, 1, 9),
        lambda: asked.integer("after", 1, 0, 10**18),
        lambda: asked.cursor("before"),
        lambda: asked.state(),
    ):
        try:
            ask()
        except ProblemError as problem:
            _check(problem)


NEAR: Final = Proxies(_answered, ["10.0.0.0/8", "unix"])
KNOWN: Final = Hosts(("nas.example",))


def proxied(data: bytes) -> None:
    """The lines of a head that came from a trusted proxy: who has asked, and by what name."""
    lines = [each.strip().partition(b":") for each in data.split(b"\n")]
    head = [(name.strip().lower(), value.strip()) for name, _, value in lines if name.strip()]
    scope: dict[str, Any] = {"type": "http", "client": ("10.0.0.1", 1), "scheme": "http", "headers": head}
    try:
        NEAR(scope, None, None).send(None)  # type: ignore[arg-type]
    except StopIteration:
        seen = _seen.pop()
    ipaddress.ip_address(seen["client"][0])
    assert seen["scheme"] in ("http", "https")
    for host in (forwarded_host(seen), data.decode("latin-1")):
        try:
            KNOWN.check(host)
        except ProblemError as problem:
            _check(problem)
        else:
            assert host is None or re.search(r"(?i)localhost|nas\.example|[0-9a-f:]", host)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "answer": answer,
    "credential": rights.credential,
    "decision": decision,
    "field": field,
    "framing": play,
    "jobs": ours.jobs,
    "journal": ours.journal,
    "jwt": rights.web_token,
    "name": name,
    "proxied": proxied,
    "query": query,
    "sums": ours.sums,
    "type": type_of_file,
    "watching": rights.watching,
    "websocket": converse,
}
