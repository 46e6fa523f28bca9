"""The commands `export` and `query`, and the export of a whole run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, format_facility

ON_DAY = ("--capture-day", DAY.isoformat())


def test_a_run_exports_and_queries_answer(nightly: Command, night: Night, tmp_path: Path) -> None:
    night.write_registry(format_facility("north-mall"), format_facility("kiosk"))
    night.fill("north-mall", happy=40, sad=10)
    night.fill("kiosk", happy=2, sad=1)
    place = tmp_path / "bi"
    assert nightly("run", *ON_DAY, FER_EXPORT_DIR=str(place)).code == 0
    assert duckdb.sql(
        "SELECT facility_id, last_day, verdict, happy_rate IS NULL, faces"  # noqa: S608
        f" FROM read_parquet('{place}/**/*.parquet') ORDER BY facility_id"
    ).fetchall() == [
        ("kiosk", DAY, "suppressed", True, None),
        ("north-mall", DAY, "satisfied", False, 50),
    ]
    again = nightly("export", "--output", str(place), "--json")
    assert again.json == [{"place": str(place), "written": 0, "deleted": 0, "unchanged": 2}]

    # Everything else is done; only the export has no keys.
    failed = nightly("run", *ON_DAY, FER_EXPORT_URL="s3://bi/fer")
    assert (failed.code, "S3 credentials 'export' are not set" in failed.err) == (2, True)
    assert "report      " in failed.out

    name = "which_facilities_were_satisfied"
    shown = nightly("query", name)
    assert shown.code == 0
    assert "Which facilities were satisfied on their newest complete day" in shown.out
    assert "north-mall" in shown.out
    answer = nightly("query", name, "--json").json
    assert (answer[1]["facility_name"], answer[1]["verdict"]) == ("north-mall", "satisfied")
    assert isinstance(answer[1]["happy_percent"], int)
    file = tmp_path / "answer.csv"
    assert nightly("query", name, "--csv", "--output", str(file)).code == 0
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["facility_name"], row["verdict"]) for row in rows] == [
        ("kiosk", "suppressed"),
        ("north-mall", "satisfied"),
    ]
    assert rows[0]["happy_percent"] == ""
    printed = nightly("query", name, "--csv")
    assert printed.out.lstrip("\ufeff").splitlines() == file.read_text("utf-8-sig").splitlines()
    file = tmp_path / "answer.parquet"
    trend = ("query", "how_did_the_happy_rate_change", "--facility", "north-mall", "--days", "7")
    assert nightly(*trend, "--parquet", "--output", str(file)).code == 0
    table = pq.read_table(file)
    assert table.column("capture_day").to_pylist() == [DAY]
    assert isinstance(table.column("happy_rate").to_pylist()[0], float)
    assert b"happy rate" in table.schema.metadata[b"fer_batch.question"]
    wrong = nightly(*trend[:2], "--facility", "north")
    assert (wrong.code, "Did you mean north-mall?" in wrong.err) == (2, True)


def test_an_export_needs_a_place_but_the_nightly_job_does_not(fer: Command) -> None:
    ended = fer("export")
    assert ended.code == 2
    assert "Set FER_EXPORT_DIR or FER_EXPORT_URL, or --output" in ended.err
    assert fer("export", "--if-set", "--json").json == []
    backwards = fer("export", "--output", "bi", "--from", "2026-03-02", "--to", "2026-03-01")
    assert (backwards.code, "is after --to" in backwards.err) == (2, True)


def test_the_queries_are_listed_with_their_parameters(fer: Command) -> None:
    listed = {row["name"]: row for row in json.loads(fer("query", "--json").out)}
    assert len(listed) >= 20
    trend = listed["how_did_the_happy_rate_change"]
    assert trend["parameters"] == ["[--facility ID]", "[--days 1..4000]"]
    image = listed["what_is_the_outcome_of_an_image"]
    assert image["parameters"] == ["--facility ID", "--day YYYY-MM-DD", "--key TEXT"]
    assert trend["question"].endswith("?")
    assert "which_cameras_went_quiet" in fer("query").out


def test_contradicting_options_are_named(fer: Command) -> None:
    name = "which_facilities_were_satisfied"
    for arguments, problem in (
        ((name, "--csv", "--parquet"), "more than one format"),
        ((name, "--parquet"), "--parquet has no file"),
        ((name, "--output", "a.csv"), "--output has no format"),
        (("--csv",), "no query is named"),
        (("which_facilities",), "there is no query"),
        ((name, "--days", "3"), "has no parameter --days"),
        (("how_did_the_happy_rate_change", "--days", "many"), "a whole number from 1 to 4000"),
        (("how_did_the_happy_rate_change", "--days=-3"), "a whole number from 1 to 4000"),
        (("what_is_the_outcome_of_an_image", "--day", "3.3.26"), "YYYY-MM-DD"),
    ):
        ended = fer("query", *arguments)
        assert (ended.code, problem in ended.err) == (2, True), (arguments, ended.err)
