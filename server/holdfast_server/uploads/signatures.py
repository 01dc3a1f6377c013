"""Which signatures a file begins and ends with, from the tables of puremagic.

Rule of this file: the answer is the one of `puremagic.magic_string`, which goes through all of its 1,500 rows for each
file. Here they are looked up by the byte that is at their place, of which there are about fifty.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from puremagic.main import PureMagic, magic_footer_array, magic_header_array, multi_part_dict

_Begun = Mapping[int, Mapping[bytes, list[PureMagic]]]
"""Rows by their length, and there by their bytes."""
_Places = Mapping[int, Mapping[int, _Begun]]
"""Rows by their offset, from the end where it is negative, and there by their first byte."""


class Signature(NamedTuple):
    """One that was found. `confidence` is from 0 to 0.8; `media` is empty where puremagic names none."""

    confidence: float
    extension: str
    media: str


def _by_place(rows: Iterable[PureMagic]) -> _Places:
    places: dict[int, dict[int, dict[int, dict[bytes, list[PureMagic]]]]] = {}
    for row in rows:
        begun = places.setdefault(row.offset, {}).setdefault(row.byte_match[0], {})
        begun.setdefault(len(row.byte_match), {}).setdefault(row.byte_match, []).append(row)
    return places


_AT_THE_START: Final = _by_place(magic_header_array)
_AT_THE_END: Final = _by_place(magic_footer_array)
_BEHIND: Final = {begin: _by_place(rows) for begin, rows in multi_part_dict.items()}
EXTENSIONS: Final[frozenset[str]] = frozenset(row.extension for row in magic_header_array)
"""Of files that have a signature at their beginning."""


def signatures(content: bytes) -> list[Signature]:
    """All that these bytes have, in no order; none if they are of no known kind."""
    found = [(len(row.byte_match), row) for row in (*_at(_AT_THE_START, content), *_at(_AT_THE_END, content))]
    for begin in {row for _, row in found if row.byte_match in _BEHIND}:
        for row in _at(_BEHIND[begin.byte_match], content):
            end = row.offset + len(row.byte_match)
            if row.offset < 0:
                found.append((len(begin.byte_match) + len(row.byte_match), row))
            else:
                found.append((len(content[begin.offset : end]), row))
    return [Signature(_confidence(length), row.extension, row.mime_type) for length, row in found]


def _confidence(length: int) -> float:
    """More bytes are less likely to be there by chance."""
    return 0.8 if length >= 9 else length / 10


def _at(places: _Places, content: bytes) -> Iterator[PureMagic]:
    size = len(content)
    for offset, by_first in places.items():
        start = offset if offset >= 0 else size + offset
        if 0 <= start < size and (begun := by_first.get(content[start])) is not None:
            for length, rows in begun.items():
                yield from rows.get(content[start : start + length], ())
