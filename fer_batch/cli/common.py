"""What the subcommands share: loading the settings, configuring logs, printing results."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fer_batch import log
from fer_batch.console import print_table
from fer_batch.errors import ConfigurationError, FerError, FormerTargetError

if TYPE_CHECKING:
    from fer_batch.settings import Settings

DEFAULTS = Parameter(negative=(), show_default=lambda value: str(value) if value else None)
"""For the parameters of every command: a default of False, None or 0 is not shown."""

Json = Annotated[bool, Parameter(name="--json", help="Print JSON for a script.")]


def load_settings() -> Settings:
    """Load the settings and configure logging as they specify."""
    from fer_batch import settings_sources as module

    log.configure(module.get_log_format())  # for errors in the settings themselves
    loaded = module.load_settings()
    log.configure(loaded.log_format, loaded.log_level)
    return loaded


def print_json(data: object) -> None:
    """Print one JSON document to stdout; dates are in ISO 8601."""
    sys.stdout.write(json.dumps(data, default=str, ensure_ascii=False) + "\n")


def show(title: str, rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as JSON."""
    if as_json:
        print_json(rows)
    else:
        print_table(title, rows)


def write_example(
    example: Path, file: Path | None, usual: Path, setting: str, what_next: str, *, force: bool
) -> None:
    """Copy an example to `file`, by default to the `usual` place, and say what to do next.

    Raises ConfigurationError if the file exists, unless `force`.
    """
    path = file or usual
    if path.exists() and not force:
        raise ConfigurationError(
            f"{path} exists; nothing was written", "Name another file, or replace it with --force"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(example.read_bytes())
    set_it = "" if path == usual else f"set {setting}={path.absolute()}, "
    sys.stdout.write(f"wrote {path}\nEdit it, {set_it}then run {what_next} describes every field\n")


def get_user() -> str:
    """The name of the current user. Raises ConfigurationError if there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        raise ConfigurationError("the user of this machine has no name", "Add --by") from None


def explain_error(error: FerError) -> str:
    """The text of an error for the user, with facts that the place that raised it cannot know.

    A registry with a former target is answered with the rates that a new target can be set by.
    """
    if not isinstance(error, FormerTargetError):
        return str(error)
    from fer_batch.database import connections
    from fer_batch.satisfaction import revisions

    try:
        engine = connections.create_engine(load_settings())
        with connections.transaction(engine) as connection:
            rates = revisions.load_recent_rates(connection, error.facility_ids)
    except FerError:
        rates = {}
    quoted = [
        f"{facility_id}: happy rate {row['happy_rate']:.2f} ({row['happy_rate_low']:.2f} to "
        f"{row['happy_rate_high']:.2f}), {row['period']} until {row['capture_day']}"
        for facility_id, row in sorted(rates.items())
    ]
    advice = "; ".join(quoted) or "no rate is published yet: run a night without a target first"
    return f"{error}. Recent figures: {advice}"
