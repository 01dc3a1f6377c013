"""Holes by value: what a head that speaks of one comes to, and what the client says and hears."""

from dataclasses import dataclass

import pytest

from holdfast_protocol import client, dialects, fields
from holdfast_protocol.digest import Digest, digest
from holdfast_protocol.fields import ParallelOffer
from holdfast_protocol.messages import Headers, Response, Span
from holdfast_protocol.problem import ProblemError
from holdfast_protocol.server import Limits, StoreChunk, StoreHole

GRANULE = 65536
LIMITS = Limits(1 << 40, 2 * GRANULE)
URL = "http://127.0.0.1/files/1"


@dataclass
class Receiving:
    """An upload of which nothing is stored yet."""

    length: int | None = 100 * GRANULE + 5
    state: str = "receiving"
    prefix: int = 0
    parallel: bool = True
    concat: str | None = None
    granule: int = GRANULE
    metadata: str | None = None
    expires: float | None = None
    error: str | None = None
    computed: tuple[Digest, ...] = ()


def head(**other: str) -> Headers:
    """That of a hole; `other` replaces or adds fields, an empty value leaves one out."""
    said = {"Content-Type": "application/vnd.holdfast.chunk", "Upload-Offset": "0", "Upload-Hole": str(GRANULE)}
    said |= {name.replace("_", "-"): value for name, value in other.items()}
    return Headers([(name, value) for name, value in said.items() if value])


def refused(asked: Headers, length: int | None = Receiving.length) -> str:
    with pytest.raises(ProblemError) as caught:
        dialects.decide_patch(asked, Receiving(length), LIMITS)
    return caught.value.code


@pytest.mark.rule("P-HOLE-1", "P-HOLE-2")
@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, GRANULE), (GRANULE, 50 * GRANULE), (0, 100 * GRANULE + 5), (100 * GRANULE, 5)],
    ids=["one granule", "longer than any chunk", "all of the upload", "the short end"],
)
def test_a_hole_is_a_range_without_a_body(offset: int, length: int) -> None:
    asked = head(Upload_Offset=str(offset), Upload_Hole=str(length))
    assert dialects.decide_patch(asked, Receiving(), LIMITS) == StoreHole(offset, offset + length)


@pytest.mark.rule("P-HOLE-1")
def test_the_digest_of_a_hole_is_that_of_an_empty_body() -> None:
    """As RFC 9530 has it: `Content-Digest` is of the content."""
    of_nothing, of_zeros = (
        fields.format_digests([Digest("sha-256", digest("sha-256", data).value)]) for data in (b"", bytes(GRANULE))
    )
    assert dialects.decide_patch(head(Content_Digest=of_nothing), Receiving(), LIMITS) == StoreHole(0, GRANULE)
    assert refused(head(Content_Digest=of_zeros)) == "digest-mismatch"


@pytest.mark.rule("P-HOLE-1", "P-HOLE-2", "T-DEFER-4")
@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"Content_Length": "65536"}, "conflicting-fields"),
        ({"Transfer_Encoding": "chunked"}, "conflicting-fields"),
        ({"Upload_Complete": "?1"}, "conflicting-fields"),
        ({"Upload_Hole": "0"}, "malformed-field"),
        ({"Upload_Hole": "+65536"}, "malformed-field"),
        ({"Upload_Hole": "?1"}, "malformed-field"),
        ({"Upload_Offset": ""}, "missing-field"),
        ({"Upload_Offset": "1"}, "misaligned-chunk"),
        ({"Upload_Hole": "65537"}, "misaligned-chunk"),
        ({"Upload_Hole": str(101 * GRANULE)}, "out-of-bounds"),
        ({"Content_Digest": "none=:AAAA:"}, "unknown-algorithm"),
    ],
)
def test_a_malformed_hole_is_refused(other: dict[str, str], code: str) -> None:
    assert refused(head(**other)) == code


@pytest.mark.rule("T-DEFER-4")
def test_a_hole_needs_the_length() -> None:
    assert refused(head(), None) == "length-unknown"


@pytest.mark.rule("P-HOLE-1")
def test_without_the_field_it_is_a_chunk() -> None:
    proof = fields.format_digests([digest("sha-256", bytes(GRANULE))])
    asked = head(Upload_Hole="", Content_Length=str(GRANULE), Content_Digest=proof)
    assert isinstance(dialects.decide_patch(asked, Receiving(), LIMITS), StoreChunk)


@pytest.mark.rule("P-OFFER-1")
@pytest.mark.parametrize(
    ("said", "holes"),
    [(";holes", True), (";holes=?1", True), (";holes=?0", False), ("", False), (";holes=1", False)],
)
def test_holes_are_sent_where_they_are_offered(said: str, holes: bool) -> None:
    assert fields.parse_offer(f"?1;granule=1;max-chunk=2{said}") == ParallelOffer(1, 2, holes)


@pytest.mark.rule("P-OFFER-1")
def test_an_offer_of_holes_is_read_back() -> None:
    offer = ParallelOffer(GRANULE, 2 * GRANULE, holes=True)
    assert fields.parse_offer(fields.format_offer(offer)) == offer


@pytest.mark.rule("P-HOLE-1")
def test_what_the_client_says_and_hears() -> None:
    steps = client.hole(URL, Span(GRANULE, 3 * GRANULE))
    request = next(steps)
    assert (request.method, request.url, request.body) == ("PATCH", URL, None)
    asked = Headers(list(request.headers.items()))
    assert dialects.decide_patch(asked, Receiving(), LIMITS) == StoreHole(GRANULE, 3 * GRANULE)
    with pytest.raises(StopIteration) as done:
        steps.send(Response(204, Headers([("Upload-Offset", "7")])))
    assert done.value.value == client.Stored(7)
