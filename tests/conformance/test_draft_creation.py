"""The IETF draft: creations, and the URIs that they give (R1, R16, R19 to R21, R24 to R26, R43, R45 to R47)."""

import gzip
import math
from urllib.parse import unquote

import pytest

from tests.conformance.conftest import not_observed
from tests.conformance.draft import FINALS, LENGTHS, LIMITS, REDIRECTS, REFUSAL, SUCCESS, Draft, hang_up, limits
from tests.support.drafts import chunked

DATA = bytes(range(256)) * 30


@pytest.mark.holds("R1")
def test_each_upload_has_its_own_uri(draft: Draft) -> None:
    """Also when others have been cancelled meanwhile."""
    uploads = [draft.create() for _ in range(8)]
    draft.delete(uploads[-1])
    uploads += [draft.create() for _ in range(4)]
    assert len(set(uploads)) == len(uploads)


@pytest.mark.holds("R45")
def test_uris_cannot_be_guessed(draft: Draft) -> None:
    """Behind what a dozen of them have in common there is room for 64 bits at least, and they do not count."""
    uploads = [draft.create() for _ in range(12)]
    common = next(at for at, letters in enumerate(zip(*uploads, strict=False)) if len(set(letters)) > 1)
    parts = [upload[common:] for upload in uploads]
    letters = len(set("".join(parts)))
    assert min(map(len, parts)) * math.log2(letters) >= 64
    assert parts not in (sorted(parts), sorted(parts, reverse=True))


@pytest.mark.holds("R46")
def test_uris_give_nothing_away(draft: Draft) -> None:
    """Neither the name of the file nor anything of the folders of the server."""
    answer = draft.post(False, length=10, Content_Disposition='inline; filename="wages of the mayor.ods"')
    upload = unquote(draft.where(answer)).lower()
    assert not [word for word in ("wages", "mayor", "ods", "/tmp", "/var", "/home", "/root", "..") if word in upload]


@pytest.mark.holds("R47")
@pytest.mark.parametrize(
    "disposition",
    [
        'inline; filename="../../../../etc/passwd"',
        "inline; filename*=UTF-8''passwd%0d%0aX-Injected%3A%20yes",
        'inline; filename="a\\"; x-injected=\\"b"',
        "inline; filename*=UTF-8''%E2%82%AC%00.txt",
    ],
    ids=["path", "line break", "quotes", "zero"],
)
def test_names_of_files_are_sanitized(draft: Draft, disposition: str) -> None:
    answer = draft.post(False, length=5, Content_Disposition=disposition)
    if answer.status in REFUSAL:
        return
    upload = draft.where(answer)
    assert draft.append(upload, 0, b"hello", complete=True).status < 300
    for found in (draft.head(upload), draft.subject.request("GET", upload, draft.named())):
        assert found.status < 500
        assert "x-injected" not in found
        shown = unquote(found.get("content-disposition") or "")
        assert not [word for word in ("/", "\r", "\n", "\0") if word in shown]


@pytest.mark.holds("R19")
@pytest.mark.parametrize("body", [b"", b"hello"], ids=["empty", "part"])
def test_a_part_creates_an_upload(draft: Draft, body: bytes) -> None:
    """Its URL is in the answer. Up to version 6 that is 201."""
    answer = draft.post(False, body, length=10)
    assert answer.status in ((201,) if draft.version < FINALS else SUCCESS)
    assert answer.get("location")
    assert draft.state(draft.where(answer)) == (len(body), False)


@pytest.mark.holds("R19")
@pytest.mark.versions(since=8)
def test_a_part_is_answered_with_the_limits(draft: Draft) -> None:
    if limits(draft.options()) in (None, {"min-size": 0}):
        not_observed("the server has no limits")
    assert limits(draft.post(False, b"hello", length=10))


@pytest.mark.holds("R20", "R24")
@pytest.mark.parametrize("data", [DATA, b"x"], ids=["some", "one byte"])
def test_a_whole_file_in_one_request(draft: Draft, data: bytes) -> None:
    """It is complete then. From version 7 on the answer says so; before, it does not say the opposite."""
    answer = draft.post(True, data)
    assert answer.status in SUCCESS
    assert draft.complete(answer) is True or (draft.version < FINALS and draft.complete(answer) is None)
    if "location" in answer:
        assert draft.subject.content(draft.where(answer)) in (None, data)


