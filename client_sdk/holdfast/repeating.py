"""What a call was, in the words of the journal, and the same call again from these.

Rule of this file: everything that a call was given is repeated, but for secrets, which are not written down. Of header
fields there are the names, of a URL with a query the fact that it had one; without them the call is not repeated, for
it would be another one.
"""

import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import Struct

from holdfast.credentials import TOKEN_VARIABLE, Keyring
from holdfast.errors import UsageError
from holdfast.ledger import Asked, Row, bare, nobodys, shown, transfer_id
from holdfast.sending import UploadJob
from holdfast.transfers import Transfer
from holdfast_protocol import headers as names
from holdfast_protocol.digest import Digest

if TYPE_CHECKING:
    from holdfast.client import AsyncClient
    from holdfast.receiving import DownloadJob


class Manner(Struct, frozen=True):
    """How a call is carried out, beside what it is about."""

    headers: Collection[str] = ()
    """Names of the fields that the caller gave."""
    override_method: bool = False
    priority: int = 0
    limit_rate: float | None = None


def upload_asked(job: UploadJob, to: str, manner: Manner) -> Asked:
    """The row of an upload. Only that of a path can be repeated: whatever else was given is gone with its process."""
    if job.given.path is None:
        return Asked(transfer_id(secrets.token_hex(16)), "upload", shown(job.given.name), bare(to), manner.priority)
    place = job.given.path.absolute()
    call = {
        "source": str(place),
        "name": job.given.name if job.given.name != place.name else None,
        "to": bare(to),
        "metadata": {key: value.decode("utf-8", "surrogateescape") for key, value in job.metadata.items()},
        "checksum": job.checksum,
        "concurrency": job.concurrency,
        "chunk_size": job.chunk_size,
        "protocol": job.dialect,
        "on_change": job.on_change,
        "resume": job.resume,
        "max_attempts": job.max_attempts,
    }
    id_ = transfer_id("upload", call["source"], nobodys(to), sorted(job.metadata.items()), job.given.name)
    return Asked(id_, "upload", shown(place), bare(to), manner.priority, _options(call, to, manner))


def download_asked(job: "DownloadJob", manner: Manner) -> Asked:
    """The row of a download."""
    place = (job.path or job.folder or Path()).absolute()
    call = {
        "url": bare(job.url),
        "path" if job.path is not None else "folder": str(place),
        "mirrors": [bare(each) for each in job.mirrors],
        "segments": job.segments,
        "checksum": f"{job.checksum.algorithm}={job.checksum.hex}" if job.checksum is not None else None,
        "overwrite": job.overwrite,
        "max_attempts": job.max_attempts,
    }
    id_ = transfer_id("download", nobodys(job.url), str(place), job.path is None)
    return Asked(
        id_, "download", bare(job.url), shown(place), manner.priority, _options(call, job.url, manner, job.mirrors)
    )


def lacking(row: Row, headers: Collection[str]) -> str | None:
    """Why the call of a row cannot be repeated with these header fields; None if it can. Blocks for a file (netrc)."""
    if row.options is None:
        return "what it sent was no file that can be opened again; start it anew"
    if row.options["query"]:
        return (
            "its URL had a query or a password, which are not kept, as they may be secrets; run the same command again"
        )
    given = {name.lower() for name in headers}
    url = row.options["call"]["to" if row.kind == "upload" else "url"]
    if Keyring().key(url, None, {}).field is not None:
        # Who we are is said by the environment or netrc now, which is as good as a header.
        given.add(names.AUTHORIZATION.lower())
    missing = [name for name in row.options["headers"] if name.lower() not in given]
    if missing:
        other = f", or a token in {TOKEN_VARIABLE}" if missing[0].lower() == names.AUTHORIZATION.lower() else ""
        return f"it was begun with the header {missing[0]}, whose value is not kept; give it again with --header{other}"
    return None


def again(client: "AsyncClient", row: Row) -> Transfer[Any]:
    """The same call once more; goes on from what is done. Raises UsageError if it cannot be repeated."""
    if row.options is None:
        raise UsageError(f"{row.source} was no file that can be opened again")
    call = dict(row.options["call"])
    call |= {"priority": row.priority, "limit_rate": row.options["limit_rate"]}
    if row.kind == "upload":
        return client.upload(**call)
    if call["checksum"] is not None:
        call["checksum"] = digest_of(call["checksum"])
    return client.download(**call)


def digest_of(said: str) -> Digest:
    """A digest from `ALG=HEX`, as the journal has it."""
    algorithm, _, digits = said.partition("=")
    return Digest(algorithm, bytes.fromhex(digits))


def _options(call: dict[str, Any], url: str, manner: Manner, others: Sequence[str] = ()) -> dict[str, Any]:
    parts = [urlsplit(each) for each in (url, *others)]
    named = any(each.username is not None for each in parts if each.scheme in ("http", "https"))
    return {
        "call": call,
        "headers": sorted({*manner.headers} | ({names.AUTHORIZATION} if named else set())),
        # FTP has no header field to say a password in later; it is as much a part of the URL as a query is.
        "query": any(each.query or (each.username and each.scheme in ("ftp", "ftps")) for each in parts),
        "override_method": manner.override_method,
        "limit_rate": manner.limit_rate,
    }
