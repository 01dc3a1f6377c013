"""Sizes, as people write them and as they are counted. Rule of this file: MiB and GiB are powers of two, everywhere."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
_UNITS: Final = {"": 1, "B": 1, "KIB": KIB, "K": KIB, "MIB": MIB, "M": MIB, "GIB": GIB, "G": GIB}


def parse_size(text: str) -> int:
    """`1GiB`, `64MiB`, `65536`: bytes. Raises ValueError for anything else."""
    number = text.rstrip("BGIKMbgikm")
    unit = text[len(number) :].upper()
    if not number.isdigit() or unit not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write 64MiB or 1GiB")
    return int(number) * _UNITS[unit]


def size_text(size: int) -> str:
    """`1 GiB`, `200 MiB`, `4 KiB`: the largest unit of which there is at least one, three digits at most."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size // unit} {name}"
    return f"{size} B"
