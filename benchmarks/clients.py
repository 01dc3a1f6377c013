"""The clients that are measured, as command lines: ours and those of others.

Rule of this file: each is used as its own documentation shows for one file, with what it does when it is told nothing:
its own size of a PATCH, its own retries. `holdfast upload` has a home of its own, so that nothing is resumed by
accident.
"""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conformance.peers import MODULES

from benchmarks.peers import PROGRAMS, RESUMABLE_UPLOAD_PROGRAM, ROOT, missing

TUS_JS: Final = ROOT / "tests" / "interop" / "tus_js.cjs"


@dataclass(frozen=True)
class Client:
    """`command` makes the command line that sends a file to a creation URL; `program` is what must be installed."""

    name: str
    command: Callable[[Path, str], list[str]]
    program: str = ""
    checksum: str = "none"
    requests: str = "one PATCH"
    parallel: bool = False
    """It sends a file over several connections."""
    resumes: bool = True
    """It goes on by itself when the connection is cut."""

    @property
    def missing(self) -> str | None:
        """Why it cannot be started; None: it can."""
        return missing(self.program)


def _holdfast(*words: str) -> list[str]:
    return [sys.executable, "-m", "holdfast.cli", *words]


def holdfast_download(url: str, target: Path, *options: str) -> list[str]:
    return _holdfast("download", url, "-o", str(target), "--overwrite", "--quiet", *options)


def aria2(url: str, target: Path, connections: int) -> list[str]:
    many = [f"-x{connections}", f"-s{connections}", "-k1M", "--file-allocation=none", "--allow-overwrite=true", "-q"]
    return ["aria2c", "--no-conf", *many, "-d", str(target.parent), "-o", target.name, url]


def _holdfast_upload(*options: str) -> Callable[[Path, str], list[str]]:
    return lambda file, url: _holdfast("upload", str(file), "--to", url, "--quiet", *options)


def _curl(file: Path, url: str) -> list[str]:
    """A creation and one PATCH. The address is put together in the shell, as a person would."""
    origin = "/".join(url.split("/")[:3])
    made = (
        "curl -sS --fail -D - -o /dev/null -X POST -H 'Tus-Resumable: 1.0.0' -H 'Upload-Length: "
        f"{file.stat().st_size}' "
        f"{shlex.quote(url)} | tr -d '\\r' | sed -n 's/^[Ll]ocation: *//p'"
    )
    patch = (
        "curl -sS --fail -X PATCH -H 'Tus-Resumable: 1.0.0' -H 'Upload-Offset: 0' -H 'Expect:' "
        f"-H 'Content-Type: application/offset+octet-stream' -T {shlex.quote(str(file))} \"$place\""
    )
    return ["sh", "-ec", f'place=$({made}); case "$place" in /*) place="{origin}$place";; esac; {patch}']


def _tus_js(**more: object) -> Callable[[Path, str], list[str]]:
    def command(file: Path, url: str) -> list[str]:
        job = {"scene": "upload", "package": "tus-js-client", "endpoint": url, "file": str(file), **more}
        return ["node", str(TUS_JS), str(MODULES), json.dumps(job)]

    return command


def _python(program: str) -> Callable[[Path, str], list[str]]:
    return lambda file, url: [sys.executable, str(PROGRAMS / program), str(file), url]


def _resumable_upload(file: Path, url: str) -> list[str]:
    return [str(RESUMABLE_UPLOAD_PROGRAM), "upload", "--url", url, "--checksum", "none", "--no-progress", str(file)]


def holdfast_events(name: str, *options: str) -> Client:
    """Ours with further options, telling each step as JSON."""
    return Client(
        name,
        lambda file, url: _holdfast("upload", str(file), "--to", url, "--json", *options),
        checksum="each chunk, whole file",
        requests=" ".join(options) or "chunks, adaptive",
        parallel=True,
    )


HOLDFAST: Final = Client(
    "holdfast upload", _holdfast_upload(), checksum="each chunk, whole file", requests="chunks, adaptive", parallel=True
)
CURL: Final = Client("curl", _curl, "curl", resumes=False)
TUS_JS_CLIENT: Final = Client("tus-js-client", _tus_js(), "tus-js-client")
TUS_JS_PARALLEL: Final = Client(
    "tus-js-client, 4 parallel",
    _tus_js(parallelUploads=4),
    "tus-js-client",
    requests="4 parts, one PATCH each",
    parallel=True,
)
TUSPY: Final = Client("tuspy", _python("tuspy_upload.py"))
AIOTUS: Final = Client("aiotus", _python("aiotus_upload.py"), requests="4 MiB PATCHes")
RESUMABLE: Final = Client("resumable-upload", _resumable_upload, requests="4 MiB PATCHes")
SEQUENTIAL: Final = (CURL, TUSPY, AIOTUS, TUS_JS_CLIENT, RESUMABLE)
