"""Our client at servers of the IETF draft: answers that are lost, late, or refusals."""

from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient
from tests.client.draft_loopback import DraftLoopback, completeness, methods, same
from tests.client.loopback import Seen

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


@pytest.mark.rule("G-IETF-11", "G-IETF-25", "G-IETF-27")
@pytest.mark.parametrize(
    "interim",
    [
        {"Location": "/files/elsewhere", "Upload-Draft-Interop-Version": "9"},
        {"Location": "/files/elsewhere"},
        {"Location": "/files/elsewhere", "Upload-Draft-Interop-Version": "4"},
    ],
)
async def test_interim_answers_change_nothing(
    make_file: MakeFile, make_client: MakeClient, interim: dict[str, str]
) -> None:
    """Careful creation: no byte and no second request leaves before the final answer, whose URL alone counts."""
    path = make_file(MIB)
    with DraftLoopback(interim=(interim, interim)) as draft:
        async with make_client() as client:
            result = await client.upload(path, draft.url, protocol="ietf")
        assert same(result, draft, path)
        assert "expect" not in draft.requests("POST")[0].fields
        assert not any(seen.path.endswith("elsewhere") for seen in draft.seen)


@pytest.mark.rule("G-IETF-12", "G-IETF-17", "G-IETF-23")
@pytest.mark.parametrize("kind", ["cut", "lose", "stall"])
async def test_after_no_answer_the_offset_is_asked_for(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback, kind: str
) -> None:
    """By HEAD, without fields of the upload, and the next request begins there."""
    path = make_file(4 * MIB)
    draft.order("PATCH", kind, after=700_000, when=lambda seen: seen.offset == MIB)
    async with make_client() as client:
        result = await client.upload(path, draft.url, protocol="ietf", chunk_size=MIB)
    assert same(result, draft, path)
    (head,) = draft.requests("HEAD")
    assert not {"upload-offset", "upload-complete", "upload-length", "tus-resumable"} & set(head.fields)
    assert draft.requests("GET") == []
    follows = 2 * MIB if kind == "lose" else MIB + 700_000
    assert [seen.offset for seen in draft.requests("PATCH")][:3] == [0, MIB, follows]


@pytest.mark.rule("G-IETF-17")
async def test_an_answer_without_an_offset_is_followed_by_asking(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    path = make_file(2 * MIB)
    draft.silent = True
    async with make_client() as client:
        assert same(await client.upload(path, draft.url, protocol="ietf", chunk_size=MIB), draft, path)
    assert methods(draft) == ["OPTIONS", "POST", "PATCH", "HEAD", "PATCH"]


@pytest.mark.rule("G-IETF-13")
async def test_an_offset_that_nobody_can_go_on_from_cancels_the_upload(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    path = make_file(MIB)
    beyond = {"Upload-Offset": str(2 * MIB), "Upload-Complete": "?0"}
    draft.order("PATCH", "answer", status=409, times=2, code="offset-mismatch", fields=beyond)
    async with make_client() as client:
        with pytest.raises(holdfast.BrokenProtocol, match="claims"):
            await client.upload(path, draft.url, protocol="ietf")
    assert methods(draft) == ["OPTIONS", "POST", "PATCH", "DELETE", "POST", "PATCH", "DELETE"]
    assert draft.uploads == {}


@pytest.mark.rule("G-IETF-15")
@pytest.mark.parametrize(
    "order", [{"status": 204, "fields": {"Upload-Complete": "?0"}}, {"status": 503}, {"status": 423}]
)
async def test_asking_for_the_offset_is_repeated(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback, order: dict[str, object]
) -> None:
    path = make_file(2 * MIB)
    draft.order("PATCH", "cut", after=MIB)
    draft.order("HEAD", "answer", times=2, **order)
    draft.order("HEAD", "lose")
    async with make_client() as client:
        assert same(await client.upload(path, draft.url, protocol="ietf"), draft, path)
    assert len(draft.requests("HEAD")) == 4


@pytest.mark.rule("G-IETF-18")
async def test_what_was_cut_off_at_its_very_end_is_completed_without_content(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    path = make_file(MIB)
    draft.order("PATCH", "cut", after=MIB)
    async with make_client() as client:
        assert same(await client.upload(path, draft.url, protocol="ietf"), draft, path)
    sent = [(seen.offset, seen.length, completeness(seen)) for seen in draft.requests("PATCH")]
    assert sent == [(0, MIB, "?1"), (MIB, 0, "?1")]


@pytest.mark.rule("G-IETF-18")
async def test_verifying_is_waited_for(make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback) -> None:
    """I-ANSWER-1: 202 with Retry-After, and an empty request asks again."""
    path = make_file(MIB)
    waiting = {"Upload-Offset": str(MIB), "Upload-Complete": "?0", "Retry-After": "1"}
    draft.order("PATCH", "answer", status=202, fields=waiting, when=lambda seen: seen.length == 0, times=2)
    draft.order("PATCH", "cut", after=MIB)
    async with make_client() as client:
        result = await client.upload(path, draft.url, protocol="ietf")
    assert same(result, draft, path)
    assert [seen.length for seen in draft.requests("PATCH")] == [MIB, 0, 0, 0]
    assert result.seconds >= 2


@pytest.mark.rule("G-IETF-19")
@pytest.mark.parametrize("status", [400, 422, 500])
async def test_a_file_that_was_taken_in_and_turned_down_is_not_resumed(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback, status: int
) -> None:
    path = make_file(MIB)
    draft.order("PATCH", "answer", status=status, fields={"Upload-Complete": "?1"})
    async with make_client() as client:
        with pytest.raises(holdfast.VerificationFailed, match="in and then turned it down"):
            await client.upload(path, draft.url, protocol="ietf")
        assert methods(draft) == ["OPTIONS", "POST", "PATCH", "DELETE"]
        assert same(await client.upload(path, draft.url, protocol="ietf"), draft, path)
    assert methods(draft)[4:] == ["POST", "PATCH"]


@pytest.mark.rule("G-IETF-21")
async def test_409_with_an_offset_is_gone_on_from_without_asking(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    """Somebody else brought a part of it in between."""
    path = make_file(2 * MIB)

    def another(seen: Seen) -> bool:
        kept = draft.only()
        kept.data[:MIB] = path.read_bytes()[:MIB]
        kept.stored.add(0, MIB)
        return False

    draft.order("PATCH", "cut", when=another)
    async with make_client() as client:
        result = await client.upload(path, draft.url, protocol="ietf")
    assert same(result, draft, path)
    assert draft.requests("HEAD") == []
    assert [seen.offset for seen in draft.requests("PATCH")] == [0, MIB]


@pytest.mark.rule("G-IETF-22")
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_passing_failure_is_waited_out(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback, status: int
) -> None:
    path = make_file(MIB)
    draft.order("POST", "answer", status=status)
    draft.order("PATCH", "answer", status=status, fields={"Retry-After": "0"})
    async with make_client() as client:
        result = await client.upload(path, draft.url, protocol="ietf")
    assert same(result, draft, path)
    assert result.retries == 2


@pytest.mark.rule("G-IETF-24")
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_retries_come_to_an_end(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback, method: str
) -> None:
    draft.order(method, "answer", status=503, times=99)
    async with make_client() as client:
        with pytest.raises(holdfast.ServerUnavailable, match="gave up after 3 attempts"):
            await client.upload(make_file(1000), draft.url, protocol="ietf", max_attempts=3)
    assert len(draft.requests(method)) == 3
