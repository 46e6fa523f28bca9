"""Find and kill the processes that run from a folder."""

from __future__ import annotations

from pathlib import Path

import psutil


def find_processes(folder: Path) -> list[psutil.Process]:
    """Live processes with a path in this folder in their command line or environment."""
    processes = []
    for process in psutil.process_iter():
        try:
            texts = [*process.cmdline(), *process.environ().values()]
        except psutil.AccessDenied:
            texts = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if any(f"{folder}/" in text for text in texts) and process.pid != psutil.Process().pid:
            processes.append(process)
    return processes


def find_main_process(folder: Path) -> psutil.Process:
    """The process that was started first."""
    return min(find_processes(folder), key=lambda process: process.create_time())


def kill_all(folder: Path) -> None:
    """Kill all processes at once, as a machine crash or the out-of-memory killer does."""
    processes = find_processes(folder)
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)


def find_listening_addresses(folder: Path) -> set[str]:
    """The addresses on which a folder's servers accept TCP connections."""
    pids = {process.pid for process in find_processes(folder)}
    return {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.pid in pids
    }


def read_modes(folder: Path) -> dict[str, str]:
    """The permissions of every file directly in a folder, as octal text."""
    return {p.name: f"{p.stat().st_mode & 0o777:o}" for p in folder.iterdir() if p.is_file()}
