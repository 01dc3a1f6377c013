"""Credentials over the wire: each kind the whole way, wrong, expired, too narrow, revoked and replayed."""

import base64
import contextlib
import http.client
import http.server
import itertools
import json
import os
import re
import secrets
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, KeySet
from tests.conftest import StartServer
from tests.support.guarded import ALL, EC, KEY, As, Guarded, jwt_of
from tests.support.process import CommandLine, ServerProcess, environment, kill_group
from tests.support.speaker import TUS, TUS_BODY, Speaker
from tests.support.waiting import eventually, scaled
from tests.support.wire import Connection
from tests.support.workers import speakers_by_worker

import holdfast
from holdfast.credentials import Token
from holdfast_server.auth import SCOPES


@pytest.mark.rule("D-JSON-3")
def test_a_credential_says_what_it_is_good_for(guarded: Guarded, speaker: Speaker) -> None:
    """The one who asks, and nobody else."""

    def ask(query: str = "", **fields: str) -> Any:
        with Speaker(guarded.url) as each:
            return each.request("GET", f"/api/credential{query}", fields)

    def bearer(token: str) -> Any:
        return ask(Authorization=f"Bearer {token}").json()

    nothing: dict[str, Any] = {"projects": [], "expires": None, "max_size": None, "signature": None}
    assert bearer(guarded.token["alice"]) == nothing | {"owner": "alice", "scopes": sorted(ALL)}
    assert bearer(guarded.token["reader"]) == nothing | {"owner": "alice", "scopes": ["read"]}
    said = bearer(jwt_of(projects=["films"], project="books"))
    assert said["projects"] == ["books", "films"]
    assert said["expires"] is not None
    how: dict[str, Any] = {"name": "a.png", "types": ["image/*"], "max_size": 9, "uses": 2}
    said = ask(f"?{guarded.signed(**how).partition('?')[2]}").json()
    assert said["signature"] == {"upload": None, "uses": 2, "left": 2, "types": ["image/*"], "name": "a.png"}
    assert (said["owner"], said["scopes"], said["max_size"]) == ("alice", ["create", "write"], 9)
    said = ask(f"?{guarded.signed('/files/' + '0' * 32, scopes={'read'}).partition('?')[2]}").json()
    assert said["signature"] == {"upload": "0" * 32, "uses": None, "left": None, "types": [], "name": None}
    assert said["scopes"] == ["read"]
    assert (ask().status, ask(Authorization="Bearer x").status) == (401, 401)
    assert ask(Authorization=f"Bearer {guarded.token['late']}").verdict == (401, "credential-expired")
    everybody = speaker.request("GET", "/api/credential").json()
    assert everybody == nothing | {"owner": None, "scopes": sorted(SCOPES)}
    assert speaker.request("POST", "/api/credential", {}, b"").status == 405


@pytest.mark.rule("D-JSON-3", "A-SIGN-4")
def test_a_signature_says_how_many_uploads_are_left(guarded: Guarded) -> None:
    """As many as creations are taken, whichever worker is asked: one without a byte is given up for the next one."""
    query = guarded.signed(uses=2).partition("?")[2]
    with Speaker(guarded.url) as speaker, speakers_by_worker(guarded, guarded.workers) as workers:

        def create() -> Any:
            return speaker.request("POST", f"/files?{query}", {**TUS, "Upload-Length": "3"}, b"")

        def left() -> set[int]:
            said = [each.request("GET", f"/api/credential?{query}").json()["signature"] for each in workers]
            return {each["left"] for each in said}

        for still in (2, 1):
            create()
            made = create()
            assert left() == {still}
            assert speaker.patch(made["location"], 0, b"abc").status == 204
        assert left() == {0}
        assert create().verdict == (403, "not-permitted")


