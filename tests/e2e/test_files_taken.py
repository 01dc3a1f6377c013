"""Which files are taken and how they are given out, on the wire: types, names, and what is told to a browser."""

from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.server.test_types import HTML, JPEG, PNG, docx
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, TUS_BODY, Speaker, b64
from tests.support.wire import Answer

EVIL_NAMES = (
    "../../etc/passwd",
    "..\\..\\windows\\system32\\evil.dll",
    "/etc/cron.d/evil",
    "C:\\autoexec.bat",
    "con.txt",
    "LPT1",
    "trailing dots...",
    "new\r\nline: evil\r\n\r\n<script>",
    "<img src=x onerror=alert(1)>.html",
    '"; filename="evil.exe',
    "rtl\u202egnp.exe",
    "zero\u200bwidth\ufeff",
    "nul\x00byte.txt",
    "e\u0301" * 300 + ".txt",
    "\U0001f4a9" * 100,
    ".",
    "..",
    "~",
    "-rf",
    "%2e%2e%2fescaped",
    "a" * 5000,
    "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
)


@pytest.fixture
def server(workers: int, server: ServerProcess, two_workers: ServerProcess) -> ServerProcess:
    return server if workers == 1 else two_workers


@pytest.fixture
def pictures(workers: int, start_server: StartServer) -> ServerProcess:
    options = ("--allow-type", "image/*", "--allow-type", "text/plain", "--inline-type", "image/*")
    return start_server(*options, workers=workers)


def post(speaker: Speaker, name: str, data: bytes | None = None) -> Answer:
    """In one request, or only the creation."""
    named = f"filename {b64(name.encode())}"
    if data is None:
        return speaker.post(100, Upload_Metadata=named)
    return speaker.post(len(data), body=data, Content_Type=TUS_BODY["Content-Type"], Upload_Metadata=named)


def files(server: ServerProcess) -> list[Path]:
    return [path for folder in ("files", "incoming") for path in (server.data / folder).rglob("*") if path.is_file()]


@pytest.mark.rule("F-TYPE-1")
def test_a_name_that_is_not_taken_makes_no_upload(pictures: ServerProcess) -> None:
    with Speaker(pictures.url) as speaker:
        for dialect in ("Upload-Length: 10", "Upload-Length: 10\nUpload-Parallel: ?1", "Upload-Defer-Length: 1"):
            fields = {**TUS, **dict(line.split(": ") for line in dialect.splitlines())}
            fields["Upload-Metadata"] = f"filename {b64(b'evil.html')}"
            assert speaker.request("POST", "/files", fields, b"").verdict == (422, "type-not-allowed")
        draft = {"Upload-Draft-Interop-Version": "9", "Upload-Complete": "?0", "Upload-Length": "10"}
        named = {**draft, "Content-Disposition": 'attachment; filename="evil.html"'}
        assert speaker.request("POST", "/files", named, b"").verdict == (422, "type-not-allowed")
        assert speaker.request("GET", "/api/uploads").json()["uploads"] == []


@pytest.mark.rule("F-TYPE-2")
@pytest.mark.parametrize("size", [0, 200_000], ids=["small", "large"])
def test_a_picture_that_is_none_is_not_published(pictures: ServerProcess, size: int) -> None:
    """With its creation, in a second request, and in chunks."""
    bad, good = HTML + bytes(size), PNG + bytes(size)
    with Speaker(pictures.url) as speaker:
        answer = post(speaker, "a.png", bad)
        assert answer.verdict == (422, "type-not-allowed")
        assert "text/html" in answer.json()["detail"]
        assert files(pictures) == []
        two = speaker.url + speaker.post(len(bad), Upload_Metadata=f"filename {b64(b'a.png')}")["location"]
        assert speaker.patch(two, 0, bad).verdict == (422, "type-not-allowed")
        assert speaker.status(two)["state"] == "failed"
        assert speaker.status(two)["error"]["code"] == "type-not-allowed"
        assert speaker.patch(two, len(bad), b"").verdict == (409, "upload-failed")
        assert speaker.get(two).verdict == (409, "not-finished")
        named = f"filename {b64(b'a.png')}"
        chunks = speaker.url + speaker.post(len(bad), parallel=True, Upload_Metadata=named)["location"]
        for offset in range(0, len(bad), 65536):
            assert speaker.chunk(chunks, offset, bad[offset : offset + 65536]).status == 204
        assert speaker.complete(chunks).verdict == (422, "type-not-allowed")
        assert list((pictures.data / "files").iterdir()) == []
        for upload in (two, chunks):
            assert speaker.delete(upload).status == 204
        assert files(pictures) == []
        assert post(speaker, "a.png", good).status == 201
        assert post(speaker, "b.jpg", JPEG + bytes(size)).status == 201


