"""Failures in a real Airflow: each has the expected task states and errors, and no secret leaks.

Two runs, one after the other, after a successful one, from whose duration the deadline is derived.
In the first the database rejects the login. In the second one facility has no problem, one has
damaged images, one a missing bucket, one rejected S3 keys, one has images that may be listed but
not read, and one an invalid entry in the registry.
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

from fer_batch.local.stack.airflow_api import RunState
from fer_batch.local.stack.postgres import ADMIN, WRITER
from fer_batch.local.stack.stack import BUCKET
from fer_batch.storage.writer import upload_many
from tests.end_to_end.airflow_stack import (
    BROKEN,
    DAG_ID,
    DENIED,
    FINE,
    GONE,
    REGISTRY,
    STRANGER,
    TYPO,
    Airflow,
    find_tasks,
    format_facility_in,
    get_states,
)
from tests.fixtures.night import encode_crop
from tests.support.faulty_s3 import Fault, running_proxy

pytestmark = pytest.mark.timeout(1200)

USUAL_DAY, REJECTED_DAY, BROKEN_DAY = (date(2025, 4, day) for day in (7, 8, 9))
PASSWORD, TOKEN, EXTRA = (f"canary-{name}-7Qx9/+@Zk" for name in ("password", "token", "extra"))

SECRET_FILES = {
    *("env", "airflow.cfg", "passwords.json", "password", "api_secret_key", "jwt_secret"),
    *("fernet_secret", "password-airflow", "password-fer", "password-fer_nightly"),
    *("password-postgres", "secret_access_key", "s3.json", "security.toml"),
}
"""The files of the local stack whose purpose is to store a secret."""


@dataclass(frozen=True)
class Nights:
    """The failed runs, after their end."""

    rejected_login: RunState
    broken: RunState


@pytest.fixture(scope="module")
def nights(airflow: Airflow) -> Nights:
    airflow.create_connection(
        "fer_s3_stranger",
        conn_type="aws",
        login="stranger",
        password=PASSWORD,
        extra=f'{{"aws_session_token": "{TOKEN}", "api_key": "{EXTRA}"}}',
    )
    airflow.wait_for_all()  # the login is rejected for every run
    if not airflow.has_successful_run():
        airflow.wait_for_success(airflow.trigger(USUAL_DAY, FINE))
    with login_rejected(airflow):
        rejected_login = airflow.wait(airflow.trigger(REJECTED_DAY, FINE))
    airflow.upload(FINE, BROKEN_DAY, happy=30, sad=10)
    valid = encode_crop(True, ".jpg")
    damaged = {"empty.jpg": b"", "cut.jpg": valid[: len(valid) // 2], "page.jpg": b"<html></html>"}
    images = {f"{n}.png": encode_crop(True, number=n) for n in range(5)} | damaged
    items = [(f"{BROKEN}/{BROKEN_DAY}/{name}", data) for name, data in images.items()]
    upload_many(airflow.stack.build_settings(), airflow.stack.build_env()["FER_S3_BUCKET"], items)
    airflow.upload(DENIED, BROKEN_DAY, happy=40, sad=0)
    seaweed = airflow.stack.seaweed
    keys = Credentials(seaweed.access_key_id, seaweed.secret_access_key)
    with running_proxy(seaweed.endpoint, BUCKET, keys) as proxy:
        proxy.faults = [Fault("403", f"{DENIED}/")]
        denied = format_facility_in(DENIED, "UTC", f'endpoint = "{proxy.endpoint}"\n')
        airflow.stack.write_registry(f"{REGISTRY}\n{denied}")
        facilities = (FINE, BROKEN, GONE, STRANGER, DENIED, TYPO)
        broken = airflow.wait(airflow.trigger(BROKEN_DAY, *facilities))
    airflow.stack.write_registry(REGISTRY)
    return Nights(rejected_login, broken)


class login_rejected:  # noqa: N801
    """PostgreSQL rejects the login of fer-batch, as after a change of the password."""

    def __init__(self, airflow: Airflow) -> None:
        self._postgres = airflow.stack.postgres
        self._password = (self._postgres.folder / f"password-{WRITER}").read_text()

    def __enter__(self) -> None:
        self._set_password("another")

    def __exit__(self, *_: object) -> None:
        self._set_password(self._password)

    def _set_password(self, password: str) -> None:
        statement = sql.SQL("alter role {} password {}").format(
            sql.Identifier(WRITER), sql.Literal(password)
        )
        with psycopg.connect(self._postgres.build_url("postgres", ADMIN)) as connection:
            connection.execute(statement)


def test_a_rejected_login_fails_without_retry_and_with_a_hint(
    airflow: Airflow, nights: Nights
) -> None:
    assert nights.rejected_login.state == "failed"
    (sync,) = find_tasks(nights.rejected_login, "sync_facilities")
    assert (sync.state, sync.try_number) == ("failed", 1)
    log = airflow.read_log(nights.rejected_login, "sync_facilities")
    assert "the database rejects the login" in log
    assert "Check user, password and database of FER_DATABASE_URL" in log
    assert "Retry policy decision" in log
    assert get_states(nights.rejected_login)["score"] == "upstream_failed"


def test_each_failing_facility_has_its_own_outcome_and_hint(
    airflow: Airflow, nights: Nights
) -> None:
    run = nights.broken
    shards = {task.name: (task.state, task.try_number) for task in find_tasks(run, "score")}
    failed = {name for name, (state, _) in shards.items() if state == "failed"}
    assert all(DENIED in name for name in failed)
    assert {shards[name][1] for name in failed} == {1}
    assert {t: s for t, s in get_states(run).items() if t != "score"} == {
        "sync_facilities": "success",
        "list_images": "success",
        "plan_shards": "success",
        "summarize": "success",
        "check_data": "failed",
        "report": "success",
        "export": "skipped",  # no place is set
        "notify": "success",
        "watcher": "failed",
    }
    denied = airflow.read_summary(DENIED, BROKEN_DAY)
    assert (denied["images"], denied["images_pending"], denied["is_complete"]) == (40, 40, False)
    assert "denies access" in airflow.read_log(run, "score")
    fine = airflow.read_summary(FINE, BROKEN_DAY)
    assert (fine["is_complete"], fine["faces"], fine["called_happy_rate"]) == (True, 40, 0.75)
    outcomes = airflow.query(
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
    assert airflow.read_summary(BROKEN, BROKEN_DAY)["is_complete"]
    for name in (GONE, STRANGER):
        assert not airflow.read_summary(name, BROKEN_DAY)["is_complete"]
    log = airflow.read_log(run, "check_data")
    assert "'never-made'" in log
    assert "Create it, or correct the facility's `bucket`" in log
    assert "unknown field wifi" in log
    assert "refuses the keys" in log
    assert "Correct FER_S3_CREDENTIALS__STRANGER__ACCESS_KEY_ID" in log


def test_a_failed_run_sends_one_mail_with_its_errors_and_a_link(
    airflow: Airflow, nights: Nights
) -> None:
    """From the DAG processor, which calls the callbacks of runs."""
    for run, parts in (
        (nights.rejected_login, ["sync_facilities: the database rejects the login", "Check user"]),
        (nights.broken, [f"{GONE}, Wed 9 Apr: listing_failed, error", f"{TYPO}, Wed 9 Apr: "]),
    ):
        mail = airflow.wait_for_mail("run failed", run.run_id)
        text = mail.get_content()
        link = f"{airflow.api.url}/dags/{DAG_ID}/runs/{quote(run.run_id, safe='')}"
        for part in (*parts, link, run.run_id):
            assert part in text
        assert PASSWORD not in text
        assert ".jpg" not in text


def test_a_late_run_misses_its_deadline_and_the_callback_logs_it(
    airflow: Airflow, nights: Nights
) -> None:
    run = nights.broken
    with psycopg.connect(airflow.metadata_url) as connection:
        deadlines = connection.execute(
            "select d.missed, c.state from dag_run r join deadline d on d.dagrun_id = r.id"
            " join callback c on c.id = d.callback_id where r.run_id = %s",
            [run.run_id],
        ).fetchall()
    assert deadlines == [(True, "success")]
    folder = airflow.stack.airflow.folder / "logs" / "executor_callbacks" / DAG_ID / run.run_id
    (log,) = (path.read_text() for path in folder.iterdir())
    assert f"run {run.run_id} of {DAG_ID} missed its deadline, " in log
    assert airflow.wait_for_mail("run is late", run.run_id)["To"] == "on-call@example.com"


def read_secrets(airflow: Airflow) -> dict[str, str]:
    """All secrets of Connections, settings and Airflow's configuration."""
    stack = airflow.stack
    paths = [p for p in stack.folder.rglob("*") if p.name in SECRET_FILES and "." not in p.name]
    secrets = {p.name: p.read_text().strip() for p in paths if p.name != "env"}
    return secrets | {"canary password": PASSWORD, "canary token": TOKEN, "canary extra": EXTRA}


