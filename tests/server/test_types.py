"""What a file is, by its name and by its first bytes: `holdfast_server.uploads.types`, by values."""

import io
import itertools
import zipfile
from dataclasses import replace
from pathlib import Path

import puremagic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from puremagic.main import magic_footer_array, magic_header_array, multi_part_dict

from holdfast_protocol.problem import ProblemError
from holdfast_server.settings import Settings
from holdfast_server.uploads import types
from holdfast_server.uploads.signatures import signatures

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(64)
HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
ELF = b"\x7fELF\x02\x01\x01" + bytes(64)
SETTINGS = Settings(data=Path())


def docx() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("[Content_Types].xml", "x")
            archive.writestr("word/document.xml", "x")
        return file.getvalue()


@pytest.mark.parametrize(
    ("name", "head", "media"),
    [
        ("a.png", PNG, "image/png"),
        ("a.txt", PNG, "image/png"),
        ("a.jpg", JPEG, "image/jpeg"),
        ("a.png", HTML, "text/html"),
        ("a", HTML, "text/html"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'>", "image/svg+xml"),
        ("a.svg", b"<?xml version='1.0'?><svg>", "image/svg+xml"),
        ("a.pdf", PDF, "application/pdf"),
        ("a.zip", docx(), "application/zip"),
        ("a.docx", docx(), "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.png", ELF, types.UNKNOWN),
        ("a.png", b"no picture", "text/plain"),
        ("a.png", bytes(64), types.UNKNOWN),
        ("a.txt", b"BMW is no bitmap", "text/plain"),
    ],
)
def test_bytes_with_a_signature_are_what_it_says(name: str, head: bytes, media: str) -> None:
    assert types.media_types(name, head) == {media}


@pytest.mark.parametrize(
    ("name", "head", "believed"),
    [
        ("a.csv", b"a,b\n1,2\n", True),
        ("a.json", b'{"a": 1}', True),
        ("a.json", bytes(9), False),
        ("a.csv", "é".encode("latin-1") + bytes(1), False),
        ("long.txt", "é".encode() * 5000, True),
        ("a.txt", b"a" + "é".encode() * 5000, True),
        ("a.empty", b"", True),
    ],
)
def test_without_a_signature_the_name_is_believed_if_nothing_speaks_against_it(
    name: str, head: bytes, believed: bool
) -> None:
    assert (types.media_type(name) in types.media_types(name, head)) is believed


@pytest.mark.parametrize(
    ("name", "extension"),
    [("a.JPG", "jpg"), ("a.tar.gz", "gz"), ("jpg", ""), (".jpg", ""), ("a.", ""), ("a.b c", "b c")],
)
def test_the_extension_is_what_follows_the_last_dot(name: str, extension: str) -> None:
    assert types.extension(name) == extension


def as_puremagic_says(content: bytes) -> set[tuple[float, str, str]]:
    try:
        return {(each.confidence, each.extension, each.mime_type) for each in puremagic.magic_string(content)}
    except (puremagic.PureError, ValueError):
        return set()


def of_rows(row: puremagic.PureMagic, *, alone: bool) -> bytes:
    """The shortest file that this row is found in, or one that goes on."""
    match: bytes = row.byte_match
    if row.offset < 0:
        return bytes(0 if alone else 600) + match + bytes(-row.offset - len(match))
    return bytes(row.offset) + match + bytes(0 if alone else 600)


def test_every_signature_is_found_as_puremagic_finds_it() -> None:
    rows = [*magic_header_array, *magic_footer_array]
    contents = {of_rows(row, alone=alone) for row in rows for alone in (True, False)}
    for begin, behind in multi_part_dict.items():
        firsts = {of_rows(row, alone=True) for row in rows if row.byte_match == begin and row.offset >= 0}
        for row, first in itertools.product(behind, firsts):
            rest = of_rows(row, alone=False)
            contents.add(first + rest[len(first) :] if row.offset >= 0 else first + rest)
    for content in contents:
        assert {tuple(each) for each in signatures(content)} == as_puremagic_says(content), content[:64]


@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([row.byte_match for row in magic_header_array])),
        max_size=6,
    )
)
def test_any_bytes_have_the_signatures_that_puremagic_finds(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    assert {tuple(each) for each in signatures(content)} == as_puremagic_says(content)


@given(st.text(max_size=20), st.binary(max_size=200))
def test_any_bytes_of_any_name_are_something(name: str, head: bytes) -> None:
    assert types.media_types(name, head)


@pytest.mark.rule("F-TYPE-1")
@pytest.mark.parametrize(
    ("name", "extensions", "media", "taken"),
    [
        ("a.jpg", ("jpg", "png"), (), True),
        ("a.JPG", ("jpg",), (), True),
        ("a.jpg.exe", ("jpg",), (), False),
        ("jpg", ("jpg",), (), False),
        ("a.html", (), ("image/*",), False),
        ("a.png", (), ("image/*",), True),
        ("a.png", (), ("image/jpeg",), False),
        ("no-extension", (), ("image/*",), True),
        ("a.png", ("jpg",), ("image/*",), False),
        ("anything", (), (), True),
    ],
)
def test_names_that_are_taken(name: str, extensions: tuple[str, ...], media: tuple[str, ...], taken: bool) -> None:
    settings = replace(SETTINGS, allow_extensions=extensions, allow_types=media)
    if taken:
        types.check_name(settings, name)
        return
    with pytest.raises(ProblemError) as refused:
        types.check_name(settings, name)
    assert refused.value.code == "type-not-allowed"


@pytest.mark.rule("F-TYPE-2")
def test_bytes_that_are_taken() -> None:
    pictures = replace(SETTINGS, allow_types=("image/*",))
    types.check_bytes(pictures, "a.png", PNG)
    types.check_bytes(pictures, "a.jpg", PNG)
    types.check_bytes(SETTINGS, "a.png", HTML)
    for name, head in (("a.png", HTML), ("a.png", ELF), ("a.png", b"text"), ("a", docx())):
        with pytest.raises(ProblemError) as refused:
            types.check_bytes(pictures, name, head)
        assert (refused.value.code, refused.value.status) == ("type-not-allowed", 422)