@pytest.mark.rule("F-TYPE-2")
def test_the_draft_and_finals_are_looked_at_too(pictures: ServerProcess) -> None:
    with Speaker(pictures.url) as speaker:
        draft = {"Upload-Draft-Interop-Version": "9", "Upload-Complete": "?1"}
        named = {**draft, "Content-Disposition": 'attachment; filename="a.png"'}
        assert speaker.request("POST", "/files", named, HTML).verdict == (422, "type-not-allowed")
        parts = []
        for half in (HTML[:20], HTML[20:]):
            made = speaker.post(len(half), body=half, Content_Type=TUS_BODY["Content-Type"], Upload_Concat="partial")
            assert made.status == 201, made
            parts.append(made["location"])
        final = {**TUS, "Upload-Concat": f"final;{' '.join(parts)}", "Upload-Metadata": f"filename {b64(b'a.png')}"}
        answer = speaker.request("POST", "/files", final, b"")
        assert answer.status == 201, answer
        assert speaker.status(answer["location"])["error"]["code"] == "type-not-allowed"


@pytest.mark.rule("F-TYPE-1")
def test_only_some_extensions(start_server: StartServer) -> None:
    server = start_server("--allow-extension", ".JPG", "--allow-extension", "png")
    with Speaker(server.url) as speaker:
        assert post(speaker, "a.jpg", docx()).status == 201  # nobody has asked for its bytes
        assert post(speaker, "a.zip").verdict == (422, "type-not-allowed")
        assert speaker.post(10).verdict == (422, "type-not-allowed")


@pytest.mark.rule("D-INLINE-1", "D-GET-1")
def test_only_listed_types_are_shown_and_nothing_of_them_runs(pictures: ServerProcess, server: ServerProcess) -> None:
    with Speaker(pictures.url) as speaker:
        shown = speaker.get(post(speaker, "a.png", PNG)["location"])
        saved = speaker.get(post(speaker, "a.txt", b"<script>alert(1)</script>")["location"])
    with Speaker(server.url) as speaker:
        default = [speaker.get(post(speaker, name, HTML)["location"]) for name in ("a.html", "a.png", "a.svg")]
    assert shown["content-type"] == "image/png"
    assert shown["content-disposition"].startswith("inline")
    for answer in (saved, *default):
        assert answer["content-type"] == "application/octet-stream"
        assert answer["content-disposition"].startswith("attachment")
    for answer in (shown, saved, *default):
        assert answer["x-content-type-options"] == "nosniff"
        policy = [each.strip() for each in answer["content-security-policy"].split(";")]
        assert policy[0] == "default-src 'none'"
        assert "sandbox" in policy  # without allow-scripts
        assert not any("script-src" in each for each in policy)


@pytest.mark.rule("F-NAME-1")
@pytest.mark.parametrize("name", EVIL_NAMES, ids=ascii)
def test_no_name_leaves_its_folder_or_its_field(server: ServerProcess, name: str) -> None:
    """Neither a path, nor a line of the head, nor another parameter comes of what a client calls its file."""
    before = set(server.data.parent.rglob("*"))
    with Speaker(server.url) as speaker:
        made = post(speaker, name, b"some bytes")
        assert made.status == 201, made
        answer, state = speaker.get(made["location"]), speaker.status(made["location"])
    new = {path for path in set(server.data.parent.rglob("*")) - before if path.is_file()}
    new = {path for path in new if not path.name.startswith("catalog.sqlite")}
    assert [path.parent for path in new] == [server.data / "files"]
    (path,) = new
    assert path.read_bytes() == b"some bytes"
    assert len(path.name.encode()) <= 255
    assert state["name"] == path.name.partition("-")[2]
    assert not set(state["name"]) & set('/\\<>:"|?*\0\r\n\u202e\u200b')
    assert not state["name"].endswith((".", " "))
    assert answer.status == 200
    assert answer["content-disposition"].count('"') in (0, 2)
    assert all(ord(" ") <= ord(char) < 127 for char in answer["content-disposition"])
    assert not any("evil" in key for key, _ in answer.fields)


@pytest.mark.rule("V-META-1")
def test_metadata_come_back_as_they_came_and_never_as_markup(server: ServerProcess) -> None:
    evil = "</script><script>alert(1)</script>\r\nSet-Cookie: evil=1"
    with Speaker(server.url) as speaker:
        raw = f"filename {b64(b'a')},note {b64(evil.encode())}"
        made = speaker.post(10, Upload_Metadata=raw)
        head = speaker.head(speaker.url + made["location"])
        listed = speaker.request("GET", "/api/uploads/" + made["location"].rpartition("/")[2])
    assert head["upload-metadata"] == raw
    assert "set-cookie" not in head
    assert listed["content-type"] == "application/json"
    assert listed["x-content-type-options"] == "nosniff"
    assert listed.json()["metadata"]["note"] == evil
