"""Tokens that are refreshed on the way, the environment, netrc, and that nothing of it is written anywhere."""

import base64
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import holdfast
from holdfast import AsyncClient
from holdfast.credentials import Keyring, Token, environment_token, netrc_login
from tests.client.loopback import Loopback, Seen
from tests.support.process import CommandLine, environment

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


def shows(token: str) -> Callable[[Seen], bool]:
    return lambda seen: seen.fields.get("authorization") == f"Bearer {token}"


class Office:
    """Gives tokens: t1, t2, ..."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def give(self, origin: str) -> str:
        self.asked.append(origin)
        return f"t{len(self.asked)}"

    async def give_later(self, origin: str) -> str:
        await anyio.lowlevel.checkpoint()
        return self.give(origin)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
async def test_a_token_is_renewed_on_the_way(
    make_file: MakeFile, make_client: MakeClient, asynchronous: bool, parallel: bool
) -> None:
    """It expires in the middle of the file, for several connections at once; the hook is asked once more."""
    path, office = make_file(8 * MIB), Office()
    with Loopback(parallel=parallel) as loopback:
        loopback.order(
            "PATCH", "answer", status=401, times=99, when=lambda seen: bool(seen.offset) and shows("t1")(seen)
        )
        token = office.give_later if asynchronous else office.give
        async with make_client(token=token) as client:
            result = await client.upload(path, loopback.url, chunk_size=MIB)
        assert bytes(loopback.only().data) == path.read_bytes()
        assert result.retries == 0
        assert office.asked == [loopback.url.removesuffix("/files")] * 2


async def test_a_download_renews_it_too(make_client: MakeClient, loopback: Loopback, tmp_path: Path) -> None:
    office = Office()
    url = loopback.put("a", b"abc" * 1000, stored=[(0, 3000)])
    loopback.order("GET", "answer", status=403, times=99, when=shows("t1"))
    async with make_client(token=office.give) as client:
        result = await client.download(url, tmp_path / "back")
    assert result.path.read_bytes() == b"abc" * 1000
    assert len(office.asked) == 2


async def test_a_fresh_token_that_is_refused_ends_it(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    office = Office()
    loopback.order("POST", "answer", status=401, times=99, code="not-authorized")
    async with make_client(token=office.give) as client:
        with pytest.raises(holdfast.NotAuthorized, match=r"As it was ordered.*had just been renewed"):
            await client.upload(make_file(10), loopback.url)
    assert len(office.asked) == 2


def none_left(origin: str) -> str:
    raise LookupError("the vault is closed")


async def slow(origin: str) -> str:
    await anyio.sleep_forever()
    return ""


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        (lambda origin: "same", "gave the same one again"),
        (none_left, "raised LookupError: the vault is closed"),
        (slow, "gave none within"),
        (lambda origin: "a b", "is no token"),
    ],
)
async def test_a_hook_that_fails_is_named(
    make_file: MakeFile,
    make_client: MakeClient,
    loopback: Loopback,
    monkeypatch: pytest.MonkeyPatch,
    token: Token,
    sentence: str,
) -> None:
    monkeypatch.setattr("holdfast.credentials.PATIENCE", 0.1)
    loopback.order("POST", "answer", status=401, times=99)
    async with make_client(token=token) as client:
        with pytest.raises(holdfast.HoldfastError, match=sentence):
            await client.upload(make_file(10), loopback.url)


async def test_credentials_go_to_their_origin_alone(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """A server that says that its uploads are at another one does not get our token there."""
    with Loopback() as other:
        other.put("x", bytes(10), stored=[])
        loopback.order("POST", "lose", times=0)
        loopback.uploads.clear()
        async with make_client(token="secret", headers={"X-Mine": "1"}) as client:
            handler_answer = {"Location": f"{other.url}/x", "Upload-Offset": "0"}
            loopback.order("POST", "answer", status=201, fields=handler_answer)
            await client.upload(make_file(10), loopback.url, protocol="tus")
        assert all("authorization" not in seen.fields and "x-mine" not in seen.fields for seen in other.seen)
        assert all(shows("secret")(seen) for seen in loopback.seen)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [("", "abc"), ("127.0.0.1", "abc"), ("other, 127.0.0.1:80", "abc"), ("other", None), ("127.0.0.1:81", None)],
)
def test_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch, hosts: str, expected: str | None) -> None:
    monkeypatch.setenv("HOLDFAST_TOKEN", " abc\n")
    monkeypatch.setenv("HOLDFAST_TOKEN_HOST", hosts)
    assert environment_token("127.0.0.1", 80) == expected


def test_what_is_no_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_TOKEN", "pass word")
    with pytest.raises(holdfast.UsageError, match="HOLDFAST_TOKEN") as caught:
        environment_token("h", 1)
    assert "pass" not in str(caught.value)
    with pytest.raises(holdfast.UsageError):
        Keyring("ä")


def test_the_order_of_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine host login me password pw\ndefault login any password any\n")
    monkeypatch.setenv("NETRC", str(file))
    monkeypatch.delenv("HOLDFAST_TOKEN", raising=False)
    assert netrc_login("host") == ("me", "pw")
    assert netrc_login("other") is None, "default is for nobody"
    origin, basic = "http://host:80", "Basic " + base64.b64encode(b"me:pw").decode()
    assert Keyring().key(origin, None, {}).field == basic
    monkeypatch.setenv("HOLDFAST_TOKEN", "env")
    assert Keyring().key(origin, None, {}).field == "Bearer env"
    assert Keyring("mine").key(origin, None, {}).field == "Bearer mine"
    assert Keyring("mine").key(origin, None, {"authorization": "x"}).field is None
    assert Keyring("mine").key(origin, ("u", "p"), {}).field == "Basic " + base64.b64encode(b"u:p").decode()


def test_a_netrc_that_cannot_be_read_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine host login me passwort geheim\n")
    monkeypatch.setenv("NETRC", str(file))
    assert netrc_login("host") is None
    assert "is not used" in caplog.text
    assert "geheim" not in caplog.text


def test_a_netrc_that_is_named_and_not_there_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each transfer looks for its own; nobody wants to read it ten thousand times."""
    monkeypatch.setenv("NETRC", str(tmp_path / "nowhere"))
    assert [netrc_login(host) for host in ("one", "two")] == [None, None]
    assert caplog.text.count("there is no such file") == 1
    for other in (os.devnull, ""):
        monkeypatch.setenv("NETRC", other)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert netrc_login("one") is None
    assert caplog.text.count("is not used") == 1, "there is nothing in them, and nobody said that there was"


