"""Requests and answers as values: a head without any I/O.

Rule of this file: a field is looked up without regard to case, and a field that was sent twice is never joined in
silence where its grammar allows only one value (`Headers.one`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from msgspec import Struct, field

from holdfast_protocol.problem import FieldError


class Headers:
    """An ordered multi-map of header fields; immutable. Names keep the case in which they were given."""

    __slots__ = ("_items", "_map")

    def __init__(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = cast("Mapping[str, str]", items).items() if isinstance(items, Mapping) else items
        self._items: tuple[tuple[str, str], ...] = tuple(pairs)
        self._map: dict[str, list[str]] = {}
        for name, value in self._items:
            self._map.setdefault(name.lower(), []).append(value)

    def get(self, name: str) -> str | None:
        """The values of a list-valued field joined with ", " (RFC 9110, section 5.3), or None."""
        values = self._map.get(name.lower())
        return None if values is None else ", ".join(values)

    def one(self, name: str) -> str | None:
        """The value of a field that may be there once, or None. Raises FieldError if it is there twice."""
        values = self._map.get(name.lower())
        if values is None:
            return None
        if len(values) > 1:
            raise FieldError(name, "the field is there more than once; send it once")
        return values[0]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._map

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Headers({list(self._items)!r})"


class Span(Struct, frozen=True):
    """A half-open run of bytes `[start, end)` of the file that goes into a request's body."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


class Request(Struct, frozen=True):
    """A request that a client-side rule wants to have sent. `body` says which bytes of the file it carries."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Span | None = None


class Response(Struct, frozen=True):
    """An answer: its status, its fields, and its body where that is a problem document (at most 64 KiB)."""

    status: int
    headers: Headers
    body: bytes = b""
