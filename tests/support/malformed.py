"""Malformed requests, made up: good requests of every dialect with one thing or several wrong in them.

    Case        bytes to send, and what comes of them
    Scratch     an upload whose owner cuts bodies off, and knows what has to stay of them
    generate    one case, from a source of random choices

Rule of this file: a case is malformed for certain, by RFC 9112 or by protocol.md, so that its oracle is exact: it is
refused (4xx, or the connection is closed) and changes nothing. What is odd and legal all the same says what its answer
has to be.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from tests.support.breakable import BLOCK, Pieces, Request, make_request, pairs
from tests.support.drafts import VERSIONS, append
from tests.support.speaker import TUS, TUS_BODY, b64, digest, raw_digest

Rng = random.Random


@dataclass(frozen=True)
class Good:
    """What a request that is not malformed has to be answered with."""

    method: str
    status: int
    body: bytes | None = None


@dataclass(frozen=True)
class Case:
    """Bytes to send, and what comes of them."""

    name: str
    wire: bytes
    method: str
    """Of the malformed request: how its answer has to be read."""
    before: tuple[Good, ...] = ()
    """Answers to good requests that come first."""
    refused: bool = True
    """The last request is malformed; else all of them are good."""
    then: Literal["read", "close", "half-close", "reset"] = "read"
    """What the client does when everything is sent."""
    ends: bool = False
    """It is no HTTP: the server closes the connection."""
    problem: bool = False
    """It is HTTP, so there must be an answer, and not only a close."""
    kept: int | None = None
    """The offset that the scratch upload has afterwards."""


@dataclass
class Scratch:
    """An upload without an end that one thread has for itself; its bytes are BLOCK, again and again."""

    path: str
    offset: int = 0


def block(offset: int, size: int) -> bytes:
    """Bytes of a scratch upload."""
    start = offset % len(BLOCK)
    return (BLOCK[start:] + BLOCK * (size // len(BLOCK) + 1))[:size]


def generate(rng: Rng, pieces: Pieces, scratch: Scratch) -> Case:
    """One case. The same for the same choices of `rng` and the same uploads."""
    make = rng.choices(
        (_broken_fields, _no_http, _cut_head, _cut_atomic, _cut_kept, _behind, _odd, _noise),
        weights=(45, 25, 8, 5, 4, 6, 4, 3),
    )[0]
    return make(rng, pieces, scratch)


def _break(rng: Rng, request: Request) -> tuple[str, Request]:
    """One field or two of them broken, and harmless noise around them."""
    fields, names = list(request.fields), []
    for name, values in rng.sample(request.breaks, min(len(request.breaks), rng.choice((1, 1, 1, 2)))):
        if name in names:
            continue
        names.append(name)
        fields = [pair for pair in fields if pair[0] != name] + [(name, value) for value in values(rng)]
    if rng.random() < 0.3:
        fields += [
            (f"X-{rng.randrange(99)}", rng.choice(("", "a", "\xe9", "a" * 2000, "?1;;")))
            for _ in range(rng.randrange(9))
        ]
    if rng.random() < 0.2:
        fields.append(("Expect", rng.choice(("100-continue", "200-ok", "", "100-continue, x", "\xff"))))
    if rng.random() < 0.3:
        first: dict[str, int] = {}
        for name, _ in fields:
            first.setdefault(name, rng.randrange(1000))
        fields.sort(key=lambda pair: first[pair[0]])
    if rng.random() < 0.3:
        fields = [(rng.choice((name, name.lower(), name.upper())), value) for name, value in fields]
    return "+".join(names), replace(request, fields=fields)


def _broken_fields(rng: Rng, pieces: Pieces, scratch: Scratch) -> Case:
    names, request = _break(rng, make_request(rng, pieces))
    return Case(f"{request.method} with bad {names}", request.wire(pieces.host), request.method, problem=True)


def _no_http(rng: Rng, pieces: Pieces, scratch: Scratch) -> Case:
    """A request that breaks RFC 9112. Nothing that is right by the rest of it may save it."""
    request = make_request(rng, pieces)
    head, _, body = request.wire(pieces.host).partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, target, version = first.split(b" ")
    bare = [line for line in lines if not line.lower().startswith((b"content-length:", b"transfer-encoding:"))]
    at = rng.randrange(len(lines))
    control = bytes([rng.choice((*range(9), 11, 12, *range(14, 32), 127))])
    what = rng.choice(
        ("method", "target", "version", "host", "line", "ending", "control", "name", "length", "coding", "large", "old")
    )
    match what:
        case "method":
            method = rng.choice(
                (b"QZX", method.lower(), method + b"\x00", b"\xff", b"", b"GE T", b"A" * 5000, b"G(ET", control)
            )
        case "target":
            target = rng.choice(
                (
                    target + b"#a",
                    b"",
                    b"a b",
                    b"/\xff",
                    b"/a\x00",
                    b"/" + control,
                    b"http://",
                    b"/a\rb",
                    b"/a\nb",
                    b"x:y:z",
                    b"?a",
                )
            )
        case "version":
            version = rng.choice(
                (
                    b"HTTP/2.0",
                    b"HTTP/1.2",
                    b"HTTP/1",
                    b"HTTP/1.10",
                    b"http/1.1",
                    b"HTTP/0.9",
                    b"HTTP/1.1x",
                    b"",
                    b"HTTP/9.9",
                    b"X",
                )
            )
        case "host":
            rest = [line for line in lines if not line.startswith(b"Host:")]
            host = rng.choice(
                ([], [b"Host: a", b"Host: a"], [b"Host: a b"], [b"Host: a/b"], [b"Host: \xff"], [b"Host: a:b"])
            )
            lines = [*rest, *host]
        case "line":
            lines.insert(
                at, rng.choice((b"no colon", b": no name", b"A : b", b" folded", b"\tfolded", b"=", b"\xff: a"))
            )
            if lines[0][:1] in b" \t" and at == 0:
                lines.insert(0, b"A: b")
        case "ending":
            lines[at] += rng.choice((b"\nA: b", b"\rA: b", b"\n", b"\r", b"\n\n"))
        case "control":
            lines[at] += b" " + control + b"a"
        case "name":
            lines.insert(at, b"X" + rng.choice((b"(", b"@", b" a", b"\xe9", b"/", b'"', control)) + b"Y: 1")
        case "length":
            values = rng.choice(
                (
                    [b"+5"],
                    [b"-5"],
                    [b"5,5"],
                    [b"5, 6"],
                    [b"0x5"],
                    [b"5 5"],
                    [b""],
                    [b"1e3"],
                    [b"\xb2"],
                    [b"5", b"5"],
                    [b"5", b"6"],
                    [b"9" * rng.randrange(21, 400)],
                    [b"5."],
                    [b"5;a"],
                    [b"five"],
                )
            )
            lines = [*bare, *(b"Content-Length: " + value for value in values)]
        case "coding":
            values = rng.choice(
                (
                    [b"gzip"],
                    [b"identity"],
                    [b"chunked, gzip"],
                    [b"gzip, chunked"],
                    [b"chunked, chunked"],
                    [b"chunked", b"chunked"],
                    [b"xchunked"],
                    [b"chunked;a=b"],
                    [b"chunke"],
                    [b"\xff"],
                    [b"chunked\x80"],
                )
            )
            more = [b"Content-Length: 5"] if rng.random() < 0.5 else []
            lines = [*bare, *(b"Transfer-Encoding: " + value for value in values), *more]
        case "large":
            size = rng.randrange(600_000, 900_000)
            if rng.random() < 0.3:
                target += b"?" + b"x" * size
            elif rng.random() < 0.5:
                lines.insert(at, b"X-Long: " + b"x" * size)
            else:
                lines.extend(b"X-%d: %s" % (n, b"y" * 100) for n in range(size // 100))
        case _:
            version = b"HTTP/1.0"
            lines = [*bare, b"Transfer-Encoding: chunked"]
            body = b"0\r\n\r\n"
    wire = b"\r\n".join((b" ".join((method, target, version)), *lines)) + b"\r\n\r\n" + body
    return Case(f"{request.method} with a bad {what}", wire, request.method, ends=True)


def _cut_head(rng: Rng, pieces: Pieces, scratch: Scratch) -> Case:
    """Half a head, and the client is gone, or will send no more."""
    request = make_request(rng, pieces)
    head = request.wire(pieces.host).partition(b"\r\n\r\n")[0]
    then: Sequence[Literal["close", "half-close", "reset"]] = ("close", "half-close", "reset")
    return Case(
        f"half a {request.method}", head[: rng.randrange(1, len(head) + 1)], "GET", then=rng.choice(then), ends=True
    )


_BAD_CHUNKS: Final = (
    b"ZZ\r\n",
    b"\r\n",
    b"-1\r\n",
    b"+1\r\na\r\n",
    b"0x5\r\n",
    b"g\r\n",
    b"1" * 17 + b"\r\n",
    b"5\nhello\r\n",
    b"5;\x00\r\n",
    b"5;a=\x01\r\n",
    b"\xff\r\n",
    b"5,5\r\n",
    b"0\r\nA b\r\n\r\n",
    b"0\r\n: x\r\n\r\n",
    b"0\r\nA: b\x00\r\n\r\n",
    b"0\r\nA: b\nC: d\r\n\r\n",
)


def _cut_atomic(rng: Rng, pieces: Pieces, scratch: Scratch) -> Case:
    """A body with a digest that is cut off, or turns out to be malformed: nothing of it is stored."""
    body = rng.randbytes(rng.choice((20, 500, 5000)))
    piece = rng.choice((pieces.receiving, pieces.deferred, pieces.partial))
    fields = pairs(
        TUS_BODY, {"Upload-Offset": str(piece.offset), "Upload-Checksum": f"sha1 {b64(raw_digest('sha', body))}"}
    )
    if rng.random() < 0.3:
        fields = [pair for pair in fields if pair[0] != "Upload-Checksum"] + [("Trailer", "Upload-Checksum")]
    elif rng.random() < 0.4:
        piece = pieces.draft
        fields = pairs(append(piece.offset, False, rng.choice(VERSIONS)), {"Content-Digest": digest(body)})
    return _cut(rng, Request("PATCH", piece.path, fields), pieces, body, kept=None)


def _cut_kept(rng: Rng, pieces: Pieces, scratch: Scratch) -> Case:
    """A body without a digest: what came before the cut stays (T-PATCH-4, I-APPEND-5)."""
    body = block(scratch.offset, rng.choice((20, 500, 5000)))
    fields = rng.choice(
        (
            pairs(TUS_BODY, {"Upload-Offset": str(scratch.offset)}),
            pairs(append(scratch.offset, False, rng.choice(VERSIONS))),
        )
    )
    return _cut(rng, Request("PATCH", scratch.path, fields), pieces, body, kept=scratch.offset)


def _cut(rng: Rng, request: Request, pieces: Pieces, body: bytes, kept: int | None) -> Case:
    count = rng.randrange(1, len(body))
    then: Literal["read", "close", "half-close"] = rng.choice(("close", "half-close"))
    if kept is not None:
        kept += count
        then = "half-close"  # closed with an interim answer unread, it would be a reset, which may take bytes with it
    if rng.random() < 0.4:
        request = replace(request, fields=[*request.fields, ("Content-Length", str(len(body)))], body=body[:count])
        return Case("a short body", request.wire(pieces.host), "PATCH", then=then, ends=True, kept=kept)
    part = rng.randrange(0, count)
    pieces_ = [piece for piece in (body[:part], body[part:count]) if piece]
    extension = rng.choice((b"", b";a", b';a="b c"', b";" + b"x" * 300))
    wire = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces_)
    if rng.random() < 0.6:
        wire, then = wire + rng.choice(_BAD_CHUNKS), "read"
    request = replace(request, fields=[*request.fields, ("Transfer-Encoding", "chunked")], body=wire)
    return Case("a cut body in chunks", request.wire(pieces.host), "PATCH", then=then, ends=True, kept=kept)


def _harmless(rng: Rng, pieces: Pieces) -> tuple[Request, Good]:
    """A good request that changes nothing."""
    first = rng.randrange(len(pieces.file))
    last = rng.randrange(first, len(pieces.file))
    part = pieces.file[first : last + 1]
    path = pieces.complete.path
    return rng.choice(
        (
            (Request("GET", path, [("Range", f"bytes={first}-{last}")]), Good("GET", 206, part)),
            (Request("GET", path), Good("GET", 200, pieces.file)),
            (Request("HEAD", rng.choice(pieces.all()).path, pairs(TUS)), Good("HEAD", 200)),
            (Request("OPTIONS", "/files"), Good("OPTIONS", 204)),
            (Request("GET", "/health/live"), Good("GET", 200)),
        )
    )


def _behind(rng: Rng, pieces: Pieces, scratch: Scratch) -> Case:
    """Good requests, and a bad one behind them in the same breath."""
    good = [_harmless(rng, pieces) for _ in range(rng.randrange(1, 6))]
    bad = rng.choice((_broken_fields, _no_http, _cut_head, _noise))(rng, pieces, scratch)
    wire = b"".join(request.wire(pieces.host) for request, _ in good)
    before = tuple(answer for _, answer in good)
    return replace(bad, name=f"{bad.name}, pipelined", wire=wire + bad.wire, before=before)


def _odd(rng: Rng, pieces: Pieces, scratch: Scratch) -> Case:
    """Legal, and to be answered as if nothing were odd: fields that HTTP says are passed over."""
    field_ = rng.choice(
        (
            (
                "Range",
                rng.choice(
                    ("bytes=5-1", "bytes=x-", "lines=1-2", "bytes", "", "bytes=0-1,x", "\xff", "bytes=" + "1-2," * 99)
                ),
            ),
            ("Expect", rng.choice(("200-ok", "", "\xff", "100-continue"))),
            ("Upgrade", rng.choice(("h2c", "\xff", "", "TLS/1.0"))),
            ("If-Range", '"other"'),
            ("Upload-Offset", "-1"),
            ("Content-Digest", "((("),
            ("Upload-Metadata", "!!!"),
        )
    )
    fields = [field_, ("Connection", rng.choice(("Upgrade, keep-alive", "keep-alive", "nonsense", "Upgrade")))]
    if field_[0] == "If-Range":
        fields.append(("Range", "bytes=0-1"))
    good = Good("GET", 200, pieces.file)
    request = Request("GET", pieces.complete.path, fields)
    return Case(f"an odd {field_[0]}", request.wire(pieces.host), "GET", (good,), refused=False)


def _noise(rng: Rng, pieces: Pieces, scratch: Scratch) -> Case:
    """Bytes at random, other protocols, and a head that was shaken."""
    wire = rng.choice(
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(300),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x00" + rng.randbytes(rng.randrange(2000)),
            b"\xff" * rng.randrange(1, 2000),
            b"\x80" + rng.randbytes(100_000),
            b"SSH-2.0-x\r\n",
            b"EHLO there\r\n",
            b"GET\r\n\r\n",
            b"GET / \r\n\r\n",
            b"\r\n\r\n\x01",
        )
    )
    return Case("noise", wire, "GET", ends=True)
