"""What a server offers beyond the core of tus, found out by OPTIONS.

Rule of this file: what a server says well is believed, and a server that says nothing, or says it badly, is taken for
plain tus: core and creation. So discovery never fails; at worst the client does less than it could. A server that
answers OPTIONS well and does not name tus is one of the IETF draft, or of nothing that is known here.
"""

from collections.abc import Generator
from typing import Final

from msgspec import Struct, field

from holdfast_protocol import fields, headers
from holdfast_protocol.digest import ALGORITHMS, first_computable, from_tus_name
from holdfast_protocol.drafts import NEWEST, Draft
from holdfast_protocol.ietf_client import hinted
from holdfast_protocol.messages import Request, Response
from holdfast_protocol.problem import FieldError
from holdfast_protocol.size_limits import SizeLimits, size_limits

CREATION: Final = "creation"
WITH_UPLOAD: Final = "creation-with-upload"
DEFER_LENGTH: Final = "creation-defer-length"
CHECKSUM: Final = "checksum"
CONCATENATION: Final = "concatenation"


class Services(Struct, frozen=True):
    """What a server offers. The default is the least that this client can work with."""

    extensions: frozenset[str] = frozenset({CREATION})
    """By their names in tus 1.0.0; `concatenation-unfinished` and others that are not used here among them."""
    max_size: int | None = None
    """The longest upload that it takes, in bytes; None if it names none."""
    checksums: tuple[str, ...] = ()
    """Algorithms for a PATCH, by the names of V-DIGEST-2, the fastest first."""
    tus: bool = True
    """It named tus, or it said nothing."""
    draft: Draft | None = None
    """The newest version of the IETF draft that fits what it said; None if it said nothing of the draft."""
    limits: SizeLimits = field(default_factory=SizeLimits)
    """What it takes by the IETF draft."""
    wants: tuple[str, ...] = ()
    """Algorithms for Content-Digest that it wants, the most wanted first."""
    parallel: bool = False
    """It speaks the parallel dialect (P-OFFER-1)."""
    keys: bool = False
    """It knows a creation again by its key (K-KEY-1)."""
    lasting: bool = True
    """The answer is worth remembering. One that asks for patience or for credentials is not."""

    def offers(self, extension: str) -> bool:
        """Whether it has this extension of tus."""
        return extension in self.extensions

    @property
    def checksum(self) -> str | None:
        """The algorithm to use for each PATCH; None if there is none that both sides have."""
        return first_computable(self.checksums)


def discover(endpoint: str) -> Generator[Request, Response, Services]:
    """Ask what the server of `endpoint` offers. Raises nothing.

    Without `Tus-Resumable`, as tus asks for (OPTIONS), and with the newest version of the draft, as that one does.
    """
    answer = yield Request("OPTIONS", endpoint, {headers.UPLOAD_DRAFT_INTEROP_VERSION: str(NEWEST.version)})
    if answer.status not in (200, 204):
        passing = answer.status >= 500 or answer.status in (401, 403, 408, 425, 429)
        return Services(lasting=not passing or answer.status in (501, 505))
    versions = _names(answer, headers.TUS_VERSION)
    if versions and headers.TUS_PROTOCOL_VERSION not in versions:
        return Services()
    extensions = frozenset(_names(answer, headers.TUS_EXTENSION)) | {CREATION}
    theirs = {from_tus_name(name.lower()) for name in _names(answer, headers.TUS_CHECKSUM_ALGORITHM)}
    offer = _offer(answer)
    return Services(
        extensions=extensions,
        max_size=_max_size(answer),
        checksums=tuple(name for name in ALGORITHMS if name in theirs) if CHECKSUM in extensions else (),
        tus=any(name.lower().startswith("tus-") for name, _ in answer.headers),
        draft=hinted(answer),
        limits=size_limits(answer) or SizeLimits(),
        wants=_wants(answer),
        parallel=offer is not None,
        keys=offer is not None and offer.keys,
    )


def _names(answer: Response, field: str) -> tuple[str, ...]:
    return tuple(name for each in (answer.headers.get(field) or "").split(",") if (name := each.strip(" \t")))


def _max_size(answer: Response) -> int | None:
    try:
        value = answer.headers.one(headers.TUS_MAX_SIZE)
        # A server that takes nothing at all would not be there: 0 is written for "no limit".
        return (fields.parse_integer(headers.TUS_MAX_SIZE, value) or None) if value is not None else None
    except FieldError:
        return None


def _wants(answer: Response) -> tuple[str, ...]:
    value = answer.headers.get(headers.WANT_CONTENT_DIGEST)
    try:
        return () if value is None else fields.parse_wants(headers.WANT_CONTENT_DIGEST, value)
    except FieldError:
        return ()


def _offer(answer: Response) -> fields.ParallelOffer | None:
    value = answer.headers.get(headers.UPLOAD_PARALLEL)
    try:
        return None if value is None else fields.parse_offer(value)
    except FieldError:
        return None
