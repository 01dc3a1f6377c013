"""Our client at servers of the IETF draft: the rules that the draft has for clients, and what is chosen where it lets
choose (protocol.md, section 8).
"""

import hashlib
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import anyio
import pytest

import holdfast
from holdfast import AsyncClient, UploadResult
from holdfast._transport import Transport
from holdfast.discovery import DISCOVERIES
from holdfast_protocol.dialects.ietf import DRAFTS
from holdfast_protocol.dialects.ietf_client import Guest
from tests.client.draft_loopback import DraftLoopback
from tests.client.loopback import Loopback, Seen
from tests.support.process import CommandLine, ServerProcess
from tests.support.speaker import Speaker

pytestmark = pytest.mark.anyio

KIB = 1024
MIB = 1024 * KIB
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]
StartServer = Callable[..., ServerProcess]


@pytest.fixture
def draft() -> Iterator[DraftLoopback]:
    with DraftLoopback() as server:
        yield server


def same(result: UploadResult, loopback: Loopback, path: Path) -> bool:
    content = path.read_bytes()
    kept = loopback.uploads[result.url.rpartition("/")[2]]
    whole = bytes(kept.data) == content and result.digest.value == hashlib.sha256(content).digest()
    return whole and kept.complete and result.protocol == "ietf"


def methods(loopback: Loopback) -> list[str]:
    return [seen.method for seen in loopback.seen]


def lengths(loopback: Loopback) -> list[int]:
    return [seen.length for seen in loopback.requests("PATCH")]


def completeness(seen: Seen) -> str | None:
    """In the words of all versions but 3."""
    return seen.fields.get("upload-complete")


@pytest.mark.rule("G-IETF-1", "G-IETF-7", "G-IETF-8", "G-IETF-9", "G-IETF-10", "G-IETF-16", "G-IETF-27")
async def test_a_file_goes_over(make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback) -> None:
    """Begun without content, with its length and its name; then its bytes, and the last ones say that they are that."""
    path = make_file(3 * MIB, "Käse.mkv")
    async with make_client() as client:
        result = await client.upload(path, draft.url, protocol="ietf", chunk_size=MIB)
    assert same(result, draft, path)
    assert methods(draft) == ["OPTIONS", "POST", "PATCH", "PATCH", "PATCH"]
    (post,) = draft.requests("POST")
    assert (post.length, completeness(post), post.fields["upload-length"]) == (0, "?0", str(3 * MIB))
    name = post.fields["content-disposition"]
    assert name == "inline; filename=\"K_se.mkv\"; filename*=UTF-8''K%C3%A4se.mkv"
    patches = draft.requests("PATCH")
    assert {seen.fields["content-type"] for seen in patches} == {"application/partial-upload"}
    assert [(seen.offset, completeness(seen)) for seen in patches] == [(0, "?0"), (MIB, "?0"), (2 * MIB, "?1")]
    assert {seen.fields["upload-draft-interop-version"] for seen in draft.seen} == {"9"}
    assert not any("tus-resumable" in seen.fields for seen in draft.seen)


@pytest.mark.rule("G-IETF-8")
@pytest.mark.parametrize("size", [0, 1])
async def test_an_empty_file_is_complete_when_it_is_begun(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback, size: int
) -> None:
    path = make_file(size)
    async with make_client() as client:
        result = await client.upload(path, draft.url, protocol="ietf")
    assert same(result, draft, path)
    assert completeness(draft.requests("POST")[0]) == ("?0" if size else "?1")
    assert len(draft.requests("PATCH")) == size


@pytest.mark.rule("G-VERSION-1", "G-IETF-27")
@pytest.mark.parametrize("version", ["3", "5", "6", "8", "9"])
async def test_the_newest_version_that_both_know_is_spoken(
    make_file: MakeFile, make_client: MakeClient, version: str
) -> None:
    """It is looked for once; the second upload begins with it."""
    with DraftLoopback(versions=(version,), limits=None) as draft:
        for turn in range(2):
            path = make_file(100 * KIB, f"f{turn}")
            draft.seen.clear()
            async with make_client() as client:
                result = await client.upload(path, draft.url, protocol="ietf")
            assert same(result, draft, path)
            tried = [seen.fields["upload-draft-interop-version"] for seen in draft.requests("POST")]
            newer = [each for each in ("9", "8", "6", "5", "3") if each > version]
            assert tried == ([*newer, version] if turn == 0 else [version])
        field = "upload-incomplete" if version == "3" else "upload-complete"
        (patch,) = draft.requests("PATCH")
        assert patch.fields[field] == ("?0" if version == "3" else "?1")


