"""How a file is read while it is sent in order: one piece ahead, into two pieces of memory."""

from contextlib import AbstractAsyncContextManager
from typing import cast

import anyio
import pytest

from holdfast.bodies import Body
from holdfast.errors import SourceChanged
from holdfast.sending import Upload
from holdfast.sequential import _read_ahead
from holdfast_protocol.messages import Span

pytestmark = pytest.mark.anyio

PIECE = 4


class Reads:
    """The reading of an upload: each piece is filled with its number; at the offset `fails` it cannot be read."""

    def __init__(self, fails: int | None = None) -> None:
        self.offsets: list[int] = []
        self._fails = fails

    async def read(self, offset: int, view: memoryview) -> None:
        if offset == self._fails:
            raise SourceChanged("it got shorter")
        view[:] = bytes([len(self.offsets)]) * len(view)
        self.offsets.append(offset)


def ahead(reads: Reads, end: int) -> AbstractAsyncContextManager[Body]:
    return _read_ahead(cast("Upload", reads), Span(0, end), PIECE)


async def test_the_next_piece_is_read_while_one_is_sent_and_no_further() -> None:
    reads = Reads()
    async with ahead(reads, 4 * PIECE) as body:
        sent = 0
        async for piece in body.pieces():
            await anyio.wait_all_tasks_blocked()
            assert reads.offsets == [PIECE * number for number in range(min(sent + 2, 4))]
            assert bytes(cast("memoryview", piece)) == bytes([sent]) * PIECE
            sent += 1
    assert sent == 4


async def test_the_last_piece_is_as_long_as_the_rest() -> None:
    async with ahead(Reads(), PIECE + 1) as body:
        assert [len(piece) async for piece in body.pieces()] == [PIECE, 1]


async def test_a_request_that_is_sent_anew_begins_with_the_first_byte() -> None:
    reads = Reads()
    async with ahead(reads, 3 * PIECE) as body:
        first = body.pieces()
        await anext(first)
        assert [len(piece) async for piece in body.pieces()] == [PIECE] * 3
    assert reads.offsets.count(0) == 2


@pytest.mark.parametrize("left", [False, True], ids=["sent to the end", "nobody takes it any more"])
async def test_what_cannot_be_read_is_told_in_its_turn(*, left: bool) -> None:
    reads = Reads(fails=PIECE)

    async def send() -> None:
        async with ahead(reads, 2 * PIECE) as body:
            pieces = body.pieces()
            assert len(await anext(pieces)) == PIECE
            if left:
                raise ConnectionResetError
            await anext(pieces)

    with pytest.raises(ConnectionResetError if left else SourceChanged):
        await send()