async def test_a_token_and_a_header_are_one_too_many(make_client: MakeClient) -> None:
    with pytest.raises(holdfast.UsageError, match="not both"):
        async with make_client(token="a", headers={"Authorization": "b"}):
            pass


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"verify": "no-such-file.pem"}, "certificate authorities"), ({"proxy": "gopher://host"}, "proxy")],
)
async def test_what_cannot_be_used_is_named(make_client: MakeClient, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(holdfast.UsageError, match=sentence):
        async with make_client(**arguments):
            pass


async def test_a_proxy_is_used(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    """The one that is named gets the requests, with the whole URL, whatever the host."""
    proxy = loopback.url.removesuffix("/files")
    async with make_client(proxy=proxy) as client:
        result = await client.upload(make_file(10), "http://elsewhere.invalid/files", protocol="tus")
    assert result.url.startswith("http://elsewhere.invalid/files/")
    assert bytes(loopback.only().data) == (result.path or Path()).read_bytes()


SECRETS = ("t0ps3cret", "pa55word", "s1gnatur3")


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("form", [["--json"], []])
def test_no_byte_that_is_written_has_a_secret(
    loopback: Loopback,
    holdfast_command: CommandLine,
    make_file: MakeFile,
    failing: bool,
    form: list[str],
    tmp_path: Path,
) -> None:
    """Up and down, well and badly: journal, locks, output, and what httpx would log."""
    if failing:
        loopback.order("POST", "answer", status=403, code="not-authorized", times=99)
        loopback.order("GET", "answer", status=404, times=99)
    loopback.put("a", b"abc", stored=[(0, 3)])
    with_login = loopback.url.replace("http://", f"http://me:{SECRETS[1]}@")
    logged = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG)\nfrom holdfast.cli import main; sys.exit(main())"
    )
    said = b""
    for words in (
        ["upload", str(make_file(100)), "--to", f"{with_login}?signature={SECRETS[2]}"],
        ["upload", str(make_file(100)), "--to", loopback.url, "--header", f"X-Key: {SECRETS[0]}"],
        ["download", f"{with_login}/a?signature={SECRETS[2]}", "-d", str(tmp_path)],
        ["download", f"{loopback.url}/a?signature={SECRETS[2]}", "-o", str(tmp_path / "b"), "--overwrite"],
        ["upload", "-", "--to", f"{with_login}?signature={SECRETS[2]}"],
        ["transfers", "list", "--json"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", logged, *words, *(form if words[0] != "transfers" else [])],
            env={**environment(holdfast_command.home), "HOLDFAST_TOKEN": SECRETS[0]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        said += done.stdout + done.stderr
    assert b"HTTP Request: " in said, "it does log"
    assert b"127.0.0.1" in said
    written = b"".join(path.read_bytes() for path in holdfast_command.home.rglob("*") if path.is_file())
    assert b"127.0.0.1" in written
    for secret in (*SECRETS, base64.b64encode(f"me:{SECRETS[1]}".encode()).decode()):
        assert secret.encode() not in said
        assert secret.encode() not in written
    assert any(SECRETS[0] in str(seen.fields) for seen in loopback.seen)


def test_the_library_does_not_configure_logging() -> None:
    assert logging.getLogger("holdfast").level == logging.NOTSET


async def test_a_proxy_that_is_not_there_is_named(make_file: MakeFile, make_client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://me:{SECRETS[1]}@127.0.0.1:{listener.getsockname()[1]}"
    async with make_client(proxy=nobody) as client:
        with pytest.raises(holdfast.ConnectionFailed, match="through a proxy") as caught:
            await client.upload(make_file(10), "http://elsewhere.invalid/files", max_attempts=1)
    assert SECRETS[1] not in str(caught.value)


async def test_bad_authorities_are_not_called_a_proxy(make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("nothing")
    with pytest.raises(holdfast.UsageError, match="certificate authorities") as caught:
        async with make_client(verify=tmp_path / "none.pem"):
            pass
    assert "proxy" not in str(caught.value)
