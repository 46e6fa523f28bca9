"""Files are replaced as a whole, and what killed processes left is removed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from fer_batch.files import (
    delete_left,
    find_left_files,
    find_left_folders,
    replacing,
    temporary_folder,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from fer_batch.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_a_file_of_a_killed_process_is_removed_but_not_one_that_is_being_written(
    tmp_path: Path,
) -> None:
    path, other = tmp_path / "day.html", tmp_path / "other.html"
    write(path, "first")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    write(other, "other")
    assert len(list(tmp_path.iterdir())) == 3
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert path.read_text() == "first"
    kept = [tmp_path / ".fer-batch-notes.tmp", tmp_path / ".fer-batch-0123456789abcdef.tmp"]
    kept[0].touch()
    kept[1].symlink_to(path)
    write(other, "again")
    assert sorted(tmp_path.iterdir()) == sorted([path, other, *kept])


def test_a_failed_block_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "day.html"
    write(path, "first")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half \ud800")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as full:
            write(tmp_path / "day.html", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full.value.filename == str(tmp_path / "day.html")
    assert list(tmp_path.iterdir()) == []


def test_others_can_read_the_file_as_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "day.html", "first")
        with replacing(tmp_path / "secret", 0o600) as temporary:
            temporary.write_text("secret")
    finally:
        os.umask(before)
    modes = {p.name: f"{p.stat().st_mode & 0o777:o}" for p in tmp_path.iterdir()}
    assert modes == {"day.html": "640", "secret": "600"}


BEFORE = date(2026, 11, 28)
LEFT = ".fer-batch-0123456789abcdef.tmp"


def create(path: Path, day: date = date(2026, 11, 27)) -> Path:
    """A file last changed at the end of a day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("left")
    changed = datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC).timestamp()
    os.utime(path, (changed, changed))
    return path


def test_only_old_temporary_files_of_this_user_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, below = create(tmp_path / LEFT), create(tmp_path / "a" / LEFT)
    create(tmp_path / LEFT.replace("0", "1"), BEFORE)
    for name in ("2020-01-01.html", ".fer-batch-notes.tmp", f"{LEFT}.bak", f"x{LEFT}"):
        create(tmp_path / name)
    (tmp_path / LEFT.replace("0", "2")).symlink_to(create(tmp_path / "other" / "data"))
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    assert find_left_files(tmp_path, BEFORE) == [left]
    assert find_left_files(tmp_path, BEFORE, recursive=True) == [left, below]
    assert find_left_files(tmp_path / "none", BEFORE) == []
    with pytest.raises(NotADirectoryError, match=LEFT):
        find_left_files(left, BEFORE)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert find_left_files(tmp_path, BEFORE) == []


def test_a_file_that_a_process_writes_is_not_left(tmp_path: Path) -> None:
    with replacing(tmp_path / "day.html") as temporary:
        create(temporary)
        assert find_left_files(tmp_path, BEFORE) == []
    assert (tmp_path / "day.html").read_text() == "left"


def test_a_temporary_folder_is_left_only_by_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as folder:
        with tempfile.NamedTemporaryFile(delete=False) as of_library:
            assert Path(of_library.name).parent == folder
        names = [folder.name]
    assert tempfile.gettempdir() == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
    names += [f"{names[0]}1", "fer-batch-0-12345678", "fer-batch-bench-x"]
    for name in names:
        create(tmp_path / name / "below" / "file")
    recent = create(tmp_path / "fer-batch-tmp-abcdefgh" / "file", BEFORE).parent
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    (tmp_path / "fer-batch-tmp-aaaaaaaa").symlink_to(tmp_path / names[1])
    left = tmp_path / names[0]
    assert find_left_folders(BEFORE) == [left]
    delete_left(left)
    delete_left(left)  # another process was faster
    assert find_left_folders(BEFORE) == []
    assert recent.exists()
    assert sorted(p.name for p in tmp_path.iterdir() if not p.is_symlink()) == sorted(
        [*names[1:], recent.name]
    )
