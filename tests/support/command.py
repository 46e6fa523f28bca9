"""Run the command in a separate process as its user does."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fork_server import COVERAGE, ForkedPopen, ForkServer


@dataclass(frozen=True)
class CommandResult:
    """Exit code, stdout and stderr of a call of the command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The content of stdout, which must be one JSON document without NaN and infinities."""
        return json.loads(self.out, parse_constant=_reject_constant)


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def build_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """A complete environment: what every process needs, and the given variables."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "SETUPTOOLS_USE_DISTUTILS",
            COVERAGE)  # fmt: skip
    base = {name: os.environ[name] for name in kept if name in os.environ}
    isolated = {"AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "80",
             "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
             "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
             "NO_PROXY": "127.0.0.1,localhost"}  # fmt: skip
    return base | isolated | dict(environment)


def run_command(
    server: ForkServer,
    *arguments: str,
    env: Mapping[str, str],
    folder: Path,
    stdin: str = "",
) -> CommandResult:
    """Run the command to its end. Its streams are files: servers that it leaves may hold them."""
    with tempfile.TemporaryDirectory() as streams:
        names = [Path(streams) / name for name in ("in", "out", "err")]
        names[0].write_text(stdin)
        with (
            names[0].open() as source,
            names[1].open("w") as out,
            names[2].open("w") as err,
            ForkedPopen(
                server, arguments, env=build_environment(env), cwd=folder,
                stdin=source, stdout=out, stderr=err,
            ) as process,
        ):  # fmt: skip
            try:
                code = process.wait()
            except BaseException:  # the test is interrupted or takes too long
                process.kill()
                raise
        return CommandResult(code, *(name.read_text() for name in names[1:]))
