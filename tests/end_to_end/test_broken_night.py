"""A broken night in a real Airflow: each trouble ends as its kind says, and none tells a secret.

Three runs, one after the other: the first, of a usual night, is what a deadline is measured by; in
the second the database refuses the login; in the third one facility is fine, one has broken
images, one's bucket was never made, one's keys are refused, and one's images may be listed and not
read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from botocore.credentials import Credentials
from psycopg import sql

from fer_batch.stack.airflow_api import RunState
from fer_batch.stack.postgres import ADMIN, OWNER
from fer_batch.stack.stack import BUCKET
from fer_batch.uploading import upload_many
from tests.end_to_end.airflow_stack import (
    BROKEN,
    DAG_ID,
    DENIED,
    FINE,
    GONE,
    REGISTRY,
    STRANGER,
    Airflow,
    elsewhere,
    of,
    states,
)
from tests.end_to_end.conftest import crop
from tests.support.faulty_s3 import Fault, faulty

pytestmark = pytest.mark.timeout(1200)

USUAL_DAY, REFUSED_DAY, BROKEN_DAY = (date(2025, 4, day) for day in (7, 8, 9))
PASSWORD, TOKEN, EXTRA = (f"canary-{name}-7Qx9/+@Zk" for name in ("password", "token", "extra"))

KEEPERS = {
    *("env", "airflow.cfg", "passwords.json", "password", "api_secret_key", "jwt_secret"),
    *("fernet_secret", "password-airflow", "password-fer", "password-postgres"),
    *("secret_access_key", "s3.json", "security.toml"),
}
"""The files of the local stack that are there to hold a secret."""


@dataclass(frozen=True)
class Nights:
    """The runs that fail, at their end."""

    refused: RunState
    broken: RunState


@pytest.fixture(scope="module")
def nights(airflow: Airflow) -> Nights:
    airflow.connect(
        "fer_s3_stranger",
        conn_type="aws",
        login="stranger",
        password=PASSWORD,
        extra=f'{{"aws_session_token": "{TOKEN}", "api_key": "{EXTRA}"}}',
    )
    airflow.success(airflow.trigger(USUAL_DAY, FINE))
    with login_refused(airflow):
        refused = airflow.end(airflow.trigger(REFUSED_DAY, FINE))
    airflow.upload(FINE, BROKEN_DAY, happy=30, sad=10)
    whole = crop(True, ".jpg")
    damaged = {"empty.jpg": b"", "cut.jpg": whole[: len(whole) // 2], "page.jpg": b"<html></html>"}
    images = {f"{n}.png": crop(True) for n in range(5)} | damaged
    items = [(f"{BROKEN}/{BROKEN_DAY}/{name}", data) for name, data in images.items()]
    upload_many(airflow.stack.settings(), airflow.stack.env()["FER_S3_BUCKET"], items)
    airflow.upload(DENIED, BROKEN_DAY, happy=40, sad=0)
    seaweed = airflow.stack.seaweed
    keys = Credentials(seaweed.access_key_id, seaweed.secret_access_key)
    with faulty(seaweed.endpoint, BUCKET, keys) as proxy:
        proxy.faults = [Fault("403", f"{DENIED}/")]
        denied = elsewhere(DENIED, "UTC", f'endpoint = "{proxy.endpoint}"\n')
        airflow.stack.write_registry(f"{REGISTRY}\n{denied}")
        everyone = (FINE, BROKEN, GONE, STRANGER, DENIED)
        broken = airflow.end(airflow.trigger(BROKEN_DAY, *everyone))
    airflow.stack.write_registry(REGISTRY)
    return Nights(refused, broken)


class login_refused:  # noqa: N801
    """PostgreSQL refuses fer-batch's login, as after somebody changed the password."""

    def __init__(self, airflow: Airflow) -> None:
        self._postgres = airflow.stack.postgres
        self._right = (self._postgres.folder / f"password-{OWNER}").read_text()

    def __enter__(self) -> None:
        self._set("another")

    def __exit__(self, *_: object) -> None:
        self._set(self._right)

    def _set(self, password: str) -> None:
        statement = sql.SQL("alter role {} password {}").format(
            sql.Identifier(OWNER), sql.Literal(password)
        )
        with psycopg.connect(self._postgres.url("postgres", ADMIN)) as connection:
            connection.execute(statement)


def test_a_refused_login_fails_at_once_and_says_what_to_do(
    airflow: Airflow, nights: Nights
) -> None:
    assert nights.refused.state == "failed"
    (sync,) = of(nights.refused, "sync_facilities")
    assert (sync.state, sync.try_number) == ("failed", 1)
    log = airflow.log(nights.refused, "sync_facilities")
    assert "the database refuses the login" in log
    assert "Check user, password and database of FER_DATABASE_URL" in log
    assert "Retry policy decision" in log
    assert states(nights.refused)["score"] == "upstream_failed"


