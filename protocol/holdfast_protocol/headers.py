"""Every header, media type, version and status that goes over the wire, spelled once.

Rule of this file: a string that both ends must agree on is written here and nowhere else. Header names are in
the case in which they are sent; they are compared without regard to case (RFC 9110, section 5.1).
"""

from typing import Final

# tus 1.0.0
TUS_RESUMABLE: Final = "Tus-Resumable"
TUS_VERSION: Final = "Tus-Version"
TUS_EXTENSION: Final = "Tus-Extension"
TUS_MAX_SIZE: Final = "Tus-Max-Size"
TUS_CHECKSUM_ALGORITHM: Final = "Tus-Checksum-Algorithm"
UPLOAD_CHECKSUM: Final = "Upload-Checksum"
UPLOAD_CONCAT: Final = "Upload-Concat"
UPLOAD_DEFER_LENGTH: Final = "Upload-Defer-Length"
UPLOAD_EXPIRES: Final = "Upload-Expires"
UPLOAD_METADATA: Final = "Upload-Metadata"
METHOD_OVERRIDE: Final = "X-HTTP-Method-Override"

# shared by the dialects
UPLOAD_OFFSET: Final = "Upload-Offset"
UPLOAD_LENGTH: Final = "Upload-Length"
UPLOAD_COMPLETE: Final = "Upload-Complete"

# the IETF draft "The Idempotency-Key HTTP Header Field"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"

# the IETF draft
UPLOAD_DRAFT_INTEROP_VERSION: Final = "Upload-Draft-Interop-Version"
UPLOAD_INCOMPLETE: Final = "Upload-Incomplete"
UPLOAD_LIMIT: Final = "Upload-Limit"

# the parallel dialect
UPLOAD_PARALLEL: Final = "Upload-Parallel"
UPLOAD_DIGEST: Final = "Upload-Digest"
UPLOAD_HOLE: Final = "Upload-Hole"
UPLOAD_MISSING: Final = "Upload-Missing"
UPLOAD_PROBLEM: Final = "Upload-Problem"
UPLOAD_STATE: Final = "Upload-State"
UPLOAD_STEP: Final = "Upload-Step"

# RFC 9530
CONTENT_DIGEST: Final = "Content-Digest"
REPR_DIGEST: Final = "Repr-Digest"
DIGEST: Final = "Digest"
"""RFC 3230, which RFC 9530 has replaced; servers still send it."""
WANT_CONTENT_DIGEST: Final = "Want-Content-Digest"
WANT_REPR_DIGEST: Final = "Want-Repr-Digest"

# RFC 7240
PREFER: Final = "Prefer"

# RFC 9110 and neighbours
ACCEPT_ENCODING: Final = "Accept-Encoding"
ACCEPT_PATCH: Final = "Accept-Patch"
ACCEPT_RANGES: Final = "Accept-Ranges"
ALLOW: Final = "Allow"
CACHE_CONTROL: Final = "Cache-Control"
CONTENT_DISPOSITION: Final = "Content-Disposition"
CONTENT_ENCODING: Final = "Content-Encoding"
CONTENT_LENGTH: Final = "Content-Length"
CONTENT_RANGE: Final = "Content-Range"
CONTENT_SECURITY_POLICY: Final = "Content-Security-Policy"
CONTENT_TYPE: Final = "Content-Type"
CONTENT_TYPE_OPTIONS: Final = "X-Content-Type-Options"
DATE: Final = "Date"
ETAG: Final = "ETag"
FORWARDED_FOR: Final = "X-Forwarded-For"
FORWARDED_HOST: Final = "X-Forwarded-Host"
FORWARDED_PROTO: Final = "X-Forwarded-Proto"
HOST: Final = "Host"
IF_MATCH: Final = "If-Match"
IF_NONE_MATCH: Final = "If-None-Match"
IF_RANGE: Final = "If-Range"
LAST_MODIFIED: Final = "Last-Modified"
LOCATION: Final = "Location"
OPENER_POLICY: Final = "Cross-Origin-Opener-Policy"
RANGE: Final = "Range"
REFERRER_POLICY: Final = "Referrer-Policy"
RETRY_AFTER: Final = "Retry-After"
TRAILER: Final = "Trailer"
TRANSFER_ENCODING: Final = "Transfer-Encoding"
WWW_AUTHENTICATE: Final = "WWW-Authenticate"

# Live progress (protocol.md, section 10)
ACCEL_BUFFERING: Final = "X-Accel-Buffering"
"""nginx sends an answer on as it comes if this is `no`."""
LAST_EVENT_ID: Final = "Last-Event-ID"
MEDIA_EVENTS: Final = "text/event-stream"

# CORS (the Fetch standard)
ALLOW_HEADERS: Final = "Access-Control-Allow-Headers"
ALLOW_METHODS: Final = "Access-Control-Allow-Methods"
ALLOW_ORIGIN: Final = "Access-Control-Allow-Origin"
AUTHORIZATION: Final = "Authorization"
EXPOSE_HEADERS: Final = "Access-Control-Expose-Headers"
MAX_AGE: Final = "Access-Control-Max-Age"
ORIGIN: Final = "Origin"
REQUESTED_WITH: Final = "X-Requested-With"
REQUEST_ID: Final = "X-Request-ID"
VARY: Final = "Vary"

TUS_PROTOCOL_VERSION: Final = "1.0.0"

MEDIA_OFFSET: Final = "application/offset+octet-stream"
"""Body of a tus PATCH (tus 1.0.0, Core protocol, PATCH)."""
MEDIA_PARTIAL: Final = "application/partial-upload"
"""Body of a PATCH of the IETF draft."""
MEDIA_CHUNK: Final = "application/vnd.holdfast.chunk"
"""Body of a PATCH of the parallel dialect (protocol.md, P-CHUNK-1)."""
MEDIA_PROBLEM: Final = "application/problem+json"
"""RFC 9457."""
MEDIA_BYTES: Final = "application/octet-stream"

STATUS_RESUMPTION_SUPPORTED: Final = 104
"""The IETF draft: an interim answer that says that, and where, an upload can be resumed."""
STATUS_CHECKSUM_MISMATCH: Final = 460
"""tus 1.0.0, Checksum: the body did not have the checksum that was said."""
