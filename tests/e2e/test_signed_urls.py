"""Signed URLs over the wire and on the command line: what they are good for, and nothing else, raced and replayed."""

import base64
import re
import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.guarded import As, Guarded
from tests.support.process import CommandLine
from tests.support.speaker import TUS, TUS_BODY, Speaker, chunk_fields
from tests.support.waiting import eventually, scaled
from tests.support.workers import speakers_by_worker


@pytest.mark.rule("A-SIGN-1", "A-SIGN-2")
def test_curl_with_a_signed_url(guarded: Guarded, tmp_path: Path) -> None:
    """As a script has it: create, follow Location, send."""
    (tmp_path / "file").write_bytes(b"0123456789")
    head = tmp_path / "head"
    curl = ["curl", "-sS", "-D", str(head), "-o", "/dev/null", "-H", "Tus-Resumable: 1.0.0"]
    subprocess.run([*curl, "-X", "POST", "-H", "Upload-Length: 10", guarded.signed()], check=True, timeout=scaled(30))
    (location,) = re.findall(r"(?im)^location: (\S+)", head.read_text())
    sending = ["-X", "PATCH", "-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream"]
    sending += ["--data-binary", f"@{tmp_path / 'file'}", guarded.url + location]
    subprocess.run([*curl, *sending], check=True, timeout=scaled(30))
    assert head.read_text().startswith("HTTP/1.1 204")
    with As(guarded, "alice") as alice:
        assert alice.get(location.partition("?")[0]).body == b"0123456789"


@pytest.mark.rule("A-SIGN-1", "A-SIGN-2", "A-SCOPE-1", "A-OWNER-1")
def test_a_signature_for_an_upload_is_for_that_one(guarded: Guarded) -> None:
    with As(guarded, "alice") as alice, Speaker(guarded.url) as page:
        one, other = (alice.create(3, parallel=False).removeprefix(guarded.url) for _ in range(2))
        assert alice.patch(one, 0, b"abc").status == 204
        reading = guarded.signed(one, scopes=["read"]).removeprefix(guarded.url)
        query = reading.partition("?")[2]
        assert page.get(reading).body == b"abc"
        assert page.request("GET", f"/api/uploads{one.removeprefix('/files')}?{query}").json()["state"] == "complete"
        assert page.request("GET", f"/api/uploads?{query}").json() == {"uploads": [], "next": None}
        assert page.get(f"{other}?{query}").status == 404
        assert page.patch(reading, 3, b"").json()["code"] == "missing-scope"
        assert page.delete(reading).json()["scopes"] == ["delete"]
        created = page.request("POST", f"/files?{query}", {**TUS, "Upload-Length": "1"}, b"")
        assert created.json()["code"] == "missing-scope"
        deleting = guarded.signed(one, scopes=["delete"]).removeprefix(guarded.url)
        assert page.delete(deleting).status == 204
        assert alice.head(one).status == 404


