"""The journal: it survives what processes do to it, and it tells one run from another."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError, TransferBusy
from holdfast.journal import KEEP_DONE, DownloadRecord, Journal, UploadRecord, download_key, upload_key
from holdfast.journal_file import MIGRATIONS, JournalFile
from holdfast.sources import Fingerprint
from holdfast.splitting import Part
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Span
from tests.support.waiting import scaled

PRINT = Fingerprint("/a/film.mkv", 100, 5, (1 << 64) - 1, 3, "ab")
KEY = upload_key("http://host/files", PRINT, {})
DONE = Digest("sha-256", bytes(32))


def test_an_upload_is_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.find_upload(KEY) is None
    journal.begin_upload(KEY, PRINT, endpoint="http://host/files", url="http://host/files/1")
    record = UploadRecord(KEY, "/a/film.mkv", "http://host/files", "http://host/files/1", 100)
    assert journal.find_upload(KEY) == record
    journal.pause_upload(KEY, wire=7)
    journal.close()
    journal = Journal(tmp_path)
    found = journal.find_upload(KEY)
    assert found is not None
    assert (found.url, found.wire, found.done) == (record.url, 7, False)
    journal.finish_upload(KEY, url="http://host/files/1", digest=DONE, wire=9)
    found = journal.find_upload(KEY)
    assert found is not None
    assert (found.done, found.digest, found.wire) == (True, DONE, 9)
    journal.forget_upload(KEY)
    assert journal.find_upload(KEY) is None
    journal.close()


@pytest.mark.parametrize(
    "other",
    [
        upload_key("http://other/files", PRINT, {}),
        upload_key("http://host/files", PRINT, {"project": b"x"}),
        upload_key("http://host/files", Fingerprint("/b/film.mkv", 100, 5, 1, 3, "ab"), {}),
        upload_key("http://host/files", Fingerprint("/a/film.mkv", 101, 5, 1, 3, "ab"), {}),
        upload_key("http://host/files", Fingerprint("/a/film.mkv", 100, 6, 1, 3, "ab"), {}),
        upload_key("http://host/files", Fingerprint("/a/film.mkv", 100, 5, 1, 3, "ac"), {}),
    ],
)
def test_another_file_place_or_purpose_is_another_upload(other: str) -> None:
    assert other != KEY


def test_inode_and_device_are_hints() -> None:
    assert upload_key("http://host/files", Fingerprint("/a/film.mkv", 100, 5, 8, 9, "ab"), {}) == KEY


def test_what_is_written_to_a_new_journal_outlives_a_loss_of_power(tmp_path: Path) -> None:
    """It is made without waiting for the disk; from then on each commit is waited for, into a file that is there."""
    file = JournalFile(tmp_path)
    alone = tmp_path / "alone.db"
    alone.write_bytes((tmp_path / "journal.db").read_bytes())
    db = sqlite3.connect(alone)
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert db.execute("SELECT count(*) FROM upload").fetchone() == (0,)
    db.close()
    again = JournalFile(tmp_path)
    assert file.rows("PRAGMA synchronous") == again.rows("PRAGMA synchronous") == [(2,)]
    again.close()
    file.close()


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "state")
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    lock = journal.lock(KEY, "film.mkv")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"journal.db", "journal.db-wal"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    journal.unlock(KEY, lock)
    journal.close()


def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "journal.db").write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    journal = Journal.open(tmp_path)
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    journal.close()
    assert (tmp_path / "journal.db.corrupt").read_bytes().endswith(b"garbage")
    assert "set aside" in caplog.text


def test_damage_inside_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path)
    for number in range(200):
        journal.begin_upload(f"{number:064x}", PRINT, endpoint="e" * 200, url="u")
    journal.close()
    with (tmp_path / "journal.db").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4096 * 6))
    journal = Journal.open(tmp_path)
    assert journal.find_upload(f"{7:064x}") is None
    journal.close()
    assert "set aside" in caplog.text


def test_a_newer_journal_is_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(HoldfastError, match="newer version") as caught:
        Journal.open(tmp_path)
    assert caught.value.code == "journal-too-new"


def test_where_it_cannot_be_written_transfers_work_without_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = Journal.open(tmp_path / "file" / "state")
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    assert journal.find_upload(KEY) is not None
    lock = journal.lock(KEY, "film.mkv")
    lock.count(5)
    journal.unlock(KEY, lock, forget=True)
    journal.close()
    assert "cannot be resumed" in caplog.text


def test_whoever_needs_what_is_in_it_is_told_that_it_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HoldfastError, match="nobody can say what is in it") as caught:
        Journal.open(tmp_path / "file" / "state", needed=True)
    assert caught.value.code == "journal-unusable"


def test_who_has_no_home_has_no_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container that runs as a user of whom it knows nothing."""

    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_STATE_HOME", "HOLDFAST_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    Journal.open().close()
    assert "cannot be resumed" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_the_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "there"))
    Journal.open().close()
    assert (tmp_path / "there" / "journal.db").exists()


