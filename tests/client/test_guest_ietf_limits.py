"""Our client at servers of the IETF draft: what is sent, and what is not, within limits and lifetimes."""

from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient
from tests.client.draft_loopback import DraftLoopback, lengths, methods, same
from tests.client.loopback import Seen

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


@pytest.mark.rule("G-IETF-2")
async def test_nothing_follows_an_answer_that_all_is_done(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    """Also when that was said without an offset; the same call again asks, and sends nothing."""
    path = make_file(MIB)
    draft.order("PATCH", "answer", status=200, fields={"Upload-Complete": "?1"})
    async with make_client() as client:
        await client.upload(path, draft.url, protocol="ietf")
    assert methods(draft) == ["OPTIONS", "POST", "PATCH"]


@pytest.mark.rule("G-IETF-2")
async def test_a_complete_upload_is_not_resumed(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    path = make_file(MIB)
    for _ in range(2):
        async with make_client() as client:
            result = await client.upload(path, draft.url, protocol="ietf")
    assert result.already_there
    assert methods(draft) == ["OPTIONS", "POST", "PATCH", "HEAD"]


@pytest.mark.rule("G-IETF-3")
@pytest.mark.parametrize(
    ("limits", "chunk_size", "expected"),
    [
        ("max-append-size=400000", None, [400_000, 400_000, 200_000]),
        ("min-append-size=600000", 100_000, [600_000, 400_000]),
        ("min-append-size=600000, max-append-size=600000", MIB, [600_000, 400_000]),
        ("max-append-size=4000000", 500_000, [500_000, 500_000]),
    ],
)
async def test_no_request_is_longer_or_shorter_than_the_server_takes(
    make_file: MakeFile, make_client: MakeClient, limits: str, chunk_size: int | None, expected: list[int]
) -> None:
    """The last one may be shorter, as the draft says."""
    path = make_file(1_000_000)
    with DraftLoopback(limits=limits) as draft:
        async with make_client() as client:
            result = await client.upload(path, draft.url, protocol="ietf", chunk_size=chunk_size)
        assert same(result, draft, path)
        assert lengths(draft) == expected


@pytest.mark.rule("G-IETF-3")
async def test_limits_that_change_are_obeyed_from_then_on(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    path = make_file(1_000_000)

    def smaller(seen: Seen) -> bool:
        draft.limits = "max-append-size=150000"
        return False

    draft.order("PATCH", "cut", when=smaller)
    async with make_client() as client:
        result = await client.upload(path, draft.url, protocol="ietf", chunk_size=400_000)
    assert same(result, draft, path)
    assert lengths(draft) == [400_000, 150_000, 150_000, 150_000, 150_000]


@pytest.mark.rule("G-IETF-4")
async def test_an_upload_whose_time_is_over_is_not_touched(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    """A second is left; the server is away for longer. What was begun is left alone, and begun anew."""
    path = make_file(MIB)
    draft.limits = "max-age=1"

    def longer(seen: Seen) -> bool:
        draft.limits = "max-age=3600"
        return True

    draft.order("PATCH", "answer", status=503, fields={"Retry-After": "2"}, when=longer)
    async with make_client() as client:
        result = await client.upload(path, draft.url, protocol="ietf")
    assert same(result, draft, path)
    assert methods(draft) == ["OPTIONS", "POST", "PATCH", "POST", "PATCH"]
    assert draft.requests("PATCH")[0].path != draft.requests("PATCH")[1].path


@pytest.mark.rule("G-IETF-5")
@pytest.mark.parametrize("limits", ["max-size=999", "min-size=1001", "max-append-size=10, min-append-size=20"])
async def test_a_file_that_does_not_fit_is_not_begun(make_file: MakeFile, make_client: MakeClient, limits: str) -> None:
    with DraftLoopback(limits=limits) as draft:
        async with make_client() as client:
            with pytest.raises(holdfast.ServerRefused, match=r"takes .*, and film\.mkv has 1000") as caught:
                await client.upload(make_file(1000), draft.url, protocol="ietf")
        assert caught.value.code == "upload-too-large"
        assert methods(draft) == ["OPTIONS"]


@pytest.mark.rule("G-IETF-5")
async def test_an_upload_that_cannot_fit_is_cancelled(make_file: MakeFile, make_client: MakeClient) -> None:
    """The creation was the first that said it."""
    with DraftLoopback(limits="max-size=999", options={"Upload-Limit": "min-size=0"}) as draft:
        async with make_client() as client:
            with pytest.raises(holdfast.ServerRefused, match="at most 999 bytes"):
                await client.upload(make_file(1000), draft.url, protocol="ietf")
        assert methods(draft) == ["OPTIONS", "POST", "DELETE"]
        assert draft.uploads == {}


@pytest.mark.rule("G-IETF-6", "G-IETF-22")
async def test_413_sends_less(make_file: MakeFile, make_client: MakeClient, tmp_path: Path) -> None:
    """With the limits of that answer; without them OPTIONS has been asked already, and the half is tried."""
    path = make_file(MIB)
    with DraftLoopback(limits=None) as draft:
        draft.order("PATCH", "answer", status=413)
        async with make_client() as client:
            assert same(await client.upload(path, draft.url, protocol="ietf"), draft, path)
        assert lengths(draft) == [MIB, MIB // 2, MIB // 2]
        draft.seen.clear()
        path = make_file(MIB, "other")
        draft.order("PATCH", "answer", status=413, fields={"Upload-Limit": "max-append-size=300000"})
        async with make_client(state=tmp_path / "of nobody") as client:
            assert same(await client.upload(path, draft.url, protocol="ietf"), draft, path)
        assert lengths(draft) == [MIB, 300_000, 300_000, 300_000, MIB - 900_000]
