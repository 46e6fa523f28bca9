"""The local stack: PostgreSQL, an S3 server and Airflow, for trying fer-batch out."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Group, Parameter

from fer_batch.cli.common import DEFAULTS, Json, settings, show
from fer_batch.cli.psql import ForPsql, open_psql

GROUP = Group("Try it on this machine", sort_key=4)

stack = App(
    name="stack",
    help="PostgreSQL, an S3 server and Airflow on this machine (extras local and airflow).",
    group=GROUP,
    default_parameter=DEFAULTS,
)


def register(app: App) -> None:
    app.command(stack)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


@stack.command
def up(
    *,
    airflow: Annotated[
        bool, Parameter(negative="--no-airflow", help="With Airflow, or the two servers alone.")
    ] = True,
) -> None:
    """Start the stack and leave it running; prints where it is and the login."""
    from fer_batch.stack import Stack

    local = Stack(settings().stack_dir)
    local.up(with_airflow=airflow, on_progress=say)
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
    """Stop the stack; its data stays."""
    from fer_batch.stack import Stack

    Stack(settings().stack_dir).down(say)


@stack.command
def delete() -> None:
    """Stop the stack and delete all its data: images, tables, reports, Airflow's history."""
    from fer_batch.stack import Stack

    local = Stack(settings().stack_dir)
    local.delete(say)
    sys.stdout.write(f"{local.folder} is deleted\n")


@stack.command
def status(*, json: Json = False) -> None:
    """Say which servers run, and where."""
    from fer_batch.stack import Stack

    servers = Stack(settings().stack_dir).status()
    rows = [{"server": s.name, "running": s.is_running, "where": s.where} for s in servers]
    show("Local stack", rows, json)


@stack.command
def env() -> None:
    """Print the settings of the stack for a shell: `eval "$(fer-batch stack env)"`."""
    from fer_batch.stack import Stack

    sys.stdout.write(Stack(settings().stack_dir).exports())


@stack.command
def psql(*arguments: ForPsql) -> None:
    """Open psql on the stack's database."""
    from fer_batch.stack import Stack

    open_psql(Stack(settings().stack_dir).env()["FER_DATABASE_URL"], arguments)
