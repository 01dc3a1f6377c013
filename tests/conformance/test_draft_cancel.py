"""The IETF draft: cancellation (R37, R38)."""

import pytest

from tests.conformance.conftest import not_offered
from tests.conformance.draft import Draft, ended, under_way

NO_DELETE = (405, 501)


@pytest.mark.holds("R37")
@pytest.mark.parametrize("sent", [0, 4])
def test_a_cancelled_upload_is_gone(draft: Draft, sent: int) -> None:
    """Up to version 8 the answer is 204, and all that follow are 404 in those with a number below 7."""
    upload = draft.create(length=10, body=b"0123"[:sent])
    answer = draft.delete(upload)
    if answer.status in NO_DELETE:
        not_offered("DELETE")
    assert answer.status == 204 or (draft.version > 8 and 200 <= answer.status < 300)
    for after in (draft.head(upload), draft.append(upload, sent, b"x"), draft.delete(upload)):
        assert 400 <= after.status < 500
        assert "upload-offset" not in after


@pytest.mark.holds("R38", "R41")
def test_requests_under_way_end_with_it(draft: Draft) -> None:
    upload = draft.create()
    with under_way(draft, upload) as before:
        answer = draft.delete(upload)
        if answer.status in NO_DELETE:
            not_offered("DELETE")
        assert ended(before, patience=20), "the append is still under way"
    assert 200 <= answer.status < 300
    assert 400 <= draft.head(upload).status < 500
