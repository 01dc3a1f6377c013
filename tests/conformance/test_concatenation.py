"""concatenation and concatenation-unfinished (S65 to S79)."""

from urllib.parse import urlsplit

import pytest

from tests.conformance.conftest import not_offered
from tests.conformance.subject import Subject, b64
from tests.support.waiting import eventually
from tests.support.wire import Answer

NEEDS = ("creation",)
HELLO, WORLD = b"hello ", b"the world"


def _part(subject: Subject, data: bytes, **fields: str) -> str:
    return subject.uploaded(data, Upload_Concat="partial", **fields)


def _join(subject: Subject, *parts: str, **fields: str) -> Answer:
    return subject.post(Upload_Concat="final;" + " ".join(parts), **fields)


def _path(url: str) -> str:
    return urlsplit(url).path


def _joined(subject: Subject, final: str) -> Answer:
    """HEAD once the parts are put together, which may take a while."""
    eventually(lambda: "upload-offset" in subject.head(final), every=0.05, what="the end of concatenation")
    return subject.head(final)


@pytest.mark.holds("S65", needs=NEEDS)
def test_concatenation_is_announced(subject: Subject) -> None:
    answer = subject.post(Upload_Length="3", Upload_Concat="partial")
    works = answer.status == 201 and subject.head(subject.where(answer)).get("upload-concat") == "partial"
    if not works and not subject.offers("concatenation"):
        not_offered("concatenation")
    assert (works, subject.offers("concatenation")) == (True, True)


@pytest.mark.holds("S75", "S77", needs=NEEDS)
def test_a_part_is_an_upload_like_others(subject: Subject) -> None:
    part = subject.create(len(HELLO), Upload_Concat="partial")
    for offset in (0, 3):
        head = subject.head(part)
        assert head["upload-offset"] == str(offset)
        assert head["upload-length"] == str(len(HELLO))
        assert head["upload-concat"] == "partial"
        assert subject.patch(part, offset, HELLO[offset : offset + 3]).status == 204
    assert subject.head(part)["upload-concat"] == "partial"


@pytest.mark.holds("S67", "S68", "S74", "S76", "S78", needs=NEEDS)
@pytest.mark.parametrize("form", ["absolute", "relative", "mixed"])
def test_parts_are_put_together_in_order(subject: Subject, form: str) -> None:
    """Listed against the order of their creation; by whole URLs, by paths, and by both."""
    one, two = _part(subject, WORLD), _part(subject, HELLO)
    listed = {"absolute": (two, one), "relative": (_path(two), _path(one)), "mixed": (two, _path(one))}[form]
    answer = _join(subject, *listed)
    assert answer.status == 201
    final = subject.where(answer)
    head = _joined(subject, final)
    size = len(HELLO) + len(WORLD)
    assert (head["upload-length"], head["upload-offset"]) == (str(size), str(size))
    assert subject.content(final) in (None, HELLO + WORLD)


@pytest.mark.holds("S77", needs=NEEDS)
@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_head_tells_the_list_as_it_came(subject: Subject, form: str) -> None:
    parts = [_part(subject, HELLO), _part(subject, WORLD)]
    listed = parts if form == "absolute" else [_path(part) for part in parts]
    final = subject.where(_join(subject, *listed))
    assert subject.head(final)["upload-concat"] == "final;" + " ".join(listed)


@pytest.mark.holds("S67", needs=NEEDS)
def test_an_empty_part_adds_nothing(subject: Subject) -> None:
    empty, part = _part(subject, b""), _part(subject, HELLO)
    final = subject.where(_join(subject, empty, part, empty))
    assert _joined(subject, final)["upload-length"] == str(len(HELLO))


