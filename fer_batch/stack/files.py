"""Folders and files of the local stack: who owns them, and who may read them.

A server's folder lies in the stack folder, which others may pass through (mode 711) because
PostgreSQL runs as another user when root starts it; what holds data or a secret is 700 or 600.
Knows nothing of processes or ports.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from fer_batch.errors import PermanentError

PASSABLE = 0o711
PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


class StackError(PermanentError):
    """The local stack cannot be prepared, or one of its servers does not start or stop."""


def default_stack_dir() -> Path:
    """A folder in /var/tmp, one for each user and Python environment.

    Neither root's home nor a checkout would do: PostgreSQL refuses to run as root, and the user
    that it runs as instead must reach its data.
    """
    environment = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
    return Path(f"/var/tmp/fer-batch-{os.getuid()}-{environment}")  # noqa: S108


def own_folder(folder: Path, mode: int = PRIVATE_FOLDER, marker: str | None = None) -> Path:
    """Make a folder of ours with this mode, or check that an existing one is ours.

    `marker` names a file that is put into it: an existing folder without that file must be empty.
    Raises StackError if it holds other things, belongs to another user or is no real folder: in
    /var/tmp anybody could have put it there first.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise StackError(
            f"{folder} cannot be made: {error.strerror}", "Set FER_STACK_DIR to another folder"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StackError(
            f"{folder} belongs to another user or is no folder",
            "Remove it, or set FER_STACK_DIR to another folder",
        )
    if marker is not None:
        # In this order: another process may put the marker in at the same moment.
        if any(folder.iterdir()) and not (folder / marker).exists():
            raise StackError(
                f"{folder} holds other things than a local stack",
                "Set FER_STACK_DIR to a folder of its own, which may be a new one",
            )
        (folder / marker).touch(PRIVATE_FILE)
    if stat.S_IMODE(found.st_mode) != mode:
        folder.chmod(mode)
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read; a reader sees the old text or the new, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def open_lock(path: Path) -> TextIO:
    """A file to lock; nobody else may open it, for anybody who can read a file can lock it."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE), "w")


def kept_secret(path: Path, bytes_of_entropy: int = 24) -> str:
    """The secret in a file, made at the first call; URL-safe characters only."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(bytes_of_entropy))
    return path.read_text(encoding="utf-8")


def tail(path: Path, offset: int = 0, lines: int = 15) -> str:
    """The last lines of a log, not reaching back before `offset` bytes."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(offset, path.stat().st_size - 64 * 1024))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:])
