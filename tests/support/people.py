"""People with scopes and projects, and the callable that knows them: for an application here, and for `holdfast serve
--authority tests.support.people:authority`."""

from typing import Final

from holdfast_server.auth import SCOPES, Principal, Request, Scope

ALL: Final[frozenset[Scope]] = SCOPES - {"operate"}
PEOPLE: Final = {
    "alice": Principal("alice", ALL, frozenset({"films"})),
    "bob": Principal("bob", ALL, frozenset({"books"})),
    "carol": Principal("carol", ALL, frozenset({"films"}), project="films"),
    "root": Principal("root", SCOPES),
}


def authority(request: Request) -> Principal | None:
    return PEOPLE.get(request.token or "")
