"""Field values of section 1 of protocol.md: what each grammar takes and refuses, and that both ends agree.

Rule of this file: a refusal is always a FieldError with the field's name. Traps, where a library of Python is
more lenient than the grammar, stand in tables. The values of RFC 9110 are in test_fields_http.py.
"""

import base64
import hashlib
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol import fields
from holdfast_protocol.digest import Digest, UnknownAlgorithm, available, size, tus_name
from holdfast_protocol.fields import ParallelOffer
from holdfast_protocol.problem import KINDS, FieldError

FIELD = "X-Field"
latin1 = st.text(st.characters(max_codepoint=255))
syntax = st.text(st.sampled_from("?01;,=()-:\"'*%+/ \tabytesYQW\\GMT"))


def refused(call: Callable[..., object], *arguments: object, field: str = FIELD) -> str:
    with pytest.raises(FieldError) as info:
        call(*arguments)
    assert info.value.field == field
    return info.value.reason


def outcome(read: Callable[[str], object], text: str) -> object:
    try:
        return read(text)
    except (FieldError, UnknownAlgorithm) as error:
        return error


@pytest.mark.rule("V-PROBLEM-2")
@given(st.sampled_from(sorted(KINDS)), st.text())
def test_a_problem_in_a_field_keeps_its_code_and_what_a_field_can_hold(code: str, detail: str) -> None:
    found, said = fields.parse_problem(fields.format_problem(code, detail))
    assert (found, len(said)) == (code, len(detail))
    assert all(char in (each, "?") for char, each in zip(said, detail, strict=True))


@pytest.mark.parametrize("text", ["", '"gone"', "gone;detail", "gone;detail=1", "gone, gone", "?1"])
def test_what_is_no_problem(text: str) -> None:
    refused(fields.parse_problem, text, field="Upload-Problem")


READERS: dict[str, Callable[[str], object]] = {
    "integer": lambda text: fields.parse_integer(FIELD, text),
    "boolean": lambda text: fields.parse_boolean(FIELD, text),
    "metadata": fields.parse_metadata,
    "checksum": fields.parse_checksum,
    "digests": lambda text: fields.parse_digests(FIELD, text),
    "wants": lambda text: fields.parse_wants(FIELD, text),
    "missing": fields.parse_missing,
    "offer": fields.parse_offer,
    "problem": fields.parse_problem,
    "key": fields.parse_key,
    "media": fields.media_type,
    "byte ranges": lambda text: fields.parse_byte_ranges(text, 1000),
    "content range": fields.parse_content_range,
    "date": fields.parse_http_date,
    "retry": lambda text: fields.parse_retry_after(text, 0.0),
    "wait": fields.parse_wait,
    "disposition": fields.parse_disposition,
    "entity tags": fields.parse_entity_tags,
}


@pytest.mark.parametrize("name", READERS)
@given(text=latin1 | syntax)
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    """Nothing that can come over the wire raises anything else, and a refusal says which field and why."""
    found = outcome(READERS[name], text)
    if isinstance(found, FieldError):
        assert found.field
        assert found.reason
    elif isinstance(found, UnknownAlgorithm):
        assert found.algorithm == text.partition(" ")[0]


@pytest.mark.rule("V-INT-1")
@given(st.integers(0, 10**18 - 1), st.integers(0, 17))
def test_integers(number: int, zeros: int) -> None:
    text = str(number).rjust(min(18, len(str(number)) + zeros), "0")
    assert fields.parse_integer(FIELD, text) == number


@pytest.mark.rule("V-INT-1")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "+5",
        "-5",
        "-0",
        " 5",
        "5 ",
        "5\n",
        "1_000",
        "1.0",
        "1e3",
        "0x10",
        "5,5",
        "5, 5",
        "\u0665",
        "\u00b2",
        "\uff15",
        "1" * 19,
        "0" * 19,
        "None",
        "5\x00",
    ],
)
def test_what_int_takes_and_the_grammar_does_not(text: str) -> None:
    assert "digits" in refused(fields.parse_integer, FIELD, text)


@pytest.mark.rule("V-BOOL-1")
@pytest.mark.parametrize(
    ("text", "value"), [("?1", True), ("?0", False), ("?1;granule=5;x", True), ("?0; a=?1", False)]
)
def test_booleans(text: str, value: bool) -> None:
    """Parameters are let through and passed over."""
    assert fields.parse_boolean(FIELD, text) is value


