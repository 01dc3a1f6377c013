"""Static tokens: their shape, their file, and what happens when it changes."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth import SCOPES, Principal, Request, Scope
from holdfast_server.auth import tokens as rules
from holdfast_server.auth.tokens import TokenFile, made, parse, without

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.isprintable)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def asking(authorization: str | None) -> Request:
    return Request(
        "GET", "/files", "", Headers({} if authorization is None else {"Authorization": authorization}), None
    )


def new(number: int = 1, owner: str = "alice", expires: float | None = None) -> tuple[str, str, str]:
    who = Principal(owner, frozenset({"read"}), expires=expires)
    return made(who, bytes([number]) * 36)


@pytest.mark.rule("A-TOKEN-1")
@given(
    NAMES,
    st.frozensets(st.sampled_from(sorted(SCOPES))),
    st.frozensets(NAMES, max_size=3),
    st.none() | NAMES,
    st.none() | st.integers(0, 4_000_000_000).map(float),
    st.binary(min_size=36, max_size=36),
)
def test_what_is_written_is_read(
    owner: str,
    scopes: frozenset[Scope],
    projects: frozenset[str],
    project: str | None,
    expires: float | None,
    random: bytes,
) -> None:
    who = rules.principal(owner, sorted(scopes), sorted(projects), project, expires)
    token_id, token, table = made(who, random)
    (entry,) = parse(table.encode()).values()
    assert (entry.id, entry.principal, entry.sha256) == (token_id, who, rules.hashed(token))
    assert token.split("_", 2)[2] not in table


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[[token]]\nid = 'a'\n", "owner"),
        ("token = 5\n", r"\[\[token\]\]"),
        ("[tokens]\n", r"\[\[token\]\]"),
        ("[[token]]\nid='a'\nsha256='0'\nowner='x'\nscopes=[]\n", "64"),
        (f"[[token]]\nid='a'\nsha256='{'0' * 64}'\nowner=''\nscopes=[]\n", "owner"),
        (f"[[token]]\nid='a'\nsha256='{'0' * 64}'\nowner='x'\nscopes=['all']\n", "scopes"),
        (f"[[token]]\nid='a'\nsha256='{'0' * 64}'\nowner='x'\nscopes=[]\nexpires=2027-01-01T00:00:00\n", "offset"),
        (f"[[token]]\nid='a'\nsha256='{'0' * 64}'\nowner='x'\nscopes=[]\nadmin=true\n", "a token has"),
        (2 * f"[[token]]\nid='a'\nsha256='{'0' * 64}'\nowner='x'\nscopes=[]\n", "same id"),
        ("[[token]\n", "line"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_words(table: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(table.encode())


@pytest.mark.rule("A-HEAD-3")
def test_a_token_is_found_by_all_of_it(tmp_path: Path) -> None:
    token_id, token, table = new()
    _, other, _ = new(2)
    path = tmp_path / "tokens"
    path.write_text(table)
    find = TokenFile(path)
    found = find(asking(f"Bearer {token}"))
    assert found is not None
    assert found.owner == "alice"
    assert find(asking(f"bearer  {token}")) == found
    basic = base64.b64encode(f"anybody:{token}".encode()).decode()
    assert find(asking(f"Basic {basic}")) == found
    wrong = [
        None, "", token, f"Bearer {other}", f"Bearer {token[:-1]}", f"Bearer {token}x", f"Bearer hft_{token_id}_",
        f"Bearer {token.upper()}", f"Digest {token}", "Basic !", f"Basic {base64.b64encode(token.encode()).decode()}",
        f"Bearer {rules.hashed(token)}", "Bearer hft_\xff", "Basic /w==",
    ]  # fmt: skip
    for each in wrong:
        assert find(asking(each)) is None, each


@pytest.mark.rule("A-HEAD-2")
def test_a_token_expires(tmp_path: Path) -> None:
    clock = Clock()
    _, token, table = new(expires=clock.now + 10)
    path = tmp_path / "tokens"
    path.write_text(table)
    find = TokenFile(path, now=clock)
    assert find(asking(f"Bearer {token}")) is not None
    clock.now += 10
    with pytest.raises(ProblemError) as caught:
        find(asking(f"Bearer {token}"))
    assert (caught.value.status, caught.value.code) == (401, "credential-expired")


@pytest.mark.rule("A-TOKEN-1")
def test_the_file_may_change(tmp_path: Path) -> None:
    """A change counts within a second; what cannot be read changes nothing."""
    clock = Clock()
    (_, one, first), (two_id, two, second) = new(1), new(2, "bob")
    path = tmp_path / "tokens"
    path.write_text(first)
    find = TokenFile(path, monotonic=clock)

    def known() -> list[bool]:
        return [find(asking(f"Bearer {token}")) is not None for token in (one, two)]

    assert known() == [True, False]
    path.write_text(first + second)
    assert known() == [True, False]
    clock.now += 1
    assert known() == [True, True]
    path.write_text("[[token")
    clock.now += 1
    assert known() == [True, True]
    path.unlink()
    clock.now += 1
    assert known() == [True, True]
    path.write_text(without(first + second, two_id))
    clock.now += 1
    assert known() == [True, False]


def test_a_token_is_taken_out_and_the_rest_stays() -> None:
    (one_id, _, first), (_, _, second) = new(1), new(2)
    text = "# ours\n" + first + "\n# theirs\n" + second
    assert without(text, one_id) == "# ours\n" + second
    with pytest.raises(KeyError):
        without(text, "nobody")
