"""expiration (S47 to S52)."""

import time
from email.utils import parsedate_to_datetime

import pytest

from tests.conformance.conftest import not_observed, not_offered
from tests.conformance.subject import IMF_FIXDATE, TUS, Subject
from tests.support.waiting import eventually
from tests.support.wire import Answer


def _expires(subject: Subject, upload: str) -> bool:
    """Whether this upload is going to expire, as far as the server says anywhere."""
    return "upload-expires" in subject.head(upload) or "upload-expires" in subject.patch(upload, 0, b"ab")


@pytest.mark.holds("S47", needs=("creation",))
def test_expiry_is_announced(subject: Subject) -> None:
    upload = subject.create(10)
    tells = _expires(subject, upload)
    if not tells and not subject.offers("expiration"):
        not_offered("expiration")
    assert subject.offers("expiration")


@pytest.mark.holds("S48", needs=("creation",))
@pytest.mark.parametrize("what", ["stored", "conflict", "other type", "no offset"])
def test_every_answer_to_a_patch_tells_the_expiry(subject: Subject, what: str) -> None:
    """Of an upload that is not finished; also where the PATCH was refused."""
    upload = subject.create(10)
    if not _expires(subject, upload):
        not_offered("an upload that expires")
    offset = subject.offset(upload)
    answer: Answer
    match what:
        case "stored":
            answer = subject.patch(upload, offset, b"c")
            assert answer.status == 204
        case "conflict":
            answer = subject.patch(upload, 9, b"c")
        case "other type":
            answer = subject.patch(upload, offset, b"c", Content_Type="text/plain")
        case _:
            answer = subject.patch(upload, "nowhere", b"c")
    assert "upload-expires" in answer


@pytest.mark.holds("S49", needs=("creation",))
def test_the_creation_tells_the_expiry(subject: Subject) -> None:
    answer = subject.post(Upload_Length="10")
    upload = subject.where(answer)
    if "upload-expires" not in subject.head(upload):
        not_offered("an expiry that is known before the first PATCH")
    assert "upload-expires" in answer


@pytest.mark.holds("S52", needs=("creation",))
def test_the_expiry_is_a_date_to_come(subject: Subject) -> None:
    created = subject.post(Upload_Length="10")
    upload = subject.where(created)
    answers = [created, subject.head(upload), subject.patch(upload, 0, b"ab")]
    values = [value for answer in answers if (value := answer.get("upload-expires")) is not None]
    if not values:
        not_offered("an upload that expires")
    for value in values:
        assert IMF_FIXDATE.fullmatch(value)
        assert parsedate_to_datetime(value).timestamp() > time.time() - 60


@pytest.mark.holds("S51", needs=("creation",))
@pytest.mark.parametrize("sent", [0, 4])
def test_an_expired_upload_is_gone(hasty: Subject, patience: float, sent: int) -> None:
    created = hasty.post(Upload_Length="10")
    upload = hasty.where(created)
    if sent:
        created = hasty.patch(upload, 0, b"0123"[:sent])
    value = created.get("upload-expires") or hasty.head(upload).get("upload-expires")
    if value is None:
        not_offered("an upload that expires")
    left = parsedate_to_datetime(value).timestamp() - time.time()
    if left > patience:
        not_observed(f"an upload expires only after {left:.0f} s; --patience says how long to wait")
    eventually(lambda: hasty.head(upload).status in (404, 410), within=left + 10, every=0.1, what="the expiry")
    assert "upload-offset" not in hasty.head(upload)
    assert hasty.patch(upload, sent, b"x").status in (404, 410)
    assert hasty.request("GET", upload, TUS).status != 200
