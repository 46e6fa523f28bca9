"""The local stack: PostgreSQL, an S3 server and Airflow, for evaluating fer-batch."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Group, Parameter

from fer_batch.cli.common import DEFAULTS, Json, load_settings, show
from fer_batch.cli.psql import PsqlArguments, open_psql

GROUP = Group("Local stack and demo", sort_key=4)

stack = App(
    name="stack",
    help="PostgreSQL, an S3 server and Airflow on this machine (extras local and airflow).",
    group=GROUP,
    default_parameter=DEFAULTS,
)


def register(app: App) -> None:
    """Add `stack`."""
    app.command(stack)


def print_progress(text: str) -> None:
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


@stack.command
def up(
    *,
    airflow: Annotated[
        bool, Parameter(negative="--no-airflow", help="Start Airflow too, or only the two servers.")
    ] = True,
) -> None:
    """Start the stack and leave it running; print its addresses and the login."""
    from fer_batch.local.stack import Stack

    local = Stack(load_settings().stack_dir)
    local.up(with_airflow=airflow, on_progress=print_progress)
    lines = [
        f"tables      {sys.argv[0]} stack psql",
        f"settings    source {local.folder}/env, then {sys.argv[0]} check, plan, run …",
        f"data        {local.folder}; `{sys.argv[0]} stack delete` removes it",
    ]
    if airflow:
        lines.insert(
            0, f"Airflow     {local.airflow.url}  user admin  password {local.airflow.password}"
        )
    sys.stdout.write("\n".join(lines) + "\n")


@stack.command
def down() -> None:
    """Stop the stack; its data remains."""
    from fer_batch.local.stack import Stack

    Stack(load_settings().stack_dir).down(print_progress)


@stack.command
def delete() -> None:
    """Stop the stack and delete all its data: images, tables, reports, Airflow's history."""
    from fer_batch.local.stack import Stack

    local = Stack(load_settings().stack_dir)
    local.delete(print_progress)
    sys.stdout.write(f"deleted {local.folder}\n")


@stack.command
def status(*, json: Json = False) -> None:
    """Show which servers run, and their addresses."""
    from fer_batch.local.stack import Stack

    servers = Stack(load_settings().stack_dir).get_status()
    rows = [{"server": s.name, "running": s.is_running, "address": s.address} for s in servers]
    show("Local stack", rows, json)


@stack.command
def env() -> None:
    """Print the settings of the stack for a shell: `eval "$(fer-batch stack env)"`."""
    from fer_batch.local.stack import Stack

    sys.stdout.write(Stack(load_settings().stack_dir).format_exports())


@stack.command
def psql(*arguments: PsqlArguments) -> None:
    """Open psql on the stack's database."""
    from fer_batch.local.stack import Stack

    open_psql(Stack(load_settings().stack_dir).build_env()["FER_DATABASE_URL"], arguments)
