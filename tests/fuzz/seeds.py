"""Where fuzzing begins: good inputs of each target, and the words of the protocol.

Rule of this file: from these an input can be found by few changes that a random search would never find.
"""

import json
from typing import Final

from holdfast_protocol import headers
from tests.fuzz.rights import CLAIMS, GOOD_JWT, HEADER, SIGNED, TOKEN

WORDS: Final[list[str]] = sorted(
    {value for key, value in vars(headers).items() if key.isupper() and isinstance(value, str)}
    | {"sha-256=:", ":", "?1", "?0", ";granule=65536", ";max-chunk=65536", ";more", ";holes", "(0 65536)", "bytes=0-"}
    | {"final;/files/", "partial", "filename*=UTF-8''", "UTF-8", "md5=:", "chunked", "HTTP/1.1", "limit=", "state="}
    | {
        "before=",
        "after=",
        "application/problem+json",
        '"code": "',
        '"detail": "',
        "1.5~",
        "max-age=",
        "Host: a",
        "\r\n",
    }
)

_DATE: Final = b"Sun, 06 Nov 1994 08:49:37 GMT"
_MD5: Final = b"AAAAAAAAAAAAAAAAAAAAAA=="
_FIELDS: Final = (
    b"123",
    b"?1;a=2",
    b"filename YS50eHQ=,empty,note 4pyT",
    b"md5 " + _MD5,
    b"md5=:" + _MD5 + b":, sha-256=:AAAA:",
    b"max-size=100, max-age=5",
    b"(0 65536), (100000 7);more",
    b"?1;granule=65536;max-chunk=131072;holes",
    b"bytes=0-9,20-,-5",
    _DATE,
    b'attachment; filename="a\\"b.txt"; filename*=UTF-8\'\'%e2%82%ac.txt',
    b"final;/files/" + b"0" * 32 + b" http://example.org/files/" + b"1" * 32,
    b"bytes 0-9/100",
    b'"a", W/"b"',
    b"Text/HTML; charset=utf-8",
    b"5;a",
    b"sha-256=10, md5=0",
    b"120",
    b"::ffff:192.0.2.1",
)
_TUS: Final = (
    b"Tus-Resumable: 1.0.0\nUpload-Offset: 0\nContent-Type: application/offset+octet-stream\nContent-Length: 5"
)
_CHUNK: Final = b"\x06Content-Type: application/vnd.holdfast.chunk\n"
_GET: Final = b"GET /files HTTP/1.1\r\nHost: a\r\n\r\n"

