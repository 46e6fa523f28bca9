"""What a data engineer sets up and looks at: settings, database, facilities."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cyclopts import App, Group

from fer_batch.cli.common import DEFAULTS, Json, settings, show
from fer_batch.cli.psql import ForPsql, open_psql
from fer_batch.errors import EXIT_FINDINGS

if TYPE_CHECKING:
    from fer_batch.settings import Settings

GROUP = Group("Set up and look after", sort_key=3)

db = App(
    name="db",
    help="The database: upgrade its schema, drop old days, open a prompt.",
    group=GROUP,
    default_parameter=DEFAULTS,
)
facilities = App(
    name="facilities", help="The facility registry.", group=GROUP, default_parameter=DEFAULTS
)


def register(app: App) -> None:
    app.command(check, group=GROUP)
    app.command(config, group=GROUP)
    app.command(db)
    app.command(facilities)


def config(*, json: Json = False) -> None:
    """Show every setting, its value (secrets masked) and where it came from."""
    from fer_batch import settings as module

    show("Settings", module.sources(settings()), json)


def check(*, json: Json = False) -> int:
    """Try S3, the database, the model and every facility; say what to do about what fails."""
    from fer_batch import diagnosis

    findings = diagnosis.check_all(settings())
    rows = [{"what": f.what, "ok": f.is_ok, "detail": f.detail} for f in findings]
    if not json:
        for row in rows:
            row["ok"] = "yes" if row["ok"] else "NO"
    show("Checks", rows, json)
    return 0 if all(f.is_ok for f in findings) else EXIT_FINDINGS


@db.command
def upgrade() -> None:
    """Bring the schema `fer` to this version; safe to repeat."""
    from fer_batch import database

    database.upgrade(settings())
    sys.stdout.write("the database is up to date\n")


@db.command
def psql(*arguments: ForPsql) -> None:
    """Open psql on the database."""
    open_psql(settings(), arguments)


@facilities.command(name="list")
def list_facilities(*, json: Json = False) -> None:
    """List the facilities of the registry, with what keeps one from being processed."""
    from datetime import UTC, datetime

    from fer_batch import registry

    loaded = settings()
    now = datetime.now(UTC)
    rows = [
        {
            "facility": facility.facility_id,
            "name": facility.name,
            "time_zone": facility.time_zone,
            "images": facility.image_kind,
            "keys": facility.key_template,
            "target_share": facility.target_share,
            "problem": facility.refusal(facility.local_day(now), now),
        }
        for facility in registry.load(loaded.facilities_file, loaded).values()
    ]
    show("Facilities", rows, json)


@facilities.command
def sync(*, json: Json = False) -> None:
    """Write the registry to the table `facility`."""
    from fer_batch import database, ledger, registry

    loaded: Settings = settings()
    known = registry.load(loaded.facilities_file, loaded)
    engine = database.engine(loaded)
    database.check_migrated(engine)
    with database.transaction(engine) as connection:
        ledger.sync_facilities(connection, known)
    show("In the registry", [{"facility": name} for name in known], json)
