"""What the client says of an address where no upload server is, or not by that scheme or name: what happened, to which
file, and what to do; and where it would not help to come again it does not.

Rule of this file: servers and certificates are real; the sentences are those that a user reads.
"""

import datetime
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import holdfast
from holdfast import AsyncClient
from tests.client.conftest import MakeFile
from tests.support.process import CommandLine
from tests.support.scripted import Scripted, head
from tests.support.waiting import scaled

MakeClient = Callable[..., AsyncClient]

pytestmark = pytest.mark.anyio

PAGE = b"<html><title>Welcome</title></html>"


def page(status: int, *lines: str) -> bytes:
    return head(status, "Content-Type: text/html; charset=utf-8", f"Content-Length: {len(PAGE)}", *lines) + PAGE


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        pytest.param(page(200), 1, "a web page came back (200), not an answer of an upload server; check", id="a page"),
        pytest.param(page(404), 4, "(404: Not Found); check the URL", id="nothing there"),
        pytest.param(page(405), 4, "(405: Method Not Allowed); check the URL", id="nothing that takes a POST"),
        pytest.param(
            page(302, "Location: https://login.example.org/?next=secret"),
            1,
            "(302): https://login.example.org/ - give that URL instead, or credentials if one has to log in there",
            id="a login",
        ),
        pytest.param(
            page(301, "Location: https://files.example.org/files"),
            1,
            "(301): https://files.example.org/files - give that URL instead",
            id="moved",
        ),
        pytest.param(
            page(502), 1, "(502: Bad Gateway, says a proxy before the server); gave up after 2 attempts", id="a proxy"
        ),
    ],
)
def test_what_is_no_upload_server(
    make_file: MakeFile, holdfast_command: CommandLine, answer: bytes, status: int, sentence: str
) -> None:
    path = make_file(1000)
    with Scripted(lambda asked: [answer]) as server:
        done = holdfast_command.run(
            "upload", str(path), "--to", f"{server.url}/files", "--quiet", "--max-attempts", "2", "--retries", "0"
        )
    assert done.stderr.startswith(f"holdfast: {path}: ")
    assert sentence in done.stderr
    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1)
    assert "secret" not in done.stderr


@pytest.mark.parametrize("upload", [(), ("2" * 32,)], ids=["all", "an upload"])
@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        pytest.param(page(200), "whether one has to log in first", id="a page"),
        pytest.param(
            page(302, "Location: /login"),
            "/login - give that URL instead, or credentials if",
            id="a login",
        ),
        pytest.param(page(405), "(405: Method Not Allowed); check the URL", id="nothing that can be asked"),
    ],
)
def test_nothing_to_watch(holdfast_command: CommandLine, answer: bytes, sentence: str, upload: tuple[str, ...]) -> None:
    with Scripted(lambda asked: [answer]) as server:
        done = holdfast_command.run("watch", server.url, *upload)
    assert done.stderr.startswith(f"holdfast watch: {server.url}/api/")
    assert sentence in done.stderr
    assert (done.returncode in (1, 4), len(done.stderr.splitlines())) == (True, 1)


async def test_http_at_a_port_of_https(make_file: MakeFile, make_client: MakeClient, certificate: Path) -> None:
    """It is told from a server that only broke the connection off."""
    path = make_file(1000)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    async with make_client() as client:
        with Scripted(lambda asked: [], tls=ours) as server, anyio.fail_after(scaled(20)):
            url = server.url.replace("https:", "http:")
            with pytest.raises(holdfast.BrokenProtocol, match=r"speaks TLS, and the URL says http://; .*https://"):
                await client.upload(path, f"{url}/files")
            with pytest.raises(holdfast.BrokenProtocol, match="speaks TLS"):
                await client.download(f"{url}/film.mkv", path.with_name("got.mkv"))
            assert server.asked == []
        broke = pytest.raises(holdfast.ConnectionFailed, match=r"broke \(.*gave up after 2 attempts")
        with Scripted(lambda asked: []) as server, anyio.fail_after(scaled(20)), broke:
            await client.upload(path, f"{server.url}/files", max_attempts=2)


async def test_a_name_without_an_address(
    make_file: MakeFile, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*of: object, **how: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # a real resolver may take as long as it likes
    async with make_client() as client:
        with anyio.fail_after(scaled(20)), pytest.raises(holdfast.ConnectionFailed) as caught:
            await client.upload(make_file(1000), "http://no-such-host.invalid/files", max_attempts=1)
    assert "no address is known for no-such-host.invalid (Name or service not known); is the name right" in str(
        caught.value
    )


def issued(path: Path, name: str, begins: int, ends: int) -> Path:
    """A certificate for a name, good from so many days from now to so many, and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=ends))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, *plain) + made.public_bytes(pem))
    return path


UNKNOWN = "check the address, or name the authority that it is of (--cacert FILE"
OTHER_NAME = "is not for that name (Hostname mismatch, certificate is not valid for 'localhost'); give the URL with"
OTHER_TIME = "if the clock here is right, whoever runs the server has to renew it"


@pytest.mark.parametrize(
    ("name", "begins", "ends", "known", "advice"),
    [
        pytest.param("localhost", -1, 1, False, UNKNOWN, id="of nobody who is known"),
        pytest.param("files.example.org", -1, 1, True, OTHER_NAME, id="of another name"),
        pytest.param("localhost", -3, -1, True, OTHER_TIME, id="over"),
        pytest.param("localhost", 1, 3, True, OTHER_TIME, id="not begun"),
    ],
)
async def test_a_certificate_that_does_not_do(
    make_file: MakeFile,
    make_client: MakeClient,
    tmp_path: Path,
    name: str,
    begins: int,
    ends: int,
    known: bool,
    advice: str,
) -> None:
    certificate = issued(tmp_path / "server.pem", name, begins, ends)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    with Scripted(lambda asked: [head(500)], tls=ours) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        async with make_client(verify=certificate if known else True) as client:
            with anyio.fail_after(scaled(20)), pytest.raises(holdfast.ServerUntrusted) as caught:
                await client.upload(make_file(1000), f"{url}/files")
        assert server.asked == []
    assert f"the certificate of {url.removeprefix('https://')} " in caught.value.message
    assert advice in caught.value.message
