"""`fer-batch dags`: the DAG files of this version, for an Airflow that already exists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from fer_batch.cli.admin import GROUP
from fer_batch.cli.common import DEFAULTS, Json, show
from fer_batch.errors import ConfigurationError
from fer_batch.files import replacing
from fer_batch.resources import find_dags_dir

IGNORE_FILE = ".airflowignore"
"""Names the helper modules, which the DAG processor need not parse. A DAG folder has only one."""

dags = App(
    name="dags",
    help="The DAG files, for an Airflow that you already run.",
    group=GROUP,
    default_parameter=DEFAULTS,
)


def register(app: App) -> None:
    """Add `dags`."""
    app.command(dags)


@dags.command
def export(
    folder: Annotated[
        Path, Parameter(help="The DAG folder of that Airflow; it is created if it does not exist.")
    ],
    /,
    *,
    force: Annotated[
        bool, Parameter(help="Replace DAG files that differ, as after an upgrade of fer-batch.")
    ] = False,
    json: Json = False,
) -> None:
    """Write the DAG files of this version into a DAG folder.

    Safe to repeat. Other files stay as they are, and missing lines are added to an existing
    .airflowignore. Fails, and writes nothing, if a DAG file there differs and --force is not given.
    The DAGs read the facility registry that FER_FACILITIES_FILE names, by default
    config/facilities.toml next to the DAG folder.
    """
    files = _read_dag_files(folder)
    different = [
        name
        for name, content in files.items()
        if name != IGNORE_FILE and _read(folder / name) not in (None, content)
    ]
    if different and not force:
        raise ConfigurationError(
            f"{folder} has other versions of {', '.join(different)}; nothing was written",
            "Replace them with --force",
        )
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, content in files.items():
        rows.append({"file": str(folder / name), "status": _write(folder / name, content)})
    show("DAG files", rows, json)


def _read_dag_files(folder: Path) -> dict[str, bytes]:
    """The content of each file to write, by name; helper modules before the DAG that needs them.

    Of .airflowignore, the lines that the folder already has and the missing ones.
    """
    source = find_dags_dir()
    lines = (_read(folder / IGNORE_FILE) or b"").splitlines()
    wanted = (source / IGNORE_FILE).read_bytes().splitlines()
    lines += [line for line in wanted if line not in lines]
    modules = {file.name: file.read_bytes() for file in sorted(source.glob("*.py"))}
    return {IGNORE_FILE: b"\n".join(lines) + b"\n", **modules}


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(path: Path, content: bytes) -> str:
    """Write a file and return its status.

    The file is replaced as a whole: the DAG processor may be reading it.
    """
    before = _read(path)
    if before == content:
        return "unchanged"
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return "written" if before is None else "replaced"
