"""Requests that no good client sends: each is refused with the right code, and nothing has changed
afterwards.

Rule of this file: a row is a good request with one thing wrong. A body that the server has no business to
read is announced and not sent, so that an answer also shows that the server did not wait for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from tests.support.process import ServerProcess
from tests.support.speaker import (
    CHUNK,
    GRANULE,
    TUS,
    TUS_BODY,
    Speaker,
    at_rest,
    b64,
    chunk_fields,
    digest,
    raw_digest,
)
from tests.support.wire import Answer, Connection

LENGTH = 3 * GRANULE - 100
FIRST = bytes(range(256)) * 256
PIECE = b"p" * GRANULE
MAX_SIZE = 1 << 30

Pairs = list[tuple[str, str]]


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def small_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes uploads of up to 1 GiB."""
    with ServerProcess(
        tmp_path_factory.mktemp("bad-input") / "data", "--max-size", str(MAX_SIZE), workers=request.param
    ) as process:
        yield process


@pytest.fixture(scope="module")
def upload(small_server: ServerProcess) -> str:
    """An upload of which the first granule is stored. No test here may change it."""
    with Speaker(small_server.url) as speaker:
        url = speaker.create(LENGTH, Upload_Metadata=f"filename {b64(b'film.mkv')}")
        assert speaker.chunk(url, 0, FIRST).status == 204
        return url


@pytest.fixture
def talk(small_server: ServerProcess) -> Iterator[Speaker]:
    with Speaker(small_server.url) as each:
        yield each


def state(speaker: Speaker, url: str) -> Pairs:
    """All that HEAD tells of the upload."""
    head = speaker.head(url)
    assert head.status == 200
    return [pair for pair in head.fields if pair[0] not in ("date", "server")]


TYPES = {
    "offset-mismatch": "#mismatching-upload-offset",
    "inconsistent-upload-length": "#inconsistent-upload-length",
}
"""Codes whose type is one that the IETF draft has registered."""


def assert_problem(answer: Answer, status: int, code: str) -> None:
    """V-PROBLEM-1."""
    assert answer.verdict == (status, code), answer
    document = answer.json()
    assert document["status"] == status
    assert document["type"].endswith(TYPES.get(code, f":{code}"))
    assert document["title"]
    assert len(document["detail"].split()) > 2
    assert answer["tus-resumable"] == "1.0.0"


@dataclass(frozen=True)
class Bad:
    """A bad PATCH: `change` replaces fields (None: leaves one out), `twice` adds some.

    `send` is sent of the body.
    """

    name: str
    status: int
    code: str
    change: dict[str, str | None] = field(default_factory=dict)
    twice: dict[str, str] = field(default_factory=dict)
    send: bytes = b""

    def fields(self, good: dict[str, str]) -> Pairs:
        merged = {**good, **self.change}
        return [(k, v) for k, v in merged.items() if v is not None] + list(self.twice.items())


MALFORMED_INTEGERS = [
    "+65536",
    "-65536",
    "65_536",
    "0x10000",
    "65536.0",
    "6e4",
    "",
    "65 536",
    "\xb2",
    "1" * 19,
    "65536, 65536",
]

CHUNKS = [
    *(Bad(f"offset {n!a}", 400, "malformed-field", {"Upload-Offset": n}) for n in MALFORMED_INTEGERS),
    Bad("offset twice", 400, "malformed-field", twice={"Upload-Offset": str(GRANULE)}),
    Bad("no offset", 400, "missing-field", {"Upload-Offset": None}),
    Bad("beyond the end", 400, "out-of-bounds", {"Upload-Offset": str(4 * GRANULE)}),
    Bad("far beyond the end", 400, "out-of-bounds", {"Upload-Offset": "9" * 18}),
    Bad("over the end", 400, "out-of-bounds", {"Upload-Offset": str(2 * GRANULE)}),
    Bad("offset off the granule", 400, "misaligned-chunk", {"Upload-Offset": str(GRANULE + 1)}),
    Bad("length off the granule", 400, "misaligned-chunk", {"Content-Length": "100"}),
    Bad("no length", 411, "length-required", {"Content-Length": None}, {"Transfer-Encoding": "chunked"}),
    Bad("no digest", 400, "missing-field", {"Content-Digest": None}),
    Bad("unknown digest", 400, "unknown-algorithm", {"Content-Digest": "crc7=:AAAA:"}),
    Bad("digest in bad base64", 400, "malformed-field", {"Content-Digest": "xxh3-128=:!!!!:"}),
    Bad("digest without colons", 400, "malformed-field", {"Content-Digest": "xxh3-128=AAAA"}),
    Bad("digest too short", 400, "malformed-field", {"Content-Digest": "sha-256=:AAAA:"}),
    Bad("digest that is no dictionary", 400, "malformed-field", {"Content-Digest": "=="}),
    Bad("wrong digest", 400, "digest-mismatch", {"Content-Digest": digest(FIRST)}, send=PIECE),
    Bad(
        "one wrong digest of two",
        400,
        "digest-mismatch",
        {"Content-Digest": f"{digest(PIECE)}, {digest(FIRST, 'md5')}"},
        send=PIECE,
    ),
    Bad("other media type", 415, "unsupported-media-type", {"Content-Type": "application/octet-stream"}),
    Bad("no media type", 415, "unsupported-media-type", {"Content-Type": None}),
    Bad("complete with a body", 400, "conflicting-fields", {"Upload-Complete": "?1"}),
    Bad("complete by a word", 400, "malformed-field", {"Upload-Complete": "true"}),
    Bad("complete by a number", 400, "malformed-field", {"Upload-Complete": "?2"}),
    Bad("complete twice", 400, "malformed-field", {"Upload-Complete": "?0"}, {"upload-complete": "?0"}),
    Bad("other version of tus", 412, "version-not-supported", {"Tus-Resumable": "0.2.2"}),
]

