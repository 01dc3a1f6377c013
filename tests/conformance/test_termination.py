"""termination (S62 to S64)."""

import pytest

from tests.conformance.conftest import not_offered
from tests.conformance.subject import BODY, TUS, Subject
from tests.support.wire import ConnectionLostError

GONE = (404, 410)


@pytest.mark.holds("S62", needs=("creation",))
def test_termination_is_announced(subject: Subject) -> None:
    upload = subject.create(10)
    works = subject.delete(upload).status == 204 and subject.head(upload).status in GONE
    if not works and not subject.offers("termination"):
        not_offered("termination")
    assert (works, subject.offers("termination")) == (True, True)


@pytest.mark.holds("S63", "S64", needs=("creation",))
@pytest.mark.parametrize("sent", [0, 4, 10])
def test_an_upload_ends_in_any_state(subject: Subject, sent: int) -> None:
    """Empty, begun and complete: nothing of it can be reached again."""
    upload = subject.create(10)
    if sent:
        assert subject.patch(upload, 0, b"0123456789"[:sent]).status == 204
    assert subject.delete(upload).status == 204
    head = subject.head(upload)
    assert head.status in GONE
    assert "upload-offset" not in head
    assert subject.patch(upload, sent, b"x").status in GONE
    assert subject.delete(upload).status in GONE
    assert subject.request("GET", upload, TUS).status in (*GONE, 405)


@pytest.mark.holds("S64", needs=("creation",))
def test_a_running_patch_does_not_outlive_its_upload(subject: Subject) -> None:
    """DELETE is answered although the PATCH goes on sending; it brings nothing back."""
    upload = subject.create(100_000)
    with subject.connect() as running:
        running.begin("PATCH", upload, {**BODY, "Upload-Offset": "0", "Content-Length": "100000"})
        running.send(bytes(50_000))
        assert subject.delete(upload).status == 204
        try:
            running.send(bytes(50_000))
            status = running.read().status
        except (OSError, ConnectionLostError):
            status = 0
    assert not 200 <= status < 300
    assert subject.head(upload).status in GONE
