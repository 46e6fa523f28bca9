"""The command as its user runs it: a process of its own, without paying for its imports each time.

A process that has imported what the subcommands need waits for calls and forks for each. The
child gets the arguments, environment, folder and streams of the call and then does what
`python -m fer_batch` does, to the exit code.
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

# Nothing that starts threads, which do not survive a fork: so not onnxruntime.
IMPORTED = ("rich.table", "matplotlib.figure", "fer_batch.cli", "fer_batch.checks",
            "fer_batch.diagnosis", "fer_batch.listing", "fer_batch.nightly", "fer_batch.planning",
            "fer_batch.predict", "fer_batch.report", "fer_batch.results")  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a call of the command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What stdout holds, which must be one JSON document as the standard has it."""
        return json.loads(self.out, parse_constant=_no_json)


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def only_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """A whole environment: what a process needs, and these variables."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "SETUPTOOLS_USE_DISTUTILS")
    base = {name: os.environ[name] for name in kept if name in os.environ}
    quiet = {"AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "80",
             "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
             "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
             "NO_PROXY": "127.0.0.1,localhost"}  # fmt: skip
    return base | quiet | dict(environment)


class Caller:
    """Calls of the command. Ends with its `with` block."""

    def __enter__(self) -> Caller:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],  # -P: the neighbours of this file are no modules
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=only_ours({"OPENBLAS_NUM_THREADS": "1"}),
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
    ) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as streams:
            names = [str(Path(streams) / name) for name in ("in", "out", "err")]
            Path(names[0]).write_text(stdin)
            call = {"arguments": arguments, "env": only_ours(env), "folder": str(folder),
                    "streams": names}  # fmt: skip
            self._process.stdin.write(json.dumps(call) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return Ended(code, *(Path(name).read_text() for name in names[1:]))


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
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a thread would not be forked"
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
                os._exit(int(end.code or 0))  # without taking all that was imported apart
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.write(f"{code}\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
