"""Which files are taken: by the extension of their name, and by what their first bytes say.

Rule of this file: a name is looked at when the upload is created, the bytes before they are published, and nothing that
is not allowed is ever published. Where bytes have a signature, it says what they are, whatever the name says; only
where several types share one does the name choose. Where they have none, the name is believed if nothing speaks against
it: text is any type of text, and a type whose files have a signature must show it.
"""

import codecs
import fnmatch
import mimetypes
import re
from collections.abc import Collection, Iterable
from typing import Final

from holdfast_protocol.problem import ProblemError
from holdfast_server.settings import Settings
from holdfast_server.uploads.signatures import EXTENSIONS, signatures

HEAD: Final = 40_000
"""Bytes that are looked at: some signatures are behind the first 32 KiB."""
UNKNOWN: Final = "application/octet-stream"
_TEXT: Final = "text/plain"
_READ: Final = 4096
"""Bytes that are looked at to see whether they are text."""
_WEAK: Final = 0.3
"""Confidence: less is a signature of one or two bytes, with which a text may begin."""

_NOT_IN_TEXT: Final = bytes({*range(0x20), 0x7F} - {*b"\t\n\f\r\x1b"})
_LIKE_TEXT: Final = re.compile(r"text/.+|.+\+(?:xml|json)|application/(?:json|xml|javascript|x-sh|sql|toml|yaml)")
_BY_NAME: Final = mimetypes.MimeTypes(())  # the table of Python, not that of the machine


def extension(name: str) -> str:
    """In lower case, without the dot; empty if there is none."""
    return name.rpartition(".")[2].lower() if "." in name[1:] else ""


def media_type(name: str) -> str:
    """What a name says."""
    return _BY_NAME.guess_type(f"x.{extension(name)}")[0] or UNKNOWN


def matches(media: str, patterns: Collection[str]) -> bool:
    """Is this type one of those: `image/png`, `image/*`?"""
    return any(fnmatch.fnmatchcase(media, pattern) for pattern in patterns)


def media_types(name: str, head: bytes) -> frozenset[str]:
    """What the first bytes of a file of this name may be."""
    named, suffix = media_type(name), f".{extension(name)}"
    text = _is_text(head)
    found = [each for each in signatures(head[:HEAD]) if not (text and each.confidence < _WEAK)]
    if found:
        best = max(each.confidence for each in found)
        ties = [each for each in found if each.confidence == best]
        types = {each.media or UNKNOWN for each in [each for each in ties if each.extension == suffix] or ties}
        if "application/xml" in types and named.endswith("+xml"):
            types = {named}
        return frozenset(types)
    if not head:
        return frozenset({named})
    if text:
        return frozenset({_TEXT, named} if _LIKE_TEXT.fullmatch(named) else {_TEXT})
    return frozenset({UNKNOWN} if suffix in EXTENSIONS or _LIKE_TEXT.fullmatch(named) else {UNKNOWN, named})


def _is_text(head: bytes) -> bool:
    begins = head[:_READ]
    try:
        codecs.utf_8_decode(begins, "strict", len(head) <= _READ)
    except UnicodeDecodeError:
        return False
    return len(begins.translate(None, _NOT_IN_TEXT)) == len(begins)


def check_name(settings: Settings, name: str) -> None:
    """Raises ProblemError 422 if no file of this name is taken (F-TYPE-1)."""
    if settings.allow_extensions and extension(name) not in settings.allow_extensions:
        raise _refused(f"This server takes files that end in {_names(f'.{e}' for e in settings.allow_extensions)}.")
    if not settings.allow_types:
        return
    media = media_type(name)
    if media != UNKNOWN and not matches(media, settings.allow_types):
        raise _refused(f"{name} is {media} by its name; this server takes {_names(settings.allow_types)}.")


def check_bytes(settings: Settings, name: str, head: bytes) -> None:
    """Raises ProblemError 422 if a file that begins so is not taken (F-TYPE-2)."""
    if not takes(settings, name, head):
        told, taken = _names(sorted(media_types(name, head))), _names(settings.allow_types)
        raise _refused(f"By its first bytes {name} is {told}; this server takes {taken}.")


def takes(settings: Settings, name: str, head: bytes) -> bool:
    """Is a file that begins so taken?"""
    if not settings.allow_types:
        return True
    return any(matches(media, settings.allow_types) for media in media_types(name, head))


def _refused(why: str) -> ProblemError:
    return ProblemError("type-not-allowed", f"{why} Nothing of it is published.")


def _names(of: Iterable[str]) -> str:
    return ", ".join(of)