@pytest.mark.holds("S70", needs=NEEDS)
def test_metadata_of_parts_stays_with_them(subject: Subject) -> None:
    """The final upload has what its own creation gave, and without that nothing."""
    part = _part(subject, HELLO, Upload_Metadata=f"filename {b64(b'part.bin')}")
    own = f"filename {b64(b'whole.bin')}"
    assert subject.head(subject.where(_join(subject, part, Upload_Metadata=own)))["upload-metadata"] == own
    assert subject.head(subject.where(_join(subject, part))).get("upload-metadata") in (None, "")


@pytest.mark.holds("S72", needs=NEEDS)
def test_a_part_may_be_used_again(subject: Subject) -> None:
    """Twice in one list, and once more in another final upload."""
    part = _part(subject, HELLO)
    twice = subject.where(_join(subject, part, part))
    assert _joined(subject, twice)["upload-length"] == str(2 * len(HELLO))
    assert subject.content(twice) in (None, HELLO + HELLO)
    once = subject.where(_join(subject, part))
    assert _joined(subject, once)["upload-length"] == str(len(HELLO))
    assert subject.content(once) in (None, HELLO)


@pytest.mark.holds("S69", needs=NEEDS)
def test_unfinished_parts(subject: Subject) -> None:
    """Refused, unless concatenation-unfinished is offered; then the final one is whole when the parts are."""
    one, two = _part(subject, HELLO), subject.create(len(WORLD), Upload_Concat="partial")
    answer = _join(subject, one, two)
    if not subject.offers("concatenation-unfinished"):
        assert 400 <= answer.status < 500
        assert "location" not in answer
        return
    final = subject.where(answer)
    assert subject.patch(two, 0, WORLD).status == 204
    assert _joined(subject, final).offset == len(HELLO) + len(WORLD)
    assert subject.content(final) in (None, HELLO + WORLD)


@pytest.mark.holds("S74", "S76", needs=("creation", "concatenation-unfinished"))
def test_a_final_upload_that_is_not_joined_yet_has_no_offset(subject: Subject) -> None:
    """Its length is known all the same, as the lengths of all parts are."""
    one, two = _part(subject, HELLO), subject.create(len(WORLD), Upload_Concat="partial")
    final = subject.where(_join(subject, one, two))
    head = subject.head(final)
    assert head.status in (200, 204)
    assert "upload-offset" not in head
    assert head["upload-length"] == str(len(HELLO) + len(WORLD))


@pytest.mark.holds("S73", needs=NEEDS)
def test_a_final_upload_takes_no_bytes(subject: Subject) -> None:
    """Neither at its start nor at its end; its parts stay as they are too."""
    part = _part(subject, HELLO)
    final = subject.where(_join(subject, part))
    _joined(subject, final)
    for offset in (0, len(HELLO)):
        assert subject.patch(final, offset, b"x").status == 403
    assert subject.offset(final) == len(HELLO)
    assert subject.content(final) in (None, HELLO)
    if subject.head(part).status in (200, 204):
        assert subject.offset(part) == len(HELLO)


@pytest.mark.holds("S78", needs=NEEDS)
@pytest.mark.parametrize(
    "value", ["whole", "final", "final;", "partial;/files/a", "final;not-a-url-of-an-upload", "Final;"]
)
def test_another_value_of_upload_concat_is_refused(subject: Subject, value: str) -> None:
    answer = subject.post(Upload_Length="3", Upload_Concat=value)
    assert 400 <= answer.status < 500
    assert "location" not in answer


@pytest.mark.holds("S78", needs=NEEDS)
def test_a_part_that_is_not_there_is_refused(subject: Subject) -> None:
    part = _part(subject, HELLO)
    answer = _join(subject, part, subject.nobody(part))
    assert 400 <= answer.status < 500
    assert "location" not in answer


@pytest.mark.holds("S79", needs=NEEDS)
def test_the_length_of_a_final_upload_cannot_be_given(subject: Subject) -> None:
    answer = _join(subject, _part(subject, HELLO), Upload_Length="1000")
    if answer.status == 201:
        assert _joined(subject, subject.where(answer))["upload-length"] == str(len(HELLO))
    else:
        assert 400 <= answer.status < 500
