"""The commands of the nightly job: the whole job, and step by step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fer_batch.pipeline.in_flight import create_register
from fer_batch.pipeline.jobs import JOB, Job
from fer_batch.records import Batch, Image, KeyRange, Shard
from fer_batch.satisfaction.figures import RATES
from tests.cli.nights import ON_DAY, row_counts
from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, format_facility


def has_only_json_types(row: Mapping[str, Any]) -> bool:
    """Whether no number was printed as a string."""
    texts = {"facility_id", "capture_day", "model_version", "time_zone", "method", "verdict",
             "period", "first_day", "session_rule", "run_id", "created_at", "reason"}  # fmt: skip
    return all(isinstance(value, str) == (name in texts) for name, value in row.items())


NOT_PUBLISHED = {
    *("called_happy", "called_sad", "called_neither", "totals", "hours"),
    "former_figures",
}


def test_a_whole_day(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("north-mall"), format_facility("kiosk"))
    night.fill("north-mall", happy=40, sad=10)
    night.fill("kiosk", happy=2, sad=1)
    ended = nightly("run", *ON_DAY, "--run-id", "first", "--json")
    assert ended.code == 0
    assert ended.json["findings"] == []
    kiosk, mall = sorted(ended.json["summaries"], key=lambda row: row["facility_id"])
    assert (mall["faces"], mall["called_happy_rate"]) == (50, pytest.approx(0.8))
    assert not NOT_PUBLISHED & mall.keys()
    assert mall["happy_rate_low"] < mall["happy_rate"] < mall["happy_rate_high"]
    assert (mall["method"], mall["session_rule"], mall["sessions"]) == ("benchmark", "blocks", 10)
    assert (mall["verdict"], mall["run_id"]) == ("satisfied", "first")
    assert mall["capture_day"] == DAY.isoformat()
    assert has_only_json_types(mall)
    assert kiosk["verdict"] == "suppressed"
    assert (kiosk["images"], kiosk["images_scored"]) == (3, None)
    assert not NOT_PUBLISHED & kiosk.keys()
    assert "summarized" in ended.err
    report = night.settings.report_dir / f"{DAY}.html"
    assert "north-mall" in report.read_text()

    again = nightly("run", *ON_DAY)
    assert again.code == 0
    assert "above target" in again.out
    assert "no rate" in again.out
    assert "of 100 faces showed a happy expression; the true figure is very likely" in again.out
    assert "Findings: none" in again.out
    assert again.out.splitlines()[-1] == f"report      {report.resolve()}"
    assert row_counts(night)["satisfaction_summary"] == 2


def test_a_run_names_the_url_of_a_published_report(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"))
    settings = night.settings
    assert settings.s3_access_key_id is not None
    assert settings.s3_secret_access_key is not None
    keys = {
        "FER_REPORT_URL": f"s3://{settings.s3_bucket}/reports/",
        "FER_S3_CREDENTIALS__REPORT__ACCESS_KEY_ID": settings.s3_access_key_id,
        "FER_S3_CREDENTIALS__REPORT__SECRET_ACCESS_KEY": (
            settings.s3_secret_access_key.get_secret_value()
        ),
    }
    ended = nightly("run", *ON_DAY, **keys)
    path = (settings.report_dir / f"{DAY}.html").resolve()
    url = f"s3://{settings.s3_bucket}/reports/{DAY}.html"
    assert ended.out.splitlines()[-1] == f"report      {path}, published as {url}"


def test_a_warning_does_not_fail_a_run(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"), format_facility("b", permission=""))
    night.fill("a", happy=30, sad=5)
    for command in ("run", "check-data"):
        ended = nightly(command, *ON_DAY, "--json")
        findings = ended.json["findings"] if command == "run" else ended.json
        assert (ended.code, [(f["check"], f["severity"]) for f in findings]) == (
            0,
            [("no_permission", "warning")],
        )


def test_suppressed_summaries_have_no_counts_of_faces(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=20, sad=9)
    assert nightly("list-images", *ON_DAY).code == 0
    scored = nightly("score", *ON_DAY, "--json")  # without a shard: all images left to score
    assert [row["outcomes"] for row in scored.json] == [{"scored": 29}]
    (summary,) = nightly("summarize", *ON_DAY, "--json").json
    assert (summary["images"], summary["verdict"]) == (29, "suppressed")
    counts = ("faces", "faces_scored", "images_scored", "sessions", "faces_effective")
    assert {name: summary[name] for name in counts} == dict.fromkeys(counts)
    assert not NOT_PUBLISHED & summary.keys()
    assert {name: summary[name] for name in RATES} == dict.fromkeys(RATES)


def test_the_steps_of_a_run_one_by_one(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=25, sad=10)

    listed = nightly("list-images", *ON_DAY, "--json")
    assert listed.code == 0
    assert [(r["status"], r["images"], r["new"]) for r in listed.json] == [("listed", 35, 35)]

    shards = nightly("plan-shards", *ON_DAY, "--json").json
    assert sum(part["image_count"] for shard in shards for part in shard["ranges"]) == 35

    unfinished = nightly("check-data", *ON_DAY, "--json")
    assert unfinished.code == 3
    assert "images_without_outcome" in {finding["check"] for finding in unfinished.json}
    assert "images_without_outcome" in unfinished.err  # the task log shows the logged lines

    (shard,) = shards
    scored = nightly("score", *ON_DAY, "--shard", "-", "--json", stdin=json.dumps(shard))
    assert scored.code == 0
    assert [(r["images"], r["outcomes"]) for r in scored.json] == [(35, {"scored": 35})]

    (summary,) = nightly("summarize", *ON_DAY, "--json").json
    assert summary["called_happy_rate"] == pytest.approx(25 / 35, abs=1e-6)
    assert summary["is_complete"]
    assert has_only_json_types(summary)
    assert nightly("check-data", *ON_DAY, "--json").json == []
    report = Path(nightly("report", *ON_DAY, "--json").json["report"])
    assert "35" in report.read_text()
    assert nightly("report", *ON_DAY).out == f"{report}\n"
    assert nightly("plan-shards", *ON_DAY, "--json").json == []


def test_old_days_are_estimated_anew_without_reading_images(nightly: Command, night: Night) -> None:
    """As after an upgrade from a version that had another method."""
    night.write_registry(format_facility("a"), format_facility("b"))
    next_day, day_after = DAY + timedelta(1), DAY + timedelta(2)
    night.fill("a", happy=30, sad=10)
    night.fill("a", happy=30, sad=10, day=next_day)
    for day in (DAY, next_day):
        assert nightly("run", "--capture-day", str(day)).code == 0
    columns = (*RATES, "called_happy", "called_sad", "called_neither", "totals")
    nulls = ", ".join(f"{name} = null" for name in columns)
    assert night.query(
        "update fer.satisfaction_summary set method = 'wilson', former_figures = '{}',"  # noqa: S608
        f" {nulls} returning 1"
    )
    days = ("--from", str(DAY), "--to", str(day_after))
    ended = nightly("summarize", *days, "--json", FER_S3_ENDPOINT="http://127.0.0.1:9")
    assert ended.code == 0
    anew = {(row["facility_id"], row["capture_day"]): row for row in ended.json}
    assert sorted(anew) == [(name, str(day)) for name in "ab" for day in (DAY, next_day)]
    for day in (DAY, next_day):
        row = anew["a", str(day)]
        assert (row["revision"], row["method"], row["faces"]) == (2, "benchmark", 40)
        assert row["called_happy_rate"] == 0.75
        assert anew["b", str(day)]["method"] == "suppressed"
    kept = night.query("select 1 from fer.satisfaction_summary where method = 'wilson'")
    assert len(kept) == 4
    changes = night.query("select facility_id, capture_day from fer.satisfaction_change")
    assert [tuple(row.values()) for row in changes] == [("a", next_day)]
    again = nightly("summarize", *days, "--json").json
    assert {row["is_new_revision"] for row in again} == {False}
    refused = nightly("summarize", "--from", str(next_day), "--to", str(DAY))
    assert (refused.code, refused.out) == (2, "")
    assert f"--from {next_day} is after --to {DAY}" in refused.err


def test_outcomes_include_what_a_process_that_died_has_written(
    nightly: Command, night: Night
) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=100, sad=100)
    assert nightly("list-images", *ON_DAY).code == 0
    # Two micro-batches of 64 images are written before the fourth is decoded.
    killed = {"FER_FAILPOINT": "decode.during:193", "FER_THREADS": "1", "FER_CHUNK_IMAGES": "5"}
    ended = nightly("score", *ON_DAY, "--json", **killed)
    assert ended.code == 0
    assert "scoring process died" in ended.err
    assert [(row["images"], row["outcomes"]) for row in ended.json] == [(200, {"scored": 200})]


def test_a_facility_whose_process_was_killed_does_not_stop_the_others(
    nightly: Command, night: Night
) -> None:
    night.write_registry(format_facility("a"), format_facility("b"), format_facility("c"))
    for name, images in (("a", 6), ("b", 4), ("c", 2)):  # scored in this order
        night.fill(name, happy=images, sad=0)
    assert nightly("list-images", *ON_DAY).code == 0
    ended = nightly("score", *ON_DAY, FER_FAILPOINT="fetch.before:8", FER_THREADS="1")
    assert ended.code == 75
    assert "the scoring process of b was ended by SIGKILL" in ended.err
    assert [night.count_outcomes(name) for name in "ac"] == [{"scored": 6}, {"scored": 2}]


@pytest.mark.parametrize(
    ("changes", "code", "said", "check"),
    [
        ({"FER_S3_ENDPOINT": "http://127.0.0.1:9"}, 75, "no facility could be listed", "listing"),
        ({"FER_MODEL_CARD": "/nowhere/card.json"}, 2, "/nowhere/card.json", None),
    ],
)
def test_a_run_does_all_steps_that_a_failed_one_does_not_prevent(
    nightly: Command, night: Night, changes: dict[str, str], code: int, said: str, check: str | None
) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=30, sad=10)
    ended = nightly("run", *ON_DAY, "--json", **changes)
    assert ended.code == code
    assert said in ended.err.splitlines()[-1]
    if check is None:
        assert ended.json == {"summaries": None, "findings": None}
        return
    (summary,) = ended.json["summaries"]
    assert (summary["images"], summary["is_complete"]) == (0, False)
    assert [finding["check"] for finding in ended.json["findings"]] == ["listing_failed"]
    (report,) = night.settings.report_dir.glob(f"{DAY}*.html")
    assert "does not answer" in report.read_text()
    assert row_counts(night)["facility"] == 1


def test_the_report_shows_what_the_data_checks_of_its_run_have_stored(
    nightly: Command, night: Night
) -> None:
    night.write_registry(format_facility("a"), format_facility("b", permission=""))
    night.fill("a", happy=30, sad=5)
    assert nightly("run", *ON_DAY).code == 0
    found = nightly("check-data", *ON_DAY, "--run-id", "night", "--json")
    assert [finding["check"] for finding in found.json] == ["no_permission"]
    night.query("update fer.finding_day set details = 'as check_data found it' returning 1")
    for run_id, is_stored in (("night", True), ("another", False)):  # that one checks first
        ended = nightly("report", *ON_DAY, "--run-id", run_id, "--json")
        assert ended.code == 0
        assert ended.json["new_findings"] == []  # the run that opened it is another one
        shown = Path(ended.json["report"]).read_text()
        assert ("as check_data found it" in shown) == is_stored


def test_what_airflow_keeps_of_the_data_checks_names_no_image(
    nightly: Command, night: Night
) -> None:
    template = 'name_template = "{{camera}}/{{captured_at:%H%M%S}}.png"\n'
    night.write_registry(format_facility("a", more=template))
    night.fill("a", happy=2, sad=1)
    assert nightly("list-images", *ON_DAY).code == 0
    found = nightly("check-data", *ON_DAY, "--json")
    assert "names_without_time" in [finding["check"] for finding in found.json]
    key = f"a/{DAY}/0000.png"
    assert key not in found.out
    assert key in found.err  # the log of the task
    assert key in nightly("findings", "list").out
    assert key not in nightly("report", *ON_DAY, "--json").out
    assert key not in nightly("run", *ON_DAY, "--json").out


def test_a_killed_report_leaves_no_file_for_ever(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"))
    assert nightly("run", *ON_DAY, FER_FAILPOINT="file.during").code == -9
    assert list(night.settings.report_dir.glob(".*")) != []
    assert nightly("report", *ON_DAY).code == 0
    assert list(night.settings.report_dir.glob(".*")) == []


def test_a_quarantined_image_without_its_etag_is_found(
    nightly: Command, night: Night, tmp_path: Path
) -> None:
    """An ETag that is too long for the in-flight register."""
    night.write_registry(format_facility("a"))
    night.fill("a", happy=2, sad=1)
    assert nightly("list-images", *ON_DAY).code == 0
    (listed,) = night.query("select * from fer.image order by image_key offset 1 limit 1")
    batch = Batch("a", DAY)
    quarantined = Image(batch, listed["image_key"], "", listed["size_bytes"])
    assert nightly("plan-shards", *ON_DAY, "--json").code == 0
    (version,) = [row["model_version"] for row in night.query("select * from fer.run limit 1")]
    shard = Shard("a", (KeyRange(batch, f"a/{DAY}/0000.png", f"a/{DAY}/0002.png", 3),))
    job = Job(shard, "test", version, DAY, quarantined=(quarantined,))
    create_register(register := tmp_path / "in-flight", 1)
    options = ("--in-flight", str(register), "--parent", str(os.getpid()))
    ended = nightly("worker", *options, stdin=JOB.dump_json(job).decode(), FER_THREADS="1")
    assert (ended.code, ended.json["outcomes"]) == (0, {"scored": 2})
    rows = night.query("select image_key, outcome from fer.image_result where outcome <> 'scored'")
    assert [tuple(row.values()) for row in rows] == [(quarantined.key, "decoder_crashed")]


def test_a_day_without_images_is_a_result(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"))
    ended = nightly("run", *ON_DAY, "--json")
    assert ended.code == 0
    (summary,) = ended.json["summaries"]
    assert (summary["images"], summary["is_complete"]) == (0, True)
    assert summary["verdict"] == "suppressed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--facility", "north-mal"], "Did you mean north-mall?"),
        (["--facility", "zoo"], "Known facilities: north-mall"),
        (["--time-zone", "Asia/Tokyo"], "no facility has the time zone 'Asia/Tokyo'"),
        (["--model-version", "abcdef"], "Set FER_MODEL_CARD"),
    ],
)
def test_unknown_arguments_are_named(
    nightly: Command, night: Night, arguments: list[str], said: str
) -> None:
    night.write_registry(format_facility("north-mall"))
    ended = nightly("plan-shards", *ON_DAY, *arguments, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert row_counts(night)["image"] == 0


@pytest.mark.parametrize(
    "given", ["", "{", '{"name": "a", "ranges": [{}]}', '[{"name": "a", "ranges": []}]']
)
def test_an_invalid_shard_is_refused(nightly: Command, night: Night, given: str) -> None:
    night.write_registry(format_facility("a"))
    (file := nightly.folder / "shard.json").write_text(given)
    for place, named in (("-", "on stdin"), (str(file), f"in {file}")):
        ended = nightly("score", *ON_DAY, "--shard", place, stdin=given)
        assert (ended.code, ended.out) == (2, "")
        assert f"the shard {named} is invalid" in ended.err
        assert "plan-shards --json" in ended.err


def test_stdin_is_read_only_on_request(nightly: Command, night: Night) -> None:
    """As in `while read facility; do fer-batch score …; done < list`."""
    night.write_registry(format_facility("a"))
    night.fill("a", happy=1, sad=1)
    assert nightly("list-images", *ON_DAY).code == 0
    scored = nightly("score", *ON_DAY, "--json", stdin="the next line\n")
    assert [row["outcomes"] for row in scored.json] == [{"scored": 2}]


# The day and the prefix