@pytest.mark.rule("A-HEAD-1", "A-HEAD-2", "A-HEAD-3", "A-SCOPE-1", "A-SIGN-1", "A-SIGN-4", "A-JWT-1")
def test_the_command_with_each_kind_of_credential(
    guarded: Guarded, tmp_path: Path, holdfast_command: CommandLine
) -> None:
    """A good one goes the whole way; of a bad one the command says what is wrong with it, and its status is 4."""
    source = tmp_path / "film.bin"
    source.write_bytes(secrets.token_bytes(3_000_000))

    def upload(to: str, header: str | None = None, name: str = "film.bin") -> "subprocess.CompletedProcess[str]":
        (tmp_path / name).write_bytes(source.read_bytes())
        more = () if header is None else ("--header", header)
        return holdfast_command.run("upload", str(tmp_path / name), "--to", to, *more)

    files = f"{guarded.url}/files"
    basic = base64.b64encode(f"me:{guarded.token['alice']}".encode()).decode()
    good = {
        "token": (files, f"Authorization: Bearer {guarded.token['alice']}"),
        "password": (files, f"Authorization: Basic {basic}"),
        "jwt": (files, f"Authorization: Bearer {jwt_of()}"),
        "signed": (guarded.signed(), None),
    }
    for kind, (to, header) in good.items():
        done = upload(to, header, kind)
        assert done.returncode == 0, (kind, done.stderr)
        url = done.stdout.strip()
        with As(guarded, "alice") as alice:
            assert alice.get(url.partition("?")[0]).body == source.read_bytes()
        target = tmp_path / f"{kind}.copy"
        if header is not None:
            down = holdfast_command.run("download", url, "-o", str(target), "--header", header)
            assert (down.returncode, target.read_bytes()) == (0, source.read_bytes()), down.stderr
    spent = guarded.signed()
    assert upload(spent, None, "once").returncode == 0
    bad = {
        "none": (files, None, "Say who you are"),
        "unknown": (files, "Authorization: Bearer hft_0_0", "Say who you are"),
        "expired": (files, f"Authorization: Bearer {guarded.token['late']}", "its time is over"),
        "narrow": (files, f"Authorization: Bearer {guarded.token['reader']}", "the scope create"),
        "expired jwt": (files, f"Authorization: Bearer {jwt_of(exp=time.time() - 60)}", "its time is over"),
        "foreign jwt": (files, f"Authorization: Bearer {jwt_of(aud='other')}", "not for the audience"),
        "changed": (guarded.signed()[:-2] + "zz", None, "does not hold"),
        "spent": (spent, None, "as many uploads as it may"),
        "small": (guarded.signed(max_size=1000), None, "up to 1000 bytes"),
        "type": (guarded.signed(types=["image/*"]), None, "image/*"),
    }
    for kind, (to, header, words) in bad.items():
        refused = upload(to, header, kind)
        assert (refused.returncode, refused.stdout) == (4, ""), (kind, refused.stderr)
        assert words in re.sub(r"\s+", " ", refused.stderr), (kind, refused.stderr)
    listed = holdfast_command.run("transfers", "list", variables={"COLUMNS": "500"}).stdout
    assert "/files/" in listed
    assert "signature=" not in listed
    log = guarded.read_log()
    assert not any(token in log for token in guarded.token.values())
    assert "signature=" not in log