@pytest.mark.rule("V-BOOL-1")
@pytest.mark.parametrize(
    "text", ["", "1", "0", "true", "?", "?2", "?1?1", "?1, ?1", "?1,", "? 1", "?1 x", "?T", "(?1)", "\u20ac1", "?1;"]
)
def test_what_is_no_boolean(text: str) -> None:
    """Two fields that were joined are not one; a character outside of latin-1 does not turn into another."""
    refused(fields.parse_boolean, FIELD, text)


@pytest.mark.rule("V-BOOL-1")
@given(st.booleans())
def test_booleans_round_trip(value: bool) -> None:
    assert fields.parse_boolean(FIELD, fields.format_boolean(value)) is value


metadata_keys = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1, max_size=8
)


@pytest.mark.rule("V-META-1")
@given(st.dictionaries(metadata_keys, st.binary(max_size=40) | st.text(st.characters(exclude_categories=["Cs"]))))
def test_metadata_round_trips(metadata: dict[str, str | bytes]) -> None:
    """Text as UTF-8, in the order given."""
    text = fields.format_metadata(metadata)
    assert text.isascii()
    assert list(fields.parse_metadata(text).items()) == [
        (key, value.encode() if isinstance(value, str) else value) for key, value in metadata.items()
    ]


@pytest.mark.rule("V-META-1")
@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ("", {}),
        (" \t", {}),
        ("filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential",
         {"filename": b"world_domination_plan.pdf", "is_confidential": b""}),
        ("a YQ== , b Yg==\t,\tc ", {"a": b"a", "b": b"b", "c": b""}),
        ("key", {"key": b""}),
        ("a =;\"'", None),
        ("\xe0\x85\xa0 YQ==", {"\xe0\x85\xa0": b"a"}),
        ("\x85,\xa0", {"\x85": b"", "\xa0": b""}),
        ("a +/+/", {"a": b"\xfb\xff\xbf"}),
        ("a a", None),
        (",", None),
        ("a YQ==,", None),
        (",a YQ==", None),
        ("a YQ==,,b YQ==", None),
        ("a YQ==, ,b YQ==", None),
        ("a YQ==,a Yg==", None),
        ("a,a", None),
        ("a  YQ==", None),
        ("a\tYQ==", None),
        ("a\x00b YQ==", None),
        ("a\nb YQ==", None),
        ("a YQ== YQ==", None),
        ("a YQ", None),
        ("a YQ=", None),
        ("a YQ===", None),
        ("a =", None),
        ("a ====", None),
        ("a Y=Q=", None),
        ("a YQ==YQ==", None),
        ("a YQ==\n", None),
        ("a Y Q==", None),
        ("a -_-_", None),
        ("a Y\xe9==", None),
        ("a YQ==;b", None),
        ("a:YQ==", {"a:YQ==": b""}),
    ],
)  # fmt: skip
def test_metadata(text: str, metadata: dict[str, bytes] | None) -> None:
    """Keys may be UTF-8 that was decoded as latin-1, in which some bytes look like blanks to Python."""
    if metadata is None:
        refused(fields.parse_metadata, text, field="Upload-Metadata")
    else:
        assert fields.parse_metadata(text) == metadata


@pytest.mark.rule("V-META-1")
@pytest.mark.parametrize("key", ["", "a b", "a,b", "a\nb", "a\x00", "gr\xf6\xdfe", "\t", "\x7f"])
def test_metadata_keys_that_cannot_be_sent(key: str) -> None:
    refused(fields.format_metadata, {key: "x"}, field="Upload-Metadata")


def test_metadata_keeps_the_bytes_of_undecodable_file_names() -> None:
    name = b"caf\xe9.txt"
    sent = fields.format_metadata({"filename": name.decode("utf-8", "surrogateescape")})
    assert fields.parse_metadata(sent) == {"filename": name}
    refused(fields.format_metadata, {"filename": "\ud800"}, field="Upload-Metadata")


@pytest.mark.rule("V-CHECKSUM-1")
@given(st.sampled_from(available()), st.binary(min_size=64, max_size=64))
def test_checksums_round_trip(algorithm: str, raw: bytes) -> None:
    digest = Digest(algorithm, raw[: size(algorithm)])
    text = fields.format_checksum(digest)
    assert text == f"{tus_name(algorithm)} {base64.b64encode(digest.value).decode()}"
    assert fields.parse_checksum(text) == digest


