"""Values of options: sizes, rates, counts, headers, metadata, digests.

Rule of this file: a value that makes no sense is a usage error (exit status 2) that shows one that does.
"""

import re
from typing import Final

import click

from holdfast_protocol.digest import Digest, available, computable, size

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)(b?)(?:/s)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Size(click.ParamType[int]):
    """Bytes: `8388608`, `8M`, `8MiB` (all powers of 1024), `8MB` (a power of 1000)."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size; give one like 8388608, 8M or 8MiB", param, ctx)
        number, unit, binary, suffix = match.groups()
        base = 1000 if unit and suffix and not binary else 1024
        found = int(float(number) * base ** _POWERS[unit.lower()]) if unit or "." in number else int(number)
        if found < 1:
            self.fail("must be at least one byte", param, ctx)
        return found


class Auto(click.ParamType[int]):
    """`auto` (left out as None by the caller), or what another type takes."""

    def __init__(self, inner: click.ParamType[int]) -> None:
        self._inner = inner
        self.name: str = f"auto|{inner.name}"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value).lower() == "auto":
            return 0
        return self._inner.convert(value, param, ctx)


class Header(click.ParamType[tuple[str, str]]):
    """`Name: value`."""

    name = "name: value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        field, colon, content = str(value).partition(":")
        if not colon or re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", field) is None:
            # It is not shown: it may be a secret that was only written the wrong way.
            self.fail("this is no header; give one like 'Authorization: Bearer TOKEN'", param, ctx)
        if not content.isprintable() or not content.isascii():
            self.fail("a header's value is printable ASCII", param, ctx)
        return field, content.strip()


class Pair(click.ParamType[tuple[str, str]]):
    """`KEY=VALUE`."""

    name = "key=value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, content = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is no pair; give one like project=alpha", param, ctx)
        return key, content


class HexDigest(click.ParamType[Digest]):
    """`ALG=HEX`, for example `sha-256=e3b0...`."""

    name = "alg=hex"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Digest:
        if isinstance(value, Digest):
            return value
        algorithm, equals, digits = str(value).partition("=")
        algorithm = algorithm_name(algorithm)
        if not equals or not computable(algorithm):
            self.fail(f"give it as ALG=HEX, ALG one of {', '.join(available())}", param, ctx)
        try:
            raw = bytes.fromhex(digits)
        except ValueError:
            self.fail(f"{digits!r} is not hexadecimal", param, ctx)
        if len(raw) != size(algorithm):
            self.fail(f"a {algorithm} has {2 * size(algorithm)} hexadecimal digits", param, ctx)
        return Digest(algorithm, raw)


class Algorithm(click.ParamType[str]):
    """`auto` (left out as None by the caller), or the name of an algorithm; `sha256` is let through for `sha-256`."""

    name = "auto|alg"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if str(value).lower() == "auto":
            return ""
        found = algorithm_name(str(value))
        if not computable(found):
            self.fail(f"{value!r} is not known; use one of {', '.join(available())}", param, ctx)
        return found


def algorithm_name(said: str) -> str:
    """The name of V-DIGEST-2 for what people write."""
    return {"sha256": "sha-256", "sha512": "sha-512", "sha1": "sha"}.get(said.lower(), said.lower())