PATCHES = [
    *(Bad(f"offset {n!a}", 400, "malformed-field", {"Upload-Offset": n}) for n in MALFORMED_INTEGERS),
    Bad("offset twice", 400, "malformed-field", twice={"Upload-Offset": str(GRANULE)}),
    Bad("no offset", 400, "missing-field", {"Upload-Offset": None}),
    Bad("offset too small", 409, "offset-mismatch", {"Upload-Offset": "0"}),
    Bad("offset too large", 409, "offset-mismatch", {"Upload-Offset": str(2 * GRANULE)}),
    Bad("offset beyond the end", 409, "offset-mismatch", {"Upload-Offset": "9" * 18}),
    Bad("body beyond the end", 413, "length-exceeded", {"Content-Length": str(LENGTH)}),
    Bad("no version", 412, "version-not-supported", {"Tus-Resumable": None}),
    Bad("other version", 412, "version-not-supported", {"Tus-Resumable": "0.2.2"}),
    Bad("version that is none", 412, "version-not-supported", {"Tus-Resumable": "one"}),
    Bad("checksum without value", 400, "malformed-field", {"Upload-Checksum": "sha1"}),
    Bad("checksum in bad base64", 400, "malformed-field", {"Upload-Checksum": "sha1 !!!!"}),
    Bad("checksum with two blanks", 400, "malformed-field", {"Upload-Checksum": f"sha1  {b64(bytes(20))}"}),
    Bad("checksum too short", 400, "malformed-field", {"Upload-Checksum": "sha1 AAAA"}),
    Bad("unknown checksum", 400, "unknown-algorithm", {"Upload-Checksum": "crc7 AAAA"}),
    Bad(
        "checksum twice",
        400,
        "malformed-field",
        {"Upload-Checksum": f"sha1 {b64(bytes(20))}"},
        {"upload-checksum": f"sha1 {b64(bytes(20))}"},
    ),
    Bad(
        "wrong checksum",
        460,
        "checksum-mismatch",
        {"Upload-Checksum": f"sha1 {b64(raw_digest('sha', FIRST))}"},
        send=PIECE,
    ),
    Bad("other media type", 415, "unsupported-media-type", {"Content-Type": "text/plain"}),
]


def assert_refused(talk: Speaker, upload: str, bad: Bad, good: dict[str, str]) -> None:
    before = state(talk, upload)
    with Connection(talk.url) as connection:
        connection.begin("PATCH", upload, bad.fields(good))
        connection.send(bad.send)
        assert_problem(connection.read(), bad.status, bad.code)
    assert state(talk, upload) == before


@pytest.mark.parametrize("bad", CHUNKS, ids=lambda bad: bad.name)
@pytest.mark.rule("V-INT-1", "V-DIGEST-1", "V-BOOL-1", "V-PROBLEM-1", "P-CHUNK-1", "P-CHUNK-2", "P-CHUNK-3")
def test_a_bad_chunk(talk: Speaker, upload: str, bad: Bad) -> None:
    assert_refused(talk, upload, bad, chunk_fields(GRANULE, PIECE))


