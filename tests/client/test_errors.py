"""The tree of errors: what its docstring draws is what there is."""

import re

import pytest

import holdfast
from holdfast import errors
from holdfast.errors import HoldfastError, ServerRefused, without_secrets
from holdfast.outcome import from_refusal
from holdfast_protocol.client import Reaction, Refusal


def drawn() -> dict[str, tuple[str | None, str, bool | None]]:
    """Name: the name above it, its code, and whether trying again is worth it, as the docstring has them."""
    found: dict[str, tuple[str | None, str, bool | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+)(?: \(ValueError\))? {2,}(.*)", line)
        if match is None or (match[2] != "HoldfastError" and not above):
            continue
        depth = len(match[1])
        above = [each for each in above if each[0] < depth]
        words = re.match(r"(the server's code|[\w-]+) +(yes|no) ", match[3])
        said = (words[1], words[2] == "yes") if words else ("failed", None)
        found[match[2]] = (above[-1][1] if above else None, *said)
        above.append((depth, match[2]))
    return found


def everyone(root: type[HoldfastError] = HoldfastError) -> list[type[HoldfastError]]:
    return [root, *(each for child in root.__subclasses__() for each in everyone(child))]


def test_the_tree_is_as_it_is_drawn() -> None:
    tree = drawn()
    classes = {each.__name__: each for each in everyone() if each.__module__ == "holdfast.errors"}
    assert set(classes) == set(tree)
    for name, (above, code, retryable) in tree.items():
        each = classes[name]
        assert above is None or each.__mro__[1].__name__ == above
        assert code in ("the server's code", each.code)
        assert retryable in (None, each.retryable)


@pytest.mark.parametrize("kind", everyone(), ids=lambda each: each.__name__)
def test_each_says_whether_trying_again_is_worth_it_and_why(kind: type[HoldfastError]) -> None:
    assert kind.verdict.startswith("worth trying again: " if kind.retryable else "not tried again: ")
    assert kind.__name__ in holdfast.__all__


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, holdfast.NotAuthorized),
        (403, holdfast.NotAuthorized),
        (404, holdfast.UploadGone),
        (410, holdfast.UploadGone),
        (415, ServerRefused),
        (429, holdfast.ServerUnavailable),
        (500, holdfast.ServerUnavailable),
        (503, holdfast.ServerUnavailable),
        (507, holdfast.ServerFull),
    ],
)
def test_each_answer_becomes_one_of_them(status: int, kind: type[HoldfastError]) -> None:
    reaction = Reaction.RETRY if status in (429, 500, 503) else Reaction.FAIL
    assert type(from_refusal(Refusal(status, reaction), "http://h/files")) is kind


def test_no_message_has_a_secret() -> None:
    said = "http://me:pw@host/files?signature=abc&x=1 refused, see https://host:1/a?token=t and ftp://u:p@f/x"
    assert without_secrets(said) == "http://host/files refused, see https://host:1/a and ftp://f/x"
    error = HoldfastError(said)
    error.add("; also http://you:pw@host")
    assert "pw" not in str(error) + error.message
    assert "signature" not in repr(error)
