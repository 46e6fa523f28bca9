"""Setup and maintenance: settings, diagnosis, database, facility registry."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cyclopts import App, Group

from fer_batch.cli.common import DEFAULTS, Json, load_settings, show
from fer_batch.cli.psql import PsqlArguments, open_psql
from fer_batch.errors import EXIT_FINDINGS

if TYPE_CHECKING:
    from fer_batch.settings import Settings

GROUP = Group("Setup and maintenance", sort_key=3)

db = App(
    name="db",
    help="The database: upgrade the schema, delete old days, open psql.",
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
    from fer_batch import settings as module

    show("Settings", module.list_sources(load_settings()), json)


def check(*, json: Json = False) -> int:
    """Test the database, the CNN and every facility's bucket; print a hint for each failure."""
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
    """Upgrade the schema `fer` to this version; safe to repeat."""
    from fer_batch.database import schema

    schema.upgrade(load_settings())
    sys.stdout.write("the database is up to date\n")


@db.command
def psql(*arguments: PsqlArguments) -> None:
    """Open psql on the database."""
    open_psql(load_settings(), arguments)


@facilities.command(name="list")
def list_facilities(*, json: Json = False) -> None:
    """List the facilities of the registry, with the reason if one is not processed."""
    from datetime import UTC, datetime

    from fer_batch.facilities import registry

    loaded = load_settings()
    now = datetime.now(UTC)
    rows = [
        {
            "facility": facility.facility_id,
            "name": facility.name,
            "time_zone": facility.time_zone,
            "images": facility.image_kind,
            "keys": facility.key_template,
            "target_share": facility.target_share,
            "problem": facility.get_denial_reason(facility.compute_local_day(now), now),
        }
        for facility in registry.load_registry(loaded.facilities_file, loaded).values()
    ]
    show("Facilities", rows, json)


@facilities.command
def sync(*, json: Json = False) -> None:
    """Write the registry to the table `facility`."""
    from fer_batch.database import connections, ledger, schema
    from fer_batch.facilities import registry

    loaded: Settings = load_settings()
    facilities_by_id = registry.load_registry(loaded.facilities_file, loaded)
    engine = connections.create_engine(loaded)
    schema.check_migrated(engine)
    with connections.transaction(engine) as connection:
        ledger.sync_facilities(connection, facilities_by_id)
    show("In the registry", [{"facility": name} for name in facilities_by_id], json)
