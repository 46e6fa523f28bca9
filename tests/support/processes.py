"""The processes that run from a folder, looked at from outside."""

from __future__ import annotations

from pathlib import Path

import psutil


def processes_in(folder: Path) -> list[psutil.Process]:
    """Live processes with a path in this folder in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.AccessDenied:
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if any(f"{folder}/" in word for word in words) and process.pid != psutil.Process().pid:
            found.append(process)
    return found


def main_process(folder: Path) -> psutil.Process:
    """The process that was started first."""
    return min(processes_in(folder), key=lambda process: process.create_time())


def kill_all(folder: Path) -> None:
    """What a crash of the machine does, or the kernel out of memory."""
    processes = processes_in(folder)
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