def test_finished_uploads_are_forgotten_after_a_while(tmp_path: Path) -> None:
    now = 1000.0
    journal = Journal(tmp_path, clock=lambda: now)
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    journal.finish_upload(KEY, url="u", digest=None, wire=0)
    journal.close()
    for later, there in ((KEEP_DONE - 1, True), (KEEP_DONE + 1, False)):
        journal = Journal(tmp_path, clock=lambda later=later: 1000.0 + later)  # type: ignore[misc]
        assert (journal.find_upload(KEY) is not None) is there
        journal.close()


def test_spans_of_a_download(tmp_path: Path) -> None:
    key = download_key("http://host/1", "/x")
    journal = Journal(tmp_path)
    record = DownloadRecord(key, "http://host/1", "/x", "/x.part", 100, '"one"')
    journal.begin_download(record)
    journal.keep_spans(key, [Span(50, 60), Span(0, 10)])
    journal.keep_spans(key, [Span(0, 10), Span(50, 70)])
    found = journal.find_download(key)
    assert found is not None
    assert found.spans == (Span(0, 10), Span(50, 70))
    journal.begin_download(record)
    assert journal.find_download(key) == record
    journal.forget_download(key)
    assert journal.find_download(key) is None
    journal.close()


OPEN = """
import sys
from pathlib import Path
from holdfast.journal import Journal
from holdfast.journal_file import MIGRATIONS, JournalFile
from holdfast.sources import Fingerprint
print("ready", flush=True)
sys.stdin.readline()
journal = Journal.open(Path(sys.argv[1]))
for number in range(20):
    journal.begin_upload(f"{sys.argv[2]}-{number}", Fingerprint("/a", 1, 2, 3, 4, "e"), endpoint="e", url="u")
"""


def test_many_processes_may_begin_one_journal(tmp_path: Path) -> None:
    """All of them at once, with a folder that is not there yet; nothing of any of them is lost."""
    folder = tmp_path / "state"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(folder), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(5)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=scaled(30))[1] for process in processes] == [""] * 5
    journal = Journal(folder)
    assert all(journal.find_upload(f"{process}-{number}") for process in range(5) for number in range(20))
    journal.close()


COMMIT = """
import itertools, sys
from pathlib import Path
from holdfast.journal import Journal
from holdfast.sources import Fingerprint
journal = Journal.open(Path(sys.argv[1]))
for number in itertools.count(int(sys.argv[2])):
    journal.begin_upload(f"{number}", Fingerprint("/a", 1, 2, 3, 4, "e" * 3000), endpoint="e", url="u")
    print(number, flush=True)
"""


def test_kill_in_the_middle_of_commits_loses_nothing_that_was_written(tmp_path: Path, rng: random.Random) -> None:
    """Again and again, each time somewhere else; no journal is set aside for it."""
    done = 0
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", COMMIT, str(tmp_path), str(done)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(rng.randint(1, 60)):
                assert int(process.stdout.readline()) == done
                done += 1
            process.kill()
            rest, err = process.communicate(timeout=scaled(20))
            assert err == ""
            done += rest.count("\n")
        journal = Journal(tmp_path)
        assert all(journal.find_upload(f"{number}") for number in range(done))
        journal.close()
    assert not (tmp_path / "journal.db.corrupt").exists()


@pytest.mark.parametrize("length", [0, 1, 100, 4096, 5000, 3 * 4096])
def test_a_file_that_was_cut_off_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int) -> None:
    """With a message, if there was something in it that could not be read."""
    journal = Journal(tmp_path)
    for number in range(200):
        journal.begin_upload(f"{number:064x}", PRINT, endpoint="e" * 200, url="u")
    journal.close()
    os.truncate(tmp_path / "journal.db", length)
    journal = Journal.open(tmp_path)
    assert journal.find_upload(f"{7:064x}") is None
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    journal.close()
    journal = Journal.open(tmp_path)
    assert journal.find_upload(KEY) is not None
    journal.close()
    assert ("set aside" in caplog.text) == (length > 1), "SQLite takes a single byte for an empty file"


