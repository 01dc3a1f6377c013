"""Our client at servers of the IETF draft: the rules that the draft has for clients, and what is chosen where it lets
choose (protocol.md, section 8). Versions, and what goes over when all is well.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient
from tests.client.draft_loopback import DraftLoopback, completeness, methods, same
from tests.client.loopback import Loopback, Seen

pytestmark = pytest.mark.anyio
KIB = 1024
MIB = 1024 * KIB
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


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
