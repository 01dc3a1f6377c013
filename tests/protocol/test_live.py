"""Topics, places, messages and the stream of events, by their values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol import live
from holdfast_protocol.live import EventStream, Kind, Message, MessageError, Place, Topic

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=256)
LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)
ID = "0123456789abcdef" * 2


@pytest.mark.rule("L-TOPIC-1")
@given(NAMES)
def test_a_topic_is_read_as_it_was_written(name: str) -> None:
    for topic in (Topic(Kind.OWNER, name), Topic(Kind.PROJECT, name), Topic(Kind.ALL), Topic(Kind.UPLOAD, ID)):
        assert Topic.parse(str(topic)) == topic


@pytest.mark.rule("L-TOPIC-1")
@pytest.mark.parametrize(
    "text",
    ["", "all:", "ALL", "upload:", f"upload:{ID}0", f"upload:{ID.upper()}", "owner:", "project:a\nb", "user:x",
     "project:" + "x" * 257, "project:\x9f"],
)  # fmt: skip
def test_what_is_no_topic(text: str) -> None:
    with pytest.raises(ValueError, match="is no topic"):
        Topic.parse(text)


@pytest.mark.rule("L-SUB-4")
def test_topics_are_counted_and_taken_once() -> None:
    assert live.parse_topics(["all", "owner:a", "all"]) == (Topic(Kind.ALL), Topic(Kind.OWNER, "a"))
    with pytest.raises(ValueError, match="at most 128"):
        live.parse_topics(["all"] * 129)


@pytest.mark.rule("L-SSE-2")
def test_a_place_that_is_malformed_is_in_no_log() -> None:
    assert Place.parse("5c-41") == Place("5c", 41)
    assert str(Place("5c", 41)) == "5c-41"
    for text in ("", "5c", "5c-", "-1", "5C-1", "5c-1-2", "5c-x", "5c-" + "1" * 19):
        assert Place.parse(text) == Place("", 0)


@pytest.mark.rule("L-SUB-1")
def test_messages() -> None:
    assert live.parse_message('{"action":"ping","id":"x"}') == Message("ping", id="x")
    wanted = {"action": "subscribe", "topics": ["all"], "since": {"epoch": "a", "offset": 3}, "more": 1}
    assert live.parse_message(json.dumps(wanted)) == Message("subscribe", (Topic(Kind.ALL),), Place("a", 3))
    found = live.parse_message(json.dumps({"action": "unsubscribe", "task_id": ID, "id": 4}))
    assert found == Message("unsubscribe", (Topic(Kind.UPLOAD, ID),), None, 4)


@pytest.mark.rule("L-SUB-1", "L-SUB-4")
@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "1", "{}", '{"action":1}', '{"action":"ping","id":true}', '{"action":"ping","id":[]}',
     '{"action":"subscribe","topics":"all"}', '{"action":"subscribe","topics":[1]}',
     '{"action":"subscribe","topics":["all"],"since":{"epoch":"a"}}',
     '{"action":"subscribe","topics":["all"],"since":{"epoch":"a","offset":true}}',
     '{"action":"subscribe","topics":["all"],"since":{"epoch":"a","offset":-1}}', "[" * 100_000],
)  # fmt: skip
def test_malformed_messages(text: str) -> None:
    with pytest.raises(MessageError):
        live.parse_message(text)


@pytest.mark.rule("L-RECOVER-1")
def test_where_a_client_goes_on_from() -> None:
    place = {"epoch": "5c", "offset": 7}
    for kind in ("connected", "synced", "ping"):
        assert live.place_of(live.envelope(kind, place)) == Place("5c", 7)
    assert live.place_of(live.envelope("status", {}, **place)) == Place("5c", 7)
    assert live.place_of(live.envelope("subscribed", place)) is None
    assert live.place_of(live.envelope("progress", {})) is None
    with pytest.raises(ValueError, match="version 1"):
        live.place_of({"v": 2, "type": "ping", "payload": place})


@pytest.mark.rule("L-BACKOFF-1")
def test_waits_double_up_to_twenty_seconds() -> None:
    assert [live.longest_wait(failures) for failures in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert live.longest_wait(10**9) == 20


@pytest.mark.rule("L-SSE-1")
@given(st.lists(LINES), st.data())
def test_a_stream_is_read_however_it_is_cut(texts: list[str], data: st.DataObject) -> None:
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = [f"event: x{end}id: 5c-1{end}: a comment{end}data: {text}{end}{end}" for text in texts]
    stream = f"retry: 500{end}{end}{''.join(lines)}".encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader, found = EventStream(), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += list(reader.feed(stream[start:stop]))
    assert found == texts


def test_data_in_several_lines_and_a_stream_without_an_end() -> None:
    assert list(EventStream().feed(b"data: a\ndata:b\n\n")) == ["a\nb"]
    with pytest.raises(ValueError, match="does not end"):
        list(EventStream().feed(b"data: " + b"x" * (live.LONGEST_EVENT + 1)))
