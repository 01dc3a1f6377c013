"""What a principal may do, by values."""

from dataclasses import dataclass

import pytest

from holdfast_protocol.problem import ProblemError
from holdfast_server.auth import EVERYBODY, SCOPES, Principal


@dataclass(frozen=True)
class Thing:
    id: str = "1"
    owner: str | None = None
    project: str | None = None


MINE = Thing(owner="alice")
SHARED = Thing(owner="bob", project="films")
OTHERS = Thing(owner="bob", project="secret")
NOBODYS = Thing()


def seen(who: Principal) -> list[Thing]:
    return [thing for thing in (MINE, SHARED, OTHERS, NOBODYS) if who.sees(thing)]


@pytest.mark.rule("A-OWNER-1")
def test_who_sees_what() -> None:
    assert seen(Principal("alice")) == [MINE]
    assert seen(Principal("alice", projects=frozenset({"films"}))) == [MINE, SHARED]
    assert seen(Principal("root", frozenset({"operate"}))) == [MINE, SHARED, OTHERS, NOBODYS]
    assert seen(EVERYBODY) == [MINE, SHARED, OTHERS, NOBODYS]
    assert seen(Principal(None)) == []
    assert seen(Principal("films")) == []
    assert seen(Principal("", projects=frozenset({""}))) == []


def test_one_upload_is_all_that_is_seen_if_it_is_named() -> None:
    """Whoever owns it, and whatever scopes there are."""
    who = Principal("alice", SCOPES, frozenset({"films"}), only="7")
    assert seen(who) == []
    assert who.sees(Thing("7", owner="bob"))
    assert seen(Principal("alice", SCOPES, only="")) == []
    assert not who.sees_all


def test_what_may_be_watched() -> None:
    alice = Principal("alice", frozenset({"watch"}), frozenset({"films"}))
    assert [alice.may_watch(thing) for thing in (MINE, SHARED, OTHERS)] == [True, True, False]
    assert (alice.may_watch_owner("alice"), alice.may_watch_owner("bob")) == (True, False)
    assert (alice.may_watch_project("films"), alice.may_watch_project("secret")) == (True, False)
    assert not alice.may_watch_all()
    root = Principal("root", frozenset({"watch", "operate"}))
    assert root.may_watch_all()
    assert root.may_watch_owner("bob")
    assert root.may_watch_project("secret")
    blind = Principal("alice", SCOPES - {"watch"}, frozenset({"films"}))
    assert not (blind.may_watch(MINE))
    assert not (blind.may_watch_owner("alice"))
    assert not (blind.may_watch_project("films"))
    assert not blind.may_watch_all()
    one = Principal("alice", SCOPES, frozenset({"films"}), only="1")
    assert one.may_watch(MINE)
    assert not (one.may_watch_owner("alice"))
    assert not (one.may_watch_project("films"))
    assert not (one.may_watch_all())


@pytest.mark.rule("A-SCOPE-1")
def test_a_missing_scope_is_named() -> None:
    who = Principal("alice", frozenset({"read"}))
    who.require("read", "write")
    with pytest.raises(ProblemError) as caught:
        who.require("write", "delete")
    assert (caught.value.status, caught.value.code) == (403, "missing-scope")
    assert caught.value.members == {"scopes": ["write", "delete"]}
    assert "write or delete" in caught.value.detail


@pytest.mark.rule("A-PROJECT-1")
def test_a_new_upload_goes_where_its_maker_belongs() -> None:
    who = Principal("alice", projects=frozenset({"films", "books"}), project="books")
    assert [who.place(asked) for asked in (None, "films", "books")] == ["books", "films", "books"]
    assert Principal("alice").place(None) is None
    assert EVERYBODY.place("anything") == "anything"
    for asked in ("secret", ""):
        with pytest.raises(ProblemError) as caught:
            who.place(asked)
        assert caught.value.code == "not-permitted"
