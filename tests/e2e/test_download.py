"""Downloads over the wire: ranges, conditions, and fields that keep a browser from harm (D- rules)."""

import random
from email.utils import parsedate_to_datetime

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, Speaker, b64, digest
from tests.support.wire import Answer, Connection

SIZE = 300_000
DATA = random.Random(7).randbytes(SIZE)


@pytest.fixture(scope="module")
def published(server: ServerProcess) -> str:
    """The URL of a complete upload of DATA."""
    with Speaker(server.url) as speaker:
        name = b64(b"film.mkv")
        upload = speaker.create(SIZE, Upload_Metadata=f"filename {name}")
        assert speaker.chunk(upload, 0, DATA).status == 204
        assert speaker.complete(upload, digest(DATA)).status == 204
        return upload


def parts(answer: Answer) -> list[tuple[str, bytes]]:
    """`(Content-Range, bytes)` of every part of a multipart/byteranges body (RFC 9110, section 14.6)."""
    kind, _, boundary = answer["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    marker = b"--" + boundary.strip('"').encode()
    assert answer.body.rstrip(b"\r\n").endswith(marker + b"--")
    found = []
    rest = answer.body[answer.body.index(marker) + len(marker) :]
    while not rest.startswith(b"--"):
        head, _, rest = rest.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n"))
        span = fields["content-range"].removeprefix("bytes ").split("/")[0].split("-")
        length = int(span[1]) - int(span[0]) + 1
        found.append((fields["content-range"], rest[:length]))
        rest = rest[length:].removeprefix(b"\r\n")
        assert rest.startswith(marker)
        rest = rest[len(marker) :]
    return found


@pytest.mark.rule("D-GET-1")
def test_the_whole_file(speaker: Speaker, published: str) -> None:
    answer = speaker.get(published)
    assert (answer.status, answer.body) == (200, DATA)
    assert answer["content-length"] == str(SIZE)
    assert answer["etag"].startswith('"')
    assert answer["accept-ranges"] == "bytes"
    assert parsedate_to_datetime(answer["last-modified"]).tzinfo is not None
    assert digest(DATA) in answer["repr-digest"].split(", ")
    assert answer["content-disposition"].startswith("attachment")
    assert 'filename="film.mkv"' in answer["content-disposition"]
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["content-type"] == "application/octet-stream"


@pytest.mark.rule("D-GET-1")
def test_the_etag_stays(start_server: StartServer) -> None:
    """The same file has the same tag after a restart, and another file another one."""
    server = start_server()
    with Speaker(server.url) as speaker:
        one, two = (speaker.create(4, parallel=False) for _ in range(2))
        assert speaker.patch(one, 0, b"four").status == 204
        assert speaker.patch(two, 0, b"fore").status == 204
        tags = [speaker.get(each)["etag"] for each in (one, two)]
        assert tags[0] != tags[1]
        server.restart()
        assert [speaker.get(each)["etag"] for each in (one, two)] == tags
        assert speaker.get(one).body == b"four"


@pytest.mark.rule("D-GET-1")
def test_an_unfinished_file_is_not_served(speaker: Speaker) -> None:
    """Nor a part of it by range, nor when every byte is there but nobody has completed it."""
    upload = speaker.create(2 * GRANULE)
    assert speaker.chunk(upload, 0, bytes(GRANULE)).status == 204
    assert speaker.get(upload).verdict == (409, "not-finished")
    assert speaker.get(upload, Range="bytes=0-9").verdict == (409, "not-finished")
    assert speaker.chunk(upload, GRANULE, bytes(GRANULE)).status == 204
    assert speaker.get(upload).verdict == (409, "not-finished")


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-1000", SIZE - 1000, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=1000-{SIZE * 2}", 1000, SIZE),
        ("bytes=5-5, 900000-", 5, 6),
        ("BYTES=7-9", 7, 10),
    ],
)
@pytest.mark.rule("D-GET-2")
def test_one_range(speaker: Speaker, published: str, given: str, start: int, end: int) -> None:
    answer = speaker.get(published, Range=given)
    assert (answer.status, answer.body) == (206, DATA[start:end])
    assert answer["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer["content-length"] == str(end - start)
    assert answer["etag"] == speaker.get(published)["etag"]


@pytest.mark.rule("D-GET-2")
def test_several_ranges(speaker: Speaker, published: str) -> None:
    answer = speaker.get(published, Range="bytes=0-9, 100000-100999, -5")
    assert answer.status == 206
    assert parts(answer) == [
        (f"bytes 0-9/{SIZE}", DATA[:10]),
        (f"bytes 100000-100999/{SIZE}", DATA[100000:101000]),
        (f"bytes {SIZE - 5}-{SIZE - 1}/{SIZE}", DATA[-5:]),
    ]
    assert "content-range" not in answer
    assert answer["content-length"] == str(len(answer.body))


@pytest.mark.rule("D-GET-2")
def test_many_ranges(speaker: Speaker, published: str) -> None:
    """32 are served; with more of them nothing costs more than the whole file."""
    spans = [(n * 1000, n * 1000 + 9) for n in range(33)]
    answer = speaker.get(published, Range="bytes=" + ", ".join(f"{a}-{b}" for a, b in spans[:32]))
    assert answer.status == 206
    assert [body for _, body in parts(answer)] == [DATA[a : b + 1] for a, b in spans[:32]]
    answer = speaker.get(published, Range="bytes=" + ",".join(f"{a}-{b}" for a, b in spans))
    assert answer.status in (200, 416)
    answer = speaker.get(published, Range="bytes=" + ",".join(["0-"] * 1000))
    assert len(answer.body) <= SIZE + 20_000


@pytest.mark.parametrize("given", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0", "bytes=999999999999-"])
@pytest.mark.rule("D-GET-2")
def test_a_range_that_is_not_there(speaker: Speaker, published: str, given: str) -> None:
    answer = speaker.get(published, Range=given)
    assert answer.verdict == (416, "range-not-satisfiable")
    assert answer["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "given", ["bytes", "bytes=", "bytes=a-b", "bytes=9-5", "bytes=1-2-3", "bytes=--5", "bytes=+1-5", "lines=1-2", "0-5"]
)
@pytest.mark.rule("D-GET-2")
def test_a_range_that_means_nothing_is_passed_over(speaker: Speaker, published: str, given: str) -> None:
    answer = speaker.get(published, Range=given)
    assert (answer.status, answer.body) == (200, DATA)


@pytest.mark.rule("D-GET-3")
def test_if_range(speaker: Speaker, published: str) -> None:
    """The very tag: the range. Another one, a weak one or nonsense: the whole file."""
    tag = speaker.get(published)["etag"]
    answer = speaker.get(published, Range="bytes=0-9", If_Range=tag)
    assert (answer.status, answer.body) == (206, DATA[:10])
    for other in ('"other"', f"W/{tag}", "nonsense", "Thu, 01 Jan 1970 00:00:00 GMT"):
        answer = speaker.get(published, Range="bytes=0-9", If_Range=other)
        assert (answer.status, answer.body) == (200, DATA)


@pytest.mark.rule("D-GET-3")
def test_if_match_and_if_none_match(speaker: Speaker, published: str) -> None:
    tag = speaker.get(published)["etag"]
    for given in (tag, "*", f'"other", {tag}'):
        assert speaker.get(published, If_Match=given).status == 200
        answer = speaker.get(published, If_None_Match=given)
        assert (answer.status, answer.body, answer["etag"]) == (304, b"", tag)
    assert speaker.get(published, If_None_Match=f"W/{tag}").status == 304
    assert speaker.get(published, If_None_Match='"other"').status == 200
    assert speaker.get(published, If_Match='"other"').status == 412
    assert speaker.get(published, If_Match=f"W/{tag}").status == 412
    assert speaker.get(published, If_None_Match=tag, Range="bytes=0-9").status == 304


@pytest.mark.parametrize(
    "name",
    [
        'a"b.txt',
        "a\\b.txt",
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "",
        "a\r\nSet-Cookie: x=1",
        "a\0b",
        "Grüße 文件.txt",
        "x" * 300 + ".html",
        "a;b.html",
        "CON",
    ],
)
@pytest.mark.rule("D-GET-1")
def test_names_that_mean_harm(speaker: Speaker, name: str) -> None:
    """Whatever a file is called, it is an attachment with a name that climbs nowhere and breaks no field."""
    upload = speaker.create(2, parallel=False, Upload_Metadata=f"filename {b64(name.encode())}")
    assert speaker.patch(upload, 0, b"hi").status == 204
    answer = speaker.get(upload)
    assert (answer.status, answer.body) == (200, b"hi")
    disposition = answer["content-disposition"]
    assert disposition.startswith("attachment")
    assert "set-cookie" not in answer
    assert answer["x-content-type-options"] == "nosniff"
    shown = speaker.status(upload)["name"]
    assert shown
    assert shown not in (".", "..")
    assert not set(shown) & set("/\\\0\r\n")
    assert len(shown.encode()) <= 255


@pytest.mark.rule("D-GET-1", "V-META-1")
def test_a_name_in_any_script_comes_back(speaker: Speaker) -> None:
    """RFC 6266 and RFC 8187: `filename*` holds what ASCII cannot."""
    upload = speaker.create(2, parallel=False, Upload_Metadata=f"filename {b64('Grüße.txt'.encode())}")
    assert speaker.patch(upload, 0, b"hi").status == 204
    assert "filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt" in speaker.get(upload)["content-disposition"]


@pytest.mark.rule("D-GET-1")
def test_a_reader_that_leaves_harms_nobody(server: ServerProcess, speaker: Speaker, published: str) -> None:
    for _ in range(5):
        with Connection(server.url, receive_buffer=4096) as connection:
            connection.begin("GET", published)
            assert connection.socket.recv(100).startswith(b"HTTP/1.1 200 ")
            connection.reset()
    assert speaker.get(published).body == DATA


@pytest.mark.rule("D-GET-1")
def test_a_file_that_is_deleted_while_it_is_read(server: ServerProcess, speaker: Speaker) -> None:
    """The reader gets the file that it began, or an end that it can tell from a whole one; nothing else."""
    data = random.Random(3).randbytes(8 << 20)
    upload = speaker.create(len(data), parallel=False)
    assert speaker.patch(upload, 0, data).status == 204
    with Connection(server.url, receive_buffer=4096) as connection:
        connection.begin("GET", upload)
        first = connection.socket.recv(100)
        assert speaker.delete(upload).status == 204
        assert speaker.get(upload).verdict == (404, "not-found")
        got = first
        while piece := connection.socket.recv(1 << 20):
            got += piece
            if got.endswith(data[-100:]):
                break
    body = got.split(b"\r\n\r\n", 1)[1]
    assert data.startswith(body)
