"""Our client at servers of the IETF draft: streams, whose length is known when the last byte has come."""

import hashlib
import random
from collections.abc import AsyncIterator, Callable

import pytest

import holdfast
from holdfast import AsyncClient
from tests.client.draft_loopback import DraftLoopback, completeness, lengths, methods
from tests.client.loopback import Seen

pytestmark = pytest.mark.anyio
MakeClient = Callable[..., AsyncClient]


@pytest.mark.rule("G-IETF-1")
@pytest.mark.parametrize("size", [0, 1, 100_000, 350_000])
async def test_a_stream_says_its_length_with_its_last_bytes(
    make_client: MakeClient, draft: DraftLoopback, rng: random.Random, size: int
) -> None:
    content = rng.randbytes(size)

    async def coming() -> AsyncIterator[bytes]:
        for start in range(0, size, 30_000):
            yield content[start : start + 30_000]

    draft.order("PATCH", "cut", after=50_000)
    async with make_client() as client:
        result = await client.upload(coming(), draft.url, name="tape", chunk_size=100_000)
    kept = draft.only()
    assert (bytes(kept.data), kept.complete, kept.length) == (content, True, size)
    assert (result.protocol, result.digest.value) == ("ietf", hashlib.sha256(content).digest())
    (post,) = draft.requests("POST")
    assert (completeness(post), post.fields.get("upload-length")) == ("?0", None)
    patches = draft.requests("PATCH")
    assert patches[-1].fields["upload-length"] == str(size)
    assert completeness(patches[-1]) == "?1"
    early = [seen for seen in patches if seen.offset is not None and seen.offset + seen.length < size]
    assert all("upload-length" not in seen.fields and completeness(seen) == "?0" for seen in early)


@pytest.mark.rule("G-IETF-13")
async def test_a_stream_that_cannot_go_on_is_cancelled(
    make_client: MakeClient, draft: DraftLoopback, rng: random.Random
) -> None:
    """What the server has lost is not in memory any more."""

    def lose(seen: Seen) -> bool:
        if seen.offset == 100_000:
            draft.only().stored.subtract(0, 100_000)
        return False

    draft.order("PATCH", "cut", when=lose)
    async with make_client() as client:
        with pytest.raises(holdfast.BrokenProtocol, match="went back to 0"):
            await client.upload(iter([rng.randbytes(300_000)]), draft.url, chunk_size=100_000)
    assert methods(draft)[-1] == "DELETE"
    assert draft.uploads == {}


@pytest.mark.rule("G-IETF-5")
@pytest.mark.parametrize(
    ("limits", "says"), [("max-size=150000", "at most 150000"), ("min-size=999999", "at least 999999")]
)
async def test_a_stream_that_does_not_fit_is_cancelled(
    make_client: MakeClient, rng: random.Random, limits: str, says: str
) -> None:
    with DraftLoopback(limits=limits) as draft:
        async with make_client() as client:
            with pytest.raises(holdfast.ServerRefused, match=says):
                await client.upload(iter([rng.randbytes(300_000)]), draft.url, chunk_size=100_000)
        assert methods(draft)[-1] == "DELETE"


@pytest.mark.rule("G-IETF-3")
async def test_a_stream_is_cut_as_the_server_takes_it(make_client: MakeClient, rng: random.Random) -> None:
    with DraftLoopback(limits="max-append-size=120000") as draft:
        async with make_client() as client:
            await client.upload(iter([rng.randbytes(300_000)]), draft.url)
        assert lengths(draft) == [120_000, 120_000, 60_000]
