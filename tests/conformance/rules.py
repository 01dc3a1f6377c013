"""The rules of tus 1.0.0 and of the IETF draft that bind a server, as data.

Rule of this file: one rule is one obligation of the text, in our words, with the level that the text gives it. Where
the text obliges the client alone or says nothing, the level is SHOULD and the sentence asks for no more than that the
server deals with it. Rules of a server that does not offer their extension are not offered. A rule that nobody can see
from outside says why.

S1 to S79 are those of <https://tus.io/protocols/resumable-upload>, R1 to R51 those of "Resumable Uploads for HTTP"
(draft-ietf-httpbis-resumable-upload), numbered by its newest text, interop version 9. Older versions ask for less, or
for something else: the tests say where.
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

TUS: Final = "tus"
DRAFT: Final = "ietf"
TITLES: Final = {TUS: "tus 1.0.0", DRAFT: "the IETF draft"}

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
    section: str | None = None
    """The section of the IETF draft that it is from."""

    @property
    def protocol(self) -> str:
        return TUS if self.section is None else DRAFT

    @property
    def source(self) -> str:
        """Where the text has it: a section, and for tus the core or an extension."""
        return self.section or self.extension or "core"


def _rules(extension: str | None, *rows: tuple[str, str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(name, level, sentence, extension) for name, level, sentence in rows)


def _draft(section: str, *rows: tuple[str, str, str] | tuple[str, str, str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(*row[:3], unseen=row[3] if len(row) == 4 else None, section=section) for row in rows)


TUS_RULES: Final = (
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

DRAFT_RULES: Final = (
    *_draft(
        "Upload Resource",
        ("R1", SHOULD, "The URI of an upload is its own, and is not used again."),
    ),
    *_draft(
        "Offset",
        ("R2", MUST, "The offset never decreases."),
        (
            "R3",
            MUST,
            "An upload that has lost any of its bytes or of its state takes part in nothing any more.",
            "nobody can take a server's bytes away from outside",
        ),
        ("R4", SHOULD, "What an Upload-Offset in an answer has told need never be sent again."),
    ),
    *_draft(
        "Completeness",
        ("R5", SHOULD, "An upload is complete once a request that said so was processed; nothing is appended after."),
        ("R6", SHOULD, "An answer about the upload, and not about the file, does not say that it is complete."),
    ),
    *_draft(
        "Length",
        ("R7", MUST, "The lengths that one request or several tell are the same; others are refused."),
        ("R8", SHOULD, "An upload whose offset has reached its length is not complete before a request says so."),
    ),
    *_draft(
        "Limits",
        ("R9", MAY, "Limits are told in Upload-Limit, a dictionary of integers, and are enforced."),
        ("R10", SHOULD, "Limits of an upload never become tighter, and its end never comes earlier."),
        ("R11", MUST, "OPTIONS where uploads are created carries Upload-Limit."),
        ("R12", SHOULD, "OPTIONS * carries Upload-Limit if all resources have the same limits."),
        ("R13", MUST, "Without limits Upload-Limit is min-size=0; it is never empty."),
        ("R14", SHOULD, "OPTIONS tells no limits that are tighter than those of the uploads."),
        ("R15", SHOULD, "A refusal for the sake of a limit carries Upload-Limit."),
        (
            "R16",
            SHOULD,
            "Limits of an append hold for creations too, but the lower one not for empty or completing ones.",
        ),
    ),
    *_draft(
        "Upload Creation",
        ("R17", SHOULD, "A request with Upload-Complete is told by a 104 that it can be resumed."),
        ("R18", MUST, "That 104 carries Location, and Upload-Limit if there are limits."),
        ("R19", MUST, "The answer to a part of a file carries Location and Upload-Limit; 201 is recommended."),
        ("R20", SHOULD, "The answer to a whole file is that of the resource that it was sent to."),
        ("R21", MUST, "The length is recorded from Upload-Length, and from a request that says it is all."),
        ("R22", MAY, "Interim answers tell the offset while the body of a creation arrives."),
        ("R23", MUST, "Location is the same in all answers to one request, interim and final."),
        ("R24", SHOULD, "The final answer says whether the upload is complete."),
        ("R25", SHOULD, "No answer is 301, 302 or 303."),
        ("R26", MUST, "A request that is cut off leaves as many bytes as possible, and never a complete upload."),
    ),
    *_draft(
        "Offset Retrieval",
        ("R27", MUST, "HEAD carries Upload-Offset, Upload-Complete, Upload-Length if it is known, and Upload-Limit."),
        ("R28", SHOULD, "HEAD carries Cache-Control: no-store."),
        ("R29", MAY, "The content of an answer to GET is not defined.", "whatever the server does is allowed"),
    ),
    *_draft(
        "Upload Append",
        (
            "R30",
            MUST,
            "Another offset than the upload's is 409 with the right one and Upload-Complete: ?0, and changes nothing.",
        ),
        ("R31", MUST, "An append that completes the upload is answered with Upload-Complete: ?1."),
        ("R32", SHOULD, "An append that does not complete it is 2xx with Upload-Complete: ?0."),
        ("R33", MAY, "An append to a complete upload is answered as it was, or refused, and changes nothing."),
        ("R34", MUST, "The offset never exceeds the length: such a request is refused, and the upload with it."),
        ("R35", SHOULD, "Interim answers tell the offset while the body of an append arrives."),
        ("R36", MUST, "Interim answers to an append have no Location."),
    ),
    *_draft(
        "Upload Cancellation",
        ("R37", SHOULD, "DELETE deactivates the upload."),
        ("R38", SHOULD, "DELETE ends the requests of the upload that are under way first."),
    ),
    *_draft(
        "Concurrency",
        ("R39", MUST, "Requests at the same time do not race: no byte is lost, doubled or mixed up."),
        ("R40", MUST, "An offset that was told is taken by the next append."),
        ("R41", SHOULD, "A new HEAD, PATCH or DELETE ends the request before it."),
    ),
    *_draft(
        "Status Code 104",
        ("R42", MUST, "100 Continue is not left out because there was a 104."),
    ),
    *_draft(
        "Content Codings, Transfer Codings",
        ("R43", SHOULD, "Offset and length count bytes with their content coding, and without their transfer coding."),
    ),
    *_draft(
        "Security Considerations",
        (
            "R44",
            SHOULD,
            "Only those who may do so reach an upload.",
            "the suite is one client with one set of rights",
        ),
        ("R45", SHOULD, "The URIs of uploads cannot be guessed."),
        ("R46", MUST, "The URIs of uploads give nothing away."),
        ("R47", MUST, "Metadata never get into the fields of an answer or into paths unsanitized."),
        (
            "R48",
            SHOULD,
            "What scans files knows that they come in parts.",
            "what a server does with finished uploads happens behind it",
        ),
        (
            "R49",
            SHOULD,
            "Rights are checked again before an upload is completed.",
            "nobody can take a client's rights away from outside",
        ),
        (
            "R50",
            SHOULD,
            "Something ends uploads that never go on: a lifetime, a least speed, a number for each client.",
        ),
    ),
    *_draft(
        "Draft Version Identification",
        ("R51", MUST, "A 104 names the version of the request; without a version, or with another, there is none."),
    ),
)

RULES: Final = (
    *sorted(TUS_RULES, key=lambda rule: int(rule.id[1:])),
    *sorted(DRAFT_RULES, key=lambda rule: int(rule.id[1:])),
)
"""All of them, by protocol and number."""

BY_ID: Final = {rule.id: rule for rule in RULES}
