"""The values of header fields: from text to value and back.

Rule of this file: a value follows its grammar to the letter or is refused with `FieldError`, which names
the field. Where HTTP says that a bad value is to be passed over, the answer is None instead, and the
docstring says so. Texts are field values as HTTP libraries give them: str, decoded as latin-1, without
blanks around them. Every reader takes time that is linear in the length of its text. Ranges are half-open
in Python, whatever they are on the wire.
"""

import binascii
import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal
from urllib.parse import quote, unquote

import http_sf
from msgspec import Struct

from holdfast_protocol import headers
from holdfast_protocol.digest import ALGORITHMS, Digest, UnknownAlgorithm, computable, from_tus_name, size, tus_name
from holdfast_protocol.problem import FieldError

LONGEST_KEY: Final = 128
_BLANKS: Final = " \t"
_TCHARS: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_INTEGER: Final = re.compile(r"[0-9]{1,18}")
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def parse_integer(field: str, value: str) -> int:
    """1 to 18 ASCII digits, so 0 to 10**18 - 1 (V-INT-1).

    Raises FieldError for all else, also for what int() takes.
    """
    if _INTEGER.fullmatch(value) is None:
        raise FieldError(field, "not an integer; send 1 to 18 digits and nothing else")
    return int(value)


def parse_item_integer(field: str, value: str) -> int:
    """An integer as a structured field (RFC 9651, section 3.3.1), not negative: 0 to 10**15 - 1.

    Parameters behind it are passed over. Raises FieldError.
    """
    bare, _ = _structured(field, value, "item")
    if type(bare) is not int or bare < 0:
        raise FieldError(field, "not an integer; send 1 to 15 digits")
    return bare


def format_limits(limits: Mapping[str, int]) -> str:
    """`Upload-Limit` of the IETF draft: a dictionary of integers. Raises ValueError if there is none."""
    return http_sf.ser(dict(limits))


def parse_limits(value: str) -> dict[str, int]:
    """`Upload-Limit` of the IETF draft; names that are not known are among them.

    Raises FieldError, also if one value of many is no integer or negative: then all of it counts as not sent.
    """
    found: dict[str, int] = {}
    for name, (bare, _) in _structured(headers.UPLOAD_LIMIT, value, "dictionary").items():
        if type(bare) is not int or bare < 0:
            raise FieldError(headers.UPLOAD_LIMIT, "not integers; send max-size=1000, max-age=60")
        found[name] = bare
    return found


def parse_boolean(field: str, value: str) -> bool:
    """`?1` or `?0` (V-BOOL-1); parameters behind it are passed over. Raises FieldError."""
    return _boolean(field, value)[0]


def format_boolean(value: bool) -> str:
    """`?1` or `?0`."""
    return "?1" if value else "?0"


def _boolean(field: str, value: str) -> tuple[bool, Mapping[str, object]]:
    bare, parameters = _structured(field, value, "item")
    if not isinstance(bare, bool):
        raise FieldError(field, "not a boolean; send ?1 or ?0")
    return bare, parameters


def _structured(field: str, value: str, kind: Literal["item", "list", "dictionary"]) -> Any:
    """RFC 9651, section 4.2. Members are `(value, parameters)`."""
    try:
        return http_sf.parse(value.encode("latin-1"), tltype=kind)
    except ValueError as error:
        raise FieldError(field, f"not an RFC 9651 {kind}: {error}") from None


def _base64(field: str, text: str) -> bytes:
    if _BASE64.fullmatch(text) is None:
        raise FieldError(field, "not base64; use the standard alphabet, with padding (RFC 4648, section 4)")
    return binascii.a2b_base64(text)


_METADATA_KEY: Final = re.compile(r"[^\x00-\x20\x7f,]+")


