"""`fer-batch plan`: what a run would list and score, without writing anything."""

from __future__ import annotations

from tests.cli.nights import ON_DAY, TABLES, row_counts
from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, encode_crop, format_facility


def test_a_plan_writes_nothing(nightly: Command, night: Night) -> None:
    night.write_registry(
        format_facility("a"),
        format_facility("b", kind="frames"),
        format_facility("c", permission=""),
    )
    night.fill("a", happy=3, sad=2)
    before = row_counts(night)
    ended = nightly("plan", *ON_DAY, "--lookback-days", "1", "--json")
    assert ended.code == 0
    found = {(r["facility"], r["capture_day"]): r for r in ended.json}
    assert len(found) == 6
    assert found["a", DAY.isoformat()]["images"] == 5
    assert found["a", DAY.isoformat()]["bytes"] > 0
    assert found["a", DAY.isoformat()]["left"] == 5
    assert found["a", DAY.isoformat()]["expected_s"] > 0
    assert found["b", DAY.isoformat()] == {
        "facility": "b", "capture_day": DAY.isoformat(),
        "images": 0, "left": 0, "bytes": 0, "expected_s": 0,
        "problem": "no image from 2026-11-14 to 2026-11-20: nothing lies below 'b/'; in the bucket "
                   "there is 'a/'",
    }  # fmt: skip
    assert found["c", DAY.isoformat()]["problem"] == "no permission is recorded"
    assert row_counts(night) == before == dict.fromkeys(TABLES, 0)
    assert not night.settings.report_dir.exists()
    assert list(nightly.folder.iterdir()) == []
    # It does not even need a database.
    without = nightly("plan", *ON_DAY, "--lookback-days", "1", "--json", FER_DATABASE_URL=None)
    assert without.json == ended.json


def test_a_plan_counts_what_a_run_would_score(nightly: Command, night: Night) -> None:
    """Images that are finished with another ETag, or whose object is gone, are not left out."""
    night.write_registry(format_facility("a"))
    night.fill("a", happy=20, sad=20)
    assert nightly("run", *ON_DAY).code == 0
    for number in range(20):
        night.s3.client.delete_object(Bucket=night.s3.bucket, Key=f"a/{DAY}/{number:04}.png")
        night.put(f"a/{DAY}/new-{number}.png", encode_crop(True, number=100 + number))
    night.put(f"a/{DAY}/0030.png", encode_crop(True, number=200))  # replaces the object
    night.put(f"a/{DAY}/0000.png", encode_crop(False, number=0))  # uploaded again, unchanged
    (planned,) = nightly("plan", *ON_DAY, "--json").json
    assert (planned["images"], planned["left"]) == (41, 21)
    (rescored,) = nightly("plan", *ON_DAY, "--rescore", "--json").json
    assert rescored["left"] == 41
    assert nightly("list-images", *ON_DAY).code == 0
    (scored,) = nightly("score", *ON_DAY, "--json").json
    assert scored["outcomes"] == {"scored": 21}
    (planned,) = nightly("plan", *ON_DAY, "--json").json
    assert (planned["left"], planned["expected_s"]) == (0, 0)


def test_erased_images_are_not_planned(nightly: Command, eraser: Command, night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=2, sad=1)
    assert nightly("run", *ON_DAY).code == 0
    assert eraser("erase", "--facility", "a", "--key", f"a/{DAY}/0000.png", "--yes").code == 0
    (planned,) = nightly("plan", *ON_DAY, "--json").json
    assert (planned["images"], planned["left"]) == (3, 0)


def test_a_plan_reports_facilities_that_cannot_be_listed(nightly: Command, night: Night) -> None:
    night.write_registry(
        format_facility("a"), format_facility("lost", more='bucket = "no-such-bucket"\n')
    )
    ended = nightly("plan", *ON_DAY, "--json")
    assert ended.code == 3
    assert ["no-such-bucket" in row["problem"] for row in ended.json] == [False, True]
    counts = [[row[k] for k in ("images", "left", "bytes", "expected_s")] for row in ended.json]
    assert counts == [[0, 0, 0, 0], [None] * 4]
    (lost,) = (line for line in nightly("plan", *ON_DAY).out.splitlines() if "lost" in line)
    assert lost.count("–") == 4
    listed = nightly("list-images", *ON_DAY, "--json").json
    assert [(row["images"], row["new"]) for row in listed] == [(0, 0), (None, None)]