@pytest.mark.rule("V-CHECKSUM-1")
def test_the_checksum_of_the_tus_text() -> None:
    assert fields.parse_checksum("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=") == Digest(
        "sha", hashlib.sha1(b"hello world").digest()
    )


@pytest.mark.rule("V-CHECKSUM-1")
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "sha1",
        "sha1 ",
        "sha1  Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
        "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0",
        "sha1\tKq5sNclPz7QV2+lfQIuc6R7oRu0=",
        "sha1 Kq5sNclPz7QV2-lfQIuc6R7oRu0=",
        "sha1 YQ==",
        "sha256 YQ==",
        "md5 XrY7u+Ae7tCTyyK7j1rNww== ",
        " md5 XrY7u+Ae7tCTyyK7j1rNww==",
        "md5 XrY7u+Ae7tCTyyK7j1rNww==, md5 x",
    ],
)
def test_malformed_checksums(text: str) -> None:
    refused(fields.parse_checksum, text, field="Upload-Checksum")


@pytest.mark.rule("V-CHECKSUM-1")
@pytest.mark.parametrize("name", ["crc32", "sha-256", "SHA1", "sha", "x"])
def test_unknown_checksums(name: str) -> None:
    with pytest.raises(UnknownAlgorithm) as info:
        fields.parse_checksum(f"{name} YQ==")
    assert info.value.algorithm == name


def test_formatting_an_unknown_checksum() -> None:
    with pytest.raises(UnknownAlgorithm):
        fields.format_checksum(Digest("crc32", b"abcd"))


def b64(length: int) -> str:
    return base64.b64encode(bytes(length)).decode()


@pytest.mark.rule("V-DIGEST-1")
@given(st.lists(st.sampled_from(available()), unique=True, min_size=1), st.binary(min_size=64, max_size=64))
def test_digests_round_trip(algorithms: list[str], raw: bytes) -> None:
    digests = tuple(Digest(algorithm, raw[: size(algorithm)]) for algorithm in algorithms)
    assert fields.parse_digests(FIELD, fields.format_digests(digests)) == digests


@pytest.mark.rule("V-DIGEST-1")
def test_digests_on_the_wire() -> None:
    """The example of RFC 9530, section 2."""
    text = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    digest = Digest("sha-256", hashlib.sha256(b'{"hello": "world"}\n').digest())
    assert fields.format_digests([digest]) == text
    assert fields.parse_digests(FIELD, text) == (digest,)


@pytest.mark.rule("V-DIGEST-1")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        (f"md5=:{b64(16)}:, sha=:{b64(20)}:", ["md5", "sha"]),
        (f"md5=:{b64(16)}:,sha=:{b64(20)}:", ["md5", "sha"]),
        (f"unixsum=:YQ==:, md5=:{b64(16)}:", ["md5"]),
        ("unixsum=:YQ==:, unixcksum=::", []),
        (f"md5=:{b64(16)}:;q=1", ["md5"]),
        (f"md5=:{b64(16).rstrip('=')}:", ["md5"]),
        (f"md5=:YQ==:, md5=:{b64(16)}:", ["md5"]),
    ],
)
def test_digests(text: str, names: list[str]) -> None:
    """What is not known is passed over, also when nothing remains; RFC 9651 takes the last of two and no padding."""
    assert [digest.algorithm for digest in fields.parse_digests(FIELD, text)] == names


@pytest.mark.rule("V-DIGEST-1")
@pytest.mark.parametrize(
    "text",
    [
        "md5=:YQ==:",
        f"md5=:{b64(17)}:",
        f"sha-256=:{b64(31)}:",
        f"crc32c=:{b64(8)}:",
        "sha-256",
        "sha-256=5",
        'md5="YQ=="',
        f"md5=(:{b64(16)}:)",
        "md5=YQ",
        "unixsum=5",
        "unixsum",
        f"SHA-256=:{b64(32)}:",
        f"sha-256={b64(32)}",
        f"md5=:{b64(16)}:,",
        f"md5=:{b64(16)}: sha=:{b64(20)}:",
        f"md5 = :{b64(16)}:",
        f"md5=:{b64(16)}",
        "md5=:-_-_:",
        "\u20ac",
        ",",
    ],
)
def test_malformed_digests(text: str) -> None:
    refused(fields.parse_digests, FIELD, text)