def parse_metadata(value: str) -> dict[str, bytes]:
    """`Upload-Metadata` (V-META-1), in the order in which it came. A blank text is no metadata.

    Raises FieldError for an empty or repeated key, a control character in a key, and bad base64.
    """
    found: dict[str, bytes] = {}
    if not value.strip(_BLANKS):
        return found
    for pair in value.split(","):
        key, _, encoded = pair.strip(_BLANKS).partition(" ")
        if _METADATA_KEY.fullmatch(key) is None:
            raise FieldError(headers.UPLOAD_METADATA, "a key is missing or has a control character in it")
        if key in found:
            raise FieldError(headers.UPLOAD_METADATA, f"the key {key!r} is there twice")
        found[key] = _base64(headers.UPLOAD_METADATA, encoded)
    return found


def format_metadata(metadata: Mapping[str, str | bytes]) -> str:
    """`Upload-Metadata` (V-META-1). Text becomes UTF-8; a file name's undecodable bytes go as they are.

    Raises FieldError for a key that is empty, not ASCII, or has a blank, comma or control character in it.
    """
    pairs = []
    for key, value in metadata.items():
        if not key.isascii() or _METADATA_KEY.fullmatch(key) is None:
            raise FieldError(headers.UPLOAD_METADATA, f"{key!r} cannot be a key; use visible ASCII without a comma")
        try:
            raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise FieldError(headers.UPLOAD_METADATA, f"the value of {key!r} is not Unicode text") from None
        pairs.append(f"{key} {_to_base64(raw)}" if raw else key)
    return ",".join(pairs)


def _to_base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def parse_checksum(value: str) -> Digest:
    """`Upload-Checksum` of tus (V-CHECKSUM-1).

    Raises UnknownAlgorithm for one that cannot be computed here, FieldError for all else that is wrong.
    """
    name, blank, encoded = value.partition(" ")
    if not name or not blank:
        raise FieldError(headers.UPLOAD_CHECKSUM, "send the algorithm, one blank, and the value in base64")
    algorithm = from_tus_name(name)
    if algorithm is None or not computable(algorithm):
        raise UnknownAlgorithm(name)
    return _digest(headers.UPLOAD_CHECKSUM, algorithm, _base64(headers.UPLOAD_CHECKSUM, encoded))


def format_checksum(digest: Digest) -> str:
    """`Upload-Checksum` of tus (V-CHECKSUM-1). Raises UnknownAlgorithm."""
    return f"{tus_name(digest.algorithm)} {_to_base64(digest.value)}"


def parse_digests(field: str, value: str) -> tuple[Digest, ...]:
    """An RFC 9530 dictionary (V-DIGEST-1), in the order in which it came.

    What cannot be computed here is left out, so it may be empty. Raises FieldError if a member is not a byte
    sequence, or a known one has the wrong length.
    """
    found = []
    for name, (raw, _) in _structured(field, value, "dictionary").items():
        if not isinstance(raw, bytes):
            raise FieldError(field, f"the value of {name!r} is not a byte sequence; send :BASE64:")
        if computable(name):
            found.append(_digest(field, name, raw))
    return tuple(found)


def format_digests(digests: Iterable[Digest]) -> str:
    """An RFC 9530 dictionary (V-DIGEST-1), one member an algorithm. Raises ValueError if there is none."""
    return http_sf.ser({digest.algorithm: digest.value for digest in digests})


_LEGACY: Final[Mapping[str, str]] = {"sha-256": "sha-256", "sha-512": "sha-512", "sha": "sha", "md5": "md5"}


def parse_legacy_digests(value: str) -> tuple[Digest, ...]:
    """`Digest` (RFC 3230): `SHA-256=BASE64,MD5=BASE64`, in the order in which they came.

    What is not known here is left out, and so is what has not the length of its algorithm: no server promises much
    with this field.
    """
    found = []
    for part in value.split(","):
        name, _, text = part.strip(_BLANKS).partition("=")
        algorithm = _LEGACY.get(name.lower())
        with contextlib.suppress(FieldError):
            if algorithm is not None:
                found.append(_digest(headers.DIGEST, algorithm, _base64(headers.DIGEST, text)))
    return tuple(found)