@pytest.mark.rule("A-SIGN-3")
def test_what_a_signature_bounds(guarded: Guarded) -> None:
    """The size also where the length is said later, or never; the name whatever the metadata say."""
    with As(guarded, "alice") as alice, Speaker(guarded.url) as page:
        how: dict[str, Any] = {"max_size": 4, "name": "../kept.txt", "uses": 9, "scopes": ["write", "read"]}
        creation = guarded.signed(**how).removeprefix(guarded.url)
        long = page.request("POST", creation, {**TUS, "Upload-Length": "5"}, b"")
        assert (long.status, long.json()["max-size"]) == (413, 4)
        draft = {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?0", "Upload-Length": "5"}
        assert page.request("POST", creation, draft, b"").status == 413
        deferred = page.request("POST", creation, {**TUS, "Upload-Defer-Length": "1"}, b"")["location"]
        assert page.patch(deferred, 0, b"12345").status == 413
        assert page.patch(deferred, 0, b"12", Upload_Length="5").status == 413
        longer = alice.create(5, parallel=True).removeprefix(guarded.url)
        bounded = guarded.signed(longer, max_size=4).removeprefix(guarded.url)
        for fields in (
            {**TUS_BODY, "Upload-Offset": "0"},
            {"Upload-Draft-Interop-Version": "8", "Upload-Offset": "0", "Upload-Complete": "?0"},
            chunk_fields(0, b"12345"),
        ):
            assert page.request("PATCH", bounded, fields, b"12345").json()["max-size"] == 4
        assert alice.head(longer).offset == 0
        named = base64.b64encode(b"evil.html").decode()
        created = page.request(
            "POST", creation, {**TUS, "Upload-Length": "4", "Upload-Metadata": f"filename {named}"}, b""
        )
        assert page.patch(created["location"], 0, b"1234").status == 204
        assert "kept.txt" in page.get(created["location"])["content-disposition"]
        assert "evil" not in page.get(created["location"])["content-disposition"]
        assert alice.status(created["location"].partition("?")[0])["owner"] == "alice"


@pytest.mark.rule("A-SIGN-4")
def test_a_creation_is_raced_and_replayed(guarded: Guarded) -> None:
    """Thirty at once, in all workers, with a body of a byte: as many as it may, and no more, ever after."""
    creation = guarded.signed(uses=3).removeprefix(guarded.url)
    fields = {**TUS_BODY, "Upload-Length": "2"}

    def attempt(_: int) -> int:
        with Speaker(guarded.url) as page:
            return page.request("POST", creation, fields, b"x").status

    with ThreadPoolExecutor(15) as pool:
        statuses = list(pool.map(attempt, range(30)))
    assert set(statuses) <= {201, 403}
    assert 1 <= statuses.count(201) <= 3  # one that was given up before its byte came has lost to another
    with Speaker(guarded.url) as page:
        rest = [page.request("POST", creation, fields, b"x").status for _ in range(4)]
    assert statuses.count(201) + rest.count(201) == 3
    with speakers_by_worker(guarded, 2 if len(guarded.pids()) > 2 else 1) as pages:
        for page in pages:
            refused = page.request("POST", creation, fields, b"x")
            assert refused.json()["code"] == "not-permitted"


def listed(who: Speaker) -> list[str]:
    """The newest unfinished uploads, by id."""
    return [each["id"] for each in who.get("/api/uploads?state=receiving").json()["uploads"]]


@pytest.mark.rule("A-SIGN-4")
def test_a_creation_whose_bytes_do_not_come_loses_to_another(guarded: Guarded) -> None:
    """Whichever of the two takes the first one away, it is told what has become of its right, and not of a writer."""
    fields = {**TUS_BODY, "Upload-Length": "2", "Content-Length": "1"}
    for _ in range(30):
        creation = guarded.signed(uses=1).removeprefix(guarded.url)
        with As(guarded, "alice") as alice, Speaker(guarded.url) as waits, Speaker(guarded.url) as asks:
            had = listed(alice)
            connection = waits.connection
            connection.begin("POST", creation, fields)
            eventually(lambda alice=alice, had=had: listed(alice) != had)  # type: ignore[misc]
            eventually(lambda: asks.request("POST", creation, fields, b"x").status == 201)  # noqa: B023 - it lets go late
            lost = connection.read()
            assert (lost.status, lost.json()["code"]) == (403, "not-permitted")


@pytest.mark.rule("A-SIGN-4")
def test_a_lost_answer_costs_no_use(guarded: Guarded) -> None:
    """The client that has not heard of its upload asks again; what it was given first is gone then."""
    creation = guarded.signed().removeprefix(guarded.url)
    with Speaker(guarded.url) as page:
        first, second = (
            page.request("POST", creation, {**TUS, "Upload-Length": "2"}, b"")["location"] for _ in range(2)
        )
        assert page.head(first).status == 403
        assert page.patch(second, 0, b"a").status == 204
        assert page.request("POST", creation, {**TUS, "Upload-Length": "2"}, b"").status == 403
        assert page.patch(second, 1, b"b").status == 204


@pytest.mark.rule("A-SIGN-4", "A-OWNER-1")
def test_an_upload_that_was_given_up_for_another_says_so(guarded: Guarded) -> None:
    """By every method and in every dialect, and to its own signature alone: for others there is no such upload, and for
    its owner there is none any more."""
    how: dict[str, Any] = {"scopes": ["write", "read", "delete", "watch"]}
    creation = guarded.signed(**how).removeprefix(guarded.url)
    draft = {"Upload-Draft-Interop-Version": "8"}
    with As(guarded, "alice") as alice, As(guarded, "bob") as bob, Speaker(guarded.url) as page:
        first, second = (
            page.request("POST", creation, {**TUS, "Upload-Length": "1", "Upload-Parallel": "?1"}, b"")["location"]
            for _ in range(2)
        )
        path, _, query = first.partition("?")
        asked: list[tuple[str, str, dict[str, str], bytes | None]] = [
            ("PATCH", path, {**TUS_BODY, "Upload-Offset": "0"}, b"a"),
            ("PATCH", path, chunk_fields(0, b"a"), b"a"),
            ("PATCH", path, {**draft, "Upload-Offset": "0", "Upload-Complete": "?1"}, b"a"),
            ("GET", path, {}, None),
            ("GET", f"/api/uploads{path.removeprefix('/files')}", {}, None),
            ("DELETE", path, TUS, None),
        ]
        for method, target, fields, body in asked:
            answer = page.request(method, f"{target}?{query}", fields, body)
            assert (answer.status, answer.json()["code"]) == (403, "given-up"), (method, target, fields)
            assert "another one in its place" in answer.json()["detail"]
            for others in (alice, bob):
                told = others.request(method, target, fields, body)
                assert (told.status, told.json()["code"]) == (404, "not-found"), (method, target, fields)
            stranger = page.request(method, f"{target}?{second.partition('?')[2]}", fields, body)
            assert (stranger.status, stranger.json()["code"]) == (404, "not-found"), (method, target, fields)
        for fields in (TUS, draft):
            assert page.request("HEAD", first, fields).status == 403
            assert alice.request("HEAD", path, fields).status == 404
        assert page.patch(second, 0, b"b").status == 204


def signed_by_the_command(guarded: Guarded, command: CommandLine, *options: str, path: str = "/files") -> str:
    """What `holdfast sign` prints."""
    done = command.run("sign", guarded.url + path, "--key", str(guarded.key), *options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (url,) = done.stdout.splitlines()
    return url


def refused(words: str, done: "subprocess.CompletedProcess[str]") -> None:
    """With its words, on standard error alone."""
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert words in " ".join(done.stderr.split()), done.stderr
    assert "signature=" not in done.stderr


@pytest.mark.rule("A-SIGN-1", "A-SIGN-2", "A-SIGN-3", "A-SIGN-4")
def test_a_creation_that_the_command_has_signed(
    guarded: Guarded, tmp_path: Path, holdfast_command: CommandLine
) -> None:
    """All of its limits at once, kept by one file after the other, until it has made as many as it may."""
    limits = ("--max-size", "3K", "--type", "image/*", "--type", ".bin", "--name", "kept.bin", "--uses", "2")
    times = ("--expires-in", "10m", "--upload-within", "1h")
    whose = ("--owner", "alice", "--project", "films", "--scopes", "write,read")
    url = signed_by_the_command(guarded, holdfast_command, *limits, *times, *whose)

    def upload(name: str, size: int) -> "subprocess.CompletedProcess[str]":
        (tmp_path / name).write_bytes(secrets.token_bytes(size))
        return holdfast_command.run("upload", str(tmp_path / name), "--to", url)

    refused("Uploads of up to 3072 bytes", upload("large.bin", 3073))
    refused("takes files of the types image/*, .bin", upload("a.txt", 10))
    with As(guarded, "alice") as alice:
        for name, size in (("one.bin", 3072), ("two.png", 10)):
            done = upload(name, size)
            assert done.returncode == 0, done.stderr
            made = done.stdout.strip()
            state = alice.status(made.partition("?")[0])
            assert [state[key] for key in ("state", "name", "owner", "project")] == [
                "complete", "kept.bin", "alice", "films",
            ]  # fmt: skip
            copy = holdfast_command.run("download", made, "-o", str(tmp_path / "copy"))
            assert (copy.returncode, (tmp_path / "copy").read_bytes()) == (0, (tmp_path / name).read_bytes())
            (tmp_path / "copy").unlink()
    refused("has made as many uploads as it may", upload("three.bin", 10))


@pytest.mark.rule("A-HEAD-2", "A-SCOPE-1", "A-SIGN-1", "A-SIGN-3")
def test_a_creation_that_the_command_has_signed_is_not_good_for_this(
    guarded: Guarded, tmp_path: Path, holdfast_command: CommandLine
) -> None:
    """Over, with another key, changed, without the right to write, in another place."""
    film = tmp_path / "film.bin"
    film.write_bytes(secrets.token_bytes(10))
    guarded.key.with_name("other").write_text(secrets.token_hex(32))
    whose = ("--owner", "alice")
    good = signed_by_the_command(guarded, holdfast_command, *whose)
    over = signed_by_the_command(guarded, holdfast_command, *whose, "--expires-in", "0.001")
    other = holdfast_command.run("sign", f"{guarded.url}/files", "--key", str(guarded.key.with_name("other")), *whose)
    for url, words in (
        (over, "its time is over"),
        (over, "ask for a new URL where this one is from"),
        (other.stdout.strip(), "does not hold"),
        (good[:-4] + "AAAA", "does not hold"),
        (good.replace("/files?", "/files?project=books&"), "does not belong to the project"),
        (signed_by_the_command(guarded, holdfast_command, *whose, "--scopes", "read"), "needs the scope write"),
        (signed_by_the_command(guarded, holdfast_command, *whose, "--max-size", "9"), "up to 9 bytes"),
        (signed_by_the_command(guarded, holdfast_command, *whose, "--type", ".png"), "of the types .png"),
    ):
        refused(words, holdfast_command.run("upload", str(film), "--to", url))
    assert holdfast_command.run("upload", str(film), "--to", good).returncode == 0


@pytest.mark.rule("A-HEAD-2", "A-SCOPE-1", "A-SIGN-1", "A-SIGN-3")
def test_an_upload_that_the_command_has_signed(guarded: Guarded, tmp_path: Path, holdfast_command: CommandLine) -> None:
    """Begun by its owner, gone on with by whoever has the URL, and by nobody with another one."""
    film = tmp_path / "film.bin"
    film.write_bytes(secrets.token_bytes(3_000_000))
    with As(guarded, "alice") as alice:
        path, other = (alice.create(3_000_000, parallel=False).removeprefix(guarded.url) for _ in range(2))
        assert alice.patch(path, 0, film.read_bytes()[:1000]).status == 204

        def sign(*options: str) -> str:
            return signed_by_the_command(guarded, holdfast_command, *options, path=path)

        def upload(url: str) -> "subprocess.CompletedProcess[str]":
            return holdfast_command.run("upload", str(film), "--resume", url)

        writing = sign()
        query = writing.partition("?")[2]
        for url, words in (
            (sign("--expires-in", "0.001"), "its time is over"),
            (sign("--expires-in", "0.001"), "ask for a new URL where this one is from"),
            (sign("--scopes", "read"), "needs the scope write"),
            (sign("--max-size", "2999999"), "up to 2999999 bytes"),
            (writing[:-4] + "AAAA", "does not hold. Ask for a new one where it is from)"),
            (f"{guarded.url}{other}?{query}", "(404: There is no upload with this id"),
        ):
            refused(words, upload(url))
            assert alice.head(path).offset == 1000
        done = upload(writing)
        assert (done.returncode, done.stdout.partition("?")[0].strip()) == (0, guarded.url + path), done.stderr
        assert alice.get(path).body == film.read_bytes()
        refused("needs the scope read", holdfast_command.run("download", writing, "-o", str(tmp_path / "copy")))
        copy = holdfast_command.run("download", sign("--scopes", "read"), "-o", str(tmp_path / "copy"))
        assert (copy.returncode, (tmp_path / "copy").read_bytes()) == (0, film.read_bytes()), copy.stderr


@pytest.mark.rule("A-SIGN-4")
def test_two_files_for_a_url_that_is_good_for_one(
    guarded: Guarded, tmp_path: Path, holdfast_command: CommandLine
) -> None:
    """One of them is taken, and of the other the command says that the URL is used up."""
    files = [tmp_path / f"{number}.bin" for number in range(2)]
    for file in files:
        file.write_bytes(secrets.token_bytes(3_000_000))
    url = signed_by_the_command(guarded, holdfast_command, "--owner", "alice")
    done = holdfast_command.run("upload", *map(str, files), "--to", url)
    assert (done.returncode, len(done.stdout.splitlines())) == (4, 1), done.stderr
    said = " ".join(done.stderr.split())
    words = (
        "has made as many uploads as it may",
        "another one in its place",
        "ask for a new URL where this one is from",
    )
    assert any(each in said for each in words), said
    assert "(404" not in said
    with As(guarded, "alice") as alice:
        assert alice.get(done.stdout.partition("?")[0].strip()).body in [file.read_bytes() for file in files]
