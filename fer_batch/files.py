"""Files that are replaced as a whole: a reader sees the former content or the new one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX, _SUFFIX = ".fer-batch-", ".tmp"


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """A temporary file in the same folder, which replaces `path` at the end of the block.

    After an exception `path` stays as it is. Files in the folder that killed processes have left
    are removed first: they are not locked any more. `mode` is reduced by the umask. Raises OSError
    with the name of `path`, which a full disk's own error lacks.
    """
    try:
        _remove_abandoned(path.parent)
        descriptor, temporary = _create_locked(path.parent, mode)
        try:
            yield temporary
            os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _create_locked(folder: Path, mode: int) -> tuple[int, Path]:
    """Create a temporary file and lock it; returns its descriptor and its path."""
    while True:
        temporary = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        with contextlib.suppress(OSError):  # without locks nothing is removed
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # another process has removed it before it was locked


def _remove_abandoned(folder: Path) -> None:
    for file in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError), file.open("r+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