def _digest(field: str, algorithm: str, raw: bytes) -> Digest:
    if len(raw) != size(algorithm):
        raise FieldError(field, f"a value of {algorithm} has {size(algorithm)} bytes, this one {len(raw)}")
    return Digest(algorithm, raw)


@lru_cache(maxsize=64)  # a client says the same with each of its files
def parse_wants(field: str, value: str) -> tuple[str, ...]:
    """`Want-Content-Digest` or `Want-Repr-Digest` (RFC 9530, section 4): the most wanted algorithm first.

    Without those of weight 0 and those that have no name here; may be empty. Equal weights keep the order in which
    they came. Raises FieldError if a weight is not an integer from 0 to 10.
    """
    weights: dict[str, int] = {}
    for name, (weight, _) in _structured(field, value, "dictionary").items():
        if type(weight) is not int or not 0 <= weight <= 10:  # a bare `sha-256` is True, and True is an int
            raise FieldError(field, f"the weight of {name!r} is not an integer from 0 to 10")
        if weight and name in ALGORITHMS:
            weights[name] = weight
    return tuple(sorted(weights, key=lambda name: -weights[name]))


def format_wants(algorithms: Sequence[str]) -> str:
    """`Want-Content-Digest` (P-OFFER-2): weights fall from 10 to 1. Raises ValueError if there is none."""
    return http_sf.ser({name: max(1, 10 - place) for place, name in enumerate(algorithms)})


def parse_missing(value: str) -> tuple[list[tuple[int, int]], bool]:
    """`Upload-Missing` (V-MISSING-1): the ranges in ascending order, and whether there are more behind them.

    Raises FieldError for an offset or length that is not an integer, a negative offset, a length below 1, and
    ranges that overlap or do not ascend. Adjacent ones are let through.
    """
    found: list[tuple[int, int]] = []
    more: object = False
    reach = 0
    for member, parameters in _structured(headers.UPLOAD_MISSING, value, "list"):
        pair = [item for item, _ in member] if isinstance(member, list) else []
        if [type(item) for item in pair] != [int, int]:
            raise FieldError(headers.UPLOAD_MISSING, "a member is not (offset length)")
        offset, length = pair
        if offset < reach or length < 1:
            raise FieldError(headers.UPLOAD_MISSING, "the ranges are empty, overlap or do not ascend")
        reach = offset + length
        found.append((offset, reach))
        more = parameters.get("more", False)
    if not isinstance(more, bool):
        raise FieldError(headers.UPLOAD_MISSING, "the parameter more is not a boolean")
    return found, more


def format_missing(ranges: Iterable[tuple[int, int]], more: bool) -> str:
    """`Upload-Missing` (V-MISSING-1) for half-open ranges in ascending order.

    Raises ValueError if there is none (the field is left out then), and for numbers from 10**15 on, which a
    structured field cannot hold.
    """
    members: list[Any] = [([start, end - start], {}) for start, end in ranges]
    if more and members:
        members[-1][1]["more"] = True
    return http_sf.ser(members)


def parse_problem(value: str) -> tuple[str, str]:
    """`Upload-Problem` (V-PROBLEM-2): the code of a problem, and its sentence or "". Raises FieldError."""
    bare, parameters = _structured(headers.UPLOAD_PROBLEM, value, "item")
    detail = parameters.get("detail", "")
    if not isinstance(bare, http_sf.Token) or type(detail) is not str:
        raise FieldError(headers.UPLOAD_PROBLEM, "not a token with a string as detail")
    return str(bare), detail