@pytest.mark.rule("A-HEAD-1", "A-HEAD-2", "A-SCOPE-1", "A-SIGN-1", "A-JWT-1")
def test_the_client_with_each_kind_of_credential(guarded: Guarded, tmp_path: Path) -> None:
    """A good one goes the whole way, and a function that is asked for one gives another one for one that is over; of a
    bad one the error has the code of the server."""
    source, files = tmp_path / "film.bin", f"{guarded.url}/files"
    over = jwt_of(exp=time.time() - 60)
    given = iter([over, jwt_of()])

    def upload(kind: str, to: str, token: Token | None) -> holdfast.UploadResult:
        source.write_bytes(kind.encode() + secrets.token_bytes(3_000_000))
        with holdfast.Client(token=token, state=tmp_path / "state") as client:
            result = client.upload(source, to).result()
            if token is not None:
                copy = client.download(result.url, tmp_path / f"{kind}.copy").result()
                assert copy.path.read_bytes() == source.read_bytes()
            return result

    for kind, to, token in (
        ("token", files, guarded.token["alice"]),
        ("jwt", files, jwt_of()),
        ("function", files, lambda origin: next(given)),
        ("signed", guarded.signed(), None),
    ):
        done = upload(kind, to, token)
        with As(guarded, "alice") as alice:
            assert alice.get(done.url.partition("?")[0]).body == source.read_bytes()
    for kind, to, token, code in (
        ("none", files, None, "unauthenticated"),
        ("unknown", files, "hft_0_0", "unauthenticated"),
        ("over", files, guarded.token["late"], "credential-expired"),
        ("jwt over", files, over, "credential-expired"),
        ("narrow", files, guarded.token["reader"], "missing-scope"),
        ("forged", guarded.signed()[:-4] + "AAAA", None, "unauthenticated"),
        ("signed over", guarded.signed(now=lambda: time.time() - 9999), None, "credential-expired"),
        ("another type", guarded.signed(types=["image/*"]), None, "not-permitted"),
    ):
        with pytest.raises(holdfast.NotAuthorized) as caught:
            upload(kind, to, token)
        assert caught.value.code == code, (kind, caught.value)
        assert "signature=" not in str(caught.value)


