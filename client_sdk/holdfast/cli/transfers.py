"""`holdfast transfers`: what the journal knows, and orders to whatever process runs a transfer.

Rule of this file: an order is told to the process that has the transfer, and this one waits until it was obeyed, so
that what is said here is so. A transfer that no process has is run here. Exit status: as everywhere; 1 too if an order
makes no sense for a transfer or was not obeyed, 2 for one that nobody knows.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Final

import anyio
import click
from click.shell_completion import CompletionItem

from holdfast.clearing import clear as clear_away
from holdfast.cli import options
from holdfast.cli.download import event_of as download_event
from holdfast.cli.jobs import Job
from holdfast.cli.options import Settings
from holdfast.cli.running import Batch, exit_status
from holdfast.cli.screen import human, printable, say, show_warnings
from holdfast.cli.upload import event_of as upload_event
from holdfast.cli.upload import note_of
from holdfast.errors import HoldfastError, UsageError, without_secrets
from holdfast.journal import Journal
from holdfast.ledger import INTERRUPTED, Row, Wanted
from holdfast.outcome import DownloadResult, UploadResult
from holdfast.progress import State
from holdfast.repeating import again, lacking

PATIENCE: Final = 5.0
"""Seconds for another process to obey."""
LOOK: Final = 0.1
OTHER_COLUMNS: Final = 45
"""What a line of the list has before its last column."""

Test = Callable[[Row], bool]


@contextmanager
def _opened() -> Iterator[Journal]:
    try:
        journal = Journal.open(needed=True)
    except HoldfastError as error:
        raise click.ClickException(error.message) from error
    with closing(journal):
        yield journal


def _known(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    # In the middle of a word there is nobody to be told that the journal cannot be read.
    with suppress(click.ClickException), _opened() as journal:
        return [
            CompletionItem(row.id, help=f"{row.condition}, {row.source}") for row in journal.ledger.find(incomplete)
        ]
    return []


_ids = click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=_known)


def _all(which: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--all", "everything", is_flag=True, help=f"All {which}, instead of an ID.")


@click.group(invoke_without_command=True, short_help="List, pause, resume, cancel, retry or clear transfers.")
@click.pass_context
def transfers(ctx: click.Context) -> None:
    """List transfers of this and other processes, and pause, resume, cancel, retry or clear them.

    Without a command it lists them. An ID may be shortened as long as it is of one transfer.
    """
    show_warnings()
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@transfers.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(as_json: bool = False) -> None:
    """All transfers that the journal knows, the oldest first."""
    with _opened() as journal:
        rows = journal.ledger.rows()
        if journal.unread:
            raise click.ClickException("the list is not whole: the journal could not be read")
    if as_json:
        for row in rows:
            click.echo(json.dumps(_facts(row), separators=(",", ":")))
        return
    if not rows:
        click.echo("No transfers.", err=True)
        return
    click.echo(f"{'ID':10}  {'STATE':11}  {'DONE':>4}  {'SIZE':>10}  WHAT")
    for row in rows:
        size = "?" if row.size is None else human(row.size)
        what = _what(printable(row.source), printable(without_secrets(_place(row))))
        click.echo(f"{row.id:10}  {row.condition:11}  {_percent(row):>4}  {size:>10}  {what}")


@transfers.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=_known)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def show(ids: tuple[str, ...], as_json: bool) -> None:
    """All that is known of a transfer."""
    with _opened() as journal:
        rows = _found(journal, ids)
    for row in rows:
        if as_json:
            click.echo(json.dumps(_facts(row), separators=(",", ":")))
            continue
        for name, value in _facts(row).items():
            if name in ("created", "updated"):
                value = datetime.fromtimestamp(row.created if name == "created" else row.updated).astimezone()
                value = value.isoformat(sep=" ", timespec="seconds")
            elif isinstance(value, dict):
                value = json.dumps(value) if name == "options" else f"{value['message']} ({value['code']})"
            if value is not None:
                click.echo(f"{name + ':':11} {printable(str(value))}")


@transfers.command()
@_ids
@_all("that run")
@click.pass_context
def pause(ctx: click.Context, ids: tuple[str, ...], everything: bool) -> None:
    """Stop transfers, wherever they run, until they are resumed. What is done is kept."""
    with _opened() as journal:
        rows = _chosen(journal, ids, lambda row: row.running, everything=everything)
        running = [row for row in rows if row.running]
        failed = [row for row in rows if row not in running]
        for row in failed:
            _say(row, f"is {row.condition}, and no process runs it; there is nothing to pause")
        obeyed = _order(journal, running, "pause", lambda row: row.state is State.PAUSED or row.state.final)
    ctx.exit(0 if obeyed and not failed else 1)


@transfers.command()
@_ids
@_all("that have not ended")
@click.pass_context
def cancel(ctx: click.Context, ids: tuple[str, ...], everything: bool) -> None:
    """Stop transfers for good. What is done is kept, for `retry`, until `clear`."""
    with _opened() as journal:
        rows = _chosen(journal, ids, lambda row: not row.state.final, everything=everything)
        ended = [row for row in rows if row.state.final]
        for row in ended:
            _say(row, f"is {row.condition} already")
        for row in rows:
            if not row.running and not row.state.final:
                journal.ledger.call_off(row.id)
                _say(row, "cancelled")
        obeyed = _order(journal, [row for row in rows if row.running], "cancel", lambda row: row.state.final)
    ctx.exit(0 if obeyed and not ended else 1)


def _go_on(ids: tuple[str, ...], test: Test, settings: Settings, *, everything: bool) -> int:
    with _opened() as journal:
        rows = _chosen(journal, ids, test, everything=everything)
        for row in rows:
            if row.state is State.COMPLETED:
                _say(row, "is complete already")
        running = [row for row in rows if row.running]
        obeyed = _order(journal, running, "run", lambda row: row.state is not State.PAUSED)
    here = {row.id: row for row in rows if not row.running and row.state is not State.COMPLETED}
    if not here:
        return 0 if obeyed else 1
    try:
        problems = {id_: lacking(row, settings.headers) for id_, row in here.items()}
    except UsageError as error:
        raise click.UsageError(error.message) from error
    jobs = [
        Job(row.source, {"id": id_}, row.priority, problem=problems[id_], size=row.size) for id_, row in here.items()
    ]
    batch: Batch[Any] = Batch(
        jobs,
        lambda client, job: again(client, here[job.said["id"]]),
        lambda result: str(result.url if isinstance(result, UploadResult) else result.path),
        _event_of,
        lambda result: note_of(result) if isinstance(result, UploadResult) else None,
        settings=settings,
    )
    override = any(row.options is not None and row.options["override_method"] for row in here.values())
    return batch.run(override_method=override) or (0 if obeyed else 1)


@transfers.command()
@_ids
@_all("that are paused or interrupted")
@options.running(*options.repeating)
@click.pass_context
def resume(ctx: click.Context, ids: tuple[str, ...], everything: bool, settings: Settings) -> None:
    """Let transfers go on where they are paused; those that no process has are run here, from what is done.

    Prints what `upload` and `download` print, for those that are run here.
    """
    ctx.exit(_go_on(ids, lambda row: row.condition in (State.PAUSED, INTERRUPTED), settings, everything=everything))


@transfers.command()
@_ids
@_all("that failed or were cancelled")
@options.running(*options.repeating)
@click.pass_context
def retry(ctx: click.Context, ids: tuple[str, ...], everything: bool, settings: Settings) -> None:
    """Run transfers here that failed or were cancelled, from what is done."""
    ctx.exit(_go_on(ids, lambda row: row.state in (State.FAILED, State.CANCELLED), settings, everything=everything))


@transfers.command()
@_ids
@click.option("--unfinished", is_flag=True, help="Those, too, that are not complete: what is done of them is removed.")
@click.option("--leave-server", is_flag=True, help="With --unfinished: what servers have is left to its expiry.")
@options.reaching
@click.pass_context
def clear(
    ctx: click.Context,
    ids: tuple[str, ...],
    unfinished: bool,
    leave_server: bool,
    settings: Settings,
) -> None:
    """Forget transfers that are complete: all of them, or those that are named.

    With --unfinished also those that are not, but for those that a process runs: the server is freed of what it has of
    them, and .part files are removed.
    """
    status = 0
    how: dict[str, Any] = {"free": not leave_server, "proxy": settings.proxy, "verify": settings.cacert or True}
    with _opened() as journal:
        rows = _found(journal, ids) if ids else [row for row in journal.ledger.rows() if not row.running]
        for row in rows:
            if row.running:
                _say(row, f"is {row.condition}; cancel it first")
            elif row.state is not State.COMPLETED and not unfinished:
                if ids:
                    _say(row, f"is {row.condition}; --unfinished removes what is done of it, too")
                continue
            else:
                try:
                    anyio.run(partial(clear_away, journal, row, settings.headers, **how))
                    continue
                except HoldfastError as error:
                    _say(row, f"is not cleared: {error.message}")
                    status = max(status, exit_status(error))
                    continue
            status = max(status, 1)
        if ids and not unfinished and any(row.state is not State.COMPLETED for row in rows):
            status = max(status, 1)
    ctx.exit(status)


def _found(journal: Journal, ids: Sequence[str]) -> list[Row]:
    found: dict[str, Row] = {}
    for each in ids:
        rows = journal.ledger.find(each)
        if not rows:
            raise click.UsageError(f"the journal knows no transfer {each}; see holdfast transfers list")
        if len(rows) > 1:
            raise click.UsageError(f"{each} may be {' or '.join(row.id for row in rows[:5])}; give more letters")
        found[rows[0].id] = rows[0]
    return list(found.values())


def _chosen(journal: Journal, ids: Sequence[str], test: Test, *, everything: bool) -> list[Row]:
    if bool(ids) == everything:
        raise click.UsageError("give the ID of a transfer, or --all")
    return _found(journal, ids) if ids else [row for row in journal.ledger.rows() if test(row)]


def _order(journal: Journal, rows: Sequence[Row], wanted: Wanted, obeyed: Test) -> bool:
    """Tell processes what is wanted of their transfers, and wait until it is so."""
    for row in rows:
        journal.ledger.want(row.id, wanted)
    waiting = {row.id for row in rows}
    deadline = time.monotonic() + PATIENCE
    while waiting and time.monotonic() < deadline:
        for id_ in tuple(waiting):
            (row,) = journal.ledger.find(id_)
            if obeyed(row) or not row.running:
                waiting.discard(id_)
                _say(row, str(row.condition))
        if waiting:
            time.sleep(LOOK)
    for row in rows:
        if row.id in waiting:
            _say(row, f"was told to {wanted}; process {row.process} has not done it in {PATIENCE:.0f} s")
    return not waiting


def _say(row: Row, sentence: str) -> None:
    say(f"{row.id} {row.source}: {sentence}")


def _place(row: Row) -> str:
    return row.result or row.target


def _what(source: str, place: str) -> str:
    """Both of them whole, or as much as one line has room for: that of the terminal, of $COLUMNS, or 80 columns."""
    room = shutil.get_terminal_size().columns - OTHER_COLUMNS - len(" -> ")
    if len(source) + len(place) <= room:
        return f"{source} -> {place}"
    from holdfast.cli.bars import shortened

    source, place = (name if "://" in name else f"…/{name.rpartition('/')[2]}" for name in (source, place))
    least = max(8, room // 2)
    return f"{shortened(source, max(least, room - len(place)))} -> {shortened(place, max(least, room - len(source)))}"


def _percent(row: Row) -> str:
    if row.state is State.COMPLETED or row.size == 0:
        return "100%"
    return "-" if row.size is None else f"{int(100 * row.accepted / row.size)}%"


def _facts(row: Row) -> dict[str, Any]:
    failure = row.failure
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.condition,
        "wanted": row.wanted,
        "process": row.process if row.running else None,
        "priority": row.priority,
        "source": row.source,
        "target": row.target,
        "result": row.result,
        "digest": row.digest,
        "size": row.size,
        "accepted": row.accepted,
        "created": row.created,
        "updated": row.updated,
        "error": None if failure is None else {"code": failure["code"], "message": failure["message"]},
        "options": row.options,
    }


def _event_of(name: str, result: UploadResult | DownloadResult) -> dict[str, object]:
    if isinstance(result, UploadResult):
        return upload_event(name, result)
    return download_event(name, result)
