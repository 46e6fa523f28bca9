"""`python -m benchmarks.reports`: report, digest, alerts and export of 1,000 facilities.

Four weeks of days, weeks and changes in a new database, of facilities in groups of 50, each with a
target. What the nightly tasks `check_data`, `report`, `notify` and `export` do with them is timed,
without sending a mail. The report must take less than 10 s, and none of its files may have more
than 3 MB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import many_rows
from benchmarks.many_rows import FACES_OF_FRAME, LAST_DAY, RUN, VERSION, Size
from benchmarks.measuring import (
    Spread,
    build_result_path,
    convert_spreads,
    describe_machine,
    write_json,
)
from benchmarks.tables import temporary_database
from fer_batch import log
from fer_batch.database import connections
from fer_batch.digests import content, rendering
from fer_batch.export import publishing
from fer_batch.facilities.registry import Facility
from fer_batch.findings import storing
from fer_batch.pipeline import checks
from fer_batch.records import Batch
from fer_batch.reporting import loading, pages, report
from fer_batch.satisfaction import comparisons, periods
from fer_batch.settings import Settings
from fer_batch.storage.folder import LocalFolder

FACILITIES, FACES, GROUP_SIZE, DAYS = 1_000, 60, 50, 28
MAX_S, MAX_MB = 10, 3


def make_sizes(facilities: int) -> list[Size]:
    """Facilities with the same number of faces a day, in groups."""
    sizes = []
    for number in range(facilities):
        facility = many_rows.make_facility(f"shop-{number:04}", number)
        group = f"Area {number // GROUP_SIZE:02}"
        per_image = 1 if facility.image_kind == "crops" else FACES_OF_FRAME
        sizes.append(Size(facility.model_copy(update={"group": group}), int(FACES / per_image) + 1))
    return sizes


def fill(engine: sa.Engine, sizes: list[Size]) -> Mapping[str, Facility]:
    """Four weeks up to a Sunday with their weeks and changes; the days are copies of the last."""
    last = LAST_DAY - timedelta(LAST_DAY.isoweekday() % 7)
    facilities = many_rows.register(engine, sizes)
    many_rows.fill(engine, sizes, [last])
    with connections.transaction(engine) as connection:
        copy = many_rows.load_statement("copy_summaries")
        connection.execute(copy, {"day": last, "days": DAYS})
    sundays = [last - timedelta(7 * week) for week in reversed(range(4))]
    with connections.transaction(engine) as connection:
        batches = [Batch(name, day) for name in facilities for day in sundays]
        periods.write_period_summaries(connection, batches, facilities, RUN)
        newest = [Batch(name, last) for name in facilities]
        comparisons.write_changes(connection, newest, facilities, RUN)
    return facilities


def measure(action: Callable[[], object], rounds: int) -> Spread:
    """Seconds of each round."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return Spread.from_values(seconds)


def measure_all(
    engine: sa.Engine, facilities: Mapping[str, Facility], folder: Path, rounds: int
) -> dict[str, Any]:
    """Seconds by task, and the sizes of what was written."""
    settings = Settings(_env_file=None, report_dir=folder / "reports")
    with engine.connect() as connection:
        last = connection.scalar(sa.text("SELECT max(capture_day) FROM fer.satisfaction_daily"))
    batches = [Batch(name, last) for name in facilities]

    def check() -> None:
        findings[:] = checks.check_data(engine, batches, VERSION, RUN, settings)
        with connections.transaction(engine) as connection:
            storing.store_findings(connection, batches, findings, RUN, settings)

    def write_report() -> None:
        report.write_report(engine, settings, last)

    def write_digest() -> None:
        with connections.transaction(engine) as connection:
            rows = loading.load_rows(connection, last)
        digest = content.build_digest(pages.build_report(rows), rows, "day")
        sizes["digest_kb"] = len(rendering.render_html(digest, "benchmark")) / 1e3

    def export(place: Path) -> None:
        publishing.export(engine, [LocalFolder(place)])

    findings: list[dict[str, Any]] = []
    sizes: dict[str, float] = {}
    seconds = {
        "data checks of a night": measure(check, rounds),
        "report": measure(write_report, rounds),
        "digest of all facilities": measure(write_digest, rounds),
        "first export": measure(lambda: export(folder / "export"), 1),
        "export without changes": measure(lambda: export(folder / "export"), rounds),
    }
    pages_of_report = [*(folder / "reports").rglob("*.html")]
    sizes["largest_file_of_report_mb"] = max(f.stat().st_size for f in pages_of_report) / 1e6
    sizes["report_mb"] = sum(f.stat().st_size for f in pages_of_report) / 1e6
    exported = [*(folder / "export").rglob("*.parquet")]
    sizes["export_mb"] = sum(f.stat().st_size for f in exported) / 1e6
    return {
        **convert_spreads(seconds),
        **{name: round(size, 2) for name, size in sizes.items()},
        "files_of_report": len(pages_of_report),
        "files_of_export": len(exported),
        "findings": len(findings),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reports", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    is_quick: bool = options.quick
    facilities = 20 if is_quick else FACILITIES
    machine = describe_machine()
    log.configure("console", "warning")
    with temporary_database() as (url, _), tempfile.TemporaryDirectory() as folder:
        engine = connections.create_engine(url)
        try:
            known = fill(engine, make_sizes(facilities))
            measured = measure_all(engine, known, Path(folder), options.rounds)
        finally:
            engine.dispose()
    is_met = measured["report"]["median"] < MAX_S and measured["largest_file_of_report_mb"] < MAX_MB
    for name, value in measured.items():
        shown = f"{value['median']:.3g} s" if isinstance(value, dict) else value
        print(f"  {name:<30}{shown}")
    print(f"report below {MAX_S} s, files below {MAX_MB} MB: {'met' if is_met else 'NOT MET'}")
    result = {
        "is_quick": is_quick,
        "machine": machine,
        "facilities": facilities,
        "days": DAYS,
        **measured,
    }
    write_json(build_result_path("reports.json", is_quick=is_quick), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
