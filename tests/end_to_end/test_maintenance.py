"""The DAG `satisfaction_maintenance` in a real Airflow, with the login of the stack."""

from __future__ import annotations

from datetime import date

import psycopg
import pytest

from fer_batch.local.stack.stack import DATABASE
from tests.end_to_end.airflow_stack import Airflow, unpause

pytestmark = pytest.mark.timeout(1200)

DAG_ID = "satisfaction_maintenance"
OLD = date(2001, 1, 1)


def count_images(airflow: Airflow) -> int:
    (row,) = airflow.query("select count(*) as n from fer.image where capture_day = %s", OLD)
    return int(row["n"])


def test_the_dag_shows_and_then_deletes_what_has_expired(airflow: Airflow) -> None:
    with psycopg.connect(airflow.stack.postgres.build_url(DATABASE)) as connection:
        # As after a maintenance of yesterday: the nights of other tests are of old days.
        connection.execute(
            "insert into fer.retention (kind, before_day) values ('rows', '2000-01-01')"
        )
    unpause(airflow.api, DAG_ID)
    airflow.wait_for_scheduled_run(DAG_ID)  # it deletes, too
    with psycopg.connect(airflow.stack.postgres.build_url(DATABASE)) as connection:
        connection.execute("select fer.ensure_partitions(%s)", [[OLD]])
        connection.execute(
            "insert into fer.image (facility_id, capture_day, image_key, etag, size_bytes,"
            " first_seen_at, listed_at) values ('a', %s, 'k', 'e', 1, now(), now())",
            [OLD],
        )
    for dry_run, rows in ((True, 1), (False, 0)):
        run_id = airflow.api.trigger_dag_run(DAG_ID, {"dry_run": dry_run})
        run = airflow.wait_for_success(run_id, DAG_ID)
        (*_, images) = airflow.api.get_result(DAG_ID, run_id, "maintain")
        assert (images["setting"], images["count"]) == ("FER_RETENTION_DAYS", 1)
        assert "rows per image and face: 1 days before" in airflow.read_log(run, "maintain")
        assert count_images(airflow) == rows
    (record,) = airflow.query(
        "select deleted_by, images from fer.deletion where kind = 'retention'"
    )
    assert record == {"deleted_by": "fer_maintenance", "images": 1}