@pytest.mark.rule("G-VERSION-2")
@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"Upload-Limit": "max-age=60"}, "9"),
        ({"Upload-Limit": "expires=60"}, "6"),
        ({"Upload-Limit": "min-size=0"}, "9"),
        ({"Accept-Patch": "application/partial-upload"}, "9"),
        ({"Upload-Draft-Interop-Version": "5"}, "5"),
        ({"Upload-Limit": "max-age=soon"}, "9"),
    ],
)
async def test_options_says_where_to_begin(
    make_file: MakeFile, make_client: MakeClient, options: dict[str, str], first: str
) -> None:
    path = make_file(1000)
    with DraftLoopback(options=options) as draft:
        async with make_client() as client:
            assert same(await client.upload(path, draft.url), draft, path)
        assert [seen.fields["upload-draft-interop-version"] for seen in draft.requests("POST")] == [first]


@pytest.mark.rule("G-VERSION-1")
async def test_a_server_without_the_draft_is_named(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback
) -> None:
    tus_only.order("POST", "answer", status=412, times=99)
    async with make_client() as client:
        with pytest.raises(
            holdfast.ServerRefused, match="does not speak the IETF draft in interop version 9, 8, 6"
        ) as e:
            await client.upload(make_file(1000), tus_only.url, protocol="ietf")
    assert e.value.code == "draft-not-spoken"
    assert len(tus_only.requests("POST")) == 5


@pytest.mark.rule("G-VERSION-1")
async def test_an_answer_of_another_protocol_is_not_taken_for_the_draft(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback
) -> None:
    """This tus server does not insist on its own version field, and makes an upload."""
    async with make_client() as client:
        with pytest.raises(holdfast.ServerRefused, match="its answer was that of another protocol"):
            await client.upload(make_file(1000), tus_only.url, protocol="ietf")
    assert tus_only.requests("PATCH") == []


@pytest.mark.rule("G-AUTO-1")
async def test_auto_speaks_what_the_server_names(make_file: MakeFile, make_client: MakeClient) -> None:
    path = make_file(2 * MIB)
    for server, spoken in (
        (Loopback(), "parallel"),
        (Loopback(parallel=False), "tus"),
        (DraftLoopback(), "ietf"),
        (DraftLoopback(limits=None), "ietf"),
    ):
        with server as loopback:
            async with make_client() as client:
                assert (await client.upload(path, loopback.url)).protocol == spoken


@pytest.mark.rule("G-AUTO-1")
async def test_auto_falls_back_to_tus(make_file: MakeFile, make_client: MakeClient, tus_only: Loopback) -> None:
    """Something in between answers OPTIONS for the server; it is tus all the same, also for the next process."""
    path = make_file(2 * MIB)
    tus_only.shadowed = True
    tus_only.order("POST", "answer", status=412, when=lambda seen: "tus-resumable" not in seen.fields, times=99)
    tus_only.order("HEAD", "answer", status=412, when=lambda seen: "tus-resumable" not in seen.fields, times=99)
    tus_only.order("PATCH", "cut", after=MIB)
    tus_only.order("PATCH", "answer", status=401)
    async with make_client() as client:
        with pytest.raises(holdfast.NotAuthorized):
            await client.upload(path, tus_only.url)
    async with make_client() as client:
        result = await client.upload(path, tus_only.url)
    assert (result.protocol, result.bytes_resumed) == ("tus", MIB)
    assert bytes(tus_only.only().data) == path.read_bytes()


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


