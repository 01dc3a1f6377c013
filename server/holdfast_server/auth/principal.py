"""The one who asks.

Rule of this file: what a principal may do is `scopes`, and to which uploads is `sees`; both must hold. Who does not see
an upload is told that there is none, whatever the scopes (A-OWNER-1). Nothing here knows how a principal was found.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Literal, Protocol, TypeAlias, get_args

from msgspec import Struct

from holdfast_protocol.problem import ProblemError

Scope: TypeAlias = Literal["create", "write", "read", "delete", "watch", "operate"]
"""`create` uploads; `write` bytes and complete; `read` files and states; `delete`; `watch` progress, events and
states; `operate`: see the uploads of everybody, and the figures of the server."""

SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))

STATE: Final[tuple[Scope, ...]] = ("read", "write", "watch")
"""Any of them is enough to ask how far an upload is: who writes has to know where to go on."""


class Owned(Protocol):
    """What has to be known of an upload to say whose it is."""

    @property
    def id(self) -> str: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def project(self) -> str | None: ...


class Made(Owned, Protocol):
    """An upload, and when it was made."""

    @property
    def created(self) -> float: ...


class Grant(Struct, frozen=True):
    """Uploads that whoever has a signed URL may create."""

    id: str
    uses: int
    """How many of them."""
    expires: float
    types: tuple[str, ...] = ()
    """Media types, `*` for all of a kind, and extensions, in lower case; all types if empty."""
    name: str | None = None
    """The name that the file gets, whatever the client calls it."""

    def check(self, media_type: str | None, filename: str | None) -> None:
        """Raises ProblemError 403 if what the client says of its file is not what may be created (A-SIGN-3)."""
        said, called = (media_type or "").partition(";")[0].strip().lower(), (filename or "").lower()
        for each in self.types:
            if each.startswith("."):
                if called.endswith(each):
                    return
            elif said == each or (each.endswith("/*") and said.startswith(each[:-1])):
                return
        if self.types:
            raise ProblemError(
                "not-permitted",
                f"This URL takes files of the types {', '.join(self.types)}. "
                "Say which one the file is, with `filetype` and `filename` in the metadata.",
                {"types": list(self.types)},
            )


class Principal(Struct, frozen=True):
    """A person or a program, as an authority vouches for it."""

    owner: str | None
    """The name under which its uploads are kept. None only where nobody has to say who he is."""
    scopes: frozenset[Scope] = frozenset()
    projects: frozenset[str] = frozenset()
    """It sees all uploads of these, whoever made them, and may make some there."""
    project: str | None = None
    """Where its uploads go if the creation names no project."""
    only: str | None = None
    """The id of the one upload that it sees; "" for none at all. None: all of its own and of its projects."""
    expires: float | None = None
    """Seconds since the epoch; None: nothing is known of an end."""
    max_size: int | None = None
    """The largest upload that it may make or fill, in bytes; None: as large as the server takes."""
    grant: Grant | None = None
    """What it may create, if it may not create whatever it likes."""
    follow: Callable[[Made], str] | None = None
    """The query that goes with the URL of an upload that it has made (A-SIGN-2)."""
    confirm: Callable[[], Awaitable[None]] | None = None
    """Asks the authority again, now; raises ProblemError 401 if it vouches no more (A-AGAIN-1)."""

    def may(self, *scopes: Scope) -> bool:
        """Has it any of these?"""
        return not self.scopes.isdisjoint(scopes)

    def require(self, *scopes: Scope) -> None:
        """Raises ProblemError 403 if it has none of these (A-SCOPE-1)."""
        if self.scopes.isdisjoint(scopes):
            raise missing_scope(*scopes)

    def sees(self, upload: Owned) -> bool:
        """Is there such an upload, as far as this one may know?"""
        if self.only is not None:
            return upload.id == self.only
        if "operate" in self.scopes:
            return True
        return (upload.owner is not None and upload.owner == self.owner) or upload.project in self.projects

    @property
    def sees_all(self) -> bool:
        return self.only is None and "operate" in self.scopes

    def may_watch(self, upload: Owned) -> bool:
        """Progress and events of this upload."""
        return "watch" in self.scopes and self.sees(upload)

    def may_watch_owner(self, owner: str) -> bool:
        """All uploads of an owner."""
        return "watch" in self.scopes and (self.sees_all or (self.only is None and owner == self.owner))

    def may_watch_project(self, project: str) -> bool:
        """All uploads of a project."""
        return "watch" in self.scopes and (self.sees_all or (self.only is None and project in self.projects))

    def may_watch_all(self) -> bool:
        """All uploads of the server. Whoever may not can still watch those that it sees."""
        return "watch" in self.scopes and self.sees_all

    def place(self, asked: str | None) -> str | None:
        """The project of a new upload. Raises ProblemError 403 if it is not one of its own (A-PROJECT-1)."""
        project = self.project if asked is None else asked
        if project is not None and not (self.sees_all or project in self.projects or project == self.project):
            raise ProblemError(
                "not-permitted",
                "This credential does not belong to the project that was named. Name another one, or none.",
            )
        return project


def missing_scope(*scopes: Scope) -> ProblemError:
    """A-SCOPE-1."""
    words = " or ".join(scopes)
    return ProblemError(
        "missing-scope",
        f"This credential may not do that: it needs the scope {words}. Ask for one that has it.",
        {"scopes": list(scopes)},
    )


EVERYBODY: Final = Principal(None, SCOPES)
"""Who asks where nobody has to say who he is: may do everything, to all uploads."""