@pytest.mark.parametrize("bad", PATCHES, ids=lambda bad: bad.name)
@pytest.mark.rule("V-INT-1", "V-CHECKSUM-1", "V-PROBLEM-1", "T-VERSION-1", "T-PATCH-1", "T-PATCH-6", "T-CHECKSUM-1")
def test_a_bad_tus_patch(talk: Speaker, upload: str, bad: Bad) -> None:
    good = {**TUS_BODY, "Upload-Offset": str(GRANULE), "Content-Length": str(GRANULE)}
    assert_refused(talk, upload, bad, good)


CREATIONS = [
    *(Bad(f"length {n!a}", 400, "malformed-field", {"Upload-Length": n}) for n in MALFORMED_INTEGERS),
    Bad("length 1_000", 400, "malformed-field", {"Upload-Length": "1_000"}),
    Bad("no length", 400, "missing-field", {"Upload-Length": None}),
    Bad("length twice", 400, "malformed-field", twice={"Upload-Length": "70000"}),
    Bad("too large", 413, "upload-too-large", {"Upload-Length": str(MAX_SIZE + 1)}),
    Bad("far too large", 413, "upload-too-large", {"Upload-Length": "9" * 18}),
    Bad("metadata in bad base64", 400, "malformed-field", {"Upload-Metadata": "filename !!!!"}),
    Bad("metadata without padding", 400, "malformed-field", {"Upload-Metadata": "filename YQ"}),
    Bad("metadata in the URL alphabet", 400, "malformed-field", {"Upload-Metadata": "filename _-8="}),
    Bad("metadata with a key twice", 400, "malformed-field", {"Upload-Metadata": "a YQ==,a Yg=="}),
    Bad("metadata with an empty member", 400, "malformed-field", {"Upload-Metadata": "a YQ==,,b Yg=="}),
    Bad("metadata with three parts", 400, "malformed-field", {"Upload-Metadata": "a YQ== YQ=="}),
    Bad("metadata twice", 400, "malformed-field", {"Upload-Metadata": "a YQ=="}, {"upload-metadata": "b Yg=="}),
    Bad("parallel by a word", 400, "malformed-field", {"Upload-Parallel": "yes"}),
    Bad("parallel twice", 400, "malformed-field", {"Upload-Parallel": "?1"}, {"upload-parallel": "?1"}),
    Bad("parallel with a body", 400, "conflicting-fields", {"Upload-Parallel": "?1", "Content-Length": "10"}),
    Bad("unknown digest", 400, "unknown-algorithm", {"Upload-Digest": "crc7=:AAAA:"}),
    Bad("digest in bad base64", 400, "malformed-field", {"Upload-Digest": "sha-256=:####:"}),
    Bad("digest too short", 400, "malformed-field", {"Upload-Digest": "sha-256=:AAAA:"}),
    Bad("no version", 412, "version-not-supported", {"Tus-Resumable": None}),
    Bad("other version", 412, "version-not-supported", {"Tus-Resumable": "2.0.0"}),
    Bad(
        "body beyond the length",
        413,
        "length-exceeded",
        {"Content-Type": TUS_BODY["Content-Type"], "Content-Length": "70001"},
    ),
    Bad(
        "body with wrong checksum",
        460,
        "checksum-mismatch",
        {"Content-Type": TUS_BODY["Content-Type"], "Content-Length": "4", "Upload-Checksum": f"sha1 {b64(bytes(20))}"},
        send=b"four",
    ),
]


def listed(talk: Speaker) -> list[dict[str, object]]:
    return [at_rest(upload) for upload in talk.request("GET", "/api/uploads").json()["uploads"]]


@pytest.mark.parametrize("bad", CREATIONS, ids=lambda bad: bad.name)
@pytest.mark.rule(
    "V-INT-1", "V-META-1", "V-BOOL-1", "V-DIGEST-1", "T-VERSION-1", "T-CREATE-1", "T-CREATE-2", "T-CREATE-4"
)
def test_a_bad_creation_leaves_no_upload(talk: Speaker, bad: Bad) -> None:
    before = listed(talk)
    with Connection(talk.url) as connection:
        good = {**TUS, "Upload-Length": "70000", "Content-Length": "0"}
        connection.begin("POST", "/files", bad.fields(good))
        connection.send(bad.send)
        answer = connection.read()
        assert_problem(answer, bad.status, bad.code)
        assert "location" not in answer
    assert listed(talk) == before


