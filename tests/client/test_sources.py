"""Files to send: how they are recognized, and that a change is noticed."""

import os
from pathlib import Path

import pytest

from holdfast.errors import SourceChanged, SourceUnreadable
from holdfast.sources import FileSource


def test_a_file_is_read_at_any_offset(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)))
    source = FileSource.open(path)
    buffer = bytearray(5)
    source.read_into(100, memoryview(buffer))
    assert bytes(buffer) == bytes(range(100, 105))
    assert (source.name, source.size) == ("a", 256)
    source.close()
    source.close()


def test_the_edges_tell_files_of_one_size_and_time_apart(tmp_path: Path) -> None:
    prints = set()
    path = tmp_path / "a"
    for flip in (0, 65535, 134464, 199999):
        content = bytearray(200_000)
        content[flip] = 1
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        source = FileSource.open(path)
        prints.add((source.fingerprint.edge, source.fingerprint.mtime_ns, source.fingerprint.size))
        source.close()
    assert len(prints) == 4


def test_a_link_leads_to_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    first, second = FileSource.open(tmp_path / "a"), FileSource.open(tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    first.close()
    second.close()


@pytest.mark.parametrize("change", ["touch", "grow", "shrink"])
def test_a_change_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(1000))
    source = FileSource.open(path)
    source.check()
    if change == "touch":
        os.utime(path, ns=(5, 5))
    else:
        size = 2000 if change == "grow" else 10
        kept = path.stat().st_mtime_ns
        os.truncate(path, size)
        os.utime(path, ns=(kept, kept))
    with pytest.raises(SourceChanged):
        source.check()
    with pytest.raises(SourceChanged):
        source.read_into(0, memoryview(bytearray(10)))
    source.close()


def test_a_file_that_is_replaced_is_read_to_its_end(tmp_path: Path) -> None:
    """The old file is still whole; its bytes are those of one version."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    source = FileSource.open(path)
    (tmp_path / "b").write_bytes(b"new")
    (tmp_path / "b").replace(path)
    buffer = bytearray(3)
    source.read_into(0, memoryview(buffer))
    assert bytes(buffer) == b"old"
    source.close()


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_cannot_be_sent_is_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(SourceUnreadable, match=str(path)):
        FileSource.open(path)
