"""Checks of audits: one that expires, or that was not scored by the model version."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.sql.checking import find, write_healthy_day
from tests.support.audits import build_insert

COUNTS = [[30, 0, 5], [0, 10, 5], [5, 5, 40]]


def test_an_audit_that_expires_is_found_30_days_before(tables: Any) -> None:
    write_healthy_day(tables)
    insert, day = build_insert(tables), tables.batch.capture_day
    insert(COUNTS, day - timedelta(100), day + timedelta(31))
    assert "audit_expires" not in find(tables)
    second = insert(COUNTS, day - timedelta(90), day + timedelta(30))
    assert find(tables)["audit_expires"] == (
        f"audit {second} corrects only days before 2026-03-31: label again with fer-batch audit "
        "sample"
    )
    third = insert(COUNTS, day - timedelta(80), day)
    assert find(tables)["audit_expires"] == (
        f"audit {third} has expired on 2026-03-01, the card alone corrects the rates: label again "
        "with fer-batch audit sample"
    )
    insert(COUNTS, day + timedelta(1), day + timedelta(181))  # not in force yet
    assert "audit_expires" in find(tables)
    insert(COUNTS, day, day + timedelta(180))
    assert "audit_expires" not in find(tables)


def test_an_audit_that_another_model_version_has_not_scored_is_found(tables: Any) -> None:
    write_healthy_day(tables)
    insert, day = build_insert(tables), tables.batch.capture_day
    insert(COUNTS, day + timedelta(1), day + timedelta(90), version="b" * 64)
    assert "audit_of_another_version" not in find(tables)
    number = insert(COUNTS, day, day + timedelta(90), version="b" * 64)
    assert find(tables)["audit_of_another_version"] == (
        f"audit {number} was not scored by this model version: run fer-batch audit refresh {number}"
    )
    insert(COUNTS, day, day + timedelta(90))
    assert "audit_of_another_version" not in find(tables)
