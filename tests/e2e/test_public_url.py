"""`--public-url`: a server that knows where clients reach it says so in `Location`."""

import pytest
from click.testing import CliRunner
from tests.conftest import StartServer
from tests.support import drafts
from tests.support.speaker import TUS, Speaker
from tests.support.wire import Connection

from holdfast_server.cli import serve

HOME = "https://files.example.org:8443/up"


@pytest.mark.rule("T-CREATE-1", "P-CREATE-1", "I-CREATE-1", "I-INTERIM-2")
@pytest.mark.parametrize("given", [HOME, HOME + "/"])
def test_a_location_is_a_whole_url(start_server: StartServer, given: str) -> None:
    """In every dialect, in interim answers too; the path behind it is the one that the server answers at."""
    server = start_server("--public-url", given)
    with Speaker(server.url) as speaker, Connection(server.url) as connection:
        answers = [speaker.post(4, parallel=False), speaker.post(4)]
        connection.begin("POST", "/files", {**drafts.create(True), "Content-Length": "4"})
        connection.send(b"four")
        answers.append(connection.read())
        answers += answers[-1].before
        assert [answer.status for answer in answers] == [201, 201, 201, 104]
        for answer in answers:
            assert answer["location"].startswith(HOME + "/files/")
            path = answer["location"].removeprefix(HOME)
            assert speaker.head(path).status == 200
            assert speaker.status(path)["url"] == path


@pytest.mark.rule("T-CONCAT-3")
def test_parts_may_be_named_by_it(start_server: StartServer) -> None:
    """Whatever `Host` says: a proxy may have changed it."""
    server = start_server("--public-url", HOME)
    with Speaker(server.url) as speaker:
        part = speaker.post(4, body=b"four", Upload_Concat="partial")["location"]
        final = speaker.request("POST", "/files", {**TUS, "Upload-Concat": f"final;{part} {part}"})
        assert final.status == 201
        assert speaker.get(final["location"].removeprefix(HOME)).body == b"fourfour"


@pytest.mark.parametrize("given", ["a.example", "ftp://a.example", "https://", "https://a.example/?b", "http://a b"])
def test_what_is_no_address_is_refused(given: str) -> None:
    result = CliRunner().invoke(serve, ["--public-url", given])
    assert result.exit_code == 2
    assert "is no address; write it as https://files.example.org" in result.output
