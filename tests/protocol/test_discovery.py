"""Discovery, by values: what is believed of an answer to OPTIONS, and what is passed over."""

import pytest

from holdfast_protocol.discovery import CONCATENATION, Services, discover
from holdfast_protocol.drafts import DRAFTS
from holdfast_protocol.messages import Headers, Response
from holdfast_protocol.size_limits import SizeLimits

URL = "http://host/files"


def said(status: int, fields: dict[str, str] | list[tuple[str, str]]) -> Services:
    steps = discover(URL)
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.send(Response(status, Headers(fields)))
    services: Services = stop.value.value
    return services


def test_options_goes_without_a_version() -> None:
    """tus 1.0.0, OPTIONS: Tus-Resumable is on every request but this one. The draft wants its own version there."""
    request = next(discover(URL))
    sent = {"Upload-Draft-Interop-Version": "9"}
    assert (request.method, request.url, dict(request.headers), request.body) == ("OPTIONS", URL, sent, None)


@pytest.mark.parametrize("status", [200, 204])
def test_a_good_answer(status: int) -> None:
    services = said(
        status,
        {
            "Tus-Version": "1.0.0,0.2.2",
            "Tus-Extension": "creation, checksum,concatenation",
            "Tus-Max-Size": "1000",
            "Tus-Checksum-Algorithm": "md5,sha1,SHA256,crc32",
        },
    )
    assert services.extensions == {"creation", "checksum", "concatenation"}
    assert services.offers(CONCATENATION)
    assert services.max_size == 1000
    assert services.checksums == ("sha-256", "md5", "sha")
    assert services.checksum == "sha-256"
    assert not services.parallel
    assert services.lasting


@pytest.mark.rule("P-OFFER-1")
def test_the_parallel_dialect_is_seen() -> None:
    assert said(204, {"Upload-Parallel": "?1;granule=65536;max-chunk=65536"}).parallel


@pytest.mark.parametrize(
    ("fields", "services"),
    [
        ({}, Services(tus=False)),
        ({"Tus-Version": "2.0.0", "Tus-Extension": "concatenation"}, Services()),
        ({"Tus-Version": "1.0.0", "Tus-Max-Size": "many"}, Services()),
        ({"Tus-Max-Size": "0"}, Services()),
        ([("Tus-Max-Size", "5"), ("Tus-Max-Size", "6")], Services()),
        ({"Tus-Extension": " ,, "}, Services()),
        ({"Upload-Parallel": "yes"}, Services(tus=False)),
        (
            {"Tus-Extension": "checksum", "Tus-Checksum-Algorithm": "whirlpool"},
            Services(frozenset({"creation", "checksum"})),
        ),
        ({"Tus-Checksum-Algorithm": "sha1"}, Services()),
    ],
)
def test_what_is_said_badly_is_passed_over(fields: dict[str, str], services: Services) -> None:
    found = said(204, fields)
    assert found == services
    assert found.checksum is None


@pytest.mark.rule("G-AUTO-1")
@pytest.mark.parametrize(
    ("fields", "tus"),
    [
        ({}, False),
        ({"Upload-Limit": "min-size=0"}, False),
        ({"Tus-Version": "1.0.0"}, True),
        ({"tus-resumable": "1"}, True),
    ],
)
def test_whether_tus_is_named(fields: dict[str, str], tus: bool) -> None:
    assert said(204, fields).tus == tus


@pytest.mark.rule("G-VERSION-2", "G-DIGEST-1")
def test_what_is_said_of_the_draft() -> None:
    services = said(204, {"Upload-Limit": "max-size=9, expires=5", "Want-Content-Digest": "sha-256=3, md5=5"})
    assert services.draft is DRAFTS[6]
    assert services.limits == SizeLimits(max_size=9)
    assert services.wants == ("md5", "sha-256")
    assert said(204, {"Want-Content-Digest": "="}).wants == ()


@pytest.mark.parametrize(
    ("status", "lasting"),
    [(404, True), (405, True), (501, True), (301, True), (401, False), (429, False), (500, False), (503, False)],
)
def test_a_refusal_is_plain_tus(status: int, lasting: bool) -> None:
    """A server that asks for patience or credentials is asked again by the next upload."""
    found = said(status, {"Tus-Extension": "concatenation"})
    assert found == Services(lasting=lasting)
