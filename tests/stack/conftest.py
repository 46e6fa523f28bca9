"""Servers of a test's own, in a folder that other users can pass through."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import pytest

from fer_batch.stack.files import PASSABLE, own_folder
from fer_batch.stack.seaweed import SeaweedServer


@pytest.fixture
def folder(servers_dir: Path) -> Iterator[Path]:
    """A folder outside of closed homes; nothing may run from it when the test is over."""
    path = own_folder(servers_dir / secrets.token_hex(4), PASSABLE)
    yield path
    left = processes_in(path)
    for process in left:
        process.kill()
    psutil.wait_procs(left)
    shutil.rmtree(path)
    assert not left, f"still running: {left}"


def processes_in(folder: Path) -> list[psutil.Process]:
    """Live processes that have this folder in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.AccessDenied:
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if any(str(folder) in word for word in words) and process.pid != psutil.Process().pid:
            found.append(process)
    return found


def main_process(folder: Path) -> psutil.Process:
    """The process that was started first."""
    return min(processes_in(folder), key=lambda process: process.create_time())


def kill_all(folder: Path) -> None:
    """What a crash of the machine does, or the kernel out of memory."""
    processes = processes_in(folder)
    assert processes
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)


def listening(folder: Path) -> set[str]:
    """The addresses on which a folder's servers accept TCP connections."""
    pids = {process.pid for process in processes_in(folder)}
    return {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid in pids
    }


def modes(folder: Path) -> dict[str, str]:
    """The permissions of every file right in a folder, as octal text."""
    return {p.name: f"{p.stat().st_mode & 0o777:o}" for p in folder.iterdir() if p.is_file()}


def s3_client(server: SeaweedServer, secret_access_key: str | None = None):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=secret_access_key or server.secret_access_key,
    )
