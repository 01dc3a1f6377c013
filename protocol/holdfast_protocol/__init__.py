"""What both ends of Holdfast agree on, without any I/O: values, rules, decisions.

Rule of this package: it imports no event loop, no socket, no clock and neither of the two sides. It is
called with what arrived and says what to do. The contract in words is `protocol.md`.

    headers, fields     names of header fields, and their values
    ranges, digest      which bytes, and what they hash to
    names               file names made safe
    messages, problem   requests, answers, and what can go wrong
    server, dialects    the rules of a server, and where its dialects differ
    client, discovery   the rules of a client, and what a server offers; ietf_client speaks the IETF draft
    drafts              the versions of that draft
"""

from holdfast_protocol.digest import Digest, Hasher, UnknownAlgorithm
from holdfast_protocol.messages import Headers, Request, Response, Span
from holdfast_protocol.names import safe_name
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_protocol.ranges import RangeSet

__all__ = [
    "Digest",
    "FieldError",
    "Hasher",
    "Headers",
    "ProblemError",
    "RangeSet",
    "Request",
    "Response",
    "Span",
    "UnknownAlgorithm",
    "safe_name",
]

__version__ = "0.1.0"
