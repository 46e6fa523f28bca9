"""A bucket, a database and a registry of the test's own, and a CNN: bright crops are Happy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row

from fer_batch import nightly
from fer_batch.settings import Settings
from tests.support.models import write_tiny_cnn

if TYPE_CHECKING:
    from tests.end_to_end.airflow_stack import Airflow

DAY = date(2026, 11, 20)

PERMISSION = """
[facility.{name}.permission]
purpose = "test"
lawful_basis = "consent"
approved_by = "the test"
valid_until = 2099-12-31
"""

FACILITY = """
[facility.{name}]
name = "{name}"
time_zone = "Europe/Berlin"
image_kind = "{kind}"
target_share = 0.5
"""


def facility(name: str, kind: str = "crops", more: str = "", permission: str = PERMISSION) -> str:
    return (FACILITY + more + permission).format(name=name, kind=kind)


def crop(is_happy: bool, extension: str = ".png") -> bytes:
    """A face of this test's CNN: bright is Happy, dark is Sad."""
    done, data = cv2.imencode(extension, np.full((48, 48), 230 if is_happy else 20, np.uint8))
    assert done
    return data.tobytes()


@dataclass(frozen=True)
class Night:
    """Everything a test needs to run a day and to look at what came out."""

    settings: Settings
    s3: Any

    def registry(self, *facilities: str) -> None:
        self.settings.facilities_file.write_text("\n".join(facilities))

    def put(self, key: str, data: bytes) -> None:
        self.s3.client.put_object(Bucket=self.s3.bucket, Key=key, Body=data)

    def fill(self, name: str, happy: int, sad: int, day: date = DAY) -> None:
        for number in range(happy + sad):
            self.put(f"{name}/{day}/{number:04}.png", crop(number < happy))

    def open(self, run_id: str = "test", **selection: Any) -> nightly.Run:
        chosen = nightly.Selection(run_id=run_id, **{"capture_day": DAY, **selection})
        return nightly.Run(self.settings, chosen)

    def run(self, run_id: str = "test", **selection: Any) -> Sequence[dict[str, Any]]:
        """The findings of a whole run."""
        return nightly.run_all(self.open(run_id, **selection))[1]

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        url = self.settings.database_url
        assert url is not None
        with psycopg.connect(url.get_secret_value(), row_factory=dict_row) as connection:
            return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]

    def outcomes(self, name: str) -> dict[str, int]:
        rows = self.rows(
            "select outcome, count(*) as n from fer.image_result where facility_id = %s group by 1",
            name,
        )
        return {row["outcome"]: row["n"] for row in rows}

    def summary(self, name: str) -> dict[str, Any]:
        (row,) = self.rows("select * from fer.satisfaction_daily where facility_id = %s", name)
        return row

    def snapshot(self) -> dict[str, list[dict[str, Any]]]:
        """Everything of the result tables, down to when each row was written."""
        return {
            table: self.rows(f"select * from fer.{table} order by 1, 2, 3, 4")  # noqa: S608
            for table in ("image", "image_result", "face_result", "satisfaction_summary")
        }

    def with_settings(self, **changes: Any) -> Night:
        return replace(self, settings=self.settings.model_copy(update=changes))


@pytest.fixture
def night(stack_settings: Settings, s3: Any, tmp_path: Path) -> Night:
    folder = tmp_path / "cnn"
    folder.mkdir()
    card = write_tiny_cnn(folder)
    return Night(stack_settings.model_copy(update={"model_card": card}), s3)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The S3 operations that this process sends from now on."""
    import botocore.client

    sent: list[str] = []
    original = botocore.client.BaseClient._make_api_call

    def noted(self: Any, name: str, parameters: Any) -> Any:
        sent.append(name)
        return original(self, name, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", noted)
    return lambda: sent


@pytest.fixture(scope="package")
def airflow(servers_dir: Path) -> Iterator[Airflow]:
    """The Airflow of all tests of this folder."""
    from tests.end_to_end.airflow_stack import airflow_running

    with airflow_running(servers_dir / "nightly-in-airflow") as running:
        yield running
