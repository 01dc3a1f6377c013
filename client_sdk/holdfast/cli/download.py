"""`holdfast download`.

Rule of this file: standard output gets the path of each file, one a line in the order of the URLs, and nothing else.
"""

from pathlib import Path
from typing import TextIO

import click

from holdfast.cli.running import Batch
from holdfast.cli.values import Header, HexDigest, Size
from holdfast.client import AsyncClient
from holdfast.outcome import DownloadResult
from holdfast.planner import MAX_CONCURRENCY
from holdfast.transfers import Transfer
from holdfast_protocol.digest import Digest


@click.command()
@click.argument("urls", nargs=-1, metavar="URL...")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the file goes; for one URL.")
@click.option("-d", "--directory", type=click.Path(path_type=Path), help="Where files go; they keep their names.")
@click.option("-i", "--input", "batch_file", type=click.File("r"), help="URLs, one a line; - is standard input.")
@click.option("-n", "--segments", type=click.IntRange(1, MAX_CONCURRENCY), help="Connections for one file, 1 to 64.")
@click.option("--checksum", type=HexDigest(), help="What the file must have: sha-256=HEX; for one URL.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--limit-rate", type=Size(), help="Bytes a second for all files together: 500K, 2M.")
@click.option("--priority", type=int, default=0, show_default=True, help="Lower numbers go first.")
@click.option("--header", "headers", type=Header(), multiple=True, help="Sent with each request; may be repeated.")
@click.option("--max-attempts", type=click.IntRange(1), default=10, show_default=True,
              help="Failures in a row without progress before giving up.")  # fmt: skip
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How often a transfer that gave up is begun again, if it may go better then.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON event a line on standard output.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def download(
    ctx: click.Context,
    urls: tuple[str, ...],
    output: Path | None,
    directory: Path | None,
    batch_file: TextIO | None,
    segments: int | None,
    checksum: Digest | None,
    overwrite: bool,
    limit_rate: int | None,
    priority: int,
    headers: tuple[tuple[str, str], ...],
    max_attempts: int,
    retries: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Receive files, each over several connections, verify them, and print their paths.

    Interrupted by Ctrl-C, a crash or the network, the same command goes on where it stopped.
    """
    listed = [line.strip() for line in batch_file or ()]
    wanted = [*urls, *(line for line in listed if line and not line.startswith("#"))]
    if not wanted:
        raise click.UsageError("give at least one URL, or a file of URLs with -i")
    if len(wanted) > 1 and (output is not None or checksum is not None):
        raise click.UsageError("-o and --checksum are for one URL; use -d for several")
    if output is not None and directory is not None:
        raise click.UsageError("give -o or -d, not both")

    def start(client: AsyncClient, url: str) -> Transfer[DownloadResult]:
        return client.download(
            url,
            output,
            folder=directory,
            segments=segments,
            checksum=checksum,
            overwrite=overwrite,
            priority=priority,
            max_attempts=max_attempts,
        )

    names = list(dict.fromkeys(wanted))
    batch = Batch(names, start, lambda result: str(result.path), event_of, quiet=quiet, as_json=as_json)
    ctx.exit(batch.run(headers=dict(headers), limit_rate=limit_rate, retries=retries))


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