@pytest.mark.holds("R20")
def test_a_whole_file_of_unknown_length(draft: Draft) -> None:
    """Its end is that of the body."""
    fields = {**draft.creating(True), "Transfer-Encoding": "chunked"}
    answer = draft.subject.request("POST", draft.subject.url, fields, chunked(DATA[:5000], DATA[5000:]))
    assert answer.status in SUCCESS
    assert draft.complete(answer) is not False


@pytest.mark.holds("R16")
@pytest.mark.versions(since=LIMITS)
def test_limits_of_appends_hold_for_creations(draft: Draft) -> None:
    """An empty creation and one that completes are taken, however short; one between the limits too."""
    told = limits(draft.options()) or {}
    assert draft.post(False, length=10).status in SUCCESS
    assert draft.post(True, b"x").status in SUCCESS
    size = min(max(told.get("min-append-size", 0), 1000), told.get("max-append-size", 1000))
    assert draft.post(False, bytes(size), length=size + 1).status in SUCCESS


@pytest.mark.holds("R21", "R27")
@pytest.mark.versions(since=LENGTHS)
def test_the_length_of_a_creation_is_recorded(draft: Draft) -> None:
    assert draft.head(draft.create(length=10))["upload-length"] == "10"
    answer = draft.post(False, b"hello")
    assert "upload-length" not in draft.head(draft.where(answer)), "nobody has said how long it is"


@pytest.mark.holds("R21")
@pytest.mark.versions(since=FINALS)
def test_a_request_that_says_it_is_all_tells_the_length(draft: Draft) -> None:
    """By its Content-Length, even if it does not come to its end."""
    upload = draft.create(length=None)
    draft.cut_off(upload, 10, b"0123")
    assert draft.head(upload)["upload-length"] == "10"


@pytest.mark.holds("R24")
def test_the_answers_say_whether_it_is_complete(draft: Draft) -> None:
    created = draft.post(False, length=10)
    assert draft.complete(created) is False
    upload = draft.where(created)
    first = draft.append(upload, 0, b"01234")
    last = draft.append(upload, 5, b"56789", complete=True)
    assert first.status in SUCCESS
    assert last.status in SUCCESS
    assert draft.complete(first) is False or 4 <= draft.version < FINALS  # there the text has `true` by mistake
    assert draft.complete(last) is True or (draft.version < FINALS and draft.complete(last) is None)


@pytest.mark.holds("R25")
def test_no_answer_leads_elsewhere(draft: Draft) -> None:
    created = draft.post(False, b"hello", length=10)
    upload = draft.where(created)
    answers = [
        created,
        draft.head(upload),
        draft.append(upload, 9, b"x"),
        draft.append(upload, 5, b"x"),
        draft.delete(upload),
        draft.head(upload),
        draft.append(upload, 0, b"x"),
        draft.delete(upload),
        draft.post(True, b"hello"),
    ]
    assert not [answer.status for answer in answers if answer.status in REDIRECTS]


@pytest.mark.holds("R26")
def test_a_creation_that_is_cut_off_leaves_what_came(draft: Draft, interim: None) -> None:
    """Its URL was told before its end."""
    fields = {**draft.creating(True), "Expect": "100-continue"}
    with draft.sending("POST", draft.subject.url, fields, 100_000, b"") as connection:
        heads = [connection.read_head()]
        while heads[-1].status != 100:
            heads.append(connection.read_head())
        upload = next(draft.where(head) for head in heads if "location" in head)
        connection.send(bytes(60_000))
        hang_up(connection)
    assert draft.state(upload) == (60_000, False)


@pytest.mark.holds("R43")
def test_transfer_coding_is_not_counted(draft: Draft) -> None:
    fields = {**draft.creating(False, 20), "Transfer-Encoding": "chunked"}
    answer = draft.subject.request("POST", draft.subject.url, fields, chunked(b"hello", b" world"))
    upload = draft.where(answer)
    assert draft.offset(upload) == 11
    fields = {**draft.appending(11, False), "Transfer-Encoding": "chunked"}
    assert draft.subject.request("PATCH", upload, fields, chunked(b"a", b"b", b"c")).status < 300
    assert draft.offset(upload) == 14


@pytest.mark.holds("R43")
def test_content_coding_is_counted(draft: Draft) -> None:
    """A file that is sent compressed is that many bytes long; the server does not unpack it for the count."""
    packed = gzip.compress(DATA, mtime=0)
    answer = draft.post(False, packed[:100], length=len(packed), Content_Encoding="gzip")
    upload = draft.where(answer)
    assert draft.offset(upload) == 100
    assert draft.append(upload, 100, packed[100:], complete=True).status < 300
