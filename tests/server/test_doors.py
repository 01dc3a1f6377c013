"""Who is let in: `holdfast_server.http.doors`, by values."""

import pytest

from holdfast_server.http.doors import FEW, MOST_ANSWERED, Doors, client_of
from holdfast_server.http.proxies import networks


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("no:address", "no:address"),
    ],
)
def test_a_client_is_an_address_or_a_network(address: str, client: str) -> None:
    assert client_of(address) == client


@pytest.mark.rule("H-CONN-1")
def test_one_client_has_no_more_than_its_share() -> None:
    doors = Doors(100, 3)
    assert [doors.enter("a") for _ in range(3)] == [None] * 3
    problem = doors.enter("a")
    assert problem is not None
    assert (problem.code, problem.status) == ("too-many-connections", 429)
    assert problem.headers["Retry-After"].isdigit()
    assert doors.enter("b") is None
    doors.leave("a")
    assert doors.enter("a") is None


@pytest.mark.rule("H-CONN-1")
def test_the_last_ones_are_for_those_who_have_few() -> None:
    doors = Doors(80, None)
    greedy = 0
    while doors.enter("greedy") is None:
        greedy += 1
    assert greedy == 70
    others = [doors.enter(f"other {number}") for number in range(10)]
    assert others == [None] * 10
    full = doors.enter("one more")
    assert full is not None
    assert (full.code, full.status) == ("overloaded", 503)
    for _ in range(greedy):
        doors.leave("greedy")
    assert [doors.enter("greedy") for _ in range(FEW)] == [None] * FEW


@pytest.mark.rule("H-CONN-1")
def test_a_trusted_proxy_speaks_for_many() -> None:
    doors = Doors(1000, 2, networks(["10.0.0.0/8", "fd00::/8"]))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::7", "", None):
        assert doors.client(address) is None
    assert [doors.enter(doors.client("10.1.2.3")) for _ in range(99)] == [None] * 99
    assert doors.client("192.0.2.7") == "192.0.2.7"
    assert doors.client("2001:db8::1") == "2001:db8::/64"
    assert doors.client("nowhere") == "nowhere"


def test_without_limits_everybody_is_let_in() -> None:
    doors = Doors()
    assert all(doors.enter("a") is None for _ in range(1000))
    assert doors.enter(None) is None
    doors.leave(None)


def test_only_so_many_are_told_why_at_once() -> None:
    doors = Doors(1, None)
    assert sum(doors.turn_away() for _ in range(2 * MOST_ANSWERED)) == MOST_ANSWERED
    doors.turned_away()
    assert doors.turn_away()
