"""Setting up and looking after: database, facilities, model versions, a look at everything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import psycopg
import pytest

from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, format_facility


def test_an_empty_database_is_upgraded_and_again(fer: Command, postgres_url: str) -> None:
    for _ in range(2):
        ended = fer("db", "upgrade", FER_DATABASE_URL=postgres_url)
        assert (ended.code, ended.out) == (0, "the database is up to date\n")
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select count(*) from fer.satisfaction_daily").fetchone() == (0,)


def test_psql_opens_the_database_with_what_the_url_asks_for(
    fer: Command, database_url: str
) -> None:
    query = "select current_database(), current_setting('application_name')"
    url = f"{database_url}?application_name=of%20the%20url"
    ended = fer("db", "psql", "--", "-XAtc", query, FER_DATABASE_URL=url)
    assert ended.code == 0
    assert ended.out == f"{database_url.rpartition('/')[2]}|of the url\n"


def test_psql_gets_the_password_where_other_users_do_not_see_it(fer: Command) -> None:
    programs = fer.folder / "bin"
    programs.mkdir()
    psql = programs / "psql"
    psql.write_text('#!/bin/sh\nprintf "%s " "$@"\nprintf "password %s" "$PGPASSWORD"\n')
    psql.chmod(0o755)
    ended = fer(
        "db", "psql", "--", "-l", PATH=f"{programs}:/usr/bin:/bin",
        FER_DATABASE_URL="postgresql://fer:canary%2F7@127.0.0.1:9/fer?sslmode=require",
    )  # fmt: skip
    assert ended.out == "--dbname sslmode=require -l password canary/7"


def test_psql_gets_all_hosts_of_the_url(fer: Command) -> None:
    programs = fer.folder / "bin"
    programs.mkdir()
    psql = programs / "psql"
    psql.write_text('#!/bin/sh\nprintf "%s " "$PGHOST" "$PGPORT" "$PGUSER" "$PGDATABASE"\n')
    psql.chmod(0o755)
    url = "postgresql://ada@one:5432,two:5433/fer"
    ended = fer("db", "psql", PATH=f"{programs}:/usr/bin:/bin", FER_DATABASE_URL=url)
    assert ended.out == "one,two 5432,5433 ada fer "


@pytest.mark.parametrize("url", [None, "mysql://a:canary@b/c", "nonsense canary"])
@pytest.mark.parametrize("command", [("db", "psql"), ("db", "upgrade")])
def test_without_a_right_database_url_it_is_named(
    fer: Command, command: tuple[str, ...], url: str | None
) -> None:
    ended = fer(*command, FER_DATABASE_URL=url)
    assert (ended.code, ended.out) == (2, "")
    assert "FER_DATABASE_URL" in ended.err
    assert "canary" not in ended.err


def test_the_facilities_with_what_keeps_one_from_being_processed(
    nightly: Command, night: Night
) -> None:
    night.write_registry(format_facility("a"), format_facility("b", permission=""))
    ended = nightly("facilities", "list", "--json")
    assert ended.code == 0
    assert {row["facility"]: row["problem"] for row in ended.json} == {
        "a": None,
        "b": "no permission is recorded",
    }
    assert "permission" in nightly("facilities", "list").out


def test_a_registry_with_a_typo_names_file_facility_and_field(
    nightly: Command, night: Night
) -> None:
    night.write_registry(format_facility("a", more="expected_image_min = 3\n"))
    for command in ("facilities list", "facilities sync", "run --capture-day 2026-01-01"):
        ended = nightly(*command.split())
        assert (ended.code, ended.out) == (2, "")
        assert str(night.settings.facilities_file) in ended.err
        assert "facility a: unknown field expected_image_min" in ended.err
        assert "did you mean expected_images_min?" in ended.err


def test_an_invalid_facility_is_reported_and_costs_no_other_one(
    nightly: Command, night: Night
) -> None:
    """The commands that process facilities process the others; those that list show all faults."""
    night.write_registry(format_facility("a"), format_facility("b"), format_facility("c"))
    assert nightly("facilities", "sync").code == 0
    broken = format_facility("b").replace("Europe/Berlin", "Europe/Berln")
    night.write_registry(format_facility("a"), broken, format_facility("c", more="wifi = 1\n"))
    night.fill("a", 3, 2)
    of_b, of_c = "time_zone must be an IANA time zone", "unknown field wifi"

    listed = nightly("facilities", "list", "--json")
    assert listed.code == 2
    assert [row["facility"] for row in listed.json] == ["a", "b", "c"]
    assert f"facility b: {of_b}" in listed.err
    assert f"facility c: {of_c}" in listed.err

    checked = nightly("check", "--json")
    parts = {row["part"]: row for row in checked.json}
    assert checked.code == 3
    assert of_b in parts["facility registry"]["detail"]
    assert of_c in parts["facility registry"]["detail"]
    assert "facility a" in parts  # it is tested all the same

    # They are in the registry, not removed from it.
    assert nightly("facilities", "sync").code == 3
    assert night.query("select 1 from fer.facility where is_in_registry") == [{"?column?": 1}] * 3

    planned = nightly("plan", "--capture-day", str(DAY), "--json")
    assert planned.code == 3
    assert [(row["facility"], row["images"]) for row in planned.json] == [
        ("a", 5), ("b", None), ("c", None),
    ]  # fmt: skip
    assert of_b in planned.json[1]["problem"]

    ended = nightly("run", "--capture-day", str(DAY), "--json")
    assert ended.code == 3
    assert [s["facility_id"] for s in ended.json["summaries"]] == ["a"]
    findings = {f["facility_id"]: f for f in ended.json["findings"] if f["severity"] == "error"}
    assert findings.keys() == {"b", "c"}
    assert of_b in findings["b"]["finding"]
    assert night.query("select distinct facility_id from fer.image") == [{"facility_id": "a"}]

    assert nightly("run", "--capture-day", str(DAY), "--facility", "a").code == 0
    only_b = nightly("run", "--capture-day", str(DAY), "--facility", "b")
    assert only_b.code == 2
    assert of_b in only_b.err
    assert of_c not in only_b.err


def test_a_first_registry_is_written_and_valid(fer: Command) -> None:
    assert fer("facilities", "list").code == 2
    written = fer("facilities", "init", FER_FACILITIES_FILE="etc/facilities.toml")
    assert written.code == 0
    assert "wrote etc/facilities.toml" in written.out
    file = fer.folder / "etc" / "facilities.toml"
    assert file.read_text().startswith("# The facility registry")
    listed = fer("facilities", "list", "--json", FER_FACILITIES_FILE="etc/facilities.toml")
    assert listed.code == 0
    assert all(row["problem"] for row in listed.json)

    file.write_text("# ours\n")
    refused = fer("facilities", "init", "etc/facilities.toml")
    assert refused.code == 2
    assert "exists; nothing was written" in refused.err
    assert file.read_text() == "# ours\n"
    replaced = fer("facilities", "init", "etc/facilities.toml", "--force")
    assert f"set FER_FACILITIES_FILE={file}" in replaced.out
    assert "[facility.north-mall]" in file.read_text()


def test_facilities_are_written_to_the_tables(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"), format_facility("b"))
    assert nightly("facilities", "sync").code == 0
    night.write_registry(format_facility("b"))
    assert nightly("facilities", "sync", "--json").json == [{"facility": "b"}]
    rows = night.query("select facility_id, is_in_registry from fer.facility order by 1")
    assert [tuple(row.values()) for row in rows] == [("a", False), ("b", True)]


def test_capture_times_of_stored_images_are_filled_in(nightly: Command, night: Night) -> None:
    template = 'name_template = "{{captured_at:%H%M}}_{{camera}}.png"\n'
    night.write_registry(format_facility("a"), format_facility("b"))
    for name in ("1225_door", "2599_door", "x"):
        night.put(f"a/{DAY}/{name}.png", b"")
    assert nightly("list-images", "--capture-day", str(DAY)).code == 0
    night.write_registry(format_facility("a", more=template), format_facility("b"))
    counts = {"days": 1, "images": 3, "with_time": 1, "without_time": 2}

    ended = nightly("db", "backfill-times", "--facility", "a", "--from", str(DAY), "--json")
    assert (ended.code, ended.json) == (0, [{"facility": "a", **counts, "updated": 2}])
    rows = night.query("select camera, captured_at_utc from fer.image order by image_key")
    assert [row["camera"] for row in rows] == ["door", "door", None]
    assert str(rows[0]["captured_at_utc"]) == f"{DAY} 11:25:00+00:00"
    (row,) = night.query("select name_template from fer.facility where facility_id = 'a'")
    assert row["name_template"] == "{captured_at:%H%M}_{camera}.png"

    ended = nightly("db", "backfill-times", "--json")
    assert ended.json[0] == {"facility": "a", **counts, "updated": 0}
    assert "Capture times" in nightly("db", "backfill-times", "--to", "2026-01-01").out


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("plan",), "--capture-day"),
        (("run",), "--capture-day"),
        (("erase", "--facility", "a"), "--day"),
        (("db", "backfill-times"), "--from"),
    ],
)
@pytest.mark.parametrize("day", ["28.11.2026", "yesterday"])
def test_a_wrong_date_is_answered_with_the_format(
    fer: Command, command: tuple[str, ...], option: str, day: str
) -> None:
    ended = fer(*command, option, day)
    assert ended.code not in (0, 75)
    message = " ".join(ended.err.replace("│", " ").split())
    assert f'Invalid value for {option}: "{day}" is not a date: write YYYY-MM-DD' in message


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        ("2026-11-31", "November 2026 has 30 days"),
        ("2026-02-29", "February 2026 has 28 days"),
        ("2024-02-30", "February 2024 has 29 days"),
        ("2026-11-00", "November 2026 has 30 days"),
        ("2026-13-01", "months are 01 to 12"),
        ("0000-01-01", "years begin with 0001"),
    ],
)
def test_a_day_that_does_not_exist_is_called_so(fer: Command, day: str, reason: str) -> None:
    ended = fer("plan", "--capture-day", day)
    assert ended.code not in (0, 75)
    message = " ".join(ended.err.replace("│", " ").split())
    assert f'the day "{day}" does not exist: {reason}' in message


def test_an_unknown_time_zone_is_answered_with_time_zones(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"))
    ended = nightly("plan", "--capture-day", str(DAY), "--time-zone", "Europe/Berlim")
    assert (ended.code, ended.out) == (2, "")
    assert "no facility has the time zone 'Europe/Berlim'" in ended.err
    assert "Did you mean Europe/Berlin? The registry has the time zones Europe/Berlin" in ended.err


def test_a_backfill_of_nothing_is_named(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"))
    ended = nightly("db", "backfill-times", "--from", "2026-01-02", "--to", "2026-01-01")
    assert (ended.code, ended.out) == (2, "")
    assert "--from 2026-01-02 is after --to 2026-01-01" in ended.err
    ended = nightly("db", "backfill-times", "--facility", "b")
    assert ended.code == 2
    assert "no facility 'b'" in ended.err


def test_a_look_at_everything_that_works(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a"), format_facility("b", permission=""))
    ended = nightly("check", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [(row["part"], row["ok"]) for row in ended.json] == [
        ("database", True), ("erasure secret", True), ("CNN", True), ("face detector", True),
        ("decoder sandbox", True), ("Airflow", True), ("facility registry", True),
        ("facility a", True), ("facility b", True),
    ]  # fmt: skip
    assert ended.json[-1]["detail"] == "skipped: no permission is recorded"
    assert "NO" not in nightly("check").out


def test_a_look_at_nothing_set_up_names_each_part_and_what_to_do(fer: Command) -> None:
    ended = fer("check", "--json", FER_MODEL_CARD="gone.json", FER_DETECTOR_FILE="gone.onnx")
    assert ended.code == 3
    failed = {row["part"]: row["detail"] for row in ended.json if not row["ok"]}
    assert set(failed) == {
        "database", "CNN", "face detector", "decoder sandbox", "facility registry"
    }  # fmt: skip
    assert "FER_DATABASE_URL" in failed["database"]
    assert "gone.json" in failed["CNN"]
    assert "FER_DETECTOR_FILE" in failed["face detector"]
    assert "FER_FACILITIES_FILE" in failed["facility registry"]
    assert " NO " in fer("check").out


def test_the_local_stack_before_it_was_started(fer: Command, tmp_path: Path) -> None:
    env = {"FER_STACK_DIR": str(tmp_path / "stack")}
    ended = fer("stack", "status", "--json", **env)
    assert ended.code == 0
    assert {row["running"] for row in ended.json} == {False}
    assert fer("stack", "down", **env).code == 0


def test_a_recipe_that_is_wrong_is_named_before_tensorflow_is_loaded(fer: Command) -> None:
    (fer.folder / "recipe.json").write_text(json.dumps({"epochs": 0, "batsh": 1}))
    ended = fer("train", "--data", "nowhere.csv", "--recipe", "recipe.json")
    assert (ended.code, ended.out) == (2, "")
    assert "epochs" in ended.err
    assert "batsh" in ended.err
    assert fer("train", "--data", "a.csv", "--recipe", "gone.json").code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--data", "here.csv", "--split", "Test"], "PrivateTest"),
        (["--data", "here.csv", "--card", "gone.json"], "gone.json"),
        ([], "--faces"),
        (["--data", "here.csv", "--faces", "faces.npz"], "One of the two"),
        (["--faces", "faces.npz", "--votes", "votes.csv"], "--votes"),
        (["--faces", "gone.npz"], "gone.npz"),
    ],
)
def test_an_evaluation_with_missing_input(fer: Command, arguments: list[str], said: str) -> None:
    (fer.folder / "here.csv").write_text("emotion,pixels,Usage\n")
    ended = fer("evaluate", *arguments, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_an_evaluation_on_faces_of_ones_own(fer: Command) -> None:
    # The tiny CNN calls bright crops Happy: of these, one bright crop is labeled Sad.
    crops = np.repeat(np.array([250, 250, 5, 250], np.uint8), 48 * 48).reshape(4, 48, 48)
    np.savez(fer.folder / "faces.npz", x=crops, y=np.array([0, 0, 1, 1]))
    asked = ("evaluate", "--faces", "faces.npz", "--reliability", "runs/drawn.png")
    ended = fer(*asked, "--detector", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["happy_sad"]["accuracy"] == 0.75
    assert ended.json["happy_sad"]["wrong"] == 1
    assert ended.json["calibration"]["ece"] > 0
    assert ended.json["happy_sad_consensus"]["accuracy"] is None
    # One color is no face.
    assert ended.json["detector"] == {
        "happy": {"rows": 2, "found": 0},
        "sad": {"rows": 2, "found": 0},
    }
    # Nothing is said of expressions that the file does not hold.
    assert not {"seven", "three", "neutral", "others"} & set(ended.json)
    assert (fer.folder / "runs" / "drawn.png").read_bytes().startswith(b"\x89PNG")
    for_people = fer(*asked)
    assert for_people.code == 0
    assert "0.7500" in for_people.out
