"""Field values of RFC 9110 and its neighbours: byte ranges, times, entity tags, names of downloads.

Rule of this file: where HTTP has a bad value passed over, the answer is None and the table says so.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol import fields
from holdfast_protocol.fields import EntityTag
from holdfast_protocol.problem import FieldError

filenames = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("application/offset+octet-stream", "application/offset+octet-stream"),
        ("Application/Vnd.Holdfast.Chunk", "application/vnd.holdfast.chunk"),
        ("text/plain; charset=utf-8", "text/plain"),
        ("text/plain\t;x", "text/plain"),
        ("", None),
        ("text", None),
        ("text/", None),
        ("/plain", None),
        ("text /plain", None),
        ("text/plain, text/html", None),
        ("text/pl\xe4in", None),
        ("a/b/c", None),
        (";text/plain", None),
    ],
)
def test_media_types(value: str | None, expected: str | None) -> None:
    assert fields.media_type(value) == expected


@pytest.mark.rule("D-GET-2")
@pytest.mark.parametrize(
    ("value", "length", "expected"),
    [
        ("bytes=0-499", 1000, [(0, 500)]),
        ("bytes=500-", 1000, [(500, 1000)]),
        ("bytes=-1", 1000, [(999, 1000)]),
        ("bytes=-5000", 1000, [(0, 1000)]),
        ("bytes=0-99999", 1000, [(0, 1000)]),
        ("bytes=0-" + "9" * 40, 1000, [(0, 1000)]),
        ("bytes=000-009", 1000, [(0, 10)]),
        ("bytes=0-0,-1", 1000, [(0, 1), (999, 1000)]),
        ("bytes=5-9 ,\t0-4", 1000, [(5, 10), (0, 5)]),
        ("bytes=,0-1,,2-3,", 1000, [(0, 2), (2, 4)]),
        ("BYTES=0-1", 1000, [(0, 2)]),
        ("bytes=0-1,5000-", 1000, [(0, 2)]),
        ("bytes=0-9,5-14", 1000, [(0, 10), (5, 15)]),
        ("bytes=1000-", 1000, []),
        ("bytes=1000-2000,3000-", 1000, []),
        ("bytes=-0", 1000, []),
        ("bytes=0-", 0, []),
        ("bytes=-0", 0, []),
        ("bytes=-5", 0, None),
        ("bytes=5-4", 1000, None),
        ("bytes=0-1,5-4", 1000, None),
        ("bytes=5000-4000", 1000, None),
        ("bytes=0-1,x", 1000, None),
        ("bytes=", 1000, None),
        ("bytes=,", 1000, None),
        ("bytes", 1000, None),
        ("", 1000, None),
        ("bytes=-", 1000, None),
        ("bytes=--1", 1000, None),
        ("bytes=1", 1000, None),
        ("bytes=0 - 1", 1000, None),
        ("bytes=+0-1", 1000, None),
        ("bytes=0-1-2", 1000, None),
        ("bytes=\u0661-\u0662", 1000, None),
        ("bytes=0-\xb2", 1000, None),
        ("bytes =0-1", 1000, None),
        ("byte\u017f=0-1", 1000, None),
        ("items=0-1", 1000, None),
        ("bytes=0-" + "9" * 5000, 1000, None),
        ("bytes=0-9,0-9,0-9", 1000, None),
        ("bytes=0-,1-,2-,3-", 1000, None),
        ("bytes=0-99,10-19,30-39", 1000, None),
    ],
)
def test_byte_ranges(value: str, length: int, expected: list[tuple[int, int]] | None) -> None:
    """RFC 9110, section 14: [] is a 416, None is the whole file."""
    assert fields.parse_byte_ranges(value, length) == expected


@pytest.mark.rule("D-GET-2")
def test_the_number_of_byte_ranges_is_limited() -> None:
    def asked(count: int) -> str:
        return "bytes=" + ",".join(f"{10 * at}-{10 * at + 4}" for at in range(count))

    assert len(fields.parse_byte_ranges(asked(32), 10**6) or []) == 32
    assert fields.parse_byte_ranges(asked(33), 10**6) is None
    assert fields.parse_byte_ranges(asked(3), 10**6, limit=2) is None
    # Unsatisfiable ones count too.
    assert fields.parse_byte_ranges(asked(33), 5) is None


@pytest.mark.rule("D-GET-2")
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60) | st.none()) | st.integers(0, 60), min_size=1, max_size=6
    ),
    st.integers(1, 50),
)
def test_byte_ranges_against_slices(specs: list[tuple[int, int | None] | int], length: int) -> None:
    """Each range gives the bytes that a slice of the file gives, and never more than twice the file in all."""
    data = bytes(range(length))
    texts, slices, sound = [], [], True
    for spec in specs:
        if isinstance(spec, int):
            texts.append(f"-{spec}")
            slices.append(data[-spec:] if spec else b"")
        else:
            first, last = spec
            texts.append(f"{first}-{'' if last is None else last}")
            slices.append(data[first:] if last is None else data[first : last + 1])
            sound = sound and (last is None or first <= last)
    found = fields.parse_byte_ranges(f"bytes={','.join(texts)}", length)
    if found is None:
        wanted = [piece for piece in slices if piece]
        overlapping = sum(map(len, wanted)) > len(set(b"".join(wanted)))
        assert not sound or overlapping
    else:
        assert sound
        assert [data[start:end] for start, end in found] == [piece for piece in slices if piece]
        assert sum(end - start for start, end in found) <= 2 * length


@given(st.integers(0, 10**17), st.integers(1, 10**17), st.integers(0, 10**17))
def test_content_ranges_round_trip(start: int, length: int, rest: int) -> None:
    end, total = start + length, start + length + rest
    assert fields.parse_content_range(fields.format_content_range(start, end, total)) == (start, end, total)


def test_content_ranges_on_the_wire() -> None:
    """The wire names the last byte, Python the one behind it."""
    assert fields.format_content_range(0, 500, 1234) == "bytes 0-499/1234"
    assert fields.format_unsatisfied_range(1234) == "bytes */1234"
    assert fields.parse_content_range("bytes 42-1233/*") == (42, 1234, None)
    assert fields.parse_content_range("Bytes 0-0/1") == (0, 1, 1)


@pytest.mark.parametrize(("start", "end", "total"), [(0, 0, 5), (5, 4, 9), (-1, 4, 9), (0, 6, 5)])
def test_content_ranges_that_are_none(start: int, end: int, total: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        fields.format_content_range(start, end, total)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes */1234",
        "bytes 0-499",
        "bytes 0-499/",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "bytes=0-4/10",
        "bytes  0-4/10",
        "items 0-4/10",
        "byte\u017f 0-4/10",
        "bytes 0-4/10 ",
        "bytes +0-4/10",
        "bytes 0-\u0664/10",
        "bytes -4/10",
        "bytes 0-4/10\n",
        "bytes 0-" + "9" * 19 + "/*",
        "bytes 0-4/10, bytes 0-4/10",
    ],
)
def test_malformed_content_ranges(text: str) -> None:
    with pytest.raises(FieldError) as info:
        fields.parse_content_range(text)
    assert info.value.field == "Content-Range"


@pytest.mark.rule("V-TIME-1")
@given(st.integers(0, 253402300799), st.floats(0, 0.999))
def test_times_round_trip(epoch: int, part: float) -> None:
    """Rounded down to the second."""
    text = fields.format_http_date(epoch + part if epoch < 2**31 else epoch)
    assert fields.parse_http_date(text) == epoch
    assert len(text) == 29


@pytest.mark.rule("V-TIME-1")
def test_times_on_the_wire() -> None:
    """The three forms of RFC 9110, section 5.6.7, of which only the first is sent."""
    assert fields.format_http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert fields.format_http_date(784111777.999) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert fields.format_http_date(-0.5) == "Wed, 31 Dec 1969 23:59:59 GMT"
    for text in (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Mon, 06 Nov 1994 08:49:37 GMT",
    ):
        assert fields.parse_http_date(text) == 784111777.0
    assert fields.parse_http_date("Sun Nov 16 08:49:37 1994") == 784111777.0 + 864000
    assert fields.parse_http_date("Tuesday, 31-Dec-69 23:59:59 GMT") == 3155759999.0
    assert fields.parse_http_date("Thursday, 01-Jan-70 00:00:00 GMT") == 0.0
    assert fields.parse_http_date("Thursday, 06-Nov-25 08:49:37 GMT") == 1762418977.0


@pytest.mark.rule("V-TIME-1")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Son, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, 0\u0666 Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert fields.parse_http_date(text) is None


@pytest.mark.parametrize(
    ("text", "now", "seconds"),
    [
        ("0", 0.0, 0.0),
        ("120", 1e9, 120.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111770.5, 6.5),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111780.0, 0.0),
        ("-1", 0.0, None),
        ("1.5", 0.0, None),
        ("+5", 0.0, None),
        ("soon", 0.0, None),
        ("", 0.0, None),
        ("9" * 19, 0.0, None),
    ],
)
def test_retry_after(text: str, now: float, seconds: float | None) -> None:
    """Seconds from now, never below zero, whichever form was sent."""
    assert fields.parse_retry_after(text, now) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("wait=10", 10),
        ("respond-async, Wait = 0 ;x", 0),
        ('wait="7", wait=9', 7),
        ("handling=lenient,wait=3", 3),
        ("wait", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=10s", None),
        ("wait=" + "9" * 10, None),
        ("await=3", None),
        ("respond-async; wait=3", None),
        ("", None),
        (None, None),
    ],
)
@pytest.mark.rule("P-COMPLETE-4")
def test_how_long_a_client_would_wait(text: str | None, seconds: int | None) -> None:
    """A preference that cannot be read is passed over (RFC 7240, section 2)."""
    assert fields.parse_wait(text) == seconds


@pytest.mark.rule("D-GET-1")
@given(filenames)
def test_dispositions_round_trip(filename: str) -> None:
    """Any name comes back as it was, over a field that is plain ASCII and has nothing in it to break out with."""
    text = fields.format_disposition(filename)
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith('attachment; filename="')
    assert text.count('"') == 2
    assert text.count(";") == 2 + filename.count(";")
    assert fields.parse_disposition(text) == filename


@pytest.mark.rule("D-GET-1")
@pytest.mark.parametrize(
    ("filename", "text"),
    [
        ("film.mkv", "attachment; filename=\"film.mkv\"; filename*=UTF-8''film.mkv"),
        ("a b.txt", "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"),
        ("gr\xf6\xdfe \u20ac", "attachment; filename=\"gr__e _\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%E2%82%AC"),
        ('x"\r\nSet-Cookie: a=b', ("attachment; filename=\"x___Set-Cookie: a=b\"; "
         "filename*=UTF-8''x%22%0D%0ASet-Cookie%3A%20a%3Db")),
        ("100%25\\", "attachment; filename=\"100_25_\"; filename*=UTF-8''100%2525%5C"),
        ("(a*b')~", "attachment; filename=\"(a*b')~\"; filename*=UTF-8''%28a%2Ab%27%29~"),
        ("a\ud800", "attachment; filename=\"a_\"; filename*=UTF-8''a%3F"),
    ],
)  # fmt: skip
def test_dispositions_on_the_wire(filename: str, text: str) -> None:
    """RFC 6266 and RFC 8187: the characters that are sent as they are, are exactly those of attr-char."""
    assert fields.format_disposition(filename) == text


@pytest.mark.parametrize(
    ("text", "filename"),
    [
        ("attachment; filename=film.mkv", "film.mkv"),
        ('attachment; filename="film.mkv"', "film.mkv"),
        ('inline;filename = "a;b.txt" ; x=y', "a;b.txt"),
        ('attachment; filename="a\\"b\\\\c"', 'a"b\\c'),
        ("attachment; FileName=a.txt", "a.txt"),
        ("attachment; filename=two words.txt ; x", "two words.txt"),
        ("attachment; filename*=UTF-8''%e2%82%ac.txt; filename=x", "\u20ac.txt"),
        ("attachment; filename=x; filename*=utf-8'en'%e2%82%ac.txt", "\u20ac.txt"),
        ("attachment; filename*=ISO-8859-1''%a3.txt", "\xa3.txt"),
        ("attachment; filename*=UTF-8''%ff; filename=x", "x"),
        ("attachment; filename*=UTF-16''%ff%fe; filename=x", "x"),
        ("attachment; filename*=x; filename=y", "y"),
        ("attachment; filename*=UTF-8'x; filename=y", "y"),
        ("attachment; filename*=UTF-8''%ff", None),
        ("attachment; filename=gr\xc3\xb6\xc3\x9fe", "gr\xf6\xdfe"),
        ("attachment; filename=gr\xf6\xdfe", "gr\xf6\xdfe"),
        ("attachment; filename=\u20ac", "\u20ac"),
        ("attachment; filename=a; filename=b", "a"),
        ("attachment;; ;filename=a", "a"),
        ("attachment; x; filename=a", "a"),
        ("attachment; filename=../../etc/passwd", "../../etc/passwd"),
        ('attachment; filename="a\nb"', "a\nb"),
        ('attachment; filename=""', None),
        ('attachment; filename="unfinished', None),
        ("attachment; filename=\"a\" junk; filename*=UTF-8''b", "a"),
        ("attachment; filename=", None),
        ("attachment", None),
        ("", None),
        ("filename=a", None),
        ("; filename=a", "a"),
        ("attachment; name=a", None),
    ],
)
def test_dispositions_of_others(text: str, filename: str | None) -> None:
    assert fields.parse_disposition(text) == filename


tags = st.builds(
    EntityTag, st.text(st.characters(min_codepoint=0x23, max_codepoint=0xFF, exclude_categories=["Cc"])), st.booleans()
)


@pytest.mark.rule("D-GET-3")
@given(st.lists(tags, min_size=1))
def test_entity_tags_round_trip(values: list[EntityTag]) -> None:
    assert fields.parse_entity_tags(", ".join(map(str, values))) == values
    assert fields.parse_entity_tags(" ,".join(map(str, values))) == values


@pytest.mark.rule("D-GET-3")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", "*"),
        (" * ", "*"),
        ('"abc"', [EntityTag("abc", False)]),
        ('W/"abc"', [EntityTag("abc", True)]),
        ('""', [EntityTag("", False)]),
        ('"a,b" ,W/"c"', [EntityTag("a,b", False), EntityTag("c", True)]),
        (', "a",, "b" ,', [EntityTag("a", False), EntityTag("b", False)]),
        ('"W/"', [EntityTag("W/", False)]),
        ('"\\"', [EntityTag("\\", False)]),
        ('"*"', [EntityTag("*", False)]),
    ],
)
def test_entity_tags(text: str, expected: Any) -> None:
    assert fields.parse_entity_tags(text) == expected


@pytest.mark.rule("D-GET-3")
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "abc",
        '"abc',
        'abc"',
        'w/"abc"',
        'W/ "abc"',
        '"a" "b"',
        '"a""b"',
        '"a b"',
        '"a", *',
        "*, *",
        '"\x7f"',
        '"\n"',
        '"a";x',
        "Sun, 06 Nov 1994 08:49:37 GMT",
        '"\u20ac"',
    ],
)
def test_malformed_entity_tags(text: str) -> None:
    with pytest.raises(FieldError) as info:
        fields.parse_entity_tags(text)
    assert info.value.field == "ETag"
    with pytest.raises(FieldError) as info:
        fields.parse_entity_tags(text, "If-Match")
    assert info.value.field == "If-Match"
