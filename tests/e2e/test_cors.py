"""CORS over the wire: pages of other sites may speak to the server, if their origin is allowed."""

from collections.abc import Iterator

import pytest
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, Speaker
from tests.support.wire import Answer

HOME = "https://app.example"
OTHER = "http://localhost:3000"
FOREIGN = "https://evil.example"

READ_BY_CLIENTS = {
    "Location",
    "Upload-Offset",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Defer-Length",
    "Upload-Concat",
    "Upload-Expires",
    "Tus-Resumable",
    "Tus-Version",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Checksum-Algorithm",
    "Upload-Complete",
    "Upload-Limit",
    "Upload-Draft-Interop-Version",
    "Upload-Parallel",
    "Upload-Missing",
    "Upload-Problem",
    "Upload-State",
    "Content-Digest",
    "Repr-Digest",
    "Want-Content-Digest",
    "Retry-After",
}
SENT_BY_CLIENTS = {
    "Authorization",
    "Content-Type",
    "Upload-Length",
    "Upload-Offset",
    "Upload-Metadata",
    "Upload-Defer-Length",
    "Upload-Concat",
    "Upload-Checksum",
    "Tus-Resumable",
    "X-HTTP-Method-Override",
    "X-Request-ID",
    "X-Requested-With",
    "Upload-Complete",
    "Upload-Incomplete",
    "Upload-Draft-Interop-Version",
    "Upload-Parallel",
    "Upload-Digest",
    "Content-Digest",
    "Want-Repr-Digest",
}


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def open_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that allows two origins."""
    data = tmp_path_factory.mktemp("cors") / "data"
    with ServerProcess(data, "--cors-origin", HOME, "--cors-origin", OTHER + "/", workers=request.param) as process:
        yield process


def preflight(speaker: Speaker, target: str, origin: str) -> Answer:
    """As browsers send it: no Tus-Resumable, and the names of what the page is about to send."""
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "tus-resumable,upload-offset"}
    return speaker.request("OPTIONS", target, {"Origin": origin, **asked})


def names(answer: Answer, field: str) -> set[str]:
    return set(answer[field].split(", "))


@pytest.mark.rule("T-CORS-2", "T-OPTIONS-1")
@pytest.mark.parametrize("target", ["/files", "/files/", f"/files/{'0' * 32}"])
def test_a_preflight_is_an_answer_to_options(open_server: ServerProcess, target: str) -> None:
    """One answer tells the browser, tus and our own clients what they ask for."""
    with Speaker(open_server.url) as speaker:
        for origin in (HOME, OTHER):
            answer = preflight(speaker, target, origin)
            assert answer.status == 204
            assert answer["access-control-allow-origin"] == origin
            assert names(answer, "access-control-allow-methods") == {
                "POST",
                "HEAD",
                "PATCH",
                "OPTIONS",
                "GET",
                "DELETE",
            }
            assert names(answer, "access-control-allow-headers") >= SENT_BY_CLIENTS
            assert answer["access-control-max-age"] == "86400"
            assert answer["vary"] == "Origin"
            assert answer["tus-version"] == "1.0.0"
            assert "creation" in answer["tus-extension"].split(",")
            assert answer["upload-parallel"].startswith("?1;")
        assert not any(name.startswith("access-control") for name, _ in preflight(speaker, target, FOREIGN).fields)


@pytest.mark.rule("T-CORS-1")
def test_every_answer_to_an_allowed_origin_may_be_read(open_server: ServerProcess) -> None:
    """Errors too, also those that are made before anything else is looked at."""
    with Speaker(open_server.url) as speaker:
        upload = speaker.create(4, parallel=False)
        from_home = {**TUS, "Origin": HOME}
        answers = [
            speaker.post(4, Origin=HOME),
            speaker.request("HEAD", upload, from_home),
            speaker.patch(upload, 1, b"x", Origin=HOME),
            speaker.patch(upload, 0, b"four", Origin=HOME),
            speaker.get(upload, Origin=HOME),
            speaker.get(upload, Origin=HOME, Range="bytes=9-"),
            speaker.request("GET", "/api/uploads", from_home),
            speaker.request("GET", "/nowhere", from_home),
            speaker.request("PUT", upload, from_home),
            speaker.request("HEAD", upload, {**from_home, "Tus-Resumable": "0.2.2"}),
            speaker.request("DELETE", upload, from_home),
        ]
        assert [a.status for a in answers] == [201, 200, 409, 204, 200, 416, 200, 404, 405, 412, 204]
        for answer in answers:
            assert answer["access-control-allow-origin"] == HOME
            assert names(answer, "access-control-expose-headers") >= READ_BY_CLIENTS
            assert answer["vary"] == "Origin"
            assert "access-control-allow-methods" not in answer


@pytest.mark.rule("T-CORS-1")
@pytest.mark.parametrize(
    "origin", [None, FOREIGN, "null", HOME + ".evil.example", "http://app.example", HOME + ":8443"]
)
def test_nobody_else_may(open_server: ServerProcess, origin: str | None) -> None:
    fields = {} if origin is None else {"Origin": origin}
    with Speaker(open_server.url) as speaker:
        answer = speaker.request("GET", "/api/uploads", fields)
    assert answer.status == 200
    assert answer["vary"] == "Origin"
    assert not any(name.startswith("access-control") for name, _ in answer.fields)


@pytest.mark.rule("T-CORS-1")
def test_without_the_setting_nobody_may(speaker: Speaker) -> None:
    for answer in (preflight(speaker, "/files", HOME), speaker.post(1, Origin=HOME)):
        assert not any(name.startswith("access-control") or name == "vary" for name, _ in answer.fields)


@pytest.mark.rule("T-CORS-1", "T-CORS-2")
def test_a_star_allows_everybody(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("star") / "data"
    with ServerProcess(data, "--cors-origin", "*") as process, Speaker(process.url) as speaker:
        for answer in (preflight(speaker, "/files", FOREIGN), speaker.post(1, Origin="null")):
            assert answer["access-control-allow-origin"] == "*"
            assert names(answer, "access-control-expose-headers") >= READ_BY_CLIENTS
            assert "vary" not in answer
