"""Runs after each nightly summary: returns the facility days whose figures are complete."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, task

SATISFACTION_DAILY = Asset("satisfaction_daily")

with DAG("after_satisfaction", schedule=[SATISFACTION_DAILY], catchup=False) as dag:

    @task
    def list_complete_days(triggering_asset_events: Any) -> list[str]:
        events = triggering_asset_events[SATISFACTION_DAILY]
        partitions = [each for event in events for each in event.extra["partitions"]]
        days = {(p["facility_id"], p["capture_day"]) for p in partitions if p["is_complete"]}
        return [f"{facility_id} {capture_day}" for facility_id, capture_day in sorted(days)]

    list_complete_days()
