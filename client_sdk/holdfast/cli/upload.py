"""`holdfast upload`.

Rule of this file: standard output gets the URL of each upload, one a line in the order of the files, and nothing else.
"""

import os
from collections.abc import AsyncIterator
from typing import Final, TextIO

import anyio
import click
from anyio import to_thread
from msgspec.structs import replace

from holdfast.cli import EXIT_STATUS, options
from holdfast.cli.jobs import RELATIVE_PATH, Job, Lines, files_of, is_standard_input, read_jobs
from holdfast.cli.running import Batch
from holdfast.cli.screen import human
from holdfast.cli.values import Algorithm, Auto, Pair, Size
from holdfast.client import AsyncClient
from holdfast.outcome import UploadResult
from holdfast.planner import MAX_CONCURRENCY
from holdfast.sending import Dialect, OnChange
from holdfast.transfers import Transfer

STDIN_PIECE: Final = 256 * 1024
PER_FILE: Final = frozenset(
    {"files", "endpoint", "meta", "checksum", "concurrency", "chunk_size", "protocol", "on_change", "max_attempts",
     "priority"}
)  # fmt: skip
"""Options that a line of -i may have."""


@click.command(epilog=EXIT_STATUS)
@click.argument("files", nargs=-1, type=click.Path(), metavar="FILE...")
@click.option("--to", "endpoint", metavar="URL", help="Where uploads are created: http://host/files")
@click.option("--resume", metavar="URL", help="In place of --to: go on with this upload, which another client began.")
@click.option("-r", "--recursive", is_flag=True, help="Send what is in folders, and in folders in them.")
@options.listed("Files to send")
@click.option("--meta", type=Pair(), multiple=True, help="Metadata that goes with each file; may be repeated.")
@click.option(
    "--concurrency",
    type=Auto(click.IntRange(1, MAX_CONCURRENCY)),
    metavar="auto|N",
    default="auto",
    show_default=True,
    help="Connections for one file, auto or 1 to 64.",
)
@click.option("--chunk-size", type=Auto(Size()), default="auto", show_default=True, help="Bytes in one request: 8M.")
@click.option(
    "--checksum",
    type=Algorithm(),
    default="auto",
    show_default=True,
    help="Digest of the whole file: sha-256, xxh3-128, ... auto takes that of parallel chunks, elsewhere sha-256.",
)
@click.option(
    "--protocol",
    type=click.Choice(["auto", "parallel", "tus", "ietf"]),
    default="auto",
    show_default=True,
    help="auto takes parallel chunks if the server speaks them, else tus if it names that, else the IETF draft.",
)
@click.option("--override-method", is_flag=True, help="Send PATCH as POST, for networks that block PATCH.")
@click.option(
    "--on-change",
    type=click.Choice(["fail", "restart"]),
    default="fail",
    show_default=True,
    help="When a file changes while it is sent: give it up, or send it anew.",
)
@options.priority
@options.max_attempts
@options.running(*options.repeating)
@click.pass_context
def upload(
    ctx: click.Context,
    files: tuple[str, ...],
    endpoint: str | None,
    resume: str | None,
    recursive: bool,
    batch_file: TextIO | None,
    strict: bool,
    meta: tuple[tuple[str, str], ...],
    concurrency: int,
    chunk_size: int,
    checksum: str,
    protocol: Dialect,
    override_method: bool,
    on_change: OnChange,
    priority: int,
    max_attempts: int,
    settings: options.Settings,
) -> None:
    """Send files to a server, and print the URL of each.

    \b
    holdfast upload film.mkv --to http://127.0.0.1:8000/files
    tar c photos | holdfast upload - --to URL --meta filename=photos.tar

    Interrupted by Ctrl-C, a crash or the network, the same command goes on where it stopped. The file - is standard
    input, of any length; its name at the server is given with --meta filename=NAME. Patterns such as '*.log' and 'a/**'
    may be quoted, for those who have no shell to expand them. Files of a folder have their place in it in the metadata
    relativePath.

    A line of -i is a file, or more, with options of its own: those of this command that are of one file, such as
    'my film.mkv' --to URL --meta project=alpha --priority 2

    With --resume the file goes on where another client stopped, in whatever protocol that one spoke. It must be the
    same file: only a server that speaks parallel chunks can tell.
    """
    if endpoint is not None and resume is not None:
        raise click.UsageError("say where uploads are created, with --to, or which one to go on with, with --resume")
    if endpoint is None and resume is None and (files or batch_file is None):
        raise click.UsageError("say where uploads are created, with --to, or which one to go on with, with --resume")
    if not files and batch_file is None:
        raise click.UsageError("give at least one file, or a list of files with -i")
    if resume is not None and (len(files) != 1 or batch_file is not None):
        raise click.UsageError("--resume goes on with one upload, so it needs one file")

    named = [Job(name, priority=priority) for name in dict.fromkeys(files)]
    listed = read_jobs(Lines(upload, PER_FILE), batch_file, priority, strict=strict)
    jobs = [
        _looked_at(each, endpoint or resume) for job in (*named, *listed) for each in files_of(job, recursive=recursive)
    ]
    if sum(job.name == "-" for job in jobs) + (batch_file is not None and is_standard_input(batch_file)) > 1:
        raise click.UsageError("standard input can be read once; give - for one of them")
    common = {
        "endpoint": endpoint or resume,
        "meta": meta,
        "checksum": checksum,
        "concurrency": concurrency,
        "chunk_size": chunk_size,
        "protocol": protocol,
        "on_change": on_change,
        "max_attempts": max_attempts,
    }

    def start(client: AsyncClient, job: Job) -> Transfer[UploadResult]:
        said = {**common, **job.said}
        metadata = ({RELATIVE_PATH: job.relative} if job.relative is not None else {}) | dict(said["meta"])
        return client.upload(
            standard_input() if job.name == "-" else job.name,
            said["endpoint"],
            name="stdin" if job.name == "-" else None,
            metadata=metadata,
            checksum=said["checksum"] or None,
            concurrency=said["concurrency"] or None,
            chunk_size=said["chunk_size"] or None,
            protocol=said["protocol"],
            priority=job.priority,
            on_change=said["on_change"],
            resume=resume is not None,
            max_attempts=said["max_attempts"],
        )

    batch = Batch(jobs, start, lambda result: result.url, event_of, note_of, settings=settings)
    ctx.exit(batch.run(override_method=override_method))


