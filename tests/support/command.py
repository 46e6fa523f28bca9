"""Run the command in a separate process as its user does, but import its modules only once.

A server process imports what the subcommands need, waits for calls and forks for each. The child
takes the arguments, environment, folder and streams of the call, and then does what
`python -m fer_batch` does, including the exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

# No module that starts threads, such as onnxruntime: threads do not survive a fork.
IMPORTED = (
    "rich.table",
    "matplotlib.figure",
    "fer_batch.cli",
    "fer_batch.cli.doctor",
    "fer_batch.database.results",
    "fer_batch.pipeline.checks",
    "fer_batch.pipeline.listing",
    "fer_batch.pipeline.nightly",
    "fer_batch.pipeline.planning",
    "fer_batch.predict.prediction",
    "fer_batch.reporting.report",
)


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
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "SETUPTOOLS_USE_DISTUTILS")
    base = {name: os.environ[name] for name in kept if name in os.environ}
    isolated = {"AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "80",
             "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
             "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
             "NO_PROXY": "127.0.0.1,localhost"}  # fmt: skip
    return base | isolated | dict(environment)


class Caller:
    """Calls the command. The server process ends with the `with` block."""

    def __enter__(self) -> Caller:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                __file__,
            ],  # -P: do not import the files next to this one as modules
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=build_environment({"OPENBLAS_NUM_THREADS": "1"}),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def __call__(
        self, *arguments: str, env: Mapping[str, str], folder: Path, stdin: str = ""
    ) -> CommandResult:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as streams:
            names = [str(Path(streams) / name) for name in ("in", "out", "err")]
            Path(names[0]).write_text(stdin)
            call = {"arguments": arguments, "env": build_environment(env), "folder": str(folder),
                    "streams": names}  # fmt: skip
            self._process.stdin.write(json.dumps(call) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return CommandResult(code, *(Path(name).read_text() for name in names[1:]))


def _become(call: dict[str, Any]) -> None:
    for number, (name, flags) in enumerate(
        zip(call["streams"], (os.O_RDONLY, *[os.O_CREAT | os.O_WRONLY] * 2), strict=True)
    ):
        os.dup2(os.open(name, flags), number)
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["folder"])
    sys.argv = ["fer-batch", *call["arguments"]]
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "rw"[number > 0]) for number in range(3))


def _serve() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads do not survive a fork"
    answers = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            answers.close()
            _become(json.loads(line))
            from fer_batch.cli import main

            try:
                main()
            except SystemExit as end:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(int(end.code or 0))  # without the slow cleanup of all imported modules
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.write(f"{code}\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
