"""What is left of a transfer that nobody wants any more: it is freed, and then forgotten.

Rule of this file: the journal forgets a transfer only after what it leads to is gone, so that nothing is left that
nobody knows of: the upload on the server is removed, and so is the `.part` file of a download. An upload that somebody
else began is left alone. A complete one stays where it is; only its row is forgotten.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from anyio import to_thread

from holdfast._transport import Transport, Verify
from holdfast.errors import HoldfastError
from holdfast.journal import Journal
from holdfast.ledger import Row
from holdfast.outcome import from_refusal, from_violation
from holdfast.progress import State
from holdfast_protocol import client as protocol
from holdfast_protocol.client import Refusal, ViolationError


async def clear(
    journal: Journal,
    row: Row,
    headers: Mapping[str, str],
    *,
    free: bool = True,
    proxy: str | None = None,
    verify: Verify = True,
) -> None:
    """Forget a transfer that no process has; with `free` it is freed on the server first, if it is not complete.

    `proxy` and `verify` are those of AsyncClient.

    Raises TransferBusy if somebody runs it, HoldfastError if the server cannot be asked or does not want to: then
    nothing is forgotten.
    """
    if row.key is None:
        await to_thread.run_sync(journal.ledger.forget, row.id)
        return
    lock = await to_thread.run_sync(journal.lock, row.key, row.source)
    try:
        if row.kind == "upload":
            transport_for = partial(Transport, proxy=proxy, verify=verify)
            await _upload(journal, row, headers, transport_for, free=free and row.state is not State.COMPLETED)
        else:
            await to_thread.run_sync(_download, journal, row)
        await to_thread.run_sync(journal.ledger.forget, row.id)
    finally:
        await to_thread.run_sync(lambda: journal.unlock(row.key or "", lock, forget=True))


async def _upload(
    journal: Journal, row: Row, headers: Mapping[str, str], transport_for: Callable[[], Transport], *, free: bool
) -> None:
    key = row.key or ""
    record = await to_thread.run_sync(journal.find_upload, key)
    parts = await to_thread.run_sync(journal.find_parts, key)
    ours = row.options is None or not row.options["call"]["resume"]
    if record is not None and not record.done and free and ours:
        transport = transport_for()
        try:
            session = transport.session(row.target, headers)
            for url in filter(None, [record.url, *(part.url for part in parts)]):
                try:
                    await session.exchange(protocol.terminate(url, now=time.time()))
                except Refusal as refusal:
                    raise from_refusal(refusal, url) from refusal
                except ViolationError as error:
                    raise from_violation(error, url) from error
        finally:
            await transport.aclose()
    await to_thread.run_sync(journal.forget_upload, key)


def _download(journal: Journal, row: Row) -> None:
    record = journal.find_download(row.key or "")
    if record is not None:
        try:
            Path(record.part).unlink(missing_ok=True)
        except OSError as error:
            raise HoldfastError(f"{record.part} cannot be removed ({error.strerror})") from error
    journal.forget_download(row.key or "")
