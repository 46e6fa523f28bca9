"""Export of the published figures to Parquet files, for BI tools."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Annotated

from cyclopts import App, Parameter

from fer_batch.cli.common import Json, load_settings, show
from fer_batch.cli.nightly import GROUP
from fer_batch.errors import ConfigurationError


def register(app: App) -> None:
    """Add `export`."""
    app.command(export, group=GROUP)


def export(
    *,
    output: Annotated[
        str | None,
        Parameter(
            help="A folder, or an S3 URL such as s3://bucket/prefix. Default: FER_EXPORT_DIR and "
            "FER_EXPORT_URL."
        ),
    ] = None,
    facility: Annotated[
        tuple[str, ...], Parameter(help="A facility id; may be repeated. Default: all.")
    ] = (),
    first_day: Annotated[
        date | None,
        Parameter(name="--from", help="Rewrite the months from this day on, as YYYY-MM-DD."),
    ] = None,
    last_day: Annotated[
        date | None,
        Parameter(name="--to", help="Rewrite the months up to this day, as YYYY-MM-DD."),
    ] = None,
    if_set: Annotated[
        bool, Parameter(help="Do nothing if no place is set, for the nightly job.")
    ] = False,
    json: Json = False,
) -> None:
    """Export the published figures of days, weeks and four weeks as Parquet files.

    Files that differ from the published figures are written, whatever day they are about, and
    those of days that were withdrawn are deleted. With --facility, --from or --to, all files of
    that selection are rewritten, and no others. docs/analyze.md describes the files.
    """
    from fer_batch.export import places as module

    if first_day is not None and last_day is not None and first_day > last_day:
        raise ConfigurationError(
            f"--from {first_day} is after --to {last_day}", "Exchange the two days"
        )
    loaded = load_settings()
    places = module.open_places(loaded, output)
    if not places and not if_set:
        raise ConfigurationError(
            "there is no place to export to", "Set FER_EXPORT_DIR or FER_EXPORT_URL, or --output"
        )
    if not places:
        show("Exported", [], json)
        return
    from fer_batch.database import schema
    from fer_batch.export import publishing

    selection = publishing.Selection(facility, first_day, last_day)
    with schema.open_engine(loaded) as engine:
        exported = publishing.export(engine, places, selection)
    show("Exported", [asdict(each) for each in exported], json)