def climbing_ids(known: str) -> dict[str, str]:
    return {
        "nobody's": "0" * 32,
        "upper case": known.upper().replace("0", "A"),
        "short": known[:-1],
        "long": known + "0",
        "very long": "a" * 5000,
        "with a dot": known + ".",
        "with a suffix": known + ".part",
        "with a NUL": known + "%00",
        "with a blank": known + "%20",
        "with a line feed": known + "%0a",
        "below": known + "/x",
        "parent": "..",
        "parent, encoded": "%2e%2e",
        "climbing": "..%2f..%2f..%2fetc%2fpasswd",
        "climbing, encoded twice": "..%252f..%252fetc%252fpasswd",
        "climbing and back": f"..%2ffiles%2f{known}",
        "backslashes": "..%5c..%5cetc%5cpasswd",
        "absolute": "%2fetc%2fpasswd",
        "not UTF-8": "%ff%fe",
        "bad escape": "%zz",
        "wide digits": "%EF%BC%90" * 32,
    }


@pytest.mark.parametrize("name", climbing_ids("0" * 32))
@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "DELETE"])
@pytest.mark.rule("V-ID-1", "V-PROBLEM-1")
def test_an_id_that_is_none(talk: Speaker, upload: str, method: str, name: str) -> None:
    """Whatever stands in the place of an id, there is no upload and no file there."""
    before = state(talk, upload)
    target = "/files/" + climbing_ids(upload.rsplit("/", 1)[-1])[name]
    with Connection(talk.url) as connection:
        if method == "PATCH":
            answer = connection.request(method, target, chunk_fields(GRANULE, PIECE), PIECE)
        else:
            answer = connection.request(method, target, TUS)
    if method == "HEAD":
        assert (answer.status, answer.body) == (404, b"")
        assert "upload-offset" not in answer
    else:
        assert_problem(answer, 404, "not-found")
    assert state(talk, upload) == before


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/files/../../etc/passwd", "/files//", "/nothing", "/api/uploads/x"]
)
@pytest.mark.rule("V-PROBLEM-1")
def test_a_path_that_is_none(talk: Speaker, path: str) -> None:
    assert_problem(talk.request("GET", path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "on_upload"),
    [("PUT", True), ("POST", True), ("PATCH", False), ("DELETE", False), ("PUT", False), ("TRACE", True)],
)
@pytest.mark.rule("V-PROBLEM-1")
def test_a_wrong_method(talk: Speaker, upload: str, method: str, on_upload: bool) -> None:
    """405 with the methods that are offered."""
    before = state(talk, upload)
    answer = talk.request(method, upload if on_upload else "/files", TUS, b"")
    assert_problem(answer, 405, "method-not-allowed")
    offered = {each.strip() for each in answer["allow"].split(",")}
    assert method not in offered
    assert offered >= ({"HEAD", "PATCH", "DELETE", "OPTIONS"} if on_upload else {"POST", "OPTIONS"})
    assert state(talk, upload) == before


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "limit=-1", "after=-1", "after=x", "after=1_0"])
@pytest.mark.rule("D-JSON-1")
def test_a_bad_query_of_the_state(talk: Speaker, upload: str, query: str) -> None:
    assert_problem(talk.request("GET", f"/api/uploads/{upload.rsplit('/', 1)[-1]}?{query}"), 400, "malformed-field")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "state=sleeping", "before=x"])
@pytest.mark.rule("D-JSON-2")
def test_a_bad_query_of_the_list(talk: Speaker, query: str) -> None:
    assert_problem(talk.request("GET", f"/api/uploads?{query}"), 400, "malformed-field")


@pytest.mark.rule("V-PROBLEM-1")
def test_fields_without_end(talk: Speaker, upload: str) -> None:
    """A head of a megabyte is refused, and the server is there for the next one."""
    before = state(talk, upload)
    with Connection(talk.url) as connection:
        answer = connection.request("GET", upload, {"X-Long": "x" * (1 << 20)})
    assert_problem(answer, 431, "headers-too-large")
    assert state(talk, upload) == before


def test_what_is_no_http_at_all(talk: Speaker, upload: str) -> None:
    """Garbage on the wire ends that connection and nothing else."""
    before = state(talk, upload)
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, b"hello\r\n\r\n", bytes(5000)):
        with Connection(talk.url) as connection:
            connection.send(garbage)
            connection.half_close()
            answer = b""
            while piece := connection.socket.recv(65536):
                answer += piece
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert state(talk, upload) == before


@pytest.mark.rule("P-COMPLETE-1", "V-DIGEST-1")
@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("crc7=:AAAA:", "unknown-algorithm"),
        ("sha-256=:AAAA:", "malformed-field"),
        ("sha-256", "malformed-field"),
    ],
)
def test_a_bad_digest_at_the_end(talk: Speaker, upload: str, value: str, code: str) -> None:
    before = state(talk, upload)
    fields = {"Content-Type": CHUNK, "Upload-Complete": "?1", "Upload-Digest": value}
    assert_problem(talk.request("PATCH", upload, fields, b""), 400, code)
    assert state(talk, upload) == before