def test_no_digest_is_no_field() -> None:
    with pytest.raises(ValueError, match="No contents"):
        fields.format_digests([])


@pytest.mark.rule("P-OFFER-2")
@given(st.permutations(available()))
def test_wants_round_trip(algorithms: list[str]) -> None:
    assert fields.parse_wants(FIELD, fields.format_wants(algorithms)) == tuple(algorithms)


@pytest.mark.rule("P-OFFER-2")
def test_weights_fall_from_ten_and_not_below_one() -> None:
    assert fields.format_wants(["xxh3-128", "sha-256"]) == "xxh3-128=10, sha-256=9"
    many = fields.format_wants([f"a{place}" for place in range(12)])
    assert [int(member.partition("=")[2]) for member in many.split(", ")] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1]
    with pytest.raises(ValueError, match="No contents"):
        fields.format_wants([])


@pytest.mark.rule("P-OFFER-2")
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("xxh3-128=10, sha-256=5", ("xxh3-128", "sha-256")),
        ("sha-256=5, xxh3-128=10", ("xxh3-128", "sha-256")),
        ("sha-512=3, sha-256=10, unixsum=10, md5=0", ("sha-256", "sha-512")),
        ("sha-512=3, sha-256=3", ("sha-512", "sha-256")),
        ("sha-256=1;x", ("sha-256",)),
        ("sha-256=0", ()),
        ("", ()),
    ],
)
def test_wants(text: str, wanted: tuple[str, ...]) -> None:
    """By weight, and as they came where weights are equal; not those that are unwanted or unknown."""
    assert fields.parse_wants(FIELD, text) == wanted


@pytest.mark.rule("P-OFFER-2")
@pytest.mark.parametrize(
    "text",
    ["sha-256", "sha-256=11", "sha-256=-1", "sha-256=1.0", "sha-256=?1", "sha-256=(1)", "unixsum=11", "5", "sha-256=a"],
)
def test_malformed_wants(text: str) -> None:
    refused(fields.parse_wants, FIELD, text)


ascending = st.lists(st.integers(0, 10**15 - 1), unique=True, max_size=20).map(
    lambda points: list(zip(*[iter(sorted(points))] * 2, strict=False))
)


@pytest.mark.rule("V-MISSING-1")
@given(ascending.filter(bool), st.booleans())
def test_missing_round_trips(ranges: list[tuple[int, int]], more: bool) -> None:
    assert fields.parse_missing(fields.format_missing(ranges, more)) == (ranges, more)


@pytest.mark.rule("V-MISSING-1")
def test_missing_on_the_wire() -> None:
    """The wire has offsets and lengths, Python has starts and ends."""
    assert fields.format_missing([(65536, 131072), (262144, 262154)], False) == "(65536 65536), (262144 10)"
    assert fields.format_missing(iter([(0, 1), (5, 7)]), True) == "(0 1), (5 2);more"


@pytest.mark.rule("V-MISSING-1")
@pytest.mark.parametrize("more", [True, False])
def test_nothing_missing_is_no_field(more: bool) -> None:
    with pytest.raises(ValueError, match="No contents"):
        fields.format_missing([], more)


def test_a_structured_field_ends_at_fifteen_digits() -> None:
    with pytest.raises(ValueError, match="range"):
        fields.format_missing([(0, 10**15)], False)


@pytest.mark.rule("V-MISSING-1")
@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("", ([], False)),
        ("(0 5)", ([(0, 5)], False)),
        ("(0 5);more", ([(0, 5)], True)),
        ("(0 5);more=?0", ([(0, 5)], False)),
        ("(0 5), (5 5)", ([(0, 5), (5, 10)], False)),
        ("( 0  5 ),\t(7 1);x=1;more", ([(0, 5), (7, 8)], True)),
        ("(0 5);more, (7 1)", ([(0, 5), (7, 8)], False)),
    ],
)
def test_missing(text: str, missing: tuple[list[tuple[int, int]], bool]) -> None:
    assert fields.parse_missing(text) == missing


