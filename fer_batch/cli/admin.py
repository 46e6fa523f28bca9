"""Setup and maintenance: settings, diagnosis, database, facility registry."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Group, Parameter

from fer_batch.cli.common import DEFAULTS, Json, load_settings, show, write_example
from fer_batch.cli.psql import PsqlArguments, open_psql
from fer_batch.errors import EXIT_FINDINGS, ConfigurationError

if TYPE_CHECKING:
    from fer_batch.settings import Settings

GROUP = Group("Setup and maintenance", sort_key=3)

db = App(
    name="db",
    help="The database: upgrade the schema, roles and grants, capture times, psql.",
    group=GROUP,
    default_parameter=DEFAULTS,
)
facilities = App(
    name="facilities", help="The facility registry.", group=GROUP, default_parameter=DEFAULTS
)


def register(app: App) -> None:
    """Add `check`, `config`, `db` and `facilities`."""
    app.command(check, group=GROUP)
    app.command(config, group=GROUP)
    app.command(db)
    app.command(facilities)


def config(*, json: Json = False) -> None:
    """Show every setting, its value (secrets masked) and its source."""
    from fer_batch import settings_sources as module

    show("Settings", module.list_sources(load_settings()), json)


def check(*, json: Json = False) -> int:
    """Test what a run needs, and print a hint for each failure; the exit code is then 3.

    Tested are the database, the erasure secret, the CNN, the face detector, the decoder sandbox,
    Airflow where FER_AIRFLOW_URL is set, the facility registry and every facility's bucket.
    """
    from fer_batch.cli import doctor

    findings = doctor.diagnose(load_settings())
    rows = [{"part": f.part, "ok": f.is_ok, "detail": f.detail} for f in findings]
    if not json:
        for row in rows:
            row["ok"] = "yes" if row["ok"] else "NO"
    show("Checks", rows, json)
    return 0 if all(f.is_ok for f in findings) else EXIT_FINDINGS


@db.command
def upgrade() -> None:
    """Upgrade the schema `fer` to this version; safe to repeat.

    Records of images that were erased before version 0.1.0 are converted, in the database and in
    FER_ERASURE_LOG, which needs FER_ERASURE_SECRET.
    """
    from fer_batch.deletion import conversion

    loaded = load_settings()
    if lines := conversion.upgrade(loaded):
        sys.stdout.write(f"{lines} lines of {loaded.erasure_log} were converted\n")
    sys.stdout.write("the database is up to date\n")


@db.command
def backfill_times(
    *,
    facility: Annotated[
        tuple[str, ...], Parameter(help="A facility id; may be repeated. Default: all.")
    ] = (),
    first_day: Annotated[
        date | None, Parameter(name="--from", help="The first capture day, as YYYY-MM-DD.")
    ] = None,
    last_day: Annotated[
        date | None, Parameter(name="--to", help="The last capture day, as YYYY-MM-DD.")
    ] = None,
    json: Json = False,
) -> None:
    """Compute camera and capture time of the stored images again, from their keys.

    For use after a facility's `name_template` or `name_clock` was set or changed: listings do the
    same for the days that they list. Reads nothing from S3; safe to repeat. Images without a time
    have a key that does not match the template, or a time that is far from the capture day.
    """
    from fer_batch.database import connections, ledger, schema
    from fer_batch.facilities.loading import load_registry
    from fer_batch.pipeline import capture_times

    if first_day is not None and last_day is not None and first_day > last_day:
        raise ConfigurationError(
            f"--from {first_day} is after --to {last_day}", "Exchange the two days"
        )
    loaded = load_settings()
    registry = load_registry(loaded.facilities_file, loaded)
    selected = registry.select(facility)
    with schema.open_engine(loaded) as engine:
        with connections.transaction(engine) as connection:
            # So that the templates in the table are those that the images are read by.
            ledger.sync_facilities(connection, registry.facilities, invalid_ids=registry.invalid)
        results = capture_times.backfill_times(engine, selected.facilities, first_day, last_day)
    rows = [asdict(result) for result in results]
    show("Capture times", [{"facility": row.pop("facility_id"), **row} for row in rows], json)
    selected.check()


@db.command
def psql(*arguments: PsqlArguments) -> None:
    """Open psql on the database."""
    open_psql(load_settings(), arguments)


@facilities.command(name="list")
def list_facilities(*, json: Json = False) -> None:
    """List the facilities of the registry, with the reason if one is not processed.

    The exit code is 2 if the entry of a facility is invalid.
    """
    from datetime import UTC, datetime

    from fer_batch.facilities.loading import load_registry

    loaded = load_settings()
    now = datetime.now(UTC)
    registry = load_registry(loaded.facilities_file, loaded).select()
    rows: list[dict[str, object]] = [
        {
            "facility": facility.facility_id,
            "name": facility.name,
            "time_zone": facility.time_zone,
            "images": facility.image_kind,
            "keys": ", ".join(facility.key_template),
            "target_rate": facility.target_rate,
            "audience": ", ".join(facility.audience) or None,
            "jurisdiction": facility.jurisdiction,
            "missing": ", ".join(facility.list_missing_fields()) or None,
            "problem": facility.get_denial_reason(
                facility.compute_local_day(now), now, loaded.strict_registry_from
            ),
        }
        for facility in registry.facilities.values()
    ]
    rows += [
        {
            "facility": invalid.facility_id,
            "name": None,
            "time_zone": invalid.time_zone,
            "images": None,
            "keys": None,
            "target_rate": None,
            "audience": None,
            "jurisdiction": None,
            "missing": None,
            "problem": "its entry is invalid, see below",
        }
        for invalid in registry.invalid.values()
    ]
    show("Facilities", rows, json)
    registry.check()


@facilities.command
def init(
    file: Annotated[
        Path | None, Parameter(help="The file to write; default: FER_FACILITIES_FILE.")
    ] = None,
    /,
    *,
    force: Annotated[bool, Parameter(help="Replace a file that exists.")] = False,
) -> None:
    """Write a registry with commented examples, to edit. Nothing of the examples is ever read."""
    from fer_batch.resources import find_example_registry

    write_example(
        find_example_registry(),
        file,
        load_settings().facilities_file,
        "FER_FACILITIES_FILE",
        "`fer-batch check`. docs/registry.md",
        force=force,
    )


@facilities.command
def sync(*, json: Json = False) -> int:
    """Write the registry to the table `facility`.

    The rows of facilities whose entry is invalid stay as they are, and the exit code is 3. If no
    entry is valid, it is 2.
    """
    from fer_batch.database import connections, ledger, schema
    from fer_batch.facilities.loading import load_registry
    from fer_batch.log import get_logger

    loaded: Settings = load_settings()
    registry = load_registry(loaded.facilities_file, loaded).select()
    with schema.open_engine(loaded) as engine, connections.transaction(engine) as connection:
        ledger.sync_facilities(connection, registry.facilities, invalid_ids=registry.invalid)
    log = get_logger(__name__)
    for invalid in registry.invalid.values():
        log.error("invalid in the registry", facility=invalid.facility_id, reason=invalid.reason)
    for name, facility in registry.facilities.items():
        if gap := facility.describe_gap(loaded.strict_registry_from):
            log.warning("incomplete in the registry", facility=name, reason=gap)
    show("In the registry", [{"facility": name} for name in registry.facilities], json)
    return EXIT_FINDINGS if registry.invalid else 0
