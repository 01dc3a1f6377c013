"""The IETF draft: appends, and when an upload is complete (R5 to R8, R26, R30 to R34, R39)."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.conftest import not_offered
from tests.conformance.draft import FINALS, LENGTHS, REFUSAL, SUCCESS, Draft, hang_up, under_way
from tests.support.drafts import IANA, chunked
from tests.support.wire import Answer, ConnectionLostError

DATA = bytes(each % 251 for each in range(50_000))


@pytest.mark.holds("R32")
def test_a_file_in_three_appends(draft: Draft) -> None:
    """Up to version 6 an append that does not complete the upload is 201."""
    upload = draft.create(len(DATA))
    for start, end in ((0, 1), (1, 30_000)):
        answer = draft.append(upload, start, DATA[start:end])
        assert answer.status in ((201,) if draft.version < FINALS else SUCCESS)
        assert draft.state(upload) == (end, False)
    assert draft.append(upload, 30_000, DATA[30_000:], complete=True).status in SUCCESS
    assert draft.subject.content(upload) in (None, DATA)


@pytest.mark.holds("R31")
def test_the_last_append_is_told_that_it_was(draft: Draft) -> None:
    """From version 7 on; before, it is not told the opposite."""
    upload = draft.create(len(DATA))
    answer = draft.append(upload, 0, DATA, complete=True)
    assert answer.status in SUCCESS
    assert draft.complete(answer) is True or (draft.version < FINALS and draft.complete(answer) is None)
    _assert_complete(draft, upload, DATA)


@pytest.mark.holds("R8")
def test_only_a_request_that_says_so_completes(draft: Draft) -> None:
    """All bytes are there, and it is not complete; an empty append completes it."""
    upload = draft.create(length=5)
    assert draft.append(upload, 0, b"hello").status < 300
    assert draft.state(upload) == (5, False)
    answer = draft.append(upload, 5, b"", complete=True)
    assert answer.status in SUCCESS
    assert draft.complete(answer) is not False
    _assert_complete(draft, upload, b"hello")


@pytest.mark.holds("R5")
@pytest.mark.parametrize("complete", [True, False], ids=["last", "part"])
def test_nothing_is_appended_to_a_complete_upload(draft: Draft, complete: bool) -> None:
    """Whatever that is answered."""
    upload = draft.whole(DATA)
    assert draft.append(upload, len(DATA), b"more", complete=complete).status < 500
    _assert_complete(draft, upload, DATA)


@pytest.mark.holds("R33")
@pytest.mark.parametrize("body", [b"", b"more"], ids=["empty", "more"])
def test_an_append_to_a_complete_upload(draft: Draft, body: bytes) -> None:
    """The last request may come twice, if its answer was lost. In versions 6 to 8 it is refused, and since then with
    more bytes."""
    upload = draft.whole(DATA)
    answer = draft.append(upload, len(DATA), body, complete=True)
    refused = 400 <= answer.status < 500
    assert refused or (200 <= answer.status < 300 and draft.complete(answer) is not False)
    if 6 <= draft.version <= 8 or (body and draft.version > 8):
        assert refused, f"the request was answered {answer.status}"
    if draft.version == 6 and not body:
        assert answer.status == 400
    _assert_complete(draft, upload, DATA)


def _assert_complete(draft: Draft, upload: str, data: bytes) -> None:
    """Complete, or gone for the draft: what is done is done."""
    answer = draft.head(upload)
    if 200 <= answer.status < 300:
        assert (answer.offset, draft.complete(answer)) == (len(data), True)
    else:
        assert answer.status in REFUSAL
    assert draft.subject.content(upload) in (None, data)


@pytest.mark.holds("R30")
@pytest.mark.parametrize("offset", [0, 3, 5, 10, 11])
def test_another_offset_is_a_conflict(draft: Draft, offset: int) -> None:
    """Below, above, at the end and beyond it; the upload has 4 of 10 bytes. From version 8 on the answer says that
    the upload is not complete; before, it does not say the opposite."""
    upload = draft.create(length=10, body=b"0123")
    answer = draft.append(upload, offset, b"x")
    assert answer.status == 409
    assert answer.offset == 4
    assert draft.complete(answer) is False or (draft.version < 8 and draft.complete(answer) is None)
    assert draft.state(upload) == (4, False)
    assert draft.append(upload, 4, b"456789", complete=True).status < 300
    assert draft.subject.content(upload) in (None, b"0123456789")


@pytest.mark.holds("R30")
@pytest.mark.versions(since=LENGTHS)
def test_a_problem_about_the_offset_has_both(draft: Draft) -> None:
    """Where the server uses the type of problem that the draft registers."""
    answer = draft.append(draft.create(length=10, body=b"0123"), 7, b"x")
    if answer.get("content-type") != "application/problem+json":
        not_offered("problem documents")
    problem = json.loads(answer.body)
    assert problem["type"] == IANA + "mismatching-upload-offset"
    assert (problem["expected-offset"], problem["provided-offset"]) == (4, 7)


@pytest.mark.holds("R6")
def test_an_answer_about_the_upload_does_not_say_that_it_is_complete(draft: Draft) -> None:
    upload, offset = draft.measured()
    refused = [
        draft.append(upload, offset + 1, b"x"),
        draft.append(upload, offset, b"x", complete=True),  # too short
        draft.append(upload, offset + 20, b"x", complete=True),
        draft.subject.request("PATCH", upload, draft.named(), b"x"),
    ]
    assert not [answer for answer in refused if answer.status in REFUSAL and draft.complete(answer)]


@pytest.mark.holds("R7")
@pytest.mark.versions(since=LENGTHS)
@pytest.mark.parametrize("body", [b"hello", b"hello world"], ids=["shorter", "longer"])
def test_lengths_of_one_request_match(draft: Draft, body: bytes) -> None:
    """Upload-Length, and the Content-Length of a body that is to be all of the file."""
    answer = draft.post(True, body, length=10)
    assert answer.status in REFUSAL
    assert not draft.complete(answer)


@pytest.mark.holds("R7")
@pytest.mark.versions(since=4)
def test_lengths_of_several_requests_match(draft: Draft) -> None:
    """An append that is to be the last one, and ends before the length that is known."""
    upload, offset = draft.measured()
    answer = draft.append(upload, offset, b"x", complete=True)
    assert answer.status in REFUSAL
    assert not draft.complete(answer)
    found = draft.head(upload)
    assert found.status >= 400 or not draft.complete(found)


@pytest.mark.holds("R7")
@pytest.mark.versions(since=FINALS)
def test_the_length_does_not_change(draft: Draft) -> None:
    upload = draft.create(length=10)
    answer = draft.append(upload, 0, b"01234", Upload_Length="20")
    assert answer.status in REFUSAL
    found = draft.head(upload)
    assert found.status >= 400 or found["upload-length"] == "10"


@pytest.mark.holds("R34")
@pytest.mark.versions(since=LENGTHS)
@pytest.mark.parametrize("told", [True, False], ids=["Content-Length", "chunked"])
@pytest.mark.parametrize("complete", [True, False], ids=["last", "part"])
def test_the_offset_never_exceeds_the_length(draft: Draft, told: bool, complete: bool) -> None:
    """From version 7 on the upload is over after that. In version 6 it is 400, and bytes up to the length count."""
    upload, offset = draft.measured()
    if told:
        answer = draft.append(upload, offset, b"x" * 15, complete=complete)
    else:
        fields = {**draft.appending(offset, complete), "Transfer-Encoding": "chunked"}
        answer = draft.subject.request("PATCH", upload, fields, chunked(b"x" * 8, b"x" * 7))
    assert answer.status in ((400,) if draft.version == 6 else REFUSAL)
    found = draft.head(upload)
    if draft.version >= FINALS:
        assert found.status in REFUSAL
        assert draft.append(upload, offset, b"x").status in REFUSAL
    elif 200 <= found.status < 300:
        assert found.offset <= 10


@pytest.mark.holds("R26")
@pytest.mark.parametrize("size", [1, 300_000])
def test_an_append_that_is_cut_off_leaves_what_came(draft: Draft, size: int) -> None:
    """All of it had been sent, and the connection was closed in order: nothing of it was lost on the way."""
    upload = draft.create(size + 1000)
    draft.cut_off(upload, size + 1000, bytes(size))
    assert draft.state(upload) == (size, False)
    assert draft.append(upload, size, bytes(1000), complete=True).status < 300


@pytest.mark.holds("R26")
def test_a_body_without_its_end_completes_nothing(draft: Draft) -> None:
    """Every byte of the file came, but not the end of the request that was to be the last."""
    upload = draft.create(len(DATA))
    with under_way(draft, upload, promised=None) as connection:
        connection.send(chunked(DATA, last=False))
        hang_up(connection)
    assert draft.state(upload) == (len(DATA), False)
    assert draft.append(upload, len(DATA), b"", complete=True).status < 300
    assert draft.subject.content(upload) in (None, DATA)


@pytest.mark.holds("R39")
def test_appends_at_the_same_time_do_not_mix(draft: Draft) -> None:
    """Six bodies for the same place: what is there in the end is the beginning of one of them."""
    size = 200_000
    upload = draft.create(size + 5)

    def append(number: int) -> Answer | None:
        try:
            return draft.append(upload, 0, bytes([number]) * size)
        except (ConnectionLostError, OSError):
            return None

    with ThreadPoolExecutor(6) as pool:
        answers = [answer for answer in pool.map(append, range(1, 7)) if answer]
    taken = [answer for answer in answers if 200 <= answer.status < 300]
    assert len(taken) <= 1
    offset = draft.offset(upload)
    assert offset == size if taken else offset <= size
    rest = bytes(size - offset) + b"hello"
    assert draft.append(upload, offset, rest, complete=True).status < 300
    content = draft.subject.content(upload)
    if content is not None:
        assert len(content) == size + 5
        assert len(set(content[:offset])) <= 1
        assert content[offset:] == rest