def _looked_at(job: Job, url: str | None) -> Job:
    if not job.name:
        return replace(job, problem="the name of a file is empty")
    if url is None and "endpoint" not in job.said and job.problem is None:
        return replace(job, problem="say where it is to be sent, with --to")
    try:
        size = os.stat(job.name).st_size if job.name != "-" else None  # noqa: PTH116 - each of a long list
    except (OSError, ValueError):
        size = 0  # it will fail, and nothing of it will go
    return replace(job, size=size)


async def standard_input() -> AsyncIterator[bytes]:
    """Bytes as they come. No thread waits in a read for which there is nothing, so that Ctrl-C ends it at once."""
    waits = True
    while True:
        if waits:
            try:
                await anyio.wait_readable(0)
            except PermissionError:
                waits = False  # a regular file, or one that is always ready
        piece = await to_thread.run_sync(os.read, 0, STDIN_PIECE)
        if not piece:
            return
        yield piece


def note_of(result: UploadResult) -> str | None:
    """What people should know of it."""
    if result.already_there:
        return "it is on the server already, complete; nothing was sent"
    if result.bytes_sparse:
        return f"{human(result.bytes_sparse)} of it are holes, which were not sent"
    return None


def event_of(name: str, result: UploadResult) -> dict[str, object]:
    """The last event of an upload, for --json."""
    return {
        "event": "done",
        "file": name,
        "url": result.url,
        "size": result.size,
        "digest": {"algorithm": result.digest.algorithm, "hex": result.digest.hex},
        "seconds": round(result.seconds, 3),
        "chunks": result.chunks,
        "concurrency": result.concurrency,
        "retries": result.retries,
        "bytes_sent": result.bytes_sent,
        "bytes_resent": result.bytes_resent,
        "bytes_resumed": result.bytes_resumed,
        "bytes_sparse": result.bytes_sparse,
        "protocol": result.protocol,
        "already_there": result.already_there,
    }