def test_garbage_in_the_side_files_is_no_harm(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    journal.close()
    (tmp_path / "journal.db-wal").write_bytes(os.urandom(50_000))
    (tmp_path / "journal.db-shm").write_bytes(os.urandom(32_768))
    journal = Journal.open(tmp_path)
    assert journal.find_upload(KEY) is not None
    journal.close()


def test_damage_that_shows_later_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The pages go bad under a process that has the journal open: it goes on without, and the next one begins anew."""
    journal = Journal(tmp_path)
    for number in range(500):
        journal.begin_upload(f"{number:064x}", PRINT, endpoint="e" * 2000, url="u")
    journal.close()
    journal = Journal(tmp_path)
    with (tmp_path / "journal.db").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    assert [journal.find_upload(f"{number:064x}") for number in range(0, 500, 50)].count(None) > 0
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    lock = journal.lock(KEY, "film.mkv", "id")
    journal.unlock(KEY, lock)
    journal.close()
    assert "the journal could not be" in caplog.text
    journal = Journal.open(tmp_path)
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    assert journal.find_upload(KEY) is not None
    journal.close()
    assert "set aside" in caplog.text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a tmpfs here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True, timeout=10)


def test_a_full_disk_stops_no_transfer(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was written before stays; what came while it was full is not known later, and one message says so."""
    journal = Journal.open(small_disk)
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    for number in range(300):
        journal.begin_upload(f"{number:064x}", PRINT, endpoint="e" * 2000, url="u")
    lock = journal.lock("another", "film.mkv", "id")
    lock.count(5)
    journal.unlock("another", lock)
    journal.close()
    assert caplog.text.count("could not be written") == 1
    (small_disk / "filler").write_bytes(b"")
    journal = Journal.open(small_disk)
    assert journal.find_upload(KEY) is not None
    journal.close()
    assert "set aside" not in caplog.text


def test_a_disk_without_any_room_is_done_without(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(1 << 20))
    journal = Journal.open(small_disk / "state")
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    assert journal.find_upload(KEY) is not None
    journal.close()
    assert "cannot be used" in caplog.text


def test_a_disk_that_is_read_only_is_done_without(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also for root, whom no rights of a file stop."""
    journal = Journal.open(small_disk)
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    journal.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True, capture_output=True, timeout=10)
    journal = Journal.open(small_disk)
    lock = journal.lock(KEY, "film.mkv")
    journal.begin_upload(KEY, PRINT, endpoint="e", url="u")
    journal.unlock(KEY, lock)
    journal.close()
    assert "cannot be used" in caplog.text


HOLD = """
import sys
from pathlib import Path
from holdfast.journal import Journal
journal = Journal(Path(sys.argv[1]))
lock = journal.lock(sys.argv[2], "film.mkv")
lock.count(1000)
lock.count(234)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_ends_with_its_process_and_the_count_stays(tmp_path: Path) -> None:
    """kill -9 of the process that holds it: the next one gets the lock, and every byte that was counted."""
    journal = Journal(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), KEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TransferBusy, match=f"process {process.pid}"):
            journal.lock(KEY, "film.mkv")
        process.send_signal(signal.SIGKILL)
        process.wait(scaled(10))
    lock = journal.lock(KEY, "film.mkv")
    assert lock.wire == 1234
    with pytest.raises(TransferBusy, match="this process"):
        journal.lock(KEY, "film.mkv")
    journal.unlock(KEY, lock, forget=True)
    lock = journal.lock(KEY, "film.mkv")
    assert lock.wire == 0
    journal.unlock(KEY, lock)
    journal.close()


def test_parts_of_an_upload(tmp_path: Path) -> None:
    """They are kept with their URLs until they are put together, and go with their upload."""
    journal = Journal(tmp_path)
    cut = (Part(Span(0, 60)), Part(Span(60, 100)))
    journal.begin_upload(KEY, PRINT, endpoint="e", url="", parts=cut)
    assert journal.find_parts(KEY) == cut
    begun = Part(Span(60, 100), "http://host/files/2", 12.5)
    journal.keep_part(KEY, begun)
    journal.close()
    journal = Journal(tmp_path)
    assert journal.find_parts(KEY) == (cut[0], begun)
    journal.join_parts(KEY, "http://host/files/3")
    assert journal.find_parts(KEY) == ()
    record = journal.find_upload(KEY)
    assert record is not None
    assert record.url == "http://host/files/3"
    journal.begin_upload(KEY, PRINT, endpoint="e", url="", parts=cut)
    journal.forget_upload(KEY)
    assert journal.find_parts(KEY) == ()
    journal.keep_part(KEY, begun)
    assert journal.find_parts(KEY) == ()
    journal.close()


def test_a_journal_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as db:
        for statement in MIGRATIONS[0].split(";"):
            db.execute(statement)
        values = (KEY, "running", "/a/film.mkv", "e", "u", 100, 5, 1, 3, "ab", None, None, 7, 1.0, 1.0)
        db.execute("INSERT INTO upload VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        db.execute("PRAGMA user_version = 1")
    db.close()
    journal = Journal(tmp_path)
    assert journal.find_upload(KEY) == UploadRecord(KEY, "/a/film.mkv", "e", "u", 100, wire=7)
    journal.keep_upload_until(KEY, 50.0)
    record = journal.find_upload(KEY)
    assert record is not None
    assert record.expires == 50.0
    journal.close()
