"""File names from anywhere, made safe: whatever comes in, what comes out is a plain name on every file system."""

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast_protocol.names import LONGEST, safe_name

DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{kind}{digit}" for kind in ("com", "lpt") for digit in "0123456789¹²³"
}
BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

nasty = st.text(
    st.sampled_from(
        'ab.  /\\\0\n\x7f<>:"|?*e\u0301\u0338=\u202e\u200b\u200d\u00a0\u2003\u2028\ud800éß中😀\u0344\u1100\u1161'
    )
)
anything = st.text(st.characters(codec=None)) | nasty
long_names = st.tuples(nasty, st.integers(100, 900), nasty).map(lambda parts: parts[0] * parts[1] + parts[2])


@given(anything | long_names | st.sampled_from(sorted(DEVICES)).flatmap(lambda d: nasty.map(lambda t: f"{d}{t}")))
@example("con" + " " * 300 + "x.txt")
@example("con" + " " * 300)
@example("nul." + "x" * 300)
@example("a." + "é" * 120)
def test_a_safe_name_is_safe(raw: str) -> None:
    name = safe_name(raw)
    assert name
    assert len(name.encode("utf-8")) <= LONGEST
    assert not set(name) & (set('<>:"|?*/\\') | BIDI)
    assert not any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in name)
    assert name == name.strip().strip(".")
    assert unicodedata.is_normalized("NFC", name)
    assert name.partition(".")[0].rstrip(" ").lower() not in DEVICES
    assert PurePosixPath(name).name == PureWindowsPath(name).name == name
    assert safe_name(name) == name


@given(st.text("abcXYZ019_- ()é中", min_size=1, max_size=40))
def test_a_good_name_stays(stem: str) -> None:
    name = f"x{stem}x.tar.gz"
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("film.mkv", "film.mkv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\film.mkv", "film.mkv"),
        ("a/b\\c/", "c"),
        ("/", "upload"),
        ("", "upload"),
        (".", "upload"),
        ("..", "upload"),
        (" . .\t", "upload"),
        (".bashrc", "bashrc"),
        ("name. ", "name"),
        ("a\nb\0c\x7f.txt", "abc.txt"),
        ("film\u202egpj.exe", "filmgpj.exe"),
        ("\ud800", "upload"),
        ("\u200b\ufeff", "upload"),
        ('a<b>c:d"e|f?g*h', "a_b_c_d_e_f_g_h"),
        ("cafe\u0301", "caf\u00e9"),
        ("e\u200b\u0301", "\u00e9"),
        ("nul", "_nul"),
        ("NUL.txt", "_NUL.txt"),
        ("Com1.tar.gz", "_Com1.tar.gz"),
        ("lpt¹ .log", "_lpt¹ .log"),
        ("CONOUT$", "_CONOUT$"),
        ("console.txt", "console.txt"),
        ("com10", "com10"),
        ("nul/", "_nul"),
        ("family \U0001f468\u200d\U0001f469.jpg", "family \U0001f468\u200d\U0001f469.jpg"),
        ("x" * 300, "x" * 200),
        ("x" * 300 + ".mkv", "x" * 196 + ".mkv"),
        ("é" * 150 + ".mkv", "é" * 98 + ".mkv"),
        ("\U0001f600" * 60, "\U0001f600" * 50),
        ("a." + "x" * 300, "a." + "x" * 198),
        ("x" * 300 + "." + "y" * 31, "x" * 168 + "." + "y" * 31),
        ("x" * 300 + "." + "y" * 32, "x" * 200),
        ("x" * 199 + " ." + "y" * 300, "x" * 199),
        ("x" * 5000 + ".mkv", "x" * 196 + ".mkv"),
        ("con" + " " * 300 + "x.txt", "_con" + " " * 192 + ".txt"),
    ],
)
def test_names(raw: str, name: str) -> None:
    assert safe_name(raw) == name


def test_the_default_is_asked_for_only_when_nothing_remains() -> None:
    assert safe_name("...", "film") == "film"
    assert safe_name("a", "film") == "a"


def test_a_long_name_of_combining_marks_is_no_burden() -> None:
    """Two classes of marks in turn are what normalizing sorts in quadratic time; most of them go before that."""
    name = safe_name("e" + "\u0301\u0323" * 500_000 + ".txt")
    assert name.startswith("\u1eb9\u0323")
    assert name.endswith(".txt")
    assert len(name.encode()) <= LONGEST