@pytest.mark.rule("G-IETF-4")
async def test_a_later_process_does_not_touch_it_either(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback, tmp_path: Path
) -> None:
    path = make_file(2 * MIB)
    draft.limits = "max-age=3600"
    await interrupted(path, make_client, draft)
    with sqlite3.connect(tmp_path / "state" / "journal.db") as db:
        ((expires,),) = db.execute("SELECT expires FROM upload").fetchall()
        assert 3000 < expires - time.time() < 3700
        db.execute("UPDATE upload SET expires = ?", (time.time() - 1,))
    db.close()
    draft.seen.clear()
    async with make_client() as client:
        await client.upload(path, draft.url, protocol="ietf")
    assert methods(draft) == ["POST", "PATCH"]


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


@pytest.mark.rule("G-IETF-14", "G-IETF-20")
async def test_one_request_at_a_time(make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback) -> None:
    """Whatever is asked for: more connections, or what fails in between."""
    path = make_file(80 * MIB)
    draft.order("PATCH", "stall", after=5 * MIB)
    draft.order("PATCH", "lose")
    async with make_client() as client:
        result = await client.upload(path, draft.url, protocol="ietf", concurrency=8)
    assert same(result, draft, path)
    assert result.concurrency == 1
    writing = [seen for seen in draft.seen if seen.method != "OPTIONS"]
    assert [seen.method for seen in writing][:4] == ["POST", "PATCH", "HEAD", "PATCH"]
    assert len(draft.uploads) == 1


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


@pytest.mark.rule("G-IETF-26")
async def test_content_leaves_as_it_is_read(make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback) -> None:
    """The server has bytes of a request while later ones are not read yet: they are changed, and it is noticed."""
    path = make_file(40 * MIB)

    def change(seen: Seen) -> bool:
        with path.open("r+b") as file:
            file.write(b"other")
        return False

    draft.order("PATCH", "cut", when=change)
    async with make_client() as client:
        with pytest.raises(holdfast.SourceChanged):
            await client.upload(path, draft.url, protocol="ietf")
    (patch,) = draft.requests("PATCH")
    assert patch.length == 40 * MIB
    assert draft.body_bytes < patch.length


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


@pytest.mark.rule("G-DIGEST-1")
async def test_content_digest_goes_where_it_is_wanted(make_file: MakeFile, make_client: MakeClient) -> None:
    """Damage on the way is found by the server, and the same bytes go once more."""
    path = make_file(3 * MIB)
    options = {"Upload-Limit": "max-age=60", "Want-Content-Digest": "sha-256=5, xxh3-128=10"}
    with DraftLoopback(options=options) as draft:
        draft.order("PATCH", "answer", status=400, code="digest-mismatch")
        async with make_client() as client:
            result = await client.upload(path, draft.url, chunk_size=MIB)
        assert same(result, draft, path)
        patches = draft.requests("PATCH")
        assert [seen.offset for seen in patches] == [0, 0, MIB, 2 * MIB]
        assert all(seen.fields["content-digest"].startswith("xxh3-128=:") for seen in patches)


async def interrupted(path: Path, make_client: MakeClient, draft: DraftLoopback) -> None:
    """An upload of which the first MiB has arrived, by a client that is gone."""
    draft.order("PATCH", "cut", after=MIB)
    draft.order("PATCH", "answer", status=401)
    async with make_client() as client:
        with pytest.raises(holdfast.NotAuthorized):
            await client.upload(path, draft.url, protocol="ietf")


@pytest.mark.parametrize("version", ["3", "6", "9"])
async def test_a_later_process_goes_on(make_file: MakeFile, make_client: MakeClient, version: str) -> None:
    """The journal knows the URL, and the first HEAD finds out the version."""
    path = make_file(3 * MIB)
    with DraftLoopback(versions=(version,), limits=None) as draft:
        await interrupted(path, make_client, draft)
        draft.seen.clear()
        DISCOVERIES.forget()
        async with make_client() as client:
            result = await client.upload(path, draft.url)
        assert same(result, draft, path)
        assert result.bytes_resumed == MIB
        assert draft.requests("POST") == []
        assert {seen.fields["upload-draft-interop-version"] for seen in draft.requests("PATCH")} == {version}


