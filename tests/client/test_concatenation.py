"""Uploads in parts that the server puts together, against a server that misbehaves on order."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient, UploadResult
from holdfast.splitting import SMALLEST
from holdfast_protocol.digest import digest
from tests.client.loopback import Kept, Loopback, Seen

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeClient = Callable[..., AsyncClient]
SLOW = holdfast.Timeouts(connect=5, stall=30, response=30)


@pytest.fixture
def joining() -> Iterator[Loopback]:
    with Loopback(parallel=False, extensions=("creation", "concatenation")) as server:
        yield server


@pytest.fixture
def make_large(tmp_path: Path, rng: random.Random) -> Callable[[int], Path]:
    """A file of so many bytes, mostly holes, with random bytes in each MiB of it."""

    def make(size: int) -> Path:
        path = tmp_path / "film.mkv"
        with path.open("wb") as file:
            for start in range(0, size, MIB):
                file.seek(start)
                file.write(rng.randbytes(min(1000, size - start)))
            file.truncate(size)
        return path

    return make


MakeLarge = Callable[[int], Path]


def same(result: UploadResult, loopback: Loopback, path: Path) -> bool:
    content = path.read_bytes()
    kept = loopback.uploads[result.url.rpartition("/")[2]]
    return bytes(kept.data) == content and result.digest == digest(result.digest.algorithm, content)


def parts(loopback: Loopback) -> list[Kept]:
    return [kept for kept in loopback.uploads.values() if kept.concat == "partial"]


def finals(loopback: Loopback) -> list[Seen]:
    return [seen for seen in loopback.requests("POST") if seen.fields.get("upload-concat", "").startswith("final;")]


@pytest.mark.rule("G-TUS-17", "G-TUS-18", "G-TUS-19", "G-TUS-20")
async def test_a_large_file_goes_in_parts(make_large: MakeLarge, make_client: MakeClient, joining: Loopback) -> None:
    size = 5 * SMALLEST + 17
    path = make_large(size)
    async with make_client(timeouts=SLOW) as client:
        result = await client.upload(path, joining.url, metadata={"project": "x"}, concurrency=2)
    assert same(result, joining, path)
    assert (result.protocol, result.concurrency, result.retries, result.bytes_sent) == ("tus", 2, 0, size)
    assert [part.length >= SMALLEST for part in parts(joining)] == [True] * 5
    assert joining.most_at_once <= 2
    begun = [seen for seen in joining.requests("POST") if seen.fields.get("upload-concat") == "partial"]
    assert len(begun) == 5
    assert not any("upload-metadata" in seen.fields for seen in begun)
    (final,) = finals(joining)
    assert "upload-length" not in final.fields
    assert "project eA==" in final.fields["upload-metadata"]
    assert "filename ZmlsbS5ta3Y=" in final.fields["upload-metadata"]
    assert joining.seen.index(final) > max(joining.seen.index(seen) for seen in joining.requests("PATCH"))


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (2 * SMALLEST - 1, {"concurrency": 2}),
        (2 * SMALLEST, {"concurrency": 1}),
        (2 * SMALLEST, {}),
    ],
    ids=["too small", "one connection", "a server that is near"],
)
async def test_others_are_not_split(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback, size: int, options: dict[str, int]
) -> None:
    path = make_large(size)
    async with make_client(timeouts=SLOW) as client:
        result = await client.upload(path, joining.url, concurrency=options.get("concurrency"))
    assert same(result, joining, path)
    assert joining.only().concat is None


@pytest.mark.rule("P-OFFER-1")
async def test_parallel_chunks_go_before_parts(make_large: MakeLarge, make_client: MakeClient) -> None:
    path = make_large(2 * SMALLEST)
    with Loopback(extensions=("creation", "concatenation")) as loopback:
        async with make_client(timeouts=SLOW) as client:
            result = await client.upload(path, loopback.url, concurrency=2)
        assert same(result, loopback, path)
        assert result.protocol == "parallel"
        assert loopback.only().concat is None


async def test_a_slow_part_does_not_hold_up_the_others(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback
) -> None:
    """Two connections: one is held in its part until the other one has brought all other parts."""
    path = make_large(5 * SMALLEST)

    def others_are_there() -> bool:
        with joining.guard:
            return sum(part.stored.prefix == part.length for part in parts(joining)) == 4

    joining.order("PATCH", "hold", until=others_are_there)
    async with make_client(timeouts=SLOW) as client:
        result = await client.upload(path, joining.url, concurrency=2)
    assert same(result, joining, path)
    assert result.retries == 0


async def stopped(path: Path, make_client: MakeClient, loopback: Loopback) -> None:
    """Two parts, of which one has arrived to a third and the other one as a whole."""

    def first_to_be_cut(seen: Seen) -> bool:
        return seen.path == loopback.requests("PATCH")[0].path

    def other_is_there() -> bool:
        return any(part.stored.prefix == part.length for part in parts(loopback))

    loopback.order("PATCH", "cut", after=10 * MIB)
    loopback.order("HEAD", "hold", until=other_is_there)
    loopback.order("PATCH", "answer", status=401, when=first_to_be_cut)
    async with make_client(timeouts=SLOW) as client:
        with pytest.raises(holdfast.NotAuthorized):
            await client.upload(path, loopback.url, concurrency=2)
    assert sorted(part.stored.prefix for part in parts(loopback)) == [10 * MIB, SMALLEST]
    loopback.seen.clear()


async def test_each_part_is_gone_on_with(make_large: MakeLarge, make_client: MakeClient, joining: Loopback) -> None:
    """By another client: what the server has of each part is not sent again, and no part is begun again."""
    path = make_large(2 * SMALLEST)
    await stopped(path, make_client, joining)
    async with make_client(timeouts=SLOW) as client:
        result = await client.upload(path, joining.url, concurrency=2)
    assert same(result, joining, path)
    assert [seen.offset for seen in joining.requests("PATCH")] == [10 * MIB]
    assert [len(joining.requests(method)) for method in ("HEAD", "POST")] == [3, 1]
    assert result.bytes_resumed == SMALLEST + 10 * MIB


@pytest.mark.parametrize("status", [404, 410])
async def test_a_part_that_is_gone_is_begun_anew_and_the_others_stay(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback, status: int
) -> None:
    path = make_large(2 * SMALLEST)
    await stopped(path, make_client, joining)
    gone = next(key for key, part in joining.uploads.items() if part.stored.prefix == 10 * MIB)
    del joining.uploads[gone]
    joining.order("HEAD", "answer", status=status, when=lambda seen: seen.path.endswith(gone))
    async with make_client(timeouts=SLOW) as client:
        result = await client.upload(path, joining.url, concurrency=2)
    assert same(result, joining, path)
    assert [(seen.offset, seen.length) for seen in joining.requests("PATCH")] == [(0, SMALLEST)]


async def test_parts_that_have_expired_are_begun_anew_without_asking(
    make_large: MakeLarge, make_client: MakeClient
) -> None:
    path = make_large(2 * SMALLEST)
    with Loopback(parallel=False, extensions=("concatenation",), lifetime=-5) as loopback:
        loopback.order("POST", "answer", status=401, when=lambda seen: "final" in seen.fields["upload-concat"])
        async with make_client(timeouts=SLOW) as client:
            with pytest.raises(holdfast.NotAuthorized):
                await client.upload(path, loopback.url, concurrency=2)
        loopback.lifetime = 3600
        old = {f"/files/{key}" for key in loopback.uploads}
        loopback.seen.clear()
        async with make_client(timeouts=SLOW) as client:
            result = await client.upload(path, loopback.url, concurrency=2)
        assert same(result, loopback, path)
        assert not {seen.path for seen in loopback.seen} & old


async def test_a_lost_answer_to_the_final_request(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback
) -> None:
    """The parts are put together again, and nothing is sent twice."""
    path = make_large(2 * SMALLEST)
    joining.order("POST", "lose", when=lambda seen: "final" in seen.fields["upload-concat"])
    async with make_client(timeouts=SLOW) as client:
        result = await client.upload(path, joining.url, concurrency=2)
    assert same(result, joining, path)
    assert (len(finals(joining)), result.bytes_resent, result.retries) == (2, 0, 1)


async def test_a_lost_answer_from_a_server_that_uses_parts_up(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback
) -> None:
    """The first final request has taken the parts away; they are sent again."""
    path = make_large(2 * SMALLEST)

    def use_up(seen: Seen) -> bool:
        if "final" in seen.fields["upload-concat"] and len(finals(joining)) == 2:
            for key in [key for key, kept in joining.uploads.items() if kept.concat == "partial"]:
                del joining.uploads[key]
        return False

    joining.order("POST", "lose", when=lambda seen: "final" in seen.fields["upload-concat"])
    joining.order("POST", "cut", when=use_up)
    async with make_client(timeouts=SLOW) as client:
        result = await client.upload(path, joining.url, concurrency=2)
    assert same(result, joining, path)
    assert result.bytes_resent == path.stat().st_size


async def test_a_part_that_lost_bytes_is_filled_up_before_the_whole_is_asked_for_again(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback
) -> None:
    path = make_large(2 * SMALLEST)
    lost: list[int] = []

    def lose(seen: Seen) -> bool:
        if "final" in seen.fields["upload-concat"] and not lost:
            lost.append(parts(joining)[0].stored.subtract(30 * MIB, SMALLEST))
        return False

    joining.order("POST", "cut", when=lose)
    async with make_client(timeouts=SLOW) as client:
        result = await client.upload(path, joining.url, concurrency=2)
    assert lost == [2 * MIB]
    assert same(result, joining, path)
    assert result.bytes_resent == 2 * MIB


async def test_a_server_that_never_puts_them_together_is_an_error(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback
) -> None:
    path = make_large(2 * SMALLEST)
    joining.order("POST", "answer", status=400, times=99, when=lambda seen: "final" in seen.fields["upload-concat"])
    async with make_client(timeouts=SLOW) as client:
        with pytest.raises(holdfast.ServerRefused) as caught:
            await client.upload(path, joining.url, concurrency=2)
    assert caught.value.status == 400
    assert len(finals(joining)) == 4


async def test_what_is_put_together_is_waited_for(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback
) -> None:
    """As long as it has no offset it is not done."""
    path = make_large(2 * SMALLEST)
    joining.order("HEAD", "answer", status=200, fields={"Upload-Length": str(2 * SMALLEST)})
    async with make_client(timeouts=SLOW) as client:
        result = await client.upload(path, joining.url, concurrency=2)
    assert same(result, joining, path)
    assert len(joining.requests("HEAD")) == 2


async def test_a_whole_of_another_length_is_an_error(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback
) -> None:
    path = make_large(2 * SMALLEST)
    joining.order("HEAD", "answer", status=200, fields={"Upload-Length": "7", "Upload-Offset": "7"})
    async with make_client(timeouts=SLOW) as client:
        with pytest.raises(holdfast.VerificationFailed, match="put together to 7 bytes"):
            await client.upload(path, joining.url, concurrency=2)


async def test_a_file_that_changes_leaves_no_parts_behind(
    make_large: MakeLarge, make_client: MakeClient, joining: Loopback
) -> None:
    path = make_large(2 * SMALLEST)

    def touch(seen: Seen) -> bool:
        # Not before both parts have a URL: one whose creation is on its way would be left to its expiry.
        if len({each.path for each in joining.requests("PATCH")}) == 2:
            with path.open("r+b") as file:
                file.write(b"changed")
        return False

    joining.order("PATCH", "cut", when=touch)
    async with make_client(timeouts=SLOW) as client:
        with pytest.raises(holdfast.SourceChanged):
            await client.upload(path, joining.url, concurrency=2)
    assert joining.uploads == {}


async def test_patches_of_parts_carry_checksums(make_large: MakeLarge, make_client: MakeClient) -> None:
    path = make_large(2 * SMALLEST)
    extensions = ("creation", "concatenation", "checksum")
    with Loopback(parallel=False, extensions=extensions, checksums=("md5",)) as loopback:
        async with make_client(timeouts=SLOW) as client:
            result = await client.upload(path, loopback.url, concurrency=2)
        assert same(result, loopback, path)
        patches = loopback.requests("PATCH")
        assert len(patches) == 8
        assert all(seen.fields["upload-checksum"].startswith("md5 ") for seen in patches)
