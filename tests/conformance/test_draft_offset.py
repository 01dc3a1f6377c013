"""The IETF draft: what HEAD tells, and that it holds (R2, R4, R27, R28, R40, R41)."""

import contextlib

import pytest

from tests.conformance.conftest import not_observed
from tests.conformance.draft import LENGTHS, Draft, ended, limits, under_way

DATA = bytes(each % 253 for each in range(300_000))


@pytest.mark.holds("R27", "R28")
@pytest.mark.parametrize("sent", [0, 4, 10])
def test_head_tells_the_state(draft: Draft, sent: int) -> None:
    """At the start, in between, and at the end. Up to version 4 it is 204, in versions 5 and 6 that or 200."""
    upload = draft.create(length=10)
    if sent:
        assert draft.append(upload, 0, b"0123456789"[:sent], complete=sent == 10).status < 300
    answer = draft.head(upload)
    if sent == 10 and 400 <= answer.status < 500:
        not_observed("an upload that is complete is gone for the draft")
    assert answer.status == 204 or (draft.version >= 5 and answer.status == 200) or draft.version >= 7
    assert 200 <= answer.status < 300
    assert answer["upload-offset"] == str(sent)
    assert draft.complete(answer) is (sent == 10)
    assert "no-store" in answer["cache-control"]
    if draft.version >= LENGTHS:
        assert answer["upload-length"] == "10"
    if draft.version >= 8:
        assert limits(answer)


@pytest.mark.holds("R27")
def test_head_on_nothing(draft: Draft) -> None:
    answer = draft.head(draft.subject.nobody(draft.create()))
    assert 400 <= answer.status < 500
    assert "upload-offset" not in answer


@pytest.mark.holds("R2", "R4")
def test_offsets_never_decrease(draft: Draft) -> None:
    """Each that was told stands, through conflicts and connections that break; the bytes before it are not sent
    again, and the file is whole."""
    upload = draft.create(len(DATA))
    told = [draft.offset(upload)]

    def tell() -> int:
        told.append(draft.offset(upload))
        return told[-1]

    assert draft.append(upload, 0, DATA[:100_000]).status < 300
    tell()
    assert draft.append(upload, 5, b"x").status == 409
    with under_way(draft, upload, 200_000, offset=tell()) as connection:
        connection.send(DATA[100_000:180_000])
        tell()
        connection.reset()
    tell()
    offset = tell()
    assert draft.append(upload, offset, DATA[offset:], complete=True).status < 300
    assert told == sorted(told)
    assert draft.subject.content(upload) in (None, DATA)


@pytest.mark.holds("R40")
def test_an_offset_that_was_told_is_taken(draft: Draft) -> None:
    """Although the request before it was still under way then, and goes on sending."""
    upload = draft.create(len(DATA))
    with under_way(draft, upload, len(DATA)) as before:
        before.send(DATA[:100_000])
        offset = draft.offset(upload)
        with contextlib.suppress(OSError):
            before.send(b"!" * 100_000)
        answer = draft.append(upload, offset, DATA[offset:], complete=True)
        assert 200 <= answer.status < 300
    assert draft.subject.content(upload) in (None, DATA)


@pytest.mark.holds("R41")
@pytest.mark.parametrize("method", ["HEAD", "PATCH"])
def test_a_new_request_ends_the_one_before(draft: Draft, method: str) -> None:
    """Of which nothing comes. To wait for its end, with a lock, is allowed, and not as good."""
    upload = draft.create()
    with under_way(draft, upload) as before:
        answer = draft.head(upload) if method == "HEAD" else draft.append(upload, 0)
        if answer.status in (409, 423, 429, 503) and not ended(before, patience=1):
            not_observed("the server has a lock instead")
        assert ended(before, patience=20), "the request before it is still under way"
    assert 200 <= answer.status < 300
