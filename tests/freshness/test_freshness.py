"""`fer-batch freshness` on a real database, with the login of a reader of views."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from fer_batch.cli import freshness as command
from fer_batch.deletion import erasure
from fer_batch.errors import ConfigurationError, DatabaseUnavailableError
from fer_batch.freshness.checking import check_freshness
from fer_batch.settings import Settings
from tests.fixtures.servers import READER, SECRET, switch_login
from tests.fixtures.tables import Tables

pytestmark = pytest.mark.usefixtures("in_process")

SIX = time(6)


def test_a_reader_of_views_finds_the_facilities_whose_night_did_not_happen(tables: Tables) -> None:
    day = tables.batch.capture_day
    weekly = tables.add("weekly", publish_period="week")
    missing = tables.add("missing")
    for batch in (tables.batch, weekly):
        tables.fill(happy=60, sad=60, batch=batch)
        tables.summarize(batch)
    tables.fill(happy=5, sad=2, batch=replace(missing, capture_day=day - timedelta(1)))
    tables.summarize(replace(missing, capture_day=day - timedelta(1)))
    tables.add("closed", closed_weekdays=(f"{day:%a}".lower(),))
    tables.add("ended")
    tables.add("denied")
    tables.add("gone")
    erasure.erase_unlisted(
        tables.eraser, erasure.Target("erased", tables.add("erased").capture_day), None, SECRET
    )
    tables.execute(
        "UPDATE fer.facility SET permission_valid_until = CASE facility_id"
        " WHEN 'ended' THEN CAST(:day AS date) ELSE DATE '2099-01-01' END",
        day=day,
    )
    tables.execute(
        "INSERT INTO fer.finding (facility_id, check_name, subject, severity, meaning,"
        " closing_rule, first_day, last_day)"
        " VALUES ('denied', 'no_permission', '', 'warning', 'm', 'later day', :day, :day)",
        day=day,
    )
    tables.execute("UPDATE fer.facility SET is_in_registry = false WHERE facility_id = 'gone'")
    settings = Settings(_env_file=None, database_url=switch_login(tables.url, READER))
    morning = datetime.combine(day + timedelta(1), time(8), UTC)

    report = check_freshness(settings, morning, SIX)
    found = {each.facility_id: (each.state, each.expected_day) for each in report.facilities}
    assert found == {
        "north-mall": ("fresh", day),
        "weekly": ("missing", day),  # the day has one, but the week that ended with it has not
        "missing": ("missing", day),
        "closed": ("missing", day - timedelta(1)),
        "ended": ("not expected", None),
        "denied": ("not expected", None),
        "erased": ("not expected", None),
    }
    assert [each.newest_day for each in report.facilities if each.facility_id == "missing"] == [
        day - timedelta(1)
    ]
    assert not report.is_fresh
    assert report.checks[0].state == "not checked"


def test_the_command_prints_json_writes_metrics_and_says_by_its_exit_code(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("FER_ENV_FILE", "/dev/null")
    monkeypatch.setenv("FER_DATABASE_URL", switch_login(tables.url, READER))
    file = tmp_path / "freshness.prom"
    assert command.freshness(prometheus=file, json=True) == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed["is_fresh"] is False
    assert [each["facility_id"] for each in printed["facilities"]] == ["north-mall"]
    text = file.read_text()
    assert "fer_batch_freshness_database_up 1\n" in text
    assert 'day_missing{facility_id="north-mall",time_zone="' in text
    assert file.stat().st_mode & 0o777 == 0o644
    assert command.freshness() == 3
    assert "not checked" in capsys.readouterr().out


def test_without_a_database_the_metrics_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_ENV_FILE", "/dev/null")
    monkeypatch.setenv("FER_DATABASE_URL", "postgresql://fer@127.0.0.1:9/fer")
    file = tmp_path / "freshness.prom"
    with pytest.raises(DatabaseUnavailableError):
        command.freshness(prometheus=file)
    assert "fer_batch_freshness_database_up 0\n" in file.read_text()
    for wrong in ("6", "24:00", "06:00:00", "6 pm"):
        with pytest.raises(ConfigurationError, match="HH:MM"):
            command.freshness(by=wrong)