@pytest.mark.rule("A-HEAD-1", "A-SCOPE-1", "A-OWNER-1")
def test_the_command_where_a_callable_is_asked(
    start_server: StartServer, tmp_path: Path, holdfast_command: CommandLine, workers: int
) -> None:
    """It knows whom it likes, by what it likes: here by names that would be no token and no JWT anywhere."""
    server = start_server("--authority", "tests.support.people:authority", workers=workers)
    film = tmp_path / "film.bin"
    film.write_bytes(secrets.token_bytes(3_000_000))

    def run(who: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return holdfast_command.run(*words, variables={"HOLDFAST_TOKEN": who} if who else None)

    sent = run("alice", "upload", str(film), "--to", f"{server.url}/files?project=films")
    url = sent.stdout.strip()
    assert sent.returncode == 0, sent.stderr
    for number, who in enumerate(("alice", "carol")):  # who is of the same project
        copy = tmp_path / str(number)
        fetched = run(who, "download", url, "-o", str(copy))
        assert (fetched.returncode, copy.read_bytes()) == (0, film.read_bytes()), fetched.stderr
    for who, words, what in (
        ("", ("upload", str(film), "--to", f"{server.url}/files"), "401: Say who you are"),
        ("mallory", ("upload", str(film), "--to", f"{server.url}/files"), "401: Say who you are"),
        (
            "bob",
            ("upload", str(film), "--to", f"{server.url}/files?project=films"),
            "403: This credential does not belong",
        ),
        ("bob", ("download", url, "-o", str(tmp_path / "no")), "404: There is no upload with this id"),
    ):
        refused = run(who, *words)
        assert (refused.returncode, refused.stdout) == (4, ""), (who, refused.stderr)
        assert what in " ".join(refused.stderr.split()), (who, refused.stderr)


GIVE = "give a token in HOLDFAST_TOKEN"
ASK = "ask for a new URL where this one is from"
WHOSE = "check the URL, and that it is of the owner of the credential"


@pytest.mark.rule("A-HEAD-2", "A-SCOPE-1", "A-OWNER-1", "A-SIGN-1")
def test_what_the_command_says_to_do(guarded: Guarded, tmp_path: Path, holdfast_command: CommandLine) -> None:
    """Which upload, what was the matter, and what helps: another token does not where the URL is signed, or where it
    is known who asks."""
    (tmp_path / "film.bin").write_bytes(b"film")
    with As(guarded, "alice") as alice, As(guarded, "bob") as bob:
        mine, his = (each.create(4, parallel=False) for each in (alice, bob))
        for each, url in ((alice, mine), (bob, his)):
            assert each.patch(url, 0, b"film").status == 204
    path, narrow = mine.removeprefix(guarded.url), jwt_of(scope="create")
    reading = guarded.signed(path, scopes=["read"]).partition("?")[2]
    late = {"scopes": ["read"], "now": lambda: time.time() - 9999}
    send, files = ("upload", str(tmp_path / "film.bin"), "--to"), f"{guarded.url}/files"
    fetch = ("download", "-o", str(tmp_path / "copy"))
    cases: list[tuple[tuple[str, ...], str | None, str, str, str]] = [
        ((*send, files), None, files, "401: Say who you are", GIVE),
        ((*send, files), guarded.token["late"], files, "401: The credential was good once", GIVE),
        ((*send, files), guarded.token["reader"], files, "403: This credential may not do that", ""),
        ((*send, guarded.signed(now=late["now"])), None, files, "401: The credential was good once", ASK),
        ((*send, guarded.signed(types=["image/*"])), None, files, "403: This URL takes files of the types image/*", ""),
        ((*fetch, mine), None, mine, "401: Say who you are", GIVE),
        ((*fetch, mine), narrow, mine, "403: This credential may not do that: it needs the scope read", ""),
        ((*fetch, his), guarded.token["alice"], his, "404: There is no upload with this id", WHOSE),
        ((*fetch, f"{his}?{reading}"), None, his, "404: There is no upload with this id", WHOSE),
        ((*fetch, guarded.signed(path, **late)), None, mine, "401: The credential was good once", ASK),
        (("watch", guarded.url), None, guarded.url, "401: Say who you are", GIVE),
        (("watch", guarded.url), narrow, guarded.url, "403: This credential may not do that: it needs the scope", ""),
        (("watch", guarded.url, his.rsplit("/")[-1]), guarded.token["alice"], guarded.url, "404: There is no", WHOSE),
    ]
    for words, token, place, what, helps in cases:
        refused = holdfast_command.run(*words, variables=None if token is None else {"HOLDFAST_TOKEN": token})
        said = " ".join(refused.stderr.split())
        assert (refused.returncode, refused.stdout) == (4, ""), (words, said)
        assert place in said, (words, said)
        assert what in said, (words, said)
        assert [each for each in (GIVE, ASK, WHOSE) if each in said] == ([helps] if helps else []), (words, said)


@pytest.mark.rule("K-KEY-3")
def test_a_key_is_nobody_elses(guarded: Guarded) -> None:
    """Another owner, or another signed URL, gets another upload; the same signed URL the same one, for one use."""
    fields = {**TUS, "Upload-Length": "2", "Idempotency-Key": '"the same for everybody"'}
    signed = [guarded.signed(max_size=1000 + each).removeprefix(guarded.url) for each in range(2)]
    with As(guarded, "alice") as alice, As(guarded, "bob") as bob, Speaker(guarded.url) as page:

        def ask(who: Speaker, path: str = "/files") -> str:
            answer = who.request("POST", path, fields, b"")
            assert answer.status == 201, answer
            return answer["location"].partition("?")[0]

        asking: list[tuple[Speaker, str]] = [(alice, "/files"), (bob, "/files"), *((page, path) for path in signed)]
        first, second = ([ask(*each) for each in asking] for _ in range(2))
        assert first == second
        assert len(set(first)) == 4


@pytest.mark.rule("A-TOKEN-1", "A-AGAIN-1")
def test_revoked_while_it_uploads(tmp_path: Path) -> None:
    """In every worker nobody gets in any more; what the running request brings is stored, and not published."""
    with Guarded(tmp_path, workers=2) as server, contextlib.ExitStack() as stack:
        speakers = stack.enter_context(speakers_by_worker(server))
        alice = stack.enter_context(As(server, "alice"))
        uploads = [alice.create(6, parallel=False) for _ in speakers]
        begun = time.monotonic()
        leaving = server.bearer("leaving")
        for speaker, upload in zip(speakers, uploads, strict=True):
            fields = {**TUS_BODY, **leaving, "Upload-Offset": "0", "Content-Length": "6"}
            speaker.connection.begin("PATCH", upload, fields)
            speaker.connection.send(b"abc")
        for upload in uploads:
            eventually(lambda upload=upload: alice.head(upload).offset == 3)  # type: ignore[misc]
        server.revoke("leaving")
        others = stack.enter_context(speakers_by_worker(server))
        for other in others:
            eventually(lambda other=other: other.request("HEAD", uploads[0], leaving).status == 401)  # type: ignore[misc]
        eventually(lambda: time.monotonic() - begun > 2)
        for speaker, upload in zip(speakers, uploads, strict=True):
            speaker.connection.send(b"def")
            answer = speaker.connection.read()
            assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")
            state = alice.status(upload)
            assert (state["state"], state["received"]) == ("receiving", 6)
            assert alice.get(upload).status == 409
            assert alice.patch(upload, 6, b"").status == 204
            assert alice.get(upload).body == b"abcdef"


@pytest.mark.rule("A-JWT-1", "A-HEAD-2")
def test_the_keys_of_jwts_change_while_it_runs(guarded: Guarded) -> None:
    """A new key beside the old one, then in its place: every worker knows it, and nothing is started anew."""
    other = ECKey.generate_key("P-256", {"kid": "two"}, private=True)
    numbers = itertools.count()

    def status(speaker: Speaker, key: ECKey) -> int:
        token = jwt_of(key, jti=str(next(numbers)))  # one that nobody remembers
        return speaker.request("GET", "/api/uploads", {"Authorization": f"Bearer {token}"}).status

    with speakers_by_worker(guarded, guarded.workers) as speakers:
        for keys in ([EC, other], [other], [EC]):
            guarded.publish(*keys)
            for speaker, key in itertools.product(speakers, (EC, other)):
                expected = 200 if key in keys else 401
                eventually(lambda s=speaker, k=key, e=expected: status(s, k) == e)  # type: ignore[misc]


@pytest.mark.rule("A-JWT-1", "A-HEAD-2")
def test_the_keys_of_jwts_come_from_their_issuer(start_server: StartServer, workers: int) -> None:
    """Each worker asks for them once, however many tokens there are, and also where one has a key that nobody knows."""
    asked: list[str] = []

    class Issuer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(KeySet([EC]).as_dict(private=False)).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer) as issuer:
        thread = threading.Thread(target=issuer.serve_forever)
        thread.start()
        try:
            keys = f"http://127.0.0.1:{issuer.server_port}/keys?for=files"
            server = start_server("--jwt-keys", keys, "--jwt-issuer", "id", "--jwt-audience", "files", workers=workers)
            stranger = ECKey.generate_key("P-256", {"kid": "none"}, private=True)
            with speakers_by_worker(server, workers) as speakers:
                for number, speaker in enumerate(speakers * 3):
                    for key, expected in ((EC, 200), (stranger, 401)):
                        bearer = {"Authorization": f"Bearer {jwt_of(key, jti=str(number))}"}
                        assert speaker.request("GET", "/api/uploads", bearer).status == expected
        finally:
            issuer.shutdown()
            thread.join()
    assert asked == ["/keys?for=files"] * workers


