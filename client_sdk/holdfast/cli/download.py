"""`holdfast download`.

Rule of this file: standard output gets the path of each file, one a line in the order of the URLs, and nothing else.
"""

from pathlib import Path
from typing import Final, TextIO

import click

from holdfast.cli import EXIT_STATUS, options
from holdfast.cli.jobs import Job, Lines, read_jobs
from holdfast.cli.running import Batch
from holdfast.cli.values import HexDigest
from holdfast.client import AsyncClient
from holdfast.errors import UsageError
from holdfast.outcome import DownloadResult
from holdfast.planner import MAX_CONCURRENCY
from holdfast.transfers import Transfer
from holdfast_protocol.digest import Digest

PER_FILE: Final = frozenset(
    {"urls", "output", "directory", "segments", "checksum", "mirrors", "overwrite", "max_attempts", "priority"}
)
"""Options that a line of -i may have."""
CONNECTIONS: Final = click.IntRange(1, MAX_CONCURRENCY)
LISTED: Final = (
    click.Option(["-u", "--url"]),
    click.Option(["-n", "--segments", "--concurrency", "segments"], type=CONNECTIONS),
)
"""How download managers write such lines."""


@click.command(epilog=EXIT_STATUS)
@click.argument("urls", nargs=-1, metavar="URL...")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the file goes; for one URL.")
@click.option("-d", "--directory", type=click.Path(path_type=Path), help="Where files go; they keep their names.")
@options.listed("URLs")
@click.option(
    "-n",
    "--segments",
    type=CONNECTIONS,
    metavar="N",
    help="Connections for one file, 1 to 64, to each server; as many as pay if not given.",
)
@click.option("--checksum", type=HexDigest(), help="What the file must have: sha-256=HEX; for one URL.")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL",
              help="The same file elsewhere, fetched from at the same time; for one URL, may be repeated.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@options.priority
@options.max_attempts
@options.running(*options.repeating)
@click.pass_context
def download(
    ctx: click.Context,
    urls: tuple[str, ...],
    output: Path | None,
    directory: Path | None,
    batch_file: TextIO | None,
    strict: bool,
    segments: int | None,
    checksum: Digest | None,
    mirrors: tuple[str, ...],
    overwrite: bool,
    priority: int,
    max_attempts: int,
    settings: options.Settings,
) -> None:
    """Receive files, each over several connections, verify them, and print their paths.

    \b
    holdfast download http://127.0.0.1:8000/files/2f9d... -o copy.mkv

    Interrupted by Ctrl-C, a crash or the network, the same command goes on where it stopped.

    A line of -i is a URL, or more, with options of its own: those of this command that are of one file. Both of these
    are understood:

    \b
    http://host/a -o 'my copy' --checksum sha-256=HEX --priority 2
    -u http://host/a -o copy -n 4
    """
    if output is not None and directory is not None:
        raise click.UsageError("give -o or -d, not both")
    named = [Job(url, priority=priority) for url in dict.fromkeys(urls)]
    jobs = [*named, *read_jobs(Lines(download, PER_FILE, LISTED), batch_file, priority, strict=strict)]
    if not jobs:
        raise click.UsageError("give at least one URL, or a file of URLs with -i")
    if len(jobs) > 1 and (output is not None or checksum is not None or mirrors):
        raise click.UsageError("-o, --checksum and --mirror are for one URL; use -d for several, or lines of -i")
    common = {
        "segments": segments,
        "checksum": checksum,
        "mirrors": mirrors,
        "overwrite": overwrite,
        "max_attempts": max_attempts,
    }

    def start(client: AsyncClient, job: Job) -> Transfer[DownloadResult]:
        said = {**common, **job.said}
        own = "output" in said or "directory" in said
        if said.get("output") is not None and said.get("directory") is not None:
            raise UsageError("give -o or -d, not both")
        return client.download(
            job.name,
            said.get("output") if own else output,
            folder=said.get("directory") if own else directory,
            segments=said["segments"],
            checksum=said["checksum"],
            mirrors=said["mirrors"],
            overwrite=said["overwrite"],
            priority=job.priority,
            max_attempts=said["max_attempts"],
        )

    batch = Batch(jobs, start, lambda result: str(result.path), event_of, settings=settings)
    ctx.exit(batch.run())


def event_of(name: str, result: DownloadResult) -> dict[str, object]:
    """The last event of a download, for --json."""
    digest = result.digest
    return {
        "event": "done",
        "file": name,
        "url": result.url,
        "path": str(result.path),
        "size": result.size,
        "digest": None if digest is None else {"algorithm": digest.algorithm, "hex": digest.hex},
        "seconds": round(result.seconds, 3),
        "segments": result.segments,
        "concurrency": result.concurrency,
        "retries": result.retries,
        "bytes_received": result.bytes_received,
        "bytes_resumed": result.bytes_resumed,
    }
