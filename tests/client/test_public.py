"""What `import holdfast` gives: all that is public, and nothing before it is used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from tests.support.process import ServerProcess


@pytest.mark.parametrize("name", holdfast.__all__)
def test_every_public_name_is_found(name: str) -> None:
    assert getattr(holdfast, name).__module__.startswith("holdfast") or name == "UploadSource"
    assert name in dir(holdfast)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = holdfast.nothing


def test_what_is_not_used_is_not_imported() -> None:
    """A shell that asks for completions, or a script that wants an error, need no HTTP library."""
    said = (
        "import sys, holdfast, holdfast.cli; holdfast.UsageError; print('httpx' in sys.modules, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


OF_OTHERS = {
    "rich",  # bars, on a terminal
    "blake3", "google_crc32c",  # digests that are not asked for
    "holdfast.downloader", "holdfast.watching", "holdfast.ftp", "holdfast.sync",
    "holdfast_protocol.dialects", "holdfast_protocol.server", "holdfast_protocol.live",
    "holdfast_server",
    "concurrent.futures.thread",  # a second set of threads
}  # fmt: skip


def test_who_sends_a_file_loads_nothing_that_only_others_need(server: ServerProcess, tmp_path: Path) -> None:
    """It is most of the time that a small file takes."""
    path = tmp_path / "small.bin"
    path.write_bytes(b"small")
    words = ["upload", str(path), "--to", f"{server.url}/files", "--quiet"]
    said = (
        "import sys, mimetypes; from holdfast.cli import main\n"
        f"assert main({words!r}, standalone_mode=False) == 0\n"
        "print(*sys.modules, mimetypes.inited)"
    )
    variables = {**os.environ, "HOLDFAST_STATE": str(tmp_path / "state")}
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, env=variables)
    url, modules = done.stdout.splitlines()
    assert url.startswith(server.url)
    *loaded, inited = modules.split()
    assert OF_OTHERS & set(loaded) == set()
    assert "holdfast.uploader" in loaded
    assert inited == "False", "the machine's list of types was read"
