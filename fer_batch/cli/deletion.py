"""What deletes rows for good: retention of old days, erasure on demand."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from cyclopts import App, Parameter

from fer_batch.cli import admin
from fer_batch.cli.common import Json, print_table, settings, show
from fer_batch.errors import ConfigurationError

DryRun = Annotated[bool, Parameter(help="Say what would be deleted, and delete nothing.")]
Yes = Annotated[bool, Parameter(help="Do not ask. Needed where nobody can be asked.")]


def register(app: App) -> None:
    admin.db.command(retain)
    app.command(erase, group=admin.GROUP)


def retain(
    *,
    before: Annotated[
        date | None,
        Parameter(help="Days before it go, as YYYY-MM-DD; none means FER_RETENTION_DAYS ago."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Drop the rows per image of old days, for all facilities and for good. Summaries stay.

    Such days are not listed again.
    """
    from fer_batch import retention

    loaded = settings()
    today = datetime.now(UTC).date()
    before = before or today - timedelta(days=loaded.retention_days)
    if before > today:
        raise ConfigurationError(
            f"{before} is not over yet", "Days before today are the last that can be dropped"
        )
    found = [asdict(day) for day in retention.expired(loaded, before)]
    if not dry_run:
        confirm(f"Drop the rows per image of all days before {before}, for good", found, yes)
        found = [asdict(day) for day in retention.retain(loaded, before)]
    show(f"{'Would be dropped' if dry_run else 'Dropped'}, days before {before}", found, json)


def erase(
    *,
    facility: Annotated[str, Parameter(help="A facility id, also of one that left the registry.")],
    day: Annotated[date | None, Parameter(help="Only this capture day, as YYYY-MM-DD.")] = None,
    key: Annotated[str | None, Parameter(help="Only the image with this key.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Erase the rows of one image, one day or a whole facility, for good.

    What was erased is not read again. The summary of each day gets a revision of what is left.
    The objects in S3 are left alone: delete them too.
    """
    from fer_batch import choice, database, erasure

    if day is not None and key is not None:
        raise ConfigurationError("--day and --key exclude each other", "A key has only one day")
    loaded = settings()
    target = erasure.Target(facility, day, key)
    with choice.connected(loaded) as connection:
        found = [asdict(one) for one in erasure.erasable(connection, target)]
    if not dry_run:
        confirm("Erase these rows for good", found, yes)
        found = [asdict(one) for one in erasure.erase(database.engine(loaded), target)]
    for row in found:
        if dry_run:
            del row["revision"]
    show("Would be erased" if dry_run else "Erased", found, json)


def confirm(what: str, rows: Sequence[Mapping[str, Any]], is_agreed: bool) -> None:
    """Have a person agree. Raises ConfigurationError without one, or if the answer is not yes."""
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{what}: nobody can be asked", "Say --yes, or --dry-run first")
    print_table(what, rows)
    sys.stdout.write(f"{what}? Say yes: ")
    sys.stdout.flush()
    if sys.stdin.readline().strip() != "yes":
        raise ConfigurationError("nothing was deleted", "It takes the answer yes")
