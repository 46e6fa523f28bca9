"""The `fer-batch` command: one function for each subcommand, and no logic of its own.

Modules that take long to import are imported by the subcommand that needs them, so that
`fer-batch --help` answers at once. Results go to stdout, as tables for people and as JSON with
`--json`; logs and errors go to stderr.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

from cyclopts import App, Parameter

from fer_batch import __version__, log
from fer_batch.cli import admin, deletion, demonstration, model, models, nightly, stack
from fer_batch.cli.common import DEFAULTS
from fer_batch.errors import EXIT_PERMANENT, FerError

EXIT_INTERRUPTED = 128 + 2
EXIT_NOBODY_READS = 128 + 13
"""As shells report an end by SIGINT and by SIGPIPE."""

app = App(
    name="fer-batch",
    version=__version__,
    default_parameter=DEFAULTS,
    help_on_error=True,
    help="The nightly batch that says, facility by facility: did people leave with a happy "
    "expression?",
    help_epilogue="Exit codes: 0 done, 2 failed until somebody changes something, 3 done with "
    "findings, 75 may pass when tried again.",
)
for commands in (nightly, model, models, admin, deletion, stack, demonstration):
    commands.register(app)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    die_with_parent: Annotated[int | None, Parameter(show=False)] = None,
) -> int | None:
    if die_with_parent is not None:
        from fer_batch import worker

        worker.die_with_parent(die_with_parent)
    code: int | None = app(tokens, result_action="return_value")
    return code


def main() -> None:
    """Run the command; an error of ours becomes one line and its exit code."""
    log.configure()  # until the settings say how
    # ONNX Runtime would tell its makers what it runs, from the moment that it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        code: int = app.meta(result_action="return_value") or 0
        sys.stdout.flush()
    except FerError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # `fer-batch config | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_NOBODY_READS)
    except OSError as error:
        if error.filename is None:
            raise
        # A path that the caller gave, or that a setting names.
        _fail(f"{error.filename}: {error.strerror}", EXIT_PERMANENT)
    sys.exit(code)


def _fail(what: str, exit_code: int) -> NoReturn:
    log.logger(__name__).error(what)
    sys.exit(exit_code)
