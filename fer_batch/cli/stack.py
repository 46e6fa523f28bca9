"""The local stack: PostgreSQL, an S3 server and Airflow, for evaluating fer-batch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Group, Parameter

from fer_batch.cli.common import DEFAULTS, Json, load_settings, show
from fer_batch.cli.psql import PsqlArguments, open_psql
from fer_batch.console import print_progress
from fer_batch.errors import ConfigurationError

if TYPE_CHECKING:
    from fer_batch.local.stack import Stack

GROUP = Group("Local stack and demo", sort_key=4)

stack = App(
    name="stack",
    help="PostgreSQL, an S3 server and Airflow on this machine (extras local and airflow).",
    group=GROUP,
    default_parameter=DEFAULTS,
)


OfDemo = Annotated[
    bool, Parameter(name="--demo", help="The stack of `fer-batch demo`, instead of yours.")
]


AsAdmin = Annotated[
    bool,
    Parameter(
        name="--admin",
        help="The login of the owner, for `db upgrade`, `db roles`, `db grant`, `audit` and "
        "`erase`, instead of that of the nightly job.",
    ),
]


def register(app: App) -> None:
    """Add `stack`."""
    app.command(stack)


def open_stack(*, of_demo: bool) -> Stack:
    """The stack that the settings name, or the demo's."""
    from fer_batch.local.stack import Stack, get_demo_stack_dir

    folder = load_settings().stack_dir
    return Stack(get_demo_stack_dir(folder) if of_demo else folder)


@stack.command
def up(
    *,
    airflow: Annotated[
        bool, Parameter(negative="--no-airflow", help="Start Airflow too, or only the two servers.")
    ] = True,
    demo: OfDemo = False,
) -> None:
    """Start the stack and leave it running; print its addresses and the login."""
    local = open_stack(of_demo=demo)
    local.up(with_airflow=airflow, on_progress=print_progress)
    command, option = f"{sys.argv[0]} stack", " --demo" if demo else ""
    lines = [
        f"facilities  edit {local.facilities_file}",
        f"images      {command} upload{option} FOLDER FACILITY/DAY",
        f"tables      {command} psql{option}",
        f"settings    source {local.folder}/env, then {sys.argv[0]} check, plan, run …",
        f"data        {local.folder}; `{command} delete{option}` removes it",
    ]
    if airflow:
        lines.insert(
            0, f"Airflow     {local.airflow.url}  user admin  password {local.airflow.password}"
        )
    sys.stdout.write("\n".join(lines) + "\n")


@stack.command
def down(*, demo: OfDemo = False) -> None:
    """Stop the stack; its data remains."""
    open_stack(of_demo=demo).down(print_progress)


@stack.command
def delete(*, demo: OfDemo = False) -> None:
    """Stop the stack and delete all its data: images, tables, reports, Airflow's history."""
    local = open_stack(of_demo=demo)
    local.delete(print_progress)
    sys.stdout.write(f"deleted {local.folder}\n")


@stack.command
def status(*, demo: OfDemo = False, json: Json = False) -> None:
    """Show which servers run, and their addresses."""
    servers = open_stack(of_demo=demo).get_status()
    rows = [{"server": s.name, "running": s.is_running, "address": s.address} for s in servers]
    show("Local stack", rows, json)


@stack.command
def env(*, admin: AsAdmin = False, demo: OfDemo = False) -> None:
    """Print the settings of the stack for a shell: `eval "$(fer-batch stack env)"`."""
    sys.stdout.write(open_stack(of_demo=demo).format_exports(as_admin=admin))


@stack.command
def upload(
    folder: Annotated[Path, Parameter(help="Its files and those of its subfolders are uploaded.")],
    prefix: Annotated[
        str,
        Parameter(help="The folder in the bucket, such as `north-mall/2026-11-28`; default: none."),
    ] = "",
    /,
    *,
    demo: OfDemo = False,
) -> None:
    """Upload a folder of images into the bucket of the stack, which must be running.

    A file keeps its path below the folder. Hidden files are left out. Safe to repeat.
    """
    from fer_batch.storage.writer import upload_many

    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder", "Name the folder with the images")
    settings = open_stack(of_demo=demo).build_settings()
    names = {path: path.relative_to(folder) for path in sorted(folder.rglob("*"))}
    files = {
        path: "/".join([*filter(None, prefix.split("/")), *name.parts])
        for path, name in names.items()
        if path.is_file() and not any(part.startswith(".") for part in name.parts)
    }
    if not files:
        raise ConfigurationError(f"{folder} contains no file", "Name the folder with the images")
    count = upload_many(
        settings, settings.s3_bucket, ((key, path.read_bytes()) for path, key in files.items())
    )
    sys.stdout.write(
        f"uploaded {count} files to s3://{settings.s3_bucket}, the first as {min(files.values())}\n"
    )


@stack.command
def psql(*arguments: PsqlArguments, admin: AsAdmin = False, demo: OfDemo = False) -> None:
    """Open psql on the stack's database."""
    env = open_stack(of_demo=demo).build_env(as_admin=admin)
    open_psql(env["FER_DATABASE_URL"], arguments)
