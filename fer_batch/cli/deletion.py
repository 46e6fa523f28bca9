"""Commands that delete rows permanently: retention of old days, erasure on demand."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from fer_batch.cli import admin
from fer_batch.cli.common import Json, load_settings, show
from fer_batch.console import print_table
from fer_batch.errors import ConfigurationError

DryRun = Annotated[bool, Parameter(help="Show what would be deleted, and delete nothing.")]
Yes = Annotated[bool, Parameter(help="Do not ask for confirmation. Required without a terminal.")]


def register(app: App) -> None:
    """Add `erase`, and `retain` to the commands of `db`."""
    admin.db.command(retain)
    app.command(erase, group=admin.GROUP)


def retain(
    *,
    before: Annotated[
        date | None,
        Parameter(
            help="Delete the days before this one, as YYYY-MM-DD; default: FER_RETENTION_DAYS ago."
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete the rows per image of old days permanently, for all facilities. Summaries remain.

    These days are not listed again.
    """
    from fer_batch.deletion import retention

    loaded = load_settings()
    today = datetime.now(UTC).date()
    before = before or today - timedelta(days=loaded.retention_days)
    if before > today:
        raise ConfigurationError(
            f"{before} is in the future", "Only days before today can be deleted"
        )
    rows = [asdict(day) for day in retention.find_expired(loaded, before)]
    if not dry_run:
        confirm(f"Permanently delete the rows per image of all days before {before}", rows, yes)
        rows = [asdict(day) for day in retention.retain(loaded, before)]
    show(f"{'Would be deleted' if dry_run else 'Deleted'}, days before {before}", rows, json)


def erase(
    *,
    facility: Annotated[
        str | None, Parameter(help="A facility id; the facility may have left the registry.")
    ] = None,
    day: Annotated[date | None, Parameter(help="Only this capture day, as YYYY-MM-DD.")] = None,
    key: Annotated[str | None, Parameter(help="Only the image with this key.")] = None,
    unlisted: Annotated[
        bool, Parameter(negative=(), help="Accept a key that no run has listed yet.")
    ] = False,
    replay: Annotated[
        Path | None,
        Parameter(help="After a restore: repeat the erasures of this file, a FER_ERASURE_LOG."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Erase the rows of one image, one day or a whole facility permanently.

    Erased images are not read again. The summary of each affected day gets a new revision. The
    objects in S3 are not deleted: delete them too. With --day, a day without images, such as one
    that was processed by mistake, is withdrawn with its summaries; a later run may list it.

    With --key and --unlisted, an image that is not in the tables yet is never read.

    Each erasure is appended to FER_ERASURE_LOG. A restored backup lacks the erasures made since:
    --replay repeats those that the database has no record of.
    """
    from fer_batch.database import connections
    from fer_batch.deletion import erasure
    from fer_batch.model import active_model

    if replay is not None:
        if facility or day or key or unlisted:
            raise ConfigurationError(
                "--replay cannot be combined with --facility, --day, --key or --unlisted",
                "It repeats all erasures of the file",
            )
        _replay(replay, dry_run=dry_run, yes=yes, json=json)
        return
    if facility is None:
        raise ConfigurationError("no facility is named", "Add --facility, or --replay")
    if day is not None and key is not None:
        raise ConfigurationError(
            "--day and --key cannot be combined", "A key has only one capture day"
        )
    if unlisted and key is None:
        raise ConfigurationError("--unlisted is about one image", "Add its --key")
    loaded = load_settings()
    target = erasure.Target(facility, day, key)
    with active_model.connect(loaded) as connection:
        found = erasure.find_erasable(connection, target, accept_unlisted=unlisted)
        rows = [asdict(each) for each in found]
    if not dry_run:
        confirm("Permanently erase these rows", rows, yes)
        engine = connections.create_engine(loaded)
        if unlisted and key is not None:
            erased = erasure.erase_unlisted(engine, facility, key, loaded.erasure_log)
        else:
            erased = erasure.erase(engine, target, loaded.erasure_log)
        rows = [asdict(each) for each in erased]
    for row in rows:
        if dry_run:
            del row["revision"]
    show("Would be erased" if dry_run else "Erased", rows, json)


def _replay(file: Path, *, dry_run: bool, yes: bool, json: bool) -> None:
    """Repeat the erasures of a log. What cannot be repeated is an error, after the others."""
    from fer_batch.database import connections
    from fer_batch.deletion import erasure_log, replay
    from fer_batch.model import active_model

    loaded = load_settings()
    logged, unreadable = erasure_log.read(file)
    with active_model.connect(loaded) as connection:
        unknown = replay.find_unknown_facilities(connection, logged)
        missing = replay.find_missing(connection, logged)
    names = ("facility_id", "capture_day", "kind", "images", "faces")
    rows = [{name: getattr(each, name) for name in names} for each in missing]
    if not dry_run and missing:
        confirm("Permanently erase these images and days again", rows, yes)
        engine = connections.create_engine(loaded)
        rows = [asdict(each) for each in replay.replay(engine, missing, loaded.erasure_log)]
    show("Would be erased again" if dry_run else "Erased again", rows, json)
    if unreadable:
        lines = ", ".join(map(str, unreadable))
        raise ConfigurationError(
            f"{file}: no erasure in line {lines}; the others were handled",
            "Correct the line from a copy of the file. A last line that is cut off was never "
            "erased: delete it, and repeat the erasure if it is still due",
        )
    if unknown:
        raise ConfigurationError(
            f"the database does not know the facility {', '.join(unknown)}; the other erasures "
            "were handled",
            "Run `fer-batch facilities sync` with a registry that has it, then replay again",
        )


def confirm(action: str, rows: Sequence[Mapping[str, Any]], is_confirmed: bool) -> None:
    """Ask for confirmation. Raises ConfigurationError without a terminal, or if it is not given."""
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{action}: there is no terminal to ask for confirmation",
            "Add --yes, or try --dry-run first",
        )
    print_table(action, rows)
    sys.stdout.write(f"{action}? Type yes: ")
    sys.stdout.flush()
    if sys.stdin.readline().strip() != "yes":
        raise ConfigurationError("nothing was deleted", "Type yes to confirm")
