"""`Upload-Concat` and the URLs in it."""

import pytest

from holdfast_protocol.concat import Concat, parse_concat, upload_ids
from holdfast_protocol.problem import FieldError

A, B = "a" * 32, "0123456789abcdef" * 2
HOSTS = ("Here.example:8000", "front.example", "[::1]:8000")


def ids(*urls: str, path: str = "/files") -> tuple[str, ...]:
    return upload_ids(urls, path, HOSTS)


@pytest.mark.rule("T-CONCAT-1", "T-CONCAT-3")
def test_both_kinds() -> None:
    assert parse_concat("partial") == Concat("partial", None)
    raw = "final;/files/a http://h/b"
    assert parse_concat(raw) == Concat(raw, ("/files/a", "http://h/b"))


@pytest.mark.rule("T-CONCAT-1", "T-CONCAT-3")
@pytest.mark.parametrize(
    "value", ["", "Partial", "partial;", "final", "final;", "final; /a", "final;/a  /b", "final;/a ", "last;/a"]
)
def test_anything_else_is_malformed(value: str) -> None:
    with pytest.raises(FieldError):
        parse_concat(value)


@pytest.mark.rule("T-CONCAT-3")
def test_urls_are_resolved_by_their_path() -> None:
    assert ids(f"/files/{A}", f"http://here.example:8000/files/{B}", f"/files/{A}/") == (A, B, A)
    assert ids(f"files/{A}", f"./files/{A}", f"//here.example:8000/files/{A}") == (A, A, A)
    assert ids(A, f"../files/{A}", path="/files/") == (A, A)
    assert ids(f"/api/v2/files/{A}", f"https://front.example/up/files/{A}") == (A, A)
    assert ids(f"https://front.example:443/files/{A}", f"http://[::1]:8000/files/{A}") == (A, A)


@pytest.mark.rule("T-CONCAT-3")
@pytest.mark.parametrize(
    "url",
    [
        f"http://elsewhere.example/files/{A}",
        f"http://here.example/files/{A}",
        f"http://here.example:8001/files/{A}",
        f"ftp://front.example/files/{A}",
        f"file:///files/{A}",
        f"http:///files/{A}",
        f"/files/{A[:-1]}",
        f"/files/{A.upper()}",
        f"/profiles/{A}",
        f"/files/{A}/more",
        f"/files/{A}?x=1",
        f"/api/uploads/{A}",
        "/files/",
        A,
        "http://[::1/files/a",
        f"http://front.example:99999/files/{A}",
    ],
)
def test_what_is_no_upload_here_is_refused(url: str) -> None:
    with pytest.raises(FieldError):
        ids(url)
