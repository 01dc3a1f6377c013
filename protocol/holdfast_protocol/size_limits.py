"""What a server takes, as it says in `Upload-Limit` (the IETF draft).

Rule of this file: a limit that cannot be read counts as not said, for a request that is too large is refused anyway.
"""

from msgspec import Struct
from msgspec.structs import replace

from holdfast_protocol import fields, headers
from holdfast_protocol.messages import Response
from holdfast_protocol.problem import FieldError


class SizeLimits(Struct, frozen=True):
    """What a server takes, in bytes, as it said in `Upload-Limit` (the IETF draft); None: nothing said."""

    max_size: int | None = None
    min_size: int | None = None
    max_append: int | None = None
    """The longest body of one request."""
    min_append: int | None = None
    """The shortest body of one request, but for the one that completes the upload."""

    def then(self, newer: "SizeLimits | None") -> "SizeLimits":
        """These, after an answer that said `newer`; what it did not say stays as it was."""
        if newer is None:
            return self
        said = {name: value for name in self.__struct_fields__ if (value := getattr(newer, name)) is not None}
        return replace(self, **said)

    def unmet(self, size: int) -> str | None:
        """Why a file of `size` bytes cannot be sent within them, in words; None if it can."""
        if self.max_size is not None and size > self.max_size:
            return f"takes files of at most {self.max_size} bytes"
        if self.min_size is not None and size < self.min_size:
            return f"takes files of at least {self.min_size} bytes"
        if self.max_append is not None and size > self.max_append < max(1, self.min_append or 0):
            return f"takes at most {self.max_append} bytes in a request, and at least {self.min_append or 1}"
        return None


def size_limits(answer: Response) -> SizeLimits | None:
    """Those of an answer; None if it says nothing of them."""
    try:
        said = fields.parse_limits(answer.headers.get(headers.UPLOAD_LIMIT) or "")
    except FieldError:
        return None
    if not said:
        return None
    names = ("max-size", "min-size", "max-append-size", "min-append-size")
    return SizeLimits(*(said.get(name) for name in names))