@pytest.mark.rule("A-PROXY-1", "T-CONCAT-3")
@pytest.mark.parametrize("trusted", [True, False])
def test_the_host_that_a_proxy_names_is_believed_if_it_is_trusted(tmp_path: Path, trusted: bool) -> None:
    options = ("--trusted-proxy", "127.0.0.0/8") if trusted else ()
    with ServerProcess(tmp_path / "data", *options) as server, Speaker(server.url) as speaker:
        part = speaker.create(1, parallel=False, Upload_Concat="partial").removeprefix(server.url)
        said: dict[str, Any] = {"X_Forwarded_Host": "files.example"}
        said["Upload_Concat"] = f"final;https://files.example{part}"
        assert speaker.post(None, **said).status == (201 if trusted else 400)


@contextlib.contextmanager
def serving(home: Path, *options: str) -> Iterator[str]:
    """A server on whatever; what it says it listens on."""
    command = [sys.executable, "-m", "holdfast_server", "--data", str(home / "data"), *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment(home), start_new_session=True, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("listening on ").strip()
    finally:
        kill_group(process.pid)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
        f" -addext subjectAltName=IP:127.0.0.1 -keyout {key.name} -out {certificate.name}",
        shell=True,
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=scaled(60),
    )
    return certificate, key


@pytest.mark.parametrize("workers", ["1", "2"])
def test_over_tls(tmp_path: Path, workers: str, holdfast_command: CommandLine) -> None:
    """Large enough for the roads that would lend a plain connection; and who does not trust the server sends nothing,
    and does not ask again."""
    certificate, key = self_signed(tmp_path)
    options = ("--port", "0", "--tls-cert", str(certificate), "--tls-key", str(key), "--workers", workers)
    with serving(tmp_path, *options) as url:
        assert url.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=trust, timeout=scaled(20))
        with contextlib.closing(connection):
            assert upload_and_download(connection) == 204
            assert connection.sock.version() in ("TLSv1.2", "TLSv1.3")
        plain = http.client.HTTPConnection(url.removeprefix("https://"), timeout=scaled(20))
        with contextlib.closing(plain):
            plain.request("GET", "/health/ready")
            with pytest.raises((http.client.HTTPException, OSError)):
                plain.getresponse()
        (tmp_path / "film.mkv").write_bytes(b"film")
        words = ("upload", str(tmp_path / "film.mkv"), "--to", f"{url}/files")
        distrusted = holdfast_command.run(*words)
        assert distrusted.returncode == 1
        assert "the certificate of" in distrusted.stderr
        assert "attempt" not in distrusted.stderr
        unasked = holdfast_command.run(*words[:-1], f"{url}/files".replace("https:", "http:"))
        assert (unasked.returncode, "speaks TLS, and the URL says http://" in unasked.stderr) == (1, True)
        assert "attempt" not in unasked.stderr
        trusted = holdfast_command.run(*words, "--cacert", str(certificate))
        assert (trusted.returncode, trusted.stdout.startswith(f"{url}/files/")) == (0, True)


