"""The two commands that delete rows permanently, and show them before and after."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pytest

from tests.fixtures.command import Command
from tests.fixtures.night import Night, encode_crop, format_facility
from tests.fixtures.servers import SECRET
from tests.support.command import build_environment

OLD = date(2025, 6, 2)
ON_OLD = ("--capture-day", OLD.isoformat())
PER_IMAGE = ("image", "image_result", "face_result")


def row_counts(night: Night) -> list[int]:
    return [
        night.query(f"select count(*) as n from fer.{table}")[0]["n"]  # noqa: S608
        for table in PER_IMAGE
    ]


@pytest.fixture
def scored(nightly: Command, night: Night) -> Night:
    """An old day of two facilities, scored and summarized."""
    fill(night)
    assert nightly("run", *ON_OLD).code == 0
    return night


@pytest.fixture
def listed(nightly: Command, night: Night) -> Night:
    """The same, only listed, which is faster."""
    fill(night)
    assert nightly("list-images", *ON_OLD).code == 0
    return night


def fill(night: Night) -> None:
    night.write_registry(format_facility("a"), format_facility("b"))
    night.fill("a", happy=25, sad=10, day=OLD)
    night.fill("b", happy=2, sad=1, day=OLD)


def test_old_days_are_deleted_and_not_scored_again(
    nightly: Command, retainer: Command, scored: Night
) -> None:
    before = scored.query("select * from fer.satisfaction_summary order by 1, 2")
    refused = retainer("maintain", "--dry-run", "--json")
    assert (refused.code, refused.out) == (2, "")
    assert f"the newest images or the last maintenance are of {OLD}" in refused.err
    shown = retainer("maintain", "--dry-run", "--after-pause", "--json")
    assert (shown.code, shown.json[-1]["count"]) == (0, 1)
    assert row_counts(scored) == [38, 38, 38]
    # A process that is killed leaves a day whole, or drops it.
    for point, rows in (("drop.before", 38), ("drop.during", 38), ("drop.after", 0)):
        ended = retainer("maintain", "--yes", "--after-pause", FER_FAILPOINT=point)
        assert ended.code == -signal.SIGKILL
        assert row_counts(scored) == [rows] * 3
    assert scored.query("select kind, images from fer.deletion") == [
        {"kind": "retention", "images": 38}
    ]

    again = nightly("run", *ON_OLD, "--json")
    assert (again.code, again.out) == (2, "")
    assert f"the rows of {OLD} were dropped by retention" in again.err
    for step in ("plan", "list-images", "summarize"):
        assert nightly(step, *ON_OLD, "--json").code == 2
    assert row_counts(scored) == [0, 0, 0]
    assert scored.query("select * from fer.satisfaction_summary order by 1, 2") == before
    assert "Deleted" in retainer("maintain", "--yes").out


def test_each_kind_of_data_has_a_period(retainer: Command, listed: Night) -> None:
    age = (datetime.now(UTC).date() - OLD).days
    for days, expected in ((age + 1, 0), (age - 1, 1)):  # midnight may pass
        shown = retainer(
            "maintain",
            "--dry-run",
            "--after-pause",
            "--json",
            FER_RETENTION_DAYS=str(days),
            FER_RUN_RETENTION_DAYS=None,
        )
        assert shown.json[-1] == {
            "kind": "rows per image and face",
            "setting": "FER_RETENTION_DAYS",
            "before": shown.json[-1]["before"],
            "count": expected,
            "unit": "days",
        }
    refused = retainer("maintain", "--dry-run", FER_SUMMARY_RETENTION_DAYS="399")
    assert refused.code == 2
    assert "must be at least FER_RETENTION_DAYS, which is 400" in refused.err
    assert "there is no terminal" in retainer("maintain", "--after-pause").err


def test_a_lookback_skips_deleted_days(nightly: Command, retainer: Command, scored: Night) -> None:
    next_day = OLD + timedelta(1)
    age = (datetime.now(UTC).date() - next_day).days
    ended = retainer(
        "maintain",
        "--yes",
        "--after-pause",
        FER_RETENTION_DAYS=str(age),
        FER_RUN_RETENTION_DAYS=None,
    )
    assert ended.code == 0
    scored.fill("a", happy=1, sad=0, day=next_day)
    on_next_day = ("--capture-day", str(next_day), "--lookback-days", "1", "--facility", "a")
    ended = nightly("run", *on_next_day, "--json")
    assert (ended.code, ended.json["findings"]) == (0, [])
    assert {row["capture_day"] for row in ended.json["summaries"]} == {str(next_day)}
    assert row_counts(scored) == [1, 1, 1]


def test_an_erased_image_is_not_scored_again_although_the_object_exists(
    nightly: Command, eraser: Command, scored: Night
) -> None:
    key = f"a/{OLD}/0000.png"
    there = {"facility_id": "a", "capture_day": OLD.isoformat(), "images": 1, "faces": 1}
    asked = ("erase", "--facility", "a", "--key", key)
    assert eraser(*asked, "--dry-run", "--json").json == [there]
    assert row_counts(scored) == [38, 38, 38]
    ended = eraser(*asked, "--yes", "--json")
    assert (ended.code, ended.json) == (0, [{**there, "revision": 2}])
    assert key not in ended.out + ended.err
    # Another picture with the same key is not read either.
    scored.put(key, encode_crop(is_happy=False, number=99))
    assert nightly("run", *ON_OLD).code == 0
    summary = scored.read_summary("a")
    assert (summary["images"], summary["faces_scored"], summary["faces"]) == (35, 34, 35)
    assert (summary["not_scored"], summary["revision"]) == ({"erased": 1}, 2)
    assert scored.query("select 1 from fer.image where image_key = %s", key) == []
    assert eraser(*asked, "--yes", "--json").json == []


def test_a_day_and_a_facility_that_has_left_the_registry(
    nightly: Command, eraser: Command, scored: Night
) -> None:
    assert len(eraser("erase", "--facility", "b", "--day", str(OLD), "--yes", "--json").json) == 1
    ended = nightly("run", *ON_OLD, "--json")
    assert (ended.code, [row["facility_id"] for row in ended.json["summaries"]]) == (0, ["a"])
    assert nightly("run", *ON_OLD, "--facility", "b").code == 2
    scored.write_registry(format_facility("b"))
    assert "Erased" in eraser("erase", "--facility", "a", "--yes").out
    assert row_counts(scored) == [0, 0, 0]
    assert scored.read_summary("a")["not_scored"] == {"erased": 35}


@pytest.mark.parametrize(
    "command",
    [("maintain", "--after-pause"), ("erase", "--facility", "a"), ("erase", "--facility", "b")],
)
def test_a_deletion_requires_confirmation(
    eraser: Command, retainer: Command, listed: Night, command: tuple[str, ...]
) -> None:
    chosen = eraser if command[0] == "erase" else retainer
    for answer, code, said in (("y", 2, "nothing was deleted"), ("yes", 0, "Type yes:")):
        before = row_counts(listed)
        terminal, stdin = pty.openpty()
        os.write(terminal, f"{answer}\n".encode())
        ended = subprocess.run(
            [sys.executable, "-m", "fer_batch", *command],
            env=build_environment(chosen.env), cwd=chosen.folder, stdin=stdin,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        os.close(stdin)
        os.close(terminal)
        assert (ended.returncode, said in ended.stdout + ended.stderr) == (code, True)
        assert "Type yes:" in ended.stdout
        assert (row_counts(listed) == before) is (answer == "y")


def test_invalid_calls_delete_nothing(eraser: Command, retainer: Command, listed: Night) -> None:
    for command, said in (
        ("maintain --after-pause", "no terminal"),
        ("erase --facility a", "no terminal"),
        ("erase --facility a --key a/b.png --yes", "no image with that key"),
        ("erase --facility c --yes", "no image of facility 'c'"),
        ("erase --facility a --key x --day 2025-06-02", "cannot be combined"),
    ):
        ended = (retainer if command.startswith("maintain") else eraser)(*command.split())
        assert (ended.code, ended.out) == (2, "")
        assert said in ended.err
    assert row_counts(listed) == [38, 0, 0]


def test_the_login_of_the_job_can_neither_erase_nor_retain(nightly: Command, listed: Night) -> None:
    for command in ("maintain --yes", "erase --facility a --yes"):
        ended = nightly(*command.split())
        assert (ended.code, ended.out) == (2, "")
        assert "permission denied" in ended.err
        assert "docs/deploy.md" in ended.err
    assert row_counts(listed) == [38, 0, 0]


def test_erasures_are_logged_and_repeated(eraser: Command, listed: Night) -> None:
    """The default log is in the working directory; it names no key."""
    key = f"a/{OLD}/0000.png"
    assert eraser("erase", "--facility", "a", "--key", key, "--yes").code == 0
    log = eraser.folder / "erasures.jsonl"
    written = log.read_text()
    assert json.loads(written)["facility_id"] == "a"
    assert "0000.png" not in written
    assert eraser("erase", "--replay", str(log), "--json").json == []  # the database knows it

    # A log of erasures that this database does not know, as after a restore.
    other = SECRET.hash_key(f"a/{OLD}/0001.png").hex()
    line = written.replace(json.loads(written)["key_hmac"], other)
    copy = eraser.folder / "copy.jsonl"
    nowhere = line.replace(other, "7" * 64).replace('"a"', '"nowhere"')
    copy.write_text(f"{line}cut off\n{nowhere}")
    asked = ("erase", "--replay", str(copy), "--json")
    lost = {"facility_id": "a", "capture_day": str(OLD), "kind": "image"}
    shown = eraser(*asked, "--dry-run")
    assert (shown.code, shown.json) == (2, [{**lost, "images": 1, "faces": 0}])
    assert row_counts(listed)[0] == 37
    done = eraser(*asked, "--yes")
    assert (done.code, done.json) == (2, [{**lost, "images": 1, "faces": 0}])
    assert row_counts(listed)[0] == 36
    assert "no erasure in line 2" in done.err
    copy.write_text(copy.read_text().replace("cut off\n", ""))
    assert "does not know the facility nowhere" in eraser(*asked, "--yes").err
    assert len(log.read_text().splitlines()) == 2

    early = ("erase", "--facility", "a", "--unlisted", "--json", "--yes", "--key")
    tomorrow = OLD + timedelta(1)
    assert eraser(*early, f"a/{tomorrow}/1.png").json == [
        {"facility_id": "a", "capture_day": str(tomorrow), "images": 0, "faces": 0,
         "revision": None}
    ]  # fmt: skip
    assert eraser(*early, f"c/{tomorrow}/1.png").code == 2

    for wrong in (
        ("--replay", "x", "--facility", "a"), ("--yes",), ("--facility", "a", "--unlisted"),
    ):  # fmt: skip
        assert eraser("erase", *wrong).code == 2
    refused = eraser("erase", "--facility", "b", "--yes", FER_ERASURE_LOG="/no/such/folder/log")
    assert (refused.code, "erasure log /no/such/folder/log" in refused.err) == (2, True)
    assert row_counts(listed)[0] == 36