@pytest.mark.rule("G-RESUME-1")
async def test_an_upload_of_another_client_is_gone_on_with(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    path = make_file(3 * MIB)
    await interrupted(path, make_client, draft)
    (key,) = draft.uploads
    draft.seen.clear()
    async with make_client(state=path.parent / "another") as client:
        result = await client.upload(path, f"{draft.url}/{key}", resume=True, protocol="ietf")
    assert same(result, draft, path)
    assert (result.url, result.bytes_resumed) == (f"{draft.url}/{key}", MIB)
    assert [seen.method for seen in draft.seen if seen.method != "OPTIONS"] == ["HEAD", "PATCH"]


@pytest.mark.rule("G-RESUME-1")
@pytest.mark.parametrize(
    "loopback", [Loopback(), Loopback(parallel=False), DraftLoopback()], ids=["parallel", "tus", "ietf"]
)
async def test_it_is_neither_removed_nor_begun_anew(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, tmp_path: Path
) -> None:
    path = make_file(MIB)
    with loopback:
        other = loopback.put("a" * 32, b"x" * 1000, stored=[(0, 500)])
        async with make_client() as client:
            with pytest.raises(holdfast.VerificationFailed, match="an upload of 1000 bytes, not of 1048576"):
                await client.upload(path, other, resume=True)
            with pytest.raises(holdfast.UploadGone):
                await client.upload(path, f"{loopback.url}/{'b' * 32}", resume=True)
        assert {seen.method for seen in loopback.seen} == {"OPTIONS", "HEAD"}
        assert list(loopback.uploads) == ["a" * 32]
    with sqlite3.connect(tmp_path / "state" / "journal.db") as db:
        assert db.execute("SELECT * FROM upload").fetchall() == []
    db.close()


@pytest.mark.rule("G-RESUME-1")
async def test_the_command_line_takes_the_url_of_an_upload(
    make_file: MakeFile, draft: DraftLoopback, holdfast_command: CommandLine
) -> None:
    """It prints that URL, as for an upload of its own."""
    path = make_file(MIB)
    other = draft.put("a" * 32, path.read_bytes()[:1000] + bytes(MIB - 1000), stored=[(0, 1000)])
    command = ("upload", str(path), "--resume", other, "--protocol", "ietf")
    done = await anyio.to_thread.run_sync(lambda: holdfast_command.run(*command))
    assert (done.returncode, done.stdout) == (0, f"{other}\n"), done.stderr
    assert bytes(draft.only().data) == path.read_bytes()
    assert lengths(draft) == [MIB - 1000]


@pytest.mark.rule("G-VERSION-1", "I-VERSION-1", "I-DIGEST-1")
@pytest.mark.parametrize("version", [3, 5, 6, 8, 9])
async def test_a_real_server_has_the_file(
    make_file: MakeFile, make_client: MakeClient, server: ServerProcess, speaker: Speaker, version: int
) -> None:
    """Ours, in each version."""
    path = make_file(20 * MIB + 4321, "Käse.mkv")
    transport = Transport()
    known = Guest(None)
    known.draft = DRAFTS[version]
    DISCOVERIES.learn(transport.session(server.url), known)
    async with make_client(timeouts=None) as client:
        result = await client.upload(path, f"{server.url}/files", protocol="ietf")
    await transport.aclose()
    assert (result.protocol, result.chunks, result.retries) == ("ietf", 3, 0)
    assert speaker.get(result.url).body == path.read_bytes()
    assert speaker.status(result.url)["name"] == "Käse.mkv"


@pytest.mark.rule("G-IETF-22", "G-IETF-23")
async def test_a_real_server_that_was_killed_gets_the_rest(
    make_file: MakeFile, make_client: MakeClient, start_server: StartServer
) -> None:
    path = make_file(24 * MIB)
    server = start_server()
    async with make_client(timeouts=None, limit_rate=12 * MIB) as client:
        transfer = client.upload(path, f"{server.url}/files", protocol="ietf")
        async for progress in transfer:
            if progress.accepted >= 8 * MIB:
                break
        await anyio.to_thread.run_sync(server.restart)
        result = await transfer
    assert result.retries >= 1
    with Speaker(server.url) as speaker:
        assert speaker.get(result.url).body == path.read_bytes()
