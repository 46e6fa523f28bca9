"""Commands that delete permanently: what has expired, and what is to be erased on demand."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from fer_batch.cli import admin
from fer_batch.cli.common import Json, load_settings, show
from fer_batch.console import print_table
from fer_batch.errors import ConfigurationError, ErasureSecretError

DryRun = Annotated[bool, Parameter(help="Show what would be deleted, and delete nothing.")]
Yes = Annotated[bool, Parameter(help="Do not ask for confirmation. Required without a terminal.")]


def register(app: App) -> None:
    """Add `erase` and `maintain`."""
    app.command(erase, group=admin.GROUP)
    app.command(maintain, group=admin.GROUP)


def maintain(
    *,
    dry_run: DryRun = False,
    after_pause: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Confirm that the clock is right, although the newest images and the last "
            "maintenance are more than 31 days old.",
        ),
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete permanently what is older than its period: rows, summaries, findings, files.

    Each kind of data has a setting for its period. Rows per image and summaries that were deleted
    are never written again. A kind that cannot be deleted is an error, after the others. Run it
    once a day, as the DAG `satisfaction_maintenance` does.
    """
    from fer_batch.deletion import maintenance

    loaded = load_settings()
    today = datetime.now(UTC).date()
    if dry_run or not yes:
        rows, errors = maintenance.find(loaded, today, after_pause=after_pause)
    if not dry_run:
        if not yes:
            confirm("Permanently delete what has expired", [asdict(row) for row in rows], yes)
        rows, errors = maintenance.delete(loaded, today, after_pause=after_pause)
    title = "Would be deleted" if dry_run else "Deleted"
    show(title, [asdict(row) for row in rows], json)
    if errors:
        raise maintenance.join_errors(errors)


def erase(
    *,
    facility: Annotated[
        str | None, Parameter(help="A facility id; the facility may have left the registry.")
    ] = None,
    day: Annotated[date | None, Parameter(help="Only this capture day, as YYYY-MM-DD.")] = None,
    key: Annotated[str | None, Parameter(help="Only the image with this key.")] = None,
    unlisted: Annotated[
        bool, Parameter(negative=(), help="Accept a key or a day that no run has listed yet.")
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

    With --unlisted, an image or a day that is not in the tables yet is never read.

    Each erasure is appended to FER_ERASURE_LOG. A restored backup lacks the erasures made since:
    --replay repeats those that the database has no record of.

    Images are recorded by an HMAC of their key, with FER_ERASURE_SECRET: --key and --replay need
    the secret with which other images were erased. Days and facilities need none.
    """
    from fer_batch.database import connections, schema
    from fer_batch.database.erased_keys import ErasureSecret
    from fer_batch.deletion import erasure

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
    if unlisted and key is None and day is None:
        raise ConfigurationError("--unlisted is about an image or a day", "Add its --key or --day")
    loaded = load_settings()
    target = erasure.Target(facility, day, key)
    secret = ErasureSecret(loaded.erasure_secret)
    with schema.open_engine(loaded) as engine:
        with connections.transaction(engine) as connection:
            found = erasure.find_erasable(connection, target, secret, accept_unlisted=unlisted)
        rows = [asdict(each) for each in found]
        if not dry_run:
            confirm("Permanently erase these rows", rows, yes)
            run = erasure.erase_unlisted if unlisted else erasure.erase
            erased = run(engine, target, loaded.erasure_log, secret)
            rows = [asdict(each) for each in erased]
    for row in rows:
        if dry_run:
            del row["revision"]
    show("Would be erased" if dry_run else "Erased", rows, json)


def _replay(file: Path, *, dry_run: bool, yes: bool, json: bool) -> None:
    """Repeat the erasures of a log. What cannot be repeated is an error, after the others."""
    from fer_batch.database import connections, schema
    from fer_batch.database.erased_keys import ErasureSecret
    from fer_batch.deletion import erasure_log, replay

    loaded = load_settings()
    secret = ErasureSecret(loaded.erasure_secret)
    log = erasure_log.read(file, secret)
    with schema.open_engine(loaded) as engine:
        with connections.transaction(engine) as connection:
            unknown = replay.find_unknown_facilities(connection, log.erasures)
            missing = replay.find_missing(connection, log.erasures)
        names = ("facility_id", "capture_day", "kind", "images", "faces")
        rows = [{name: getattr(each, name) for name in names} for each in missing]
        if not dry_run and missing:
            confirm("Permanently erase these images and days again", rows, yes)
            done = replay.replay(engine, missing, loaded.erasure_log, secret)
            rows = [asdict(each) for each in done]
    show("Would be erased again" if dry_run else "Erased again", rows, json)
    if log.incomparable:
        lines = ", ".join(map(str, log.incomparable))
        problem = "is not set" if secret.check is None else "is another one"
        raise ErasureSecretError(
            f"{file}: the image in line {lines} cannot be recognized, because FER_ERASURE_SECRET "
            f"{problem}; the others were handled",
            "Set it to the secret with which these images were erased, and replay again; for a "
            "lost one, see docs/privacy.md",
        )
    if log.unreadable:
        lines = ", ".join(map(str, log.unreadable))
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