def find_secrets(text: str, secrets: dict[str, str]) -> set[str]:
    """The secrets that a text contains, unchanged or URL-encoded."""
    forms = {n: {s, quote(s, safe=""), s.replace("/", r"\/")} for n, s in secrets.items()}
    return {name for name, spellings in forms.items() if any(form in text for form in spellings)}


def read_all_rows(url: str) -> Iterator[tuple[str, str]]:
    """Yield table name and text of every row of a database."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select table_schema, table_name from information_schema.tables"
            " where table_schema not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            query = sql.SQL("select t::text from {} t").format(sql.Identifier(schema, table))
            for (text,) in connection.execute(query):
                yield table, text


def test_no_log_report_or_table_contains_a_secret(airflow: Airflow, nights: Nights) -> None:
    secrets = read_secrets(airflow)
    passwords = {"password-fer", "password-fer_nightly"}
    assert passwords | {"secret_access_key", "jwt_secret", "fernet_secret"} <= set(secrets)

    leaks: dict[str, set[str]] = {}
    for url in (airflow.metadata_url, airflow.stack.build_env(as_admin=True)["FER_DATABASE_URL"]):
        for table, text in read_all_rows(url):
            leaks.setdefault(table, set()).update(find_secrets(text, secrets))
    assert {
        *("xcom", "rendered_task_instance_fields", "log", "task_instance", "connection"),
        *("callback", "dag_run", "asset_event", "batch", "facility", "satisfaction_summary"),
    } <= set(leaks)
    assert {table: names for table, names in leaks.items() if names} == {}

    files = [path for path in list_files(airflow.stack.folder) if path.name not in SECRET_FILES]
    assert {".log", ".html"} <= {path.suffix for path in files}
    texts = {path: path.read_text(errors="replace") for path in files}
    assert any("refuses the keys" in text for text in texts.values())
    assert {
        path: names for path, text in texts.items() if (names := find_secrets(text, secrets))
    } == {}


def test_only_the_owner_can_read_files_with_secrets(airflow: Airflow, nights: Nights) -> None:
    modes: dict[str, Any] = {
        path.name: f"{path.stat().st_mode & 0o777:o}"
        for path in list_files(airflow.stack.folder)
        if path.name in SECRET_FILES
    }
    assert modes
    assert {name: mode for name, mode in modes.items() if mode != "600"} == {}


def list_files(folder: Path) -> list[Path]:
    """The files of the stack, without the data files of its servers."""
    data = {folder / "postgres" / "cluster", folder / "s3" / "data"}
    return [p for p in folder.rglob("*") if p.is_file() and not data & set(p.parents)]
