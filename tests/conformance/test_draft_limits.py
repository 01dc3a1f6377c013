"""The IETF draft: limits (R9 to R15, R50). There are none before version 6."""

import itertools

import pytest

from tests.conformance.conftest import not_observed
from tests.conformance.draft import LIMITS, SUCCESS, Draft, limits
from tests.support.wire import Answer

pytestmark = pytest.mark.versions(since=LIMITS)

LARGEST = 999_999_999_999_999
"""No integer of a structured field is larger."""


def _beyond(draft: Draft) -> Answer:
    """The refusal of a creation whose length is above the limit; the test ends if there is none."""
    most = (limits(draft.options()) or {}).get("max-size", LARGEST)
    if most >= LARGEST:
        not_observed("the server has no largest size")
    answer = draft.post(False, length=most + 1)
    if answer.status in SUCCESS:
        not_observed("an upload that is too large is refused later, if ever")
    return answer


@pytest.mark.holds("R9")
def test_limits_are_enforced(draft: Draft) -> None:
    answer = _beyond(draft)
    assert 400 <= answer.status < 500
    assert "location" not in answer


@pytest.mark.holds("R9", "R13")
def test_limits_are_integers(draft: Draft) -> None:
    """Wherever they are told: in OPTIONS, at the creation, in HEAD. They are never empty."""
    created = draft.post(False, b"hello", length=10)
    for answer in (draft.options(), created, draft.head(draft.where(created))):
        told = limits(answer)
        assert told is None or (told and min(told.values()) >= 0)


@pytest.mark.holds("R10")
def test_limits_do_not_become_tighter(draft: Draft) -> None:
    created = draft.post(False, b"hello", length=10)
    upload = draft.where(created)
    answers = [created, draft.head(upload), draft.append(upload, 5, b"x"), draft.head(upload)]
    told = [found for answer in answers if answer.status < 300 and (found := limits(answer))]
    for earlier, later in itertools.pairwise(told):
        _assert_no_tighter(later, earlier)
        for end in ("max-age", "expires"):
            assert later.get(end, earlier.get(end, 0) + 1) >= earlier.get(end, 0) - 60  # these count seconds down


@pytest.mark.holds("R11", "R13")
def test_options_tells_the_limits(draft: Draft) -> None:
    assert limits(draft.options())


@pytest.mark.holds("R12")
def test_options_for_all_resources_tells_them_too(draft: Draft) -> None:
    """In a server whose resources all have the same limits; of another one nothing is asked."""
    with draft.subject.connect() as connection:
        answer = connection.request("OPTIONS", "*", draft.named())
    if (told := limits(answer)) is None:
        not_observed(f"OPTIONS * is {answer.status} without limits; those of the resources may differ")
    assert told == limits(draft.options())


@pytest.mark.holds("R14")
def test_options_tells_no_tighter_limits_than_uploads_have(draft: Draft) -> None:
    created = draft.post(False, b"hello", length=10)
    for answer in (created, draft.head(draft.where(created))):
        if (later := limits(answer)) is not None:
            _assert_no_tighter(later, limits(draft.options()) or {})


def _assert_no_tighter(later: dict[str, int], earlier: dict[str, int]) -> None:
    for name, value in earlier.items():
        if name.startswith("max-") and name != "max-age":
            assert later.get(name, value) >= value, name
        if name.startswith("min-"):
            assert later.get(name, value) <= value, name


@pytest.mark.holds("R15")
@pytest.mark.versions(since=9)
def test_a_refusal_for_a_limit_tells_the_limits(draft: Draft) -> None:
    answer = _beyond(draft)
    assert 400 <= answer.status < 500
    assert "max-size" in (limits(answer) or {})


@pytest.mark.holds("R50")
def test_an_upload_has_a_lifetime(draft: Draft) -> None:
    """Of all that a server can do about uploads that never go on, this can be seen."""
    head = draft.head(draft.create())
    told = limits(head) or {}
    if not told.keys() & {"max-age", "expires"} and "upload-expires" not in head:
        not_observed("the server tells no lifetime")
    for name in told.keys() & {"max-age", "expires"}:
        assert told[name] > 0
