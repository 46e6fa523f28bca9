"""Shared by tests of the nightly commands: the option of their day, and the number of rows."""

from __future__ import annotations

from tests.fixtures.night import DAY, Night

ON_DAY = ("--capture-day", DAY.isoformat())
TABLES = ("batch", "facility", "image", "image_result", "face_result", "satisfaction_summary",
          "model_version")  # fmt: skip


def row_counts(night: Night) -> dict[str, int]:
    return {name: night.query(f"select count(*) as n from fer.{name}")[0]["n"]  # noqa: S608
            for name in TABLES}  # fmt: skip
