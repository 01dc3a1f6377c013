"""What the client reads on its own machine, and others may have written or damaged: jobs, sums, and its journal.

Rule of this file: as in `targets`. What makes no sense stops nobody: it is passed over, set aside, or named.
"""

import io
import logging
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import click

from holdfast.cli.download import LISTED, PER_FILE, download
from holdfast.cli.jobs import Lines, read_jobs
from holdfast.errors import HoldfastError, UsageError
from holdfast.ftp import parse_url
from holdfast.journal import BOOT, MARKS, Journal, TransferLock, _boot
from holdfast.sources import Fingerprint
from holdfast.verification import parse_sums

NAMES: Final = ("film.mkv", "a.bin")
KEY: Final = "0" * 64


def jobs(data: bytes) -> None:
    """A file of jobs, as `holdfast download -i` reads it."""
    text = data.decode("utf-8", "surrogateescape")
    lines = Lines(download, PER_FILE, LISTED)
    found = list(read_jobs(lines, io.StringIO(text), 0, strict=False))
    for job in found:
        assert job.line is not None
        assert job.shown or not job.name
        with suppress(UsageError):
            parse_url(job.name)
    with suppress(click.UsageError):
        assert list(read_jobs(lines, io.StringIO(text), 0, strict=True)) == found


def sums(data: bytes) -> None:
    """What stands beside a file at a server, in NAME.sha256."""
    digest = parse_sums(data, NAMES)
    if digest is not None:
        assert digest.value.hex() in data.decode().lower()


@cache
def _good() -> bytes:
    """A journal with something in it."""
    with tempfile.TemporaryDirectory() as home:
        journal = Journal(Path(home))
        journal.begin_upload(KEY, Fingerprint("/a", 5, 1, 1, 1, "e"), endpoint="http://a/files", url="http://a/files/b")
        journal.keep_ceiling("http://a", 65536)
        journal.close()
        return Path(home, "journal.db").read_bytes()


def journal(data: bytes) -> None:
    """A place in the file by two bytes, and what stands there instead of what was; and the same as marks of a lock."""
    logging.getLogger("holdfast").disabled = True
    try:
        with tempfile.TemporaryDirectory() as home:
            path = Path(home, "journal.db")
            good = bytearray(_good())
            at = int.from_bytes(data[:2], "big") % len(good)
            good[at : at + len(data[2:])] = data[2:]
            path.write_bytes(good)
            with suppress(HoldfastError):
                _use(Journal.open(home))
            _marks(Path(home, "lock"), data)
    finally:
        logging.getLogger("holdfast").disabled = False


def _use(opened: Journal) -> None:
    try:
        opened.find_upload(KEY)
        opened.find_download(KEY)
        opened.find_parts(KEY)
        opened.find_ceilings()
        _shown([row.condition for row in opened.ledger.rows()])
        opened.begin_upload("1" * 64, Fingerprint("/b", 5, 1, 1, 1, "e"), endpoint="http://a/files", url="http://a/c")
        opened.forget_upload("1" * 64)
    finally:
        opened.close()


def _shown(conditions: Sequence[object]) -> None:
    assert all(str(each) for each in conditions)


def _marks(path: Path, data: bytes) -> None:
    path.write_bytes(bytes(BOOT) + _boot()[: MARKS - BOOT].ljust(MARKS - BOOT) + data)
    with path.open("rb") as file:
        lock = TransferLock(None, file.fileno(), 0)
        for span in lock.marks():
            assert 0 <= span.start < span.end
