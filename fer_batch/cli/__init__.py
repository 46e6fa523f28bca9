"""The `fer-batch` command: one function for each subcommand, which calls the packages below.

Each module contains a group of commands; `doctor` implements `fer-batch check`. Modules that are
slow to import are imported by the subcommand that needs them, so that `fer-batch --help` is fast.
Results go to stdout, as tables, or as JSON with `--json`; logs and errors go to stderr.
"""

from __future__ import annotations

import calendar
import errno
import os
import re
import sys
from datetime import date
from io import TextIOWrapper
from typing import Annotated, NoReturn

from cyclopts import App, CoercionError, CycloptsError, CycloptsPanel, Parameter

from fer_batch import __version__, log
from fer_batch.cli import (
    access,
    admin,
    audit,
    dags,
    deletion,
    demo,
    export,
    findings,
    freshness,
    incident,
    model,
    models,
    nightly,
    notify,
    query,
    stack,
    worker,
)
from fer_batch.cli.common import DEFAULTS, explain_error
from fer_batch.errors import EXIT_PERMANENT, EXIT_RETRYABLE, FerError

EXIT_INTERRUPTED = 128 + 2
EXIT_BROKEN_PIPE = 128 + 13
"""The exit codes by which shells report SIGINT and SIGPIPE."""


def format_usage_error(error: CycloptsError) -> object:
    """The message for wrong arguments; for a date it names the format, or the days of its month."""
    if isinstance(error, CoercionError) and error.target_type is date and error.token:
        error.msg = _explain_date(error.token.value)
    return CycloptsPanel(error)


def _explain_date(text: str) -> str:
    """Why a text is no date."""
    parts = re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", text)
    if parts is None:
        return f'"{text}" is not a date: write YYYY-MM-DD, as in 2026-11-28'
    year, month = int(parts[1]), int(parts[2])
    if year == 0:
        return f'the day "{text}" does not exist: years begin with 0001'
    if not 1 <= month <= 12:
        return f'the day "{text}" does not exist: months are 01 to 12'
    days = calendar.monthrange(year, month)[1]
    name = calendar.month_name[month]
    return f'the day "{text}" does not exist: {name} {year} has {days} days'


app = App(
    name="fer-batch",
    version=__version__,
    default_parameter=DEFAULTS,
    help_on_error=True,
    error_formatter=format_usage_error,
    help="Nightly batch that measures, for each facility, whether people left with a happy "
    "expression.",
    help_epilogue="Exit codes: 0 success, 2 permanent error (a retry without a change will not "
    "help), 3 success with findings, 75 transient error (a retry may succeed).",
)
for commands in (
    nightly,
    export,
    notify,
    freshness,
    model,
    models,
    query,
    admin,
    access,
    findings,
    audit,
    incident,
    deletion,
    dags,
    stack,
    demo,
    worker,
):
    commands.register(app)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    die_with_parent: Annotated[int | None, Parameter(show=False)] = None,
) -> int | None:
    """Run the subcommand; with `--die-with-parent=PID`, die when that process ends.

    This is cyclopts' meta app: it receives the whole command line, so that the option applies to
    every subcommand and is hidden from the help. The DAG's adapter sets it, because Airflow may
    kill a task without giving it time to end the command.
    """
    if die_with_parent is not None:
        from fer_batch.pipeline import processes

        processes.die_with_parent(die_with_parent)
    code: int | None = app(tokens, result_action="return_value")
    return code


def main() -> None:
    """Run the command; a FerError is logged as one line and sets the exit code."""
    log.configure()  # until the settings are loaded
    # ONNX Runtime sends telemetry from the moment that it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if isinstance(sys.stdout, TextIOWrapper):  # a character that its encoding lacks is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code: int = app.meta(result_action="return_value") or 0
        sys.stdout.flush()
    except FerError as error:
        _fail(explain_error(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # `fer-batch config | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or "the folder of temporary files"
            _fail(f"{where}: {error.strerror}. Free space there, and try again", EXIT_RETRYABLE)
        if error.filename is None:
            raise
        # A path from an argument or a setting.
        _fail(f"{error.filename}: {error.strerror}", EXIT_PERMANENT)
    sys.exit(code)


def _fail(message: str, exit_code: int) -> NoReturn:
    log.get_logger(__name__).error(message)
    sys.exit(exit_code)