def test_each_facility_of_a_broken_night_ends_as_its_trouble_says(
    airflow: Airflow, nights: Nights
) -> None:
    run = nights.broken
    shards = {task.name: (task.state, task.try_number) for task in of(run, "score")}
    reds = {name for name, (state, _) in shards.items() if state == "failed"}
    assert all(DENIED in name for name in reds)
    assert {shards[name][1] for name in reds} == {1}
    assert {t: s for t, s in states(run).items() if t != "score"} == {
        "sync_facilities": "success",
        "list_images": "success",
        "plan_shards": "success",
        "summarise": "success",
        "check_data": "failed",
        "report": "success",
        "watcher": "failed",
    }
    denied = airflow.summary(DENIED, BROKEN_DAY)
    assert (denied["images"], denied["images_pending"], denied["is_complete"]) == (40, 40, False)
    assert "denies access" in airflow.log(run, "score")
    fine = airflow.summary(FINE, BROKEN_DAY)
    assert (fine["is_complete"], fine["happy"], fine["sad"]) == (True, 30, 10)
    outcomes = airflow.rows(
        "select outcome, count(*) as n from fer.image_result"
        " where facility_id = %s and capture_day = %s group by 1",
        BROKEN,
        BROKEN_DAY,
    )
    assert {row["outcome"]: row["n"] for row in outcomes} == {
        "scored": 5,
        "empty": 1,
        "unreadable": 1,
        "unsupported": 1,
    }
    assert airflow.summary(BROKEN, BROKEN_DAY)["is_complete"]
    for name in (GONE, STRANGER):
        assert not airflow.summary(name, BROKEN_DAY)["is_complete"]
    log = airflow.log(run, "check_data")
    assert "'never-made'" in log
    assert "Create it, or correct the facility's `bucket`" in log
    assert "refuses the keys" in log
    assert "Correct FER_S3_CREDENTIALS__STRANGER__ACCESS_KEY_ID" in log


def test_a_late_run_misses_its_deadline_and_somebody_hears_of_it(
    airflow: Airflow, nights: Nights
) -> None:
    run = nights.broken
    with psycopg.connect(airflow.metadata_url) as connection:
        ends = connection.execute(
            "select d.missed, c.state from dag_run r join deadline d on d.dagrun_id = r.id"
            " join callback c on c.id = d.callback_id where r.run_id = %s",
            [run.run_id],
        ).fetchall()
    assert ends == [(True, "success")]
    folder = airflow.stack.airflow.folder / "logs" / "executor_callbacks" / DAG_ID / run.run_id
    (told,) = (path.read_text() for path in folder.iterdir())
    assert f"run {run.run_id} of {DAG_ID} has not succeeded by" in told


def secrets_of(airflow: Airflow) -> dict[str, str]:
    """Every secret that is in a Connection, a setting or Airflow's configuration."""
    stack = airflow.stack
    kept = [p for p in stack.folder.rglob("*") if p.name in KEEPERS and "." not in p.name]
    found = {p.name: p.read_text().strip() for p in kept if p.name != "env"}
    return found | {"canary password": PASSWORD, "canary token": TOKEN, "canary extra": EXTRA}


def holding(text: str, secrets: dict[str, str]) -> set[str]:
    """The secrets that stand in a text, as they are or as in a URL."""
    forms = {n: {s, quote(s, safe=""), s.replace("/", r"\/")} for n, s in secrets.items()}
    return {name for name, written in forms.items() if any(form in text for form in written)}


def rows_of(url: str) -> Iterator[tuple[str, str]]:
    """Every row of every table of a database, as `table`, text."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select table_schema, table_name from information_schema.tables"
            " where table_schema not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            query = sql.SQL("select t::text from {} t").format(sql.Identifier(schema, table))
            for (text,) in connection.execute(query):
                yield table, text


def test_no_secret_stands_in_a_log_a_report_or_a_table(airflow: Airflow, nights: Nights) -> None:
    secrets = secrets_of(airflow)
    assert {"password-fer", "secret_access_key", "jwt_secret", "fernet_secret"} <= set(secrets)

    seen: dict[str, set[str]] = {}
    for url in (airflow.metadata_url, airflow.stack.env()["FER_DATABASE_URL"]):
        for table, text in rows_of(url):
            seen.setdefault(table, set()).update(holding(text, secrets))
    assert {
        *("xcom", "rendered_task_instance_fields", "log", "task_instance", "connection"),
        *("callback", "dag_run", "asset_event", "batch", "facility", "satisfaction_summary"),
    } <= set(seen)
    assert {table: found for table, found in seen.items() if found} == {}

    files = [path for path in readable(airflow.stack.folder) if path.name not in KEEPERS]
    assert {".log", ".html"} <= {path.suffix for path in files}
    texts = {path: path.read_text(errors="replace") for path in files}
    assert any("refuses the keys" in text for text in texts.values())
    assert {path: found for path, text in texts.items() if (found := holding(text, secrets))} == {}


def test_files_that_hold_a_secret_are_nobody_elses_to_read(
    airflow: Airflow, nights: Nights
) -> None:
    modes: dict[str, Any] = {
        path.name: f"{path.stat().st_mode & 0o777:o}"
        for path in readable(airflow.stack.folder)
        if path.name in KEEPERS
    }
    assert modes
    assert {name: mode for name, mode in modes.items() if mode != "600"} == {}


def readable(folder: Path) -> list[Path]:
    """The files of the stack, without those in which its servers keep their data."""
    data = {folder / "postgres" / "cluster", folder / "s3" / "data"}
    return [p for p in folder.rglob("*") if p.is_file() and not data & set(p.parents)]
