"""The IETF draft "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload), interop versions 3 to 9.

Rule of this file: what differs between two versions is a column of `DRAFTS`, and no version number is compared
anywhere. A version more is a row more. A field that does not follow its grammar counts as not sent, as the draft says.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from holdfast_protocol import fields, headers
from holdfast_protocol.messages import Headers
from holdfast_protocol.problem import FieldError


class Draft(Struct, frozen=True):
    """One interop version: the columns in which versions differ. The newest text is the default."""

    version: int
    complete_field: str = headers.UPLOAD_COMPLETE
    """The field that says whether this is all of the file..."""
    inverted: bool = False
    """...or, the other way round, that it is not."""
    complete_unless_said: bool = False
    """An append without that field completes the upload."""
    media_required: bool = True
    """An append has to be `application/partial-upload`."""
    age_limit: str | None = "max-age"
    """The name of the remaining seconds in `Upload-Limit`; None: the version has no such field."""
    asking_refuses: tuple[str, ...] = ()
    """Fields that HEAD and DELETE must not have."""
    appended: int = 204
    """Status of an append that does not complete the upload."""
    beyond_fails: bool = True
    """Bytes beyond the length make the upload fail, instead of being left out."""
    replays: bool = True
    """An empty append to a complete upload is answered with success again, instead of 400."""
    progress: bool = True
    """Interim answers tell the offset while a body arrives."""
    inactive: str | None = None
    """The problem that an upload has which failed or expired; None: the one that says so."""
    asks_by_get: bool = True
    """The offset can be asked for by GET, too."""

    def format_complete(self, complete: bool) -> str:
        return fields.format_boolean(complete != self.inverted)

    def complete_in(self, fields_: Headers) -> bool | None:
        """What a request or an answer says of the upload; None if it says nothing, or says it badly."""
        try:
            raw = fields_.one(self.complete_field)
            return None if raw is None else fields.parse_boolean(self.complete_field, raw) != self.inverted
        except FieldError:
            return None


DRAFTS: Final[Mapping[int, Draft]] = {
    draft.version: draft
    for draft in (
        Draft(
            3,
            complete_field=headers.UPLOAD_INCOMPLETE,
            inverted=True,
            complete_unless_said=True,
            media_required=False,
            age_limit=None,
            asking_refuses=(headers.UPLOAD_OFFSET, headers.UPLOAD_INCOMPLETE),
            appended=201,
            beyond_fails=False,
            progress=False,
            inactive="not-found",
            asks_by_get=False,
        ),
        Draft(
            5,
            media_required=False,
            age_limit=None,
            asking_refuses=(headers.UPLOAD_OFFSET, headers.UPLOAD_COMPLETE),
            appended=201,
            beyond_fails=False,
            inactive="not-found",
            asks_by_get=False,
        ),
        Draft(
            6,
            age_limit="expires",
            asking_refuses=(headers.UPLOAD_OFFSET, headers.UPLOAD_COMPLETE, headers.UPLOAD_LENGTH),
            appended=201,
            beyond_fails=False,
            replays=False,
            inactive="not-found",
            asks_by_get=False,
        ),
        Draft(8, replays=False, asks_by_get=False),
        Draft(9),
    )
}
NEWEST: Final = DRAFTS[max(DRAFTS)]


def integer_in(fields_: Headers, name: str) -> int | None:
    """The value of an integer field; None if it is not there, or is malformed (I-FIELD-1)."""
    try:
        raw = fields_.one(name)
        return None if raw is None else fields.parse_item_integer(name, raw)
    except FieldError:
        return None