def format_problem(code: str, detail: str) -> str:
    """As `parse_problem` reads it. What a structured field cannot hold is `?` in the sentence."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in detail)
    return f"{code};detail={http_sf.ser(plain)}"


class ParallelOffer(Struct, frozen=True):
    """What a server that takes parallel chunks asks of them (P-OFFER-1). Both in bytes.

    Chunks begin and end on multiples of `granule`; none is longer than `max_chunk`, a multiple of it.
    """

    granule: int
    max_chunk: int
    holes: bool = False
    """Holes are taken, too (P-HOLE-1)."""
    keys: bool = False
    """A creation may have a key by which it is known again (K-KEY-1)."""


def parse_offer(value: str) -> ParallelOffer | None:
    """`Upload-Parallel` of an answer (P-OFFER-1).

    None for `?0`, and if a parameter is missing or makes no sense: go on as a tus client then. Raises
    FieldError if it is not a boolean.
    """
    offered, parameters = _boolean(headers.UPLOAD_PARALLEL, value)
    granule, max_chunk = parameters.get("granule"), parameters.get("max-chunk")
    if not offered or type(granule) is not int or type(max_chunk) is not int:
        return None
    if granule < 1 or max_chunk < 1 or max_chunk % granule:
        return None
    return ParallelOffer(granule, max_chunk, parameters.get("holes") is True, parameters.get("keys") is True)


def format_offer(offer: ParallelOffer) -> str:
    """`Upload-Parallel: ?1;granule=G;max-chunk=M`, with `;holes` and `;keys` where they are taken (P-OFFER-1)."""
    extras = f"{';holes' if offer.holes else ''}{';keys' if offer.keys else ''}"
    return f"?1;granule={offer.granule};max-chunk={offer.max_chunk}{extras}"


def parse_key(value: str) -> str:
    """`Idempotency-Key`: a string of 1 to 128 characters (K-KEY-1). Raises FieldError."""
    bare, _ = _structured(headers.IDEMPOTENCY_KEY, value, "item")
    if type(bare) is not str or not 1 <= len(bare) <= LONGEST_KEY:
        raise FieldError(headers.IDEMPOTENCY_KEY, f'not a string of 1 to {LONGEST_KEY} characters; send "KEY", quoted')
    return bare


def format_key(key: str) -> str:
    """As `parse_key` reads it. Raises ValueError for what is no visible ASCII."""
    return http_sf.ser(key)


_MEDIA_TYPE: Final = re.compile(f"{_TCHARS}/{_TCHARS}")


def media_type(value: str | None) -> str | None:
    """`type/subtype` in lower case, without parameters (RFC 9110, section 8.3.1); None if there is none."""
    if value is None:
        return None
    essence = value.partition(";")[0].strip(_BLANKS)
    return None if _MEDIA_TYPE.fullmatch(essence) is None else essence.lower()


_RANGE: Final = re.compile(r"([0-9]{1,40})-([0-9]{0,40})|-([0-9]{1,40})")
_UNSATISFIED_RANGE: Final = re.compile(r"bytes \*/([0-9]{1,18})", re.ASCII | re.IGNORECASE)
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.ASCII | re.IGNORECASE)


def parse_byte_ranges(value: str, length: int, limit: int = 32) -> list[tuple[int, int]] | None:
    """`Range` for a file of `length` bytes (RFC 9110, section 14.2), clipped to it, in the order asked for.

    An empty list if no range can be satisfied (answer 416). None if the field is to be passed over (answer
    with the whole file): another unit, malformed, more than `limit` ranges, more than two that overlap, or
    the last bytes of an empty file, which no 206 can express.
    """
    unit, _, rest = value.partition("=")
    specs = [spec for part in rest.split(",") if (spec := part.strip(_BLANKS))]
    if unit.lower() != "bytes" or not 0 < len(specs) <= limit:
        return None
    found = []
    for spec in specs:
        match = _RANGE.fullmatch(spec)
        if match is None:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            if int(suffix) and not length:
                return None
            start, end = max(0, length - int(suffix)), length
        else:
            if last and int(last) < int(first):
                return None
            start, end = int(first), min(int(last) + 1, length) if last else length
        if start < end:
            found.append((start, end))
    return found if _overlaps(found) < 2 else None


def _overlaps(ranges: Iterable[tuple[int, int]]) -> int:
    """How many of the ranges overlap one that begins no later."""
    count = reach = 0
    for start, end in sorted(ranges):
        count += start < reach
        reach = max(reach, end)
    return count


def format_content_range(start: int, end: int, total: int) -> str:
    """`Content-Range` of a 206 for bytes `[start, end)` of `total`.

    Raises ValueError if they are not within.
    """
    if not 0 <= start < end <= total:
        raise ValueError(f"[{start}, {end}) is not a range of {total} bytes")
    return f"bytes {start}-{end - 1}/{total}"


def format_unsatisfied_range(total: int) -> str:
    """`Content-Range` of a 416 for a file of `total` bytes."""
    return f"bytes */{total}"


def parse_unsatisfied_range(value: str) -> int | None:
    """The length of the whole in the `Content-Range` of a 416 (`bytes */LENGTH`); None if it does not say so."""
    match = _UNSATISFIED_RANGE.fullmatch(value)
    return None if match is None else int(match[1])


def parse_content_range(value: str) -> tuple[int, int, int | None]:
    """`Content-Range` of a 206: start and end, half-open, and the length of the whole, None for `*`.

    Raises FieldError if it is malformed, empty, reaches beyond the whole, or is that of a 416.
    """
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        raise FieldError(headers.CONTENT_RANGE, "not bytes FIRST-LAST/LENGTH")
    start, end = int(match[1]), int(match[2]) + 1
    total = None if match[3] == "*" else int(match[3])
    if end <= start or (total is not None and end > total):
        raise FieldError(headers.CONTENT_RANGE, "the last byte lies before the first or beyond the end")
    return start, end, total


class EntityTag(Struct, frozen=True):
    """An entity tag (RFC 9110, section 8.8.3): `value` without its quotes. str() is the form on the wire."""

    value: str
    weak: bool = False

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.value}"'


_ENTITY_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_ENTITY_TAGS: Final = re.compile(rf"[ \t,]*{_ENTITY_TAG.pattern}(?:[ \t]*,[ \t,]*{_ENTITY_TAG.pattern})*[ \t,]*")


def parse_entity_tags(value: str, field: str = headers.ETAG) -> list[EntityTag] | Literal["*"]:
    """`ETag`, `If-Match`, `If-None-Match` or the tag of an `If-Range`: one or more tags, or "*".

    Raises FieldError if it is malformed (a date in `If-Range` is).
    """
    if value.strip(_BLANKS) == "*":
        return "*"
    if _ENTITY_TAGS.fullmatch(value) is None:
        raise FieldError(field, "not a list of entity tags")
    return [EntityTag(match[2], match[1] is not None) for match in _ENTITY_TAG.finditer(value)]


_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _date_forms() -> tuple[re.Pattern[str], ...]:
    """IMF-fixdate and the two obsolete forms that RFC 9110, section 5.6.7 has recipients accept."""
    day, short = "|".join(_DAYS), "|".join(name[:3] for name in _DAYS)
    month = f"(?P<month>{'|'.join(_MONTHS)})"
    clock = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
    return (
        re.compile(f"(?:{short}), (?P<day>[0-9]{{2}}) {month} (?P<year>[0-9]{{4}}) {clock} GMT"),
        re.compile(f"(?:{day}), (?P<day>[0-9]{{2}})-{month}-(?P<year>[0-9]{{2}}) {clock} GMT"),
        re.compile(f"(?:{short}) {month} (?P<day>[0-9]{{2}}| [0-9]) {clock} (?P<year>[0-9]{{4}})"),
    )


_DATE_FORMS: Final = _date_forms()


def format_http_date(epoch: float) -> str:
    """Seconds since 1970 as an IMF-fixdate (V-TIME-1), rounded down, so that it never lies in the future."""
    return _format_second(math.floor(epoch))


@lru_cache(maxsize=64)  # many are told in one second
def _format_second(epoch: int) -> str:
    at = datetime.fromtimestamp(epoch, UTC)
    day, month = _DAYS[at.weekday()][:3], _MONTHS[at.month - 1]
    return f"{day}, {at.day:02} {month} {at.year:04} {at.hour:02}:{at.minute:02}:{at.second:02} GMT"


def parse_http_date(value: str) -> float | None:
    """Seconds since 1970 (RFC 9110, section 5.6.7, all three forms); None if it is not a date.

    Two digits of a year mean 1970 to 2069. The name of the weekday need not be the right one.
    """
    match = next((match for form in _DATE_FORMS if (match := form.fullmatch(value))), None)
    if match is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 2000 if year < 70 else 1900
    month = _MONTHS.index(match["month"]) + 1
    day, hour, minute, second = (int(match[part]) for part in ("day", "hour", "minute", "second"))
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def parse_retry_after(value: str, now: float) -> float | None:
    """`Retry-After` as seconds from `now` (seconds since 1970), 0 or more; None if it is malformed."""
    if _INTEGER.fullmatch(value) is not None:
        return float(value)
    date = parse_http_date(value)
    return None if date is None else max(0.0, date - now)


_WAIT: Final = re.compile(r'(?:^|,)[ \t]*wait[ \t]*=[ \t]*"?([0-9]{1,9})"?[ \t]*(?=$|[,;])', re.IGNORECASE)


def parse_wait(value: str | None) -> int | None:
    """The seconds of `wait` in `Prefer` (RFC 7240, section 4.3), from 0 on; None if nothing, or no number, is there.

    What a client prefers is never an error (section 2), and of several the first counts.
    """
    found = _WAIT.search(value) if value else None
    return None if found is None else int(found[1])


_NOT_PLAIN: Final = re.compile(r'[^ -~]|["\\%]')
_ATTR_CHARS: Final = "!#$&+-.^_`|~"
_PARAMETER: Final = re.compile(
    rf';[ \t]*(?:({_TCHARS})[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^";]*)|[^";]*)[ \t]*', re.DOTALL
)


def format_disposition(filename: str, kind: Literal["attachment", "inline"] = "attachment") -> str:
    """`Content-Disposition` with the name in both forms; ASCII whatever the name holds.

    In the plain form each character that older readers stumble over is an underscore. A lone surrogate, which
    has no UTF-8, becomes a question mark. The name is not made safe: see `names.safe_name`.
    """
    plain = _NOT_PLAIN.sub("_", filename)
    extended = quote(filename, safe=_ATTR_CHARS, errors="replace")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{extended}"


def parse_disposition(value: str) -> str | None:
    """The file name in `Content-Disposition`, as it came: it may hold anything, so make it safe before use.

    `filename*` goes before `filename`; a plain name that reads as UTF-8 is taken for that. None if there is
    no name.
    """
    position = value.find(";")
    found: dict[str, str] = {}
    while position >= 0 and (match := _PARAMETER.match(value, position)):
        position = match.end()
        if match[1]:
            found.setdefault(match[1].lower(), _unquote(match[2]))
    return _extended(found.get("filename*", "")) or _plain(found.get("filename", "")) or None


def _unquote(text: str) -> str:
    if not text.startswith('"'):
        return text.strip(_BLANKS)
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _extended(text: str) -> str:
    """RFC 8187, section 3.2.1.

    Empty if it is malformed or in a character set other than the two named there.
    """
    charset, _, rest = text.partition("'")
    _, _, encoded = rest.partition("'")
    if charset.lower() not in ("utf-8", "iso-8859-1"):
        return ""
    try:
        return unquote(encoded, charset, "strict")
    except UnicodeDecodeError:
        return ""


def _plain(text: str) -> str:
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
