"""Values of header fields that are refused for certain.

Rule of this file: what is made here is malformed by protocol.md, section 1, by RFC 9651 or by RFC 9110, or is wrong
for any body and any file. A maker gives the values of one field: none leaves the field out, two send it twice.
"""

import random

from tests.support.speaker import b64

Rng = random.Random


def malformed_integer(rng: Rng) -> str:
    """Malformed as V-INT-1 and as a structured field."""
    number = str(rng.choice((0, 5, 65536, rng.randrange(10**12))))
    return rng.choice(
        (
            f"+{number}",
            f"-{number}1",
            f"{number}.5",
            f"{number}e3",
            f"0x{number}",
            f"{number} {number}",
            f"{number},{number}",
            f"{number}_000",
            f'"{number}"',
            "",
            "five",
            "?1",
            "\xb2\xb3",
            "9" * rng.randrange(19, 400),
            f"{number}\t{number}",
            f"{number}\x80",
            ":AAAA:",
        )
    )


def integer(rng: Rng) -> list[str]:
    return [malformed_integer(rng)]


def integer_or_none(rng: Rng) -> list[str]:
    return rng.choice(
        (
            [],
            ["0", "0"],
            ["0", malformed_integer(rng)],
            [malformed_integer(rng)],
            [malformed_integer(rng)],
            [malformed_integer(rng)],
        )
    )


def boolean(rng: Rng) -> list[str]:
    return rng.choice(
        (
            ["?2"],
            ["1"],
            ["true"],
            ["?"],
            ["?1?"],
            ["?1, ?1"],
            [""],
            ["?1", "?1"],
            ["\xff"],
            [":AA==:"],
            ["?01"],
            ["(?1)"],
        )
    )


def tus_version(rng: Rng) -> list[str]:
    return rng.choice(
        ([], ["2.0.0"], ["1.0"], [""], ["1.0.0", "1.0.0"], ["0.2.2"], ["1.0.0;a"], ["\xb9.0.0"], ["v" * 999])
    )


def media_type(rng: Rng) -> list[str]:
    return rng.choice(
        (
            [],
            ["text/plain"],
            [""],
            ["application/offset octet-stream"],
            ["application"],
            ["/"],
            ["\xe9/x"],
            ["*/*"],
            ["a" * 500],
        )
    )


def malformed_digests(rng: Rng) -> list[str]:
    """Malformed, or of unknown algorithms alone."""
    return [
        rng.choice(
            (
                "sha-256=:AAAA:",
                "sha-256=:####:",
                "sha-256",
                "sha-256=?1",
                "sha-256=" + b64(bytes(32)),
                f"sha-256=:{b64(bytes(33))}:",
                f"md5=:{b64(bytes(15))}:",
                f"sha-256=:{b64(bytes(32))}",
                "crc7=:AAAA:",
                f"SHA-256=:{b64(bytes(32))}:",
                "sha-256=@99999999999999",
                "sha-256=@999999999999999",
                "=",
                ",",
                "sha-256=:AAAA:,",
                "((((",
                'a="',
                'a=%"%ff"',
                "\xff",
                "a=:" + "A" * 3000,
            )
        )
    ]


def wrong_digests(rng: Rng) -> list[str]:
    name, size = rng.choice((("sha-256", 32), ("sha-512", 64), ("md5", 16), ("xxh3-128", 16), ("crc32c", 4)))
    return rng.choice((malformed_digests(rng), [f"{name}=:{b64(rng.randbytes(size - 1) + bytes([1]))}:"]))


def digests_or_none(rng: Rng) -> list[str]:
    return rng.choice(([], wrong_digests(rng), malformed_digests(rng)))


def checksum(rng: Rng) -> list[str]:
    """Malformed or wrong, on a body that is there."""
    return rng.choice(
        (
            ["sha1"],
            [""],
            ["sha1 "],
            ["sha1 ####"],
            ["sha1 AAAA"],
            ["crc7 AAAA"],
            [f"sha1  {b64(bytes(20))}"],
            [f"SHA1 {b64(bytes(20))}"],
            [f"sha1 {b64(bytes(20))}", f"sha1 {b64(bytes(20))}"],
            [f"sha1 {b64(rng.randbytes(20))}"],
            [f"md5 {b64(rng.randbytes(16))}"],
            [f"sha1 {b64(bytes(20))[:-1]}"],
            ["\xe9 AAAA"],
            ["x" * 4000],
        )
    )


def metadata(rng: Rng) -> list[str]:
    return rng.choice(
        (
            ["filename !!!!"],
            ["filename YQ"],
            ["filename _-8="],
            ["a YQ==,a Yg=="],
            ["a YQ==,,b Yg=="],
            ["a YQ== YQ=="],
            ["a YQ==", "b Yg=="],
            [","],
            ["a\tb YQ=="],
            ["a  YQ=="],
            ["a YQ==\xff"],
            ["a " + "A" * 4001],
            [",".join(f"k{n % 90} AAAA" for n in range(100))],
        )
    )


def concat(rng: Rng) -> list[str]:
    return rng.choice(
        (
            [""],
            ["whole"],
            ["Partial"],
            ["final"],
            ["final;"],
            ["final; "],
            ["final;/files/x"],
            ["final;/files/" + "0" * 32],
            ["final;http://elsewhere.example/files/" + "0" * 32],
            ["final;http://[::1/files/x"],
            ["final;http://a:99999999/x"],
            ["final;//"],
            ["final;/files/..%2f x"],
            ["final;" + "/files/y " * 500],
            ["partial", "partial"],
            ["partial;a"],
            ["final;\xff"],
            ["final;ftp://h/files/" + "0" * 32],
        )
    )


def foreign_tags(rng: Rng) -> list[str]:
    """Malformed, or of another file."""
    return [
        rng.choice(("abc", '"', "W/", '"a" "b"', '"other"', 'W/"x"', "\xff", '"a\x80', '"a', ", x", '"' + "a" * 3000))
    ]


def malformed_tags(rng: Rng) -> list[str]:
    return [rng.choice(("abc", '"', "W/", '"a" "b"', "\xff", '"a\x80', '"a', ", x", "* *"))]


def ranges_beyond(rng: Rng) -> list[str]:
    return [rng.choice(("bytes=100000-", "bytes=99999999999999999999-", "bytes=-0", "bytes=100000-100001,200000-"))]


def override(rng: Rng) -> list[str]:
    return [rng.choice(("FLY", "get post", "\xdf", "PATCH, PATCH", "PUT", "TRACE", "CONNECT", "x" * 3000, "0", "P\tQ"))]