def test_handshakes_that_do_not_end_stop_nobody(tmp_path: Path) -> None:
    """Some hundred connections that say nothing, or the begin of the first message of TLS; others come and go."""
    certificate, key = self_signed(tmp_path)
    trust = ssl.create_default_context(cafile=certificate)
    options = ("--port", "0", "--tls-cert", str(certificate), "--tls-key", str(key))
    with serving(tmp_path, *options) as url, contextlib.ExitStack() as stack:
        place = url.removeprefix("https://")
        ended = select.poll()
        for number in range(300):
            begun = socket.create_connection(("127.0.0.1", int(place.rpartition(":")[2])), scaled(20))
            stack.enter_context(begun)
            begun.sendall(b"\x16\x03\x01\x02\x00\x01" if number % 2 else b"")
            ended.register(begun, select.POLLIN)
        assert ended.poll(0) == [], "none of them was refused"
        for _ in range(3):
            with contextlib.closing(http.client.HTTPSConnection(place, context=trust, timeout=scaled(20))) as other:
                assert upload_and_download(other) == 204


@pytest.mark.parametrize("workers", ["1", "2"])
def test_over_a_unix_socket(tmp_path: Path, workers: str) -> None:
    path = Path(os.path.relpath(tmp_path / "s"))
    if len(str(path)) > 100:
        pytest.skip("the path of the folder of this test is too long for a socket")
    with serving(tmp_path, "--unix", str(path), "--workers", workers) as said:
        assert said == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o660
        connection = OverUnix(path)
        with contextlib.closing(connection):
            assert eventually(lambda: upload_and_download(connection)) == 204
        second = refused_to_start(tmp_path, "--unix", str(path))
        assert (second.returncode, "a server listens there" in second.stderr) == (1, True)
    with serving(tmp_path, "--unix", str(path)) as said:  # the one before was killed, and has left its socket behind
        assert said == f"unix:{path}"


class OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=scaled(20))
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(scaled(20))
        self.sock.connect(str(self._path))


