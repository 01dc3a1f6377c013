"""File names that others chose, made safe for every file system.

Rule of this file: what `safe_name` returns names a file in the directory that it is joined to, on Linux,
macOS and Windows alike, and never anything else. It does not say whether such a file is there already.
"""

import re
import unicodedata
from typing import Final

LONGEST: Final = 200
"""Bytes of UTF-8. File systems take 255; the rest is for suffixes such as that of a temporary file."""

_LONGEST_SUFFIX: Final = 32
_EDGES: Final = ". \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_DROPPED: Final = frozenset("\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_DROPPED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_FORBIDDEN: Final = re.compile(r'[<>:"|?*]')
_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\xb9\xb2\xb3]) *(?:\..*)?", re.IGNORECASE
)


def safe_name(raw: str, default: str = "upload") -> str:
    """The last part of the path `raw` as a file name; `default`, as it is, if nothing of it remains.

    Never empty, at most 200 bytes of UTF-8, in normal form C. Without control characters, those that change
    the direction of text, lone surrogates, and blanks or dots at either end; `<>:"|?*` become underscores,
    and a name that Windows keeps for a device gets one in front. A name that is too long loses the end of
    its stem and keeps its suffix. A safe name comes back unchanged.
    """
    kept = "".join(char for char in raw if not _is_dropped(char))
    last = kept.replace("\\", "/").rstrip("/").rpartition("/")[2].strip(_EDGES)
    if len(last) > 4 * LONGEST:
        # Normalizing may take quadratic time. What is left out here would be cut off anyway.
        last = last[: 3 * LONGEST] + last[-LONGEST:]
    name = _shorten(_FORBIDDEN.sub("_", unicodedata.normalize("NFC", last)))
    if _RESERVED.fullmatch(name):  # looked at now, for a long name may become one by losing its end
        name = _shorten(f"_{name}")
    return name or default


def _is_dropped(char: str) -> bool:
    return char in _DROPPED or unicodedata.category(char) in _DROPPED_CATEGORIES


def _shorten(name: str) -> str:
    if len(name.encode()) <= LONGEST:
        return name
    stem, dot, suffix = name.rpartition(".")
    ending = dot + suffix
    if not stem or len(ending.encode()) > _LONGEST_SUFFIX:
        stem, ending = name, ""
    cut = stem.encode()[: LONGEST - len(ending.encode())].decode(errors="ignore")
    return cut + ending if ending else cut.rstrip(_EDGES)