@pytest.mark.rule("V-MISSING-1")
@pytest.mark.parametrize(
    "text",
    [
        "0 5",
        "(0)",
        "()",
        "(0 5 5)",
        "(0 0)",
        "(0 -1)",
        "(-1 5)",
        "(5 5), (0 5)",
        "(0 5), (4 5)",
        "(0 5), (0 5)",
        "0",
        "?1",
        "(0 5),",
        "(0, 5)",
        "(0 5.0)",
        '("0" 5)',
        "(0 ?1)",
        "(?0 5)",
        "(0 5);more=1",
        "(0 5",
        "(0 5) (7 1)",
        "bytes=0-4",
    ],
)
def test_malformed_missing(text: str) -> None:
    refused(fields.parse_missing, text, field="Upload-Missing")


@pytest.mark.rule("P-OFFER-1")
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_offers_round_trip(granule: int, times: int) -> None:
    offer = ParallelOffer(granule, granule * times)
    assert fields.parse_offer(fields.format_offer(offer)) == offer


@pytest.mark.rule("P-OFFER-1")
def test_an_offer_on_the_wire() -> None:
    assert fields.format_offer(ParallelOffer(65536, 67108864)) == "?1;granule=65536;max-chunk=67108864"


@pytest.mark.rule("P-OFFER-1")
@pytest.mark.parametrize(
    "text",
    [
        "?0",
        "?0;granule=1;max-chunk=1",
        "?1",
        "?1;granule=1",
        "?1;max-chunk=1",
        "?1;granule;max-chunk=1",
        "?1;granule=1;max-chunk",
        "?1;granule=0;max-chunk=0",
        "?1;granule=-1;max-chunk=1",
        "?1;granule=1;max-chunk=-1",
        "?1;granule=1;max-chunk=0",
        "?1;granule=2;max-chunk=3",
        "?1;granule=2;max-chunk=1",
        "?1;granule=1.0;max-chunk=1",
        '?1;granule="1";max-chunk=1',
        "?1;granule=1;max-chunk=1.5",
        "?1;granule=-1;max-chunk=-1",
    ],
)
def test_offers_that_make_no_sense(text: str) -> None:
    """The client goes on as a tus client."""
    assert fields.parse_offer(text) is None


@pytest.mark.rule("P-OFFER-1", "K-KEY-1")
@pytest.mark.parametrize(("said", "keys"), [(";keys", True), (";keys=?0", False), (";keys=1", False), ("", False)])
def test_keys_are_offered(said: str, keys: bool) -> None:
    offer = fields.parse_offer(f"?1;granule=1;max-chunk=2{said}")
    assert offer == ParallelOffer(1, 2, keys=keys)
    assert fields.parse_offer(fields.format_offer(offer)) == offer


@pytest.mark.rule("K-KEY-1")
@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=128))
def test_keys_round_trip(key: str) -> None:
    assert fields.parse_key(fields.format_key(key)) == key


@pytest.mark.rule("K-KEY-1")
@pytest.mark.parametrize("text", ["", '""', "8e03978e", ":YQ==:", "?1", '"a', '"\u00e4"', '"a", "b"', f'"{"x" * 129}"'])
def test_malformed_keys(text: str) -> None:
    refused(fields.parse_key, text, field="Idempotency-Key")


@pytest.mark.rule("P-OFFER-1")
@pytest.mark.parametrize("text", ["", "1", "yes", "?1;granule=65536;max-chunk=65536, ?1", "5;granule=1;max-chunk=1"])
def test_malformed_offers(text: str) -> None:
    refused(fields.parse_offer, text, field="Upload-Parallel")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("disposition", "a;" + " " * 400_000 + "x"),
        ("disposition", "a;" + "x" * 400_000),
        ("disposition", 'a; filename="' + "\\" * 400_001),
        ("disposition", "a" + ";" * 400_000),
        ("entity tags", '"a"' + "," * 400_000 + "x"),
        ("entity tags", '"a",' * 100_000 + "x"),
        ("entity tags", '"a"' + " " * 400_000 + "x"),
        ("metadata", "a " + "AAAA" * 100_000 + "x"),
        ("metadata", "a," * 200_000),
        ("byte ranges", "bytes=" + "0-," * 100_000),
        ("byte ranges", "bytes=" + "," * 400_000),
        ("media", "a" * 400_000),
    ],
    ids=itertools.count(),
)
def test_hard_texts_are_turned_down(name: str, text: str) -> None:
    """Texts on which a careless reader takes quadratic time: it would run into the time limit of the run."""
    found = outcome(READERS[name], text)
    assert found is None or (isinstance(found, FieldError) and len(found.reason) < 200)