SEEDS: Final[dict[str, list[bytes]]] = {
    "field": [bytes([index]) + value for index, value in enumerate(_FIELDS)],
    "name": [b"a/b\\c.txt", b"CON.txt", "e\u0301\u202e.".encode(), b"%2e%2e%2f", b"a" * 300 + b".tar.gz", b"\xff\xfe"],
    "query": [b"limit=5&after=9&before=1.5~" + b"0" * 32 + b"&state=complete", b"limit=1&limit=2", b"state=%ff"],
    "type": [b"a.png\n\x89PNG\r\n\x1a\n", b"a.svg\n<?xml version='1.0'?><svg>", b"a.pdf\n%PDF-1.7", b"a.txt\nabc"],
    "decision": [
        b"\0" + _TUS,
        b"\x06" + _TUS + b"\nUpload-Checksum: md5 " + _MD5,
        _CHUNK + b"Upload-Offset: 0\nContent-Length: 65536\nContent-Digest: md5=:" + _MD5 + b":",
        _CHUNK + b"Upload-Offset: 0\nUpload-Hole: 65536\nContent-Length: 0",
        _CHUNK + b"Upload-Complete: ?1\nContent-Length: 0",
        b"\0Tus-Resumable: 1.0.0\nUpload-Length: 100\nUpload-Metadata: filename YQ==\nUpload-Parallel: ?1",
        b"\0Tus-Resumable: 1.0.0\nUpload-Concat: final;/files/" + b"0" * 32,
        b"\0Tus-Resumable: 1.0.0\nUpload-Defer-Length: 1\nTrailer: Upload-Checksum",
        b"\0Upload-Draft-Interop-Version: 9\nUpload-Complete: ?1\nUpload-Length: 5\nContent-Length: 5",
        b"\x06Upload-Draft-Interop-Version: 3\nUpload-Incomplete: ?0\nUpload-Offset: 0",
        b"\0Origin: https://example.org\nX-HTTP-Method-Override: PATCH",
    ],
    "credential": [
        f"{SIGNED}\nBearer {TOKEN}".encode(),
        b"signature=a.b&signature=c.d\nBasic YTpi",
        b"project=a\nbearer  hft_x",
        b"&" * 150,
    ],
    "jobs": [
        b"http://a/b -o 'my copy' --checksum sha-256="
        + b"0" * 64
        + b" --priority 2\n# comment\n\nftp://u:p@a:21/b%20c",
        b"-u http://a/b -o copy -n 4 --mirror http://c/d\nhttp://a/b c",
        b"--overwrite\n-i list\n'open\n-n 0 http://a/b",
    ],
    "journal": [b"\0\0SQLite", b"\0\x3c\0\0\0\x09", b"\x1f\xf0http", b"%020d %020d\n" % (0, 65536), b"\0\x18\xff\xff"],
    "jwt": [
        GOOD_JWT.encode(),
        json.dumps(HEADER).encode() + b"\n" + json.dumps(CLAIMS).encode() + b"\nsignature",
        b'{"alg":"none"}\n{"sub":"alice"}\n',
        b'{"exp": 1e400, "nbf": "x", "aud": [5], "projects": ["a"], "project": "b", "scope": 7}',
        b"[" * 500,
        b'{"a":' * 100,
    ],
    "proxied": [
        b"X-Forwarded-For: 6.6.6.6, [2001:db8::5]:80, 10.0.0.2\nX-Forwarded-Proto: https",
        b"X-Forwarded-For: 203.0.113.5\nX-Forwarded-Host: a, nas.example:80",
        b"X-Forwarded-For: 203.0.113.5:1234\nX-Forwarded-Host: [::1]:8000",
        b"127.0.0.1.evil.example:80",
        b"app.localhost.:1",
    ],
    "sums": [
        b"0" * 64 + b"  film.mkv\n" + b"1" * 64 + b" *dir/a.bin\n",
        b"SHA256 (film.mkv) = " + b"a" * 64,
        b"# comment\n" + b"F" * 64,
    ],
    "websocket": [
        b"\x03\x81\x85\0\0\0\0hello\x88\x82\0\0\0\0\x03\xe8",
        b"\x20\x01\x83\0\0\0\0abc\x89\x81\0\0\0\0x\x00\x80\0\0\0\0\x80\x82\0\0\0\0de",
        b"\0\x82\x81\0\0\0\0x",
        b"\0\x81\xfe\x00\x7e\0\0\0\0" + b"a" * 126,
        b"\0\x81\xff\0\0\0\0\0\1\0\1\0\0\0\0",
        b"\0\x81\x82\0\0\0\0\xff\xfe",
        b"\0\x8a\x80\0\0\0\0\xc1\x80\0\0\0\0",
    ],
    "watching": [
        b'{"action": "subscribe", "topics": ["upload:' + b"0" * 32 + b'", "all"], "id": 1}',
        b'{"action": "subscribe", "topics": ["owner:a"], "since": {"epoch": "e", "offset": 5}, "id": "x"}',
        b'{"action": "unsubscribe", "task_id": "a"}',
        b'{"action": "ping"}',
        b"\xef\xbb\xbfid: 1\r\nevent: a\r\ndata: {}\r\ndata:x\r\n\r\n: comment\n\ndata: y\r\r",
    ],
    "answer": [
        b"\x01Location: /files/a\nUpload-Parallel: ?1;granule=65536;max-chunk=65536\nUpload-Offset: 0\nUpload-Expires: "
        + _DATE,
        b"\0Upload-Offset: 5\nUpload-Length: 100000\nUpload-Missing: (5 7)\nUpload-State: receiving",
        b'\x07Upload-Offset: 5\n\n{"code": "missing-ranges", "detail": "x", "missing": [[1, 2]]}',
        b'\x0cRetry-After: 5\n\n{"code": "too-many-requests"}',
        b"\x03Tus-Version: 1.0.0\nTus-Extension: creation,checksum\nTus-Max-Size: 9\nUpload-Limit: max-size=5",
    ],
    "framing": [
        b"\x10" + _GET + _GET,
        b"\x05POST /files HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc" + _GET,
        b"\x40POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX: a\r\n\r\n" + _GET,
        b"\0POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _GET,
        b"\0GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + _GET,
        b"\x20HEAD / HTTP/1.0\r\n\r\n",
        b"\0BAD\r\n\r\n",
    ],
}
