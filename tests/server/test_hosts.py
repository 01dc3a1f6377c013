"""By which names a server may be asked: `holdfast_server.http.hosts`, by values."""

import pytest

from holdfast_protocol.problem import ProblemError
from holdfast_server.http.hosts import Hosts

HOSTS = Hosts(("nas", "Files.Example."), "https://up.example:8443/up")


@pytest.mark.rule("A-HOST-1")
@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:8000", "192.0.2.7:80", "[::1]", "[::1]:8000", "[fe80::1%25eth0]:80", "10.0.0.1."),
        *("localhost", "LOCALHOST:8000", "localhost.", "app.localhost:80"),
        *("nas:1", "files.example", "FILES.example:80", "files.example.:80", "up.example"),
    ],
)
def test_addresses_and_names_that_were_said_are_answered(host: str) -> None:
    HOSTS.check(host)


@pytest.mark.rule("A-HOST-1")
@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost"),
        *("evil.files.example", "up.example.evil", "nas.evil", "", ":80", "[evil.example]:80", "*", "127.0.0.1.nip.io"),
    ],
)
def test_other_names_are_not(host: str) -> None:
    with pytest.raises(ProblemError) as refused:
        HOSTS.check(host)
    assert (refused.value.status, refused.value.code) == (421, "host-not-allowed")
    assert "--allowed-host" in refused.value.detail


@pytest.mark.rule("A-HOST-1")
def test_all_names_where_that_was_said_and_none_where_there_is_none() -> None:
    Hosts(("*",)).check("evil.example")
    HOSTS.check(None)
