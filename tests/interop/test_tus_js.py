"""tus-js-client on Node, unchanged, in its stable version and in the one to come, against a real server.

Rule of this file: the client runs with the packages that `make interop` has installed; without them, or
without Node, the tests are skipped and say so.
"""

import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.interop.clients import TUS_JS, TUS_JS_5
from tests.support.process import ServerProcess, environment
from tests.support.speaker import Speaker
from tests.support.waiting import scaled

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / ".cache" / "interop" / "node_modules"
MIB = 1024 * 1024
SIZE = 20 * MIB + 4321

pytestmark = [
    pytest.mark.skipif(not shutil.which("node"), reason="node is not installed"),
    pytest.mark.skipif(
        not (MODULES / "tus-js-client-5").is_dir(), reason="tus-js-client is not installed: make interop"
    ),
]

Drive = Callable[..., Any]

STABLE = pytest.param("tus-js-client", marks=pytest.mark.client(TUS_JS))
NEXT = pytest.param("tus-js-client-5", marks=pytest.mark.client(TUS_JS_5))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    path = tmp_path_factory.mktemp("tus-js") / "film.bin"
    path.write_bytes(random.Random(request.config.getoption("seed")).randbytes(SIZE))
    return path


@pytest.fixture(params=[STABLE, NEXT])
def drive(request: pytest.FixtureRequest, server: ServerProcess, file: Path, tmp_path: Path) -> Drive:
    """Plays one scene of tus_js.cjs to its end; what it reported."""

    def run(scene: str, **job: Any) -> Any:
        task = {"scene": scene, "package": request.param, "endpoint": f"{server.url}/files", "file": str(file), **job}
        result = subprocess.run(
            ["node", str(HERE / "tus_js.cjs"), str(MODULES), json.dumps(task)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(tmp_path),
            timeout=scaled(60),
            check=False,
        )
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
        return json.loads(result.stdout)

    return run


def same(speaker: Speaker, url: str, path: Path) -> bool:
    answer = speaker.get(url)
    assert answer.status == 200
    return hashlib.sha256(answer.body).digest() == hashlib.sha256(path.read_bytes()).digest()


def shape(result: Any) -> list[tuple[str, int]]:
    return [(request["method"], request["status"]) for request in result["requests"]]


def test_uploads_a_file_in_one_request(drive: Drive, speaker: Speaker, file: Path) -> None:
    result = drive("upload", metadata={"filename": "film.bin"})
    assert shape(result) == [("POST", 201), ("PATCH", 204)]
    assert same(speaker, result["url"], file)
    assert speaker.status(result["url"])["name"] == "film.bin"


def test_uploads_in_chunks_of_8_mib(drive: Drive, speaker: Speaker, file: Path) -> None:
    result = drive("upload", chunkSize=8 * MIB)
    assert shape(result) == [("POST", 201), ("PATCH", 204), ("PATCH", 204), ("PATCH", 204)]
    assert [request["offset"] for request in result["requests"][1:]] == [
        str(8 * MIB),
        str(16 * MIB),
        str(SIZE),
    ]
    assert same(speaker, result["url"], file)


@pytest.mark.rule("T-CREATE-4")
def test_sends_the_first_bytes_with_the_creation(drive: Drive, speaker: Speaker, file: Path) -> None:
    """`uploadDataDuringCreation` with a chunk size: the POST carries the first chunk, PATCHes the rest."""
    result = drive("upload", chunkSize=8 * MIB, duringCreation=True)
    assert shape(result) == [("POST", 201), ("PATCH", 204), ("PATCH", 204)]
    assert result["requests"][0]["offset"] == str(8 * MIB)
    assert same(speaker, result["url"], file)


@pytest.mark.rule("T-CREATE-4")
def test_sends_the_whole_file_with_the_creation(drive: Drive, speaker: Speaker, file: Path) -> None:
    result = drive("upload", duringCreation=True)
    assert shape(result) == [("POST", 201)]
    assert same(speaker, result["url"], file)


def test_uploads_a_stream_that_cannot_be_rewound(drive: Drive, speaker: Speaker, file: Path) -> None:
    result = drive("upload", source="stream", chunkSize=4 * MIB)
    assert shape(result) == [("POST", 201)] + 6 * [("PATCH", 204)]
    assert same(speaker, result["url"], file)


@pytest.mark.rule("T-DEFER-1", "T-DEFER-2")
def test_uploads_a_stream_whose_length_it_does_not_know(drive: Drive, speaker: Speaker, file: Path) -> None:
    """`uploadLengthDeferred`: only the last PATCH says the length."""
    result = drive("upload", source="deferred", chunkSize=4 * MIB)
    assert shape(result) == [("POST", 201)] + 6 * [("PATCH", 204)]
    assert [request["length"] for request in result["requests"]] == 6 * [None] + [str(SIZE)]
    assert same(speaker, result["url"], file)


@pytest.mark.parametrize("chunk_size", [None, 8 * MIB], ids=["whole", "8 MiB"])
def test_uploads_bodies_without_content_length(
    drive: Drive, speaker: Speaker, file: Path, chunk_size: int | None
) -> None:
    """Node sends a body of unknown size as Transfer-Encoding: chunked."""
    result = drive("upload", source="unsized", chunkSize=chunk_size)
    assert {request["chunked"] for request in result["requests"] if request["method"] == "PATCH"} == {True}
    assert {status for _, status in shape(result)} == {201, 204}
    assert same(speaker, result["url"], file)


@pytest.mark.rule("T-CONCAT-1", "T-CONCAT-3", "T-CONCAT-4")
def test_uploads_two_parts_at_once(drive: Drive, speaker: Speaker, file: Path) -> None:
    """`parallelUploads: 2`: the file is there as soon as the client says so."""
    result = drive("upload", parallelUploads=2, metadata={"filename": "film.bin"})
    assert sorted(shape(result)) == sorted(3 * [("POST", 201)] + 2 * [("PATCH", 204)])
    assert [request["concat"] for request in result["requests"][:-1]] == 4 * ["partial"]
    assert result["requests"][-1]["concat"].startswith("final;http://")
    assert same(speaker, result["url"], file)
    assert speaker.status(result["url"])["name"] == "film.bin"


@pytest.mark.rule("T-CONCAT-1", "T-CREATE-3")
def test_uploads_more_parts_than_there_are_bytes(drive: Drive, speaker: Speaker, tmp_path: Path) -> None:
    """`parallelUploads: 4` for 3 bytes: three of the parts are empty."""
    (tmp_path / "tiny").write_bytes(b"abc")
    result = drive("upload", source="buffer", parallelUploads=4, file=str(tmp_path / "tiny"))
    assert sum(request["length"] == "0" for request in result["requests"]) == 3
    assert same(speaker, result["url"], tmp_path / "tiny")


def test_resumes_what_it_has_aborted(drive: Drive, speaker: Speaker, file: Path, tmp_path: Path) -> None:
    """The new Upload asks for the offset, and sends nothing again that was acknowledged."""
    result = drive("resume", chunkSize=2 * MIB, abortAt=6 * MIB, storage=str(tmp_path / "urls.json"))
    assert result["previous"] == 1
    assert result["aborted"]["url"] == result["url"]
    asked = [index for index, request in enumerate(result["requests"]) if request["method"] == "HEAD"]
    assert len(asked) == 1
    first_after = result["requests"][asked[0] + 1]
    assert first_after["sent"] == result["requests"][asked[0]]["offset"]
    assert int(first_after["sent"]) >= result["aborted"]["accepted"]
    assert same(speaker, result["url"], file)


@pytest.mark.rule("T-DELETE-1")
def test_terminates_what_it_has_aborted(drive: Drive, speaker: Speaker) -> None:
    result = drive("terminate", chunkSize=2 * MIB)
    assert shape(result)[-1] == ("DELETE", 204)
    assert speaker.head(result["url"]).status == 404


DRAFTS = pytest.mark.parametrize("protocol", ["ietf-draft-03", "ietf-draft-05"])


@DRAFTS
@pytest.mark.rule("I-VERSION-1", "I-APPEND-1")
def test_speaks_the_draft(drive: Drive, speaker: Speaker, file: Path, protocol: str) -> None:
    """The answers to appends that do not complete are 201 in these versions, the last one is 204."""
    metadata = {"filename": "film.bin"}
    result = drive("upload", protocol=protocol, source="buffer", chunkSize=8 * MIB, metadata=metadata)
    assert shape(result) == [("POST", 201), ("PATCH", 201), ("PATCH", 201), ("PATCH", 204)]
    assert same(speaker, result["url"], file)
    assert speaker.status(result["url"])["name"] == "film.bin"


@DRAFTS
@pytest.mark.rule("I-CREATE-1")
def test_sends_the_file_with_the_creation_of_the_draft(
    drive: Drive, speaker: Speaker, file: Path, protocol: str
) -> None:
    result = drive("upload", protocol=protocol, duringCreation=True)
    assert shape(result)[0] == ("POST", 201)
    assert {method for method, _ in shape(result)[1:]} <= {"PATCH"}
    assert same(speaker, result["url"], file)


@DRAFTS
@pytest.mark.rule("I-HEAD-1", "I-HEAD-2")
def test_resumes_in_the_draft(drive: Drive, speaker: Speaker, file: Path, tmp_path: Path, protocol: str) -> None:
    storage = str(tmp_path / "urls.json")
    result = drive("resume", protocol=protocol, source="buffer", chunkSize=2 * MIB, abortAt=6 * MIB, storage=storage)
    assert result["aborted"]["url"] == result["url"]
    asked = [request for request in result["requests"] if request["method"] == "HEAD"]
    assert [request["status"] for request in asked] == [204]
    assert int(asked[0]["offset"]) >= result["aborted"]["accepted"]
    assert same(speaker, result["url"], file)


@pytest.mark.parametrize("drive", [STABLE], indirect=True)
@DRAFTS
@pytest.mark.rule("I-APPEND-3")
def test_a_file_in_pieces_that_the_client_leaves_open(
    drive: Drive, speaker: Speaker, file: Path, protocol: str
) -> None:
    """A fault of tus-js-client 4.3.1 on Node: of a file stream in pieces it never says that it is complete.

    All bytes are stored; it is the draft that has the upload wait for somebody to say so.
    """
    result = drive("upload", protocol=protocol, chunkSize=8 * MIB)
    assert shape(result) == [("POST", 201), ("PATCH", 201), ("PATCH", 201), ("PATCH", 201)]
    state = speaker.status(result["url"])
    assert (state["state"], state["offset"]) == ("receiving", SIZE)
    fields = {"Content-Type": "application/partial-upload", "Upload-Offset": str(SIZE), "Upload-Complete": "?1"}
    assert speaker.request("PATCH", result["url"], fields, b"").status == 204
    assert same(speaker, result["url"], file)


@pytest.mark.parametrize("drive", [NEXT], indirect=True)
@DRAFTS
def test_a_file_in_pieces_that_the_client_completes(drive: Drive, speaker: Speaker, file: Path, protocol: str) -> None:
    result = drive("upload", protocol=protocol, chunkSize=8 * MIB)
    assert shape(result) == [("POST", 201), ("PATCH", 201), ("PATCH", 201), ("PATCH", 204)]
    assert same(speaker, result["url"], file)


@DRAFTS
@pytest.mark.rule("I-CREATE-2", "I-LENGTH-4")
def test_a_stream_of_unknown_length_in_the_draft(drive: Drive, speaker: Speaker, file: Path, protocol: str) -> None:
    """`uploadLengthDeferred`: the creation says no length, the last PATCH does."""
    result = drive("upload", protocol=protocol, source="deferred", chunkSize=4 * MIB)
    assert shape(result) == [("POST", 201)] + 5 * [("PATCH", 201)] + [("PATCH", 204)]
    assert [request["length"] for request in result["requests"]] == 6 * [None] + [str(SIZE)]
    assert same(speaker, result["url"], file)


@DRAFTS
@pytest.mark.rule("I-CREATE-5")
def test_an_empty_file_in_the_draft(drive: Drive, speaker: Speaker, tmp_path: Path, protocol: str) -> None:
    """The client never says that it is complete."""
    empty = tmp_path / "empty.bin"
    empty.touch()
    result = drive("upload", protocol=protocol, file=str(empty))
    assert shape(result) == [("POST", 201)]
    assert speaker.get(result["url"]).body == b""


@DRAFTS
@pytest.mark.rule("I-HEAD-3", "T-DELETE-1")
def test_terminates_in_the_draft(drive: Drive, speaker: Speaker, protocol: str) -> None:
    result = drive("terminate", protocol=protocol, chunkSize=2 * MIB)
    assert shape(result)[-1] == ("DELETE", 204)
    assert speaker.head(result["url"]).status == 404
