"""Signed URLs: what they allow, and that nothing of one can be changed."""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth import SCOPES, Principal, Request
from holdfast_server.auth.chain import Chain
from holdfast_server.auth.signing import Signatures, sign_upload

KEY, OLD = "k" * 40, "o" * 40
NOW = 1_800_000_000.0
ID = "0123456789abcdef" * 2


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


@pytest.fixture
def signatures(tmp_path: Path) -> Signatures:
    path = tmp_path / "keys"
    path.write_text(f"# the first one signs\n{KEY}\n{OLD}\n")
    return Signatures(path, now=Clock())


def sign(url: str = "http://x/files", key: str = KEY, **how: Any) -> str:
    if url.endswith("/files"):
        how = {"owner": "alice", **how}
    return sign_upload(url, key, now=CLOCK, **how)


def ask(signatures: Signatures, url: str) -> Principal | None:
    return signatures(Request("POST", "/files", urlsplit(url).query, Headers(), None))


def refused(signatures: Signatures, url: str) -> str:
    with pytest.raises(ProblemError) as caught:
        ask(signatures, url)
    assert caught.value.status == 401
    return caught.value.code


@pytest.mark.rule("A-SIGN-1", "A-SIGN-2", "A-SIGN-3")
def test_a_creation_and_what_comes_of_it(signatures: Signatures) -> None:
    who = ask(
        signatures,
        sign(max_size=5, types=["image/*"], name="a.png", uses=3, project="films", scopes=["write", "read"]),
    )
    assert who is not None
    assert who.grant is not None
    assert who.follow is not None
    assert (who.owner, who.project, who.only, who.max_size) == ("alice", "films", "", 5)
    assert who.scopes == {"create", "write"}
    assert (who.grant.uses, who.grant.types, who.grant.name) == (3, ("image/*",), "a.png")

    class Made:
        id, owner, project, created = ID, "alice", "films", NOW

    after = ask(signatures, "http://x/files/" + ID + "?" + who.follow(Made()))
    assert after is not None
    assert (after.only, sorted(after.scopes), after.max_size) == (ID, ["read", "write"], 5)
    assert (after.grant, after.expires) == (None, NOW + 86400)
    assert not after.projects


@pytest.mark.rule("A-SIGN-1")
def test_one_upload(signatures: Signatures) -> None:
    who = ask(signatures, sign(f"https://x/up/files/{ID}?a=b", scopes=["read"]))
    assert who is not None
    assert (who.only, sorted(who.scopes), who.grant) == (ID, ["read"], None)


@pytest.mark.rule("A-SIGN-1", "A-HEAD-2")
def test_other_keys_and_times(signatures: Signatures) -> None:
    assert ask(signatures, sign(key=OLD)) is not None
    assert refused(signatures, sign(key="x" * 40)) == "unauthenticated"
    url = sign(expires_in=10)
    signatures._now.now = NOW + 9  # type: ignore[attr-defined]
    assert ask(signatures, url) is not None
    signatures._now.now = NOW + 10  # type: ignore[attr-defined]
    assert refused(signatures, url) == "credential-expired"


@pytest.mark.rule("A-SIGN-1")
@given(st.data())
def test_no_byte_of_it_can_be_changed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "keys-of-all"
    path.write_text(KEY)
    signatures = Signatures(path, now=CLOCK)
    signature = parse_qs(urlsplit(sign(f"http://x/files/{ID}")).query)["signature"][0]
    place = data.draw(st.integers(0, len(signature) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_.=").filter(lambda each: each != signature[place]))
    changed = signature[:place] + other + signature[place + 1 :]
    assert refused(signatures, f"http://x/files?signature={changed}") == "unauthenticated"
    cut = signature[: data.draw(st.integers(0, len(signature) - 1))]
    if cut:
        assert refused(signatures, f"http://x/files?signature={cut}") == "unauthenticated"
    else:
        assert ask(signatures, "http://x/files?signature=") is None


@pytest.mark.rule("A-SIGN-1")
@given(st.text(max_size=200))
def test_whatever_is_sent_is_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "keys-of-all"
    path.write_text(KEY)
    signatures = Signatures(path, now=CLOCK)
    try:
        found = signatures(Request("GET", "/files", f"signature={text}", Headers(), None))
    except ProblemError as problem:
        assert problem.status == 401  # noqa: PT017
    else:
        assert found is None


@pytest.mark.rule("A-SIGN-1")
def test_claims_cannot_be_widened(signatures: Signatures) -> None:
    """Not by writing others, nor by a creation's MAC under an upload's claims."""
    payload, mac = parse_qs(urlsplit(sign()).query)["signature"][0].split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    for change in ({"sub": "root"}, {"n": 99}, {"exp": NOW + 1e9}, {"id": ID}, {"scp": ["operate"]}, {"max": 10**12}):
        wide = base64.urlsafe_b64encode(json.dumps(claims | change).encode()).rstrip(b"=").decode()
        assert refused(signatures, f"http://x/files?signature={wide}.{mac}") == "unauthenticated"


@pytest.mark.rule("A-SIGN-1")
def test_a_signature_is_all_that_counts(signatures: Signatures) -> None:
    chain = Chain(signatures=signatures, other=lambda request: Principal("root", SCOPES))
    request = Request("POST", "/files", urlsplit(sign()).query, Headers({"Authorization": "Bearer root"}), None)
    found = chain(request)
    assert isinstance(found, Principal)
    assert (found.owner, found.only) == ("alice", "")
    with pytest.raises(ProblemError):
        chain(Request("POST", "/files", "signature=x.y", Headers({"Authorization": "Bearer root"}), None))
    twice = f"{request.query}&{request.query}"
    assert chain(Request("POST", "/files", twice, Headers({"Authorization": "Bearer root"}), None)) is None


@pytest.mark.parametrize(
    ("url", "how"),
    [
        ("http://x/other", {}),
        ("http://x/files/a/b", {}),
        ("http://x/files", {"owner": None}),
        ("http://x/files", {"owner": "a\n"}),
        ("http://x/files", {"uses": 0}),
        ("http://x/files", {"scopes": []}),
        ("http://x/files", {"scopes": ["operate"]}),
        ("http://x/files", {"scopes": ["create"]}),
        ("http://x/files", {"types": ["png"]}),
        ("http://x/files", {"expires_in": 0}),
        ("http://x/files", {"max_size": -1}),
        ("http://x/files", {"key": "short"}),
        (f"http://x/files/{ID}", {"name": "x"}),
        (f"http://x/files/{ID}", {"owner": "x"}),
    ],
)
def test_what_makes_no_sense_is_not_signed(url: str, how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        sign(url, **how)


@pytest.mark.rule("A-SIGN-3")
def test_types(signatures: Signatures) -> None:
    who = ask(signatures, sign(types=["image/*", "Application/PDF", ".TXT"]))
    assert who is not None
    assert who.grant is not None
    for media, name in [("image/png", None), ("IMAGE/x", "a"), ("application/pdf; a=b", ""), (None, "a.b.Txt")]:
        who.grant.check(media, name)
    for media, name in [
        ("text/html", "a.png"),
        (None, None),
        ("", "txt"),
        ("imagex/png", None),
        ("application/pdfx", ""),
    ]:
        with pytest.raises(ProblemError) as caught:
            who.grant.check(media, name)
        assert caught.value.code == "not-permitted"