def upload_and_download(connection: http.client.HTTPConnection) -> int:
    data = secrets.token_bytes(5_000_000)
    connection.request("POST", "/files", headers={**TUS, "Upload-Length": str(len(data))})
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"]
    connection.request("PATCH", location, body=data, headers={**TUS_BODY, "Upload-Offset": "0"})
    patched = connection.getresponse()
    patched.read()
    connection.request("GET", location)
    assert connection.getresponse().read() == data
    return patched.status


def refused_to_start(home: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "holdfast_server", "--data", str(home / "other"), "--port", "0", *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=scaled(30), check=False, env=environment(home)
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_no_server_for_strangers_without_credentials(tmp_path: Path, host: str) -> None:
    refused = refused_to_start(tmp_path, "--host", host)
    assert refused.returncode == 2
    assert "--allow-everyone" in refused.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tokens", "nowhere"), "nowhere"),
        (("--signing-key", "short"), "signing key"),
        (("--jwt-keys", "x"), "all three"),
        (("--jwt-keys", "http://x.example/", "--jwt-issuer", "a", "--jwt-audience", "b"), "https"),
        (("--jwt-keys", "keys", "--jwt-issuer", "a", "--jwt-audience", "b"), "JWK set"),
        (("--authority", "nothing:here"), "package.module:name"),
        (("--trusted-proxy", "proxy.example"), "10.0.0.0/8"),
        (("--tls-key", "x"), "--tls-cert"),
        (("--tls-cert", "short"), "for TLS"),
    ],
)
def test_credentials_that_cannot_be_used_are_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("short")
    (tmp_path / "keys").write_text("{}")
    refused = refused_to_start(tmp_path, *options)
    assert refused.returncode in (1, 2)
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


def test_told_in_words_it_serves_everybody(tmp_path: Path) -> None:
    options = ("--host", "0.0.0.0", "--port", "0", "--allow-everyone")
    with serving(tmp_path, *options) as url, Speaker(url.replace("0.0.0.0", "127.0.0.1")) as speaker:
        eventually(lambda: speaker.post(0).status == 201)


def test_tokens_are_made_listed_and_revoked(tmp_path: Path, holdfast_command: CommandLine) -> None:
    path = tmp_path / "tokens.toml"
    run = holdfast_command.run
    one = run("token", "add", "--file", str(path), "--owner", "alice", "--scopes", "create,write")
    two = run("token", "add", "--file", str(path), "--owner", "bob", "--project", "films", "--expires-in", "90d")
    assert one.stdout.startswith("hft_")
    assert path.stat().st_mode & 0o077 == 0
    assert one.stdout.strip() not in path.read_text()
    listed = run("token", "list", "--file", str(path)).stdout.splitlines()
    assert [line.split()[1:3] for line in listed] == [
        ["alice", "create,write"],
        ["bob", "create,delete,read,watch,write"],
    ]
    assert run("token", "revoke", "--file", str(path), one.stdout.split("_")[1]).returncode == 0
    assert run("token", "list", "--file", str(path)).stdout.split()[:2] == [two.stdout.split("_")[1], "bob"]
    assert run("token", "revoke", "--file", str(path), "nobody").returncode == 1
    assert run("token", "add", "--file", str(path), "--owner", "x", "--scopes", "all").returncode == 2
    (tmp_path / "key").write_text(KEY)
    signed = run("sign", "http://x/files", "--key", str(tmp_path / "key"), "--owner", "alice")
    assert (signed.returncode, signed.stdout.startswith("http://x/files?signature=")) == (0, True)
    assert run("sign", "http://x/files", "--key", str(tmp_path / "key")).returncode == 1


def test_connections_that_are_refused_stay_usable(guarded: Guarded) -> None:
    """A refusal before the body does not upset the requests behind it on the same connection."""
    with Connection(guarded.url) as connection:
        fields = {**TUS_BODY, "Upload-Offset": "0"}
        assert connection.request("PATCH", f"/files/{'0' * 32}", fields, b"x" * 1000).status == 401
        if not connection.stale:
            assert connection.request("GET", "/health/live").status == 200
