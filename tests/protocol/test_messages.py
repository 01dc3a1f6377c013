"""Heads as values: fields are found whatever their case, and two where one belongs are an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol.messages import Headers, Request, Response, Span
from holdfast_protocol.problem import FieldError

names = st.text("abcDEF-", min_size=1, max_size=6)
items = st.lists(st.tuples(names, st.text(st.characters(max_codepoint=255), max_size=5)), max_size=8)


@given(items, names)
def test_fields_are_found_whatever_their_case(pairs: list[tuple[str, str]], name: str) -> None:
    """All of one name together, in their order, and none of another."""
    headers = Headers(pairs)
    values = [value for key, value in pairs if key.lower() == name.lower()]
    for spelling in (name, name.upper(), name.lower()):
        assert headers.get(spelling) == (", ".join(values) if values else None)
        assert (spelling in headers) == bool(values)


@pytest.mark.rule("V-BOOL-1")
@given(items, names)
def test_one_refuses_a_second(pairs: list[tuple[str, str]], name: str) -> None:
    headers = Headers(pairs)
    values = [value for key, value in pairs if key.lower() == name.lower()]
    if len(values) > 1:
        with pytest.raises(FieldError, match="more than once") as info:
            headers.one(name)
        assert info.value.field == name
    else:
        assert headers.one(name) == (values[0] if values else None)


@given(items)
def test_order_and_spelling_are_kept(pairs: list[tuple[str, str]]) -> None:
    headers = Headers(pairs)
    assert list(headers) == pairs
    assert len(headers) == len(pairs)
    assert repr(headers) == f"Headers({pairs!r})"


def test_a_mapping_will_do() -> None:
    headers = Headers({"Upload-Offset": "5", "ETag": '"x"'})
    assert headers.one("upload-offset") == "5"
    assert list(headers) == [("Upload-Offset", "5"), ("ETag", '"x"')]


def test_no_fields() -> None:
    headers = Headers()
    assert len(headers) == 0
    assert headers.get("Range") is None
    assert headers.one("Range") is None
    assert "Range" not in headers


def test_what_is_no_name_is_not_there() -> None:
    assert 5 not in Headers({"5": "x"})


def test_headers_do_not_change_with_what_they_were_made_of() -> None:
    pairs = [("A", "1")]
    headers = Headers(pairs)
    pairs.append(("A", "2"))
    assert headers.one("A") == "1"
    assert len(headers) == 1


def test_a_span_has_a_length() -> None:
    assert Span(3, 10).length == 7
    assert Span(3, 3).length == 0


def test_messages_are_values() -> None:
    request = Request("PATCH", "/files/1", {"Upload-Offset": "0"}, Span(0, 5))
    assert request == Request("PATCH", "/files/1", {"Upload-Offset": "0"}, Span(0, 5))
    assert Request("HEAD", "/files/1").headers == {}
    assert Request("HEAD", "/files/1").body is None
    response = Response(204, Headers())
    assert response.body == b""
    with pytest.raises(AttributeError):
        response.status = 200  # type: ignore[misc]
