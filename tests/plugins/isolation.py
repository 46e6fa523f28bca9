"""Keeps the tests apart from the developer's machine, and ends every server of a session.

No test sees the developer's settings, and none talks to anything but 127.0.0.1. The servers of a
session run from one directory, which its workers learn from an environment variable; the session
removes it at its end, and with it what a killed session left behind.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.processes import kill_all

SERVERS = "FER_TEST_SERVERS"
"""Environment variable with the directory of the session's servers."""
DISK, MEMORY = Path("/var/tmp"), Path("/dev/shm")
FREE_BYTES = 4_000_000_000
"""Free memory with which the servers of a session keep their files in memory."""
LONG_RUNS = ("FER_FAULT_SEEDS", "FER_FUZZ_IMAGES", "FER_FUZZ_SECONDS", "FER_MANY_KEYS")
"""Environment variables by which `make test-faults` runs more than `make test`."""


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with Ctrl-C ignored, and children inherit that: tests of what
    # an interrupt ends would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _clean_environment()
    sys.addaudithook(refuse_other_hosts)
    if not hasattr(config, "workerinput"):
        _remove_leftovers()
        os.environ[SERVERS] = str(_choose_parent() / f"{_name_prefix()}{os.getpid()}")
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and SERVERS in os.environ:
        _remove(Path(os.environ.pop(SERVERS)))


def _clean_environment() -> None:
    for name in list(os.environ):
        is_kept = name == SERVERS or name in LONG_RUNS
        if name.startswith(("FER_", "AWS_", "PG", "AIRFLOW_")) and not is_kept:
            del os.environ[name]
    os.environ |= {
        "FER_ENV_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # For clients that are not Python's: whatever is not local ends at a closed port.
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def _interrupt(number: int, frame: Any) -> None:
    """End as after Ctrl-C, with the servers stopped, when CI ends the run.

    Ctrl-C reaches the workers too; this signal does not, and they would finish their tests first.
    """
    for worker in psutil.Process().children():
        worker.send_signal(signal.SIGINT)
    signal.default_int_handler(number, frame)


def refuse_other_hosts(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: refuse connections and names outside of this machine, as without a network."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = str(args[1][0])
        if not host.startswith("127.") and host not in ("::1", "localhost", ""):
            raise ConnectionRefusedError(f"tests may only talk to 127.0.0.1, not to {host}")
    elif event == "socket.getaddrinfo" and args[0] is not None:
        host = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
        if host not in ("", "localhost") and not _is_address(host):
            raise socket.gaierror(socket.EAI_NONAME, f"tests may not resolve {host}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _choose_parent() -> Path:
    """In memory if there is room and programs may be started from there.

    Each test has a database of 400 files of its own, and ext4 takes long to create files while
    others were deleted recently.
    """
    if not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return DISK
    free = min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available)
    return MEMORY if free >= FREE_BYTES else DISK


def _name_prefix() -> str:
    return f"fer-batch-test-{os.getuid()}-"


def _remove_leftovers() -> None:
    """Remove the directories of sessions that were killed, and end their servers."""
    for folder in (each for p in (DISK, MEMORY) for each in p.glob(f"{_name_prefix()}*")):
        pid = folder.name.rpartition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        # Not at the top, as it takes half a second and few sessions leave anything.
        from fer_batch.local.stack.seaweed import SeaweedServer

        SeaweedServer(folder / "s3").kill()  # its sockets in /tmp as well
        kill_all(folder)
        shutil.rmtree(folder)
