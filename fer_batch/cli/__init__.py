"""The `fer-batch` command: one function for each subcommand, and no logic of its own.

Modules that take long to import are imported by the subcommand that needs them, so that
`fer-batch --help` answers at once. Results go to stdout, as tables for people and as JSON with
`--json`; logs and errors go to stderr.
"""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter

from fer_batch import __version__
from fer_batch.cli import admin, demonstration, model, nightly, stack
from fer_batch.errors import FerError
from fer_batch.log import logger

app = App(
    name="fer-batch",
    version=__version__,
    default_parameter=Parameter(negative=()),
    help="The nightly batch that says, facility by facility: did people leave with a happy "
    "expression?",
    help_epilogue="Exit codes: 0 done, 2 failed until somebody changes something, 3 done with "
    "findings, 75 may pass when tried again.",
)
for commands in (nightly, model, admin, stack, demonstration):
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
    try:
        sys.exit(app.meta(result_action="return_value") or 0)
    except FerError as error:
        logger(__name__).error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
