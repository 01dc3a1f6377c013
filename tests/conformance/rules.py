"""The rules of tus 1.0.0 that bind a server, as data.

Rule of this file: one rule is one obligation of the text at <https://tus.io/protocols/resumable-upload>, in our words,
with the level that the text gives it. Where the text obliges the client alone or says nothing, the level is SHOULD and
the sentence asks for no more than that the server deals with it. Rules of a server that does not offer their
extension are not offered. A rule that nobody can see from outside says why.
"""

from dataclasses import dataclass
from typing import Final

MUST: Final = "MUST"
SHOULD: Final = "SHOULD"
MAY: Final = "MAY"

EXTENSIONS: Final = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "checksum-trailer",
    "termination",
    "concatenation",
    "concatenation-unfinished",
)
"""All names that the text defines for Tus-Extension."""

_CORE: Final = None


@dataclass(frozen=True)
class Rule:
    """One obligation. `extension` is what a server has to offer before the rule binds it; None is the core."""

    id: str
    level: str
    sentence: str
    extension: str | None = None
    unseen: str | None = None
    """Why no test can see from outside whether it is kept."""


def _rules(extension: str | None, *rows: tuple[str, str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(name, level, sentence, extension) for name, level, sentence in rows)


RULES: Final = (
    *_rules(
        _CORE,
        ("S1", MUST, "HEAD, PATCH and OPTIONS are there."),
        ("S2", MUST, "Upload-Offset is a non-negative integer; anything else is refused and changes nothing."),
        ("S3", MUST, "Upload-Length is a non-negative integer; anything else is refused."),
        ("S4", MUST, "Tus-Version is a comma-separated list of versions."),
        ("S5", MUST, "Tus-Resumable is in every answer but those to OPTIONS, errors included."),
        ("S6", MUST, "A version that is not supported is 412 with Tus-Version, and the request is not processed."),
        ("S7", MUST, "Tus-Extension is a comma-separated list, left out when there is no extension."),
        ("S8", MUST, "Tus-Max-Size is a non-negative integer."),
        ("S9", MUST, "X-HTTP-Method-Override is taken as the method, and the actual method is ignored."),
        ("S10", MUST, "HEAD carries Upload-Offset, also when it is 0 and when the upload is complete."),
        ("S11", MUST, "HEAD carries Upload-Length when the length is known."),
        ("S12", SHOULD, "HEAD on an upload that is not there is 404, 410 or 403, without Upload-Offset."),
        ("S13", SHOULD, "HEAD on an upload is 200 or 204."),
        ("S14", MUST, "HEAD carries Cache-Control: no-store."),
        ("S15", SHOULD, "PATCH is accepted on any upload, and its bytes are applied at Upload-Offset."),
        ("S16", SHOULD, "PATCH with another Content-Type than application/offset+octet-stream is 415."),
        ("S17", MUST, "PATCH with another offset than the upload's is 409 and changes nothing."),
        ("S18", MUST, "A PATCH that succeeds is 204."),
        ("S19", MUST, "The 204 carries Upload-Offset: the offset before, and the bytes that were taken."),
        ("S20", SHOULD, "PATCH on an upload that is not there is 404."),
        ("S21", SHOULD, "A broken connection is noticed: the upload can be asked for and goes on."),
        ("S22", SHOULD, "As much of a PATCH that is cut off as possible is stored."),
        ("S23", MUST, "OPTIONS is 204 or 200 with Tus-Version."),
        ("S24", MUST, "OPTIONS ignores Tus-Resumable."),
        ("S25", SHOULD, "Features can be found out with OPTIONS: Tus-Extension names at least creation."),
        ("S26", MUST, "A server that creates uploads by POST announces creation, and the other way round."),
        ("S32", MUST, "A server that defers the length announces creation-defer-length, and the other way round."),
        ("S42", MUST, "A server that takes bytes with the creation announces creation-with-upload and creation."),
        ("S47", MUST, "A server that lets unfinished uploads expire announces expiration."),
        ("S53", MUST, "A server that verifies Upload-Checksum announces checksum, and the other way round."),
        ("S60", MUST, "A server that verifies a trailing Upload-Checksum announces checksum-trailer, and conversely."),
        ("S62", MUST, "A server that terminates uploads by DELETE announces termination, and the other way round."),
        ("S65", MUST, "A server that takes partial uploads announces concatenation, and the other way round."),
    ),
    *_rules(
        "creation",
        ("S29", SHOULD, "POST with neither or both of Upload-Length and Upload-Defer-Length is 4xx."),
        ("S31", MUST, "A length that is set never changes."),
        ("S33", MUST, "An upload of length 0 is complete as soon as it is created."),
        ("S34", MUST, "Upload-Metadata is taken in each form that the text allows; another form is no 5xx."),
        ("S36", MUST, "HEAD returns Upload-Metadata with the value that the creation gave."),
        ("S37", SHOULD, "Values of the metadata never get into the fields of an answer unsanitized."),
        ("S38", MUST, "A length above Tus-Max-Size is 413."),
        ("S39", MUST, "A creation is 201."),
        ("S40", MUST, "The 201 carries Location, the URL of the upload, absolute or relative."),
        ("S41", MUST, "The offset of a new upload is 0."),
    ),
    Rule("S35", MAY, "Metadata may be ignored, used, or refused.", "creation", "whatever the server does is allowed"),
    *_rules(
        "creation-defer-length",
        ("S27", MUST, "Upload-Defer-Length is 1, and is left out when the length is not deferred."),
        ("S28", SHOULD, "POST with another Upload-Defer-Length than 1 is 400."),
        ("S30", MUST, "HEAD carries Upload-Defer-Length: 1 as long as the length is unknown."),
    ),
    *_rules(
        "creation-with-upload",
        ("S43", SHOULD, "The body of a creation is treated as that of a PATCH, and counts only with its media type."),
        ("S44", SHOULD, "As many bytes of the body as possible are taken."),
        ("S45", MUST, "The 201 carries Upload-Offset: the bytes that were taken."),
        (
            "S46",
            SHOULD,
            "Expect: 100-continue is answered before the body: with 100, or with the refusal in its place.",
        ),
    ),
    *_rules(
        "expiration",
        ("S48", MUST, "Upload-Expires is in every answer to PATCH, errors included, if the upload is going to expire."),
        ("S49", MUST, "Upload-Expires is in the answer to POST if it is known by then."),
        ("S51", SHOULD, "An upload that has expired is 404 or 410."),
        ("S52", MUST, "Upload-Expires is an RFC 9110 date: IMF-fixdate, in GMT."),
    ),
    Rule("S50", MAY, "Upload-Expires may change over time.", "expiration", "whatever the server does is allowed"),
    *_rules(
        "checksum",
        ("S54", MUST, "A body with Upload-Checksum counts only once it is whole and verified."),
        ("S55", MAY, "An unsupported algorithm is 400, a wrong checksum 460, a right one 204."),
        ("S56", MUST, "After 400 or 460 the body is discarded and the offset stays."),
        ("S57", MUST, "sha1 is supported."),
        ("S58", MUST, "Names of algorithms are ASCII without upper case."),
        ("S59", MUST, "OPTIONS carries Tus-Checksum-Algorithm, a comma-separated list."),
        ("S61", MUST, "Upload-Checksum is an algorithm, one blank and base64, of the body of this request."),
    ),
    *_rules(
        "termination",
        ("S63", MUST, "DELETE on an upload, finished or not, is 204."),
        ("S64", SHOULD, "After that all requests to its URL are 404 or 410, and a running PATCH adds nothing."),
    ),
    Rule(
        "S66",
        SHOULD,
        "Partial uploads are not processed before they are concatenated.",
        "concatenation",
        "what a server does with finished uploads happens behind it",
    ),
    *_rules(
        "concatenation",
        ("S67", MUST, "The length of a final upload is the sum of its parts."),
        ("S68", MUST, "Parts are put together in the order of the list."),
        ("S69", MUST, "A final upload of unfinished parts is taken only by a server with concatenation-unfinished."),
        ("S70", MUST, "Metadata of parts is not carried over to the final upload."),
        ("S72", SHOULD, "A part may be listed twice, and used in several final uploads."),
        ("S73", MUST, "PATCH on a final upload is 403 and changes neither it nor its parts."),
        ("S74", MUST, "HEAD on a final upload has Upload-Offset equal to Upload-Length once it is concatenated."),
        ("S75", MUST, "HEAD on a partial upload carries Upload-Offset."),
        ("S76", MUST, "HEAD on a final upload carries Upload-Length if it can be calculated."),
        ("S77", MUST, "HEAD on partial and final uploads carries Upload-Concat as it was received."),
        ("S78", MUST, "Upload-Concat is partial, or final with absolute or relative URLs; all else is 4xx."),
        ("S79", SHOULD, "Upload-Length in the creation of a final upload is refused, or changes nothing."),
    ),
    Rule(
        "S71", MAY, "Parts may be deleted after concatenation.", "concatenation", "whatever the server does is allowed"
    ),
)

BY_ID: Final = {rule.id: rule for rule in RULES}
