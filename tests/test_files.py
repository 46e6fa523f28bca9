"""Files are replaced as a whole, and what killed processes left is removed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_batch.files import replacing

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
    write(other, "again")
    assert sorted(tmp_path.iterdir()) == [path, other]


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
