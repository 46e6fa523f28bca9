"""Which audit corrects which summary, and what its labels count."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from fer_batch.records import Batch
from fer_batch.satisfaction import audits, comparisons, periods, revisions
from fer_batch.satisfaction.audits import Audits
from tests.fixtures.tables import VERSION, Tables
from tests.support.audits import build_insert

MONDAY = date(2026, 3, 2)
SUNDAY = MONDAY + timedelta(6)
LOCAL = [[60, 0, 10], [0, 12, 8], [5, 5, 110]]
FEW = [[12, 0, 3], [0, 4, 1], [1, 1, 18]]
FAR = date(2026, 12, 31)


def fill(tables: Tables, *days: date) -> None:
    for day in days:
        tables.fill(60, 30, Batch("north-mall", day), neither=60)


def summarize(tables: Tables, *days: date, is_asked: bool = False) -> list[dict[str, Any]]:
    batches = [Batch("north-mall", day) for day in days]
    with tables.transaction() as connection:
        written = revisions.write_summaries(
            connection, batches, VERSION, tables.facilities, "run-1", is_asked=is_asked
        )
        asked = (days[0], days[-1]) if is_asked else None
        periods.write_period_summaries(connection, batches, tables.facilities, "run-1", asked=asked)
        comparisons.write_changes(connection, batches, tables.facilities, "run-1")
    return written


def test_an_audit_holds_from_its_date_until_it_expires(tables: Tables) -> None:
    insert = build_insert(tables)
    first = insert(LOCAL, MONDAY + timedelta(1), MONDAY + timedelta(4))
    second = insert(FEW, MONDAY + timedelta(3), MONDAY + timedelta(5))
    insert(LOCAL, MONDAY, FAR, version="b" * 64)  # of another model version
    insert(LOCAL, MONDAY, FAR, facility_id=tables.add("outlet").facility_id)
    days = [MONDAY + timedelta(n) for n in range(6)]
    with tables.transaction() as connection:
        known = Audits(connection)

        def find(day: date, **others: Any) -> int | None:
            found = known.find("north-mall", VERSION, day, **others)
            return None if found is None else found.audit_id

        assert [find(day) for day in days] == [None, first, first, second, second, None]
        # A summary keeps the audit that it has, unless a newer one holds.
        assert [find(day, used_id=second) for day in days] == [*[second] * 5, None]
        assert find(days[3], used_id=first) == second
        assert [find(day, is_asked=True) for day in days] == [*[second] * 5, None]
        assert known.get("north-mall", VERSION, None) is None
        assert find(days[5], used_id=second) is None  # expired


def test_labels_count_by_true_class(tables: Tables) -> None:
    """Two raters who disagree count in halves, a settlement alone, can't tell as neither."""
    number = build_insert(tables)(FEW, MONDAY, FAR)
    tables.execute(
        "INSERT INTO fer.audit_label (audit_id, face_number, facility_id, rater, is_settlement,"
        " label) VALUES (:a, 1, 'north-mall', 'Bo', false, 'sad'),"
        " (:a, 2, 'north-mall', 'Bo', false, 'cannot_tell'),"
        " (:a, 3, 'north-mall', 'Bo', false, 'sad'), (:a, 3, 'north-mall', 'Cy', true, 'happy')",
        a=number,
    )
    with tables.transaction() as connection:
        (found,) = audits.load_audits(connection, "north-mall", VERSION)
    assert found.labels == 40
    expected = np.array(FEW, float)
    expected[:, 0] += [-1, 0.5, 0.5]
    np.testing.assert_allclose(found.counts, expected)


def test_only_later_days_and_periods_use_a_new_audit(tables: Tables) -> None:
    days = [MONDAY + timedelta(n) for n in range(7)]
    fill(tables, *days)
    before = summarize(tables, *days)
    number = build_insert(tables)(LOCAL, SUNDAY, FAR)
    again = summarize(tables, *days)
    assert [row["is_new_revision"] for row in again] == [*[False] * 6, True]
    assert [row["audit_id"] for row in again] == [*[None] * 6, number]
    assert (again[6]["method"], again[6]["audit_labels"], again[6]["reason"]) == ("local", 210, "")
    assert again[6]["called_happy"] == before[6]["called_happy"]
    week = "SELECT audit_id, method, reason FROM fer.satisfaction_period WHERE period = 'week'"
    assert tables.query(week) == [(number, "local", "")]  # it ends with a day of the audit
    changes = "SELECT capture_day FROM fer.satisfaction_change WHERE comparison = 'period before'"
    assert tables.query(f"{changes} ORDER BY 1") == [(day,) for day in days[1:6]]
    # Earlier days on request, as a new revision with the reason. No later run takes it back.
    asked = summarize(tables, *days, is_asked=True)
    assert [row["revision"] for row in asked] == [2] * 7
    assert [row["reason"] for row in asked] == [*[f"re-estimated with audit {number}"] * 6, ""]
    assert not any(row["is_new_revision"] for row in summarize(tables, *days))
    assert tables.query(f"{changes} ORDER BY 1") == [(day,) for day in days[1:]]


def test_few_labels_need_a_card(tables: Tables) -> None:
    """Below 200 labels the rates stay `benchmark`; without the card's matrix they stay `raw`."""
    build_insert(tables)(FEW, MONDAY, FAR)
    fill(tables, MONDAY)
    (summary,) = summarize(tables, MONDAY)
    assert (summary["method"], summary["audit_labels"]) == ("benchmark", 40)
    assert 0 < summary["benchmark_weight"] < 1
    tables.execute('UPDATE fer.model_version SET card = \'{"name": "test"}\'')
    (raw,) = summarize(tables, MONDAY)
    assert (raw["method"], raw["audit_id"], raw["verdict"]) == ("raw", None, "no verdict")
    build_insert(tables)(LOCAL, MONDAY, FAR)
    (local,) = summarize(tables, MONDAY)
    assert (local["method"], local["verdict"]) == ("local", "no target")


@pytest.mark.parametrize(("erased", "stays"), [(3, True), (40, False)])
def test_a_few_erased_labels_do_not_move_a_published_figure(
    tables: Tables, erased: int, stays: bool
) -> None:
    build_insert(tables)(LOCAL, MONDAY, FAR)
    fill(tables, MONDAY)
    (before,) = summarize(tables, MONDAY)
    tables.execute("DELETE FROM fer.audit_face WHERE face_number <= :n", n=erased)
    (after,) = summarize(tables, MONDAY)
    assert after["is_new_revision"] is not stays
    assert (after["happy_rate"] == before["happy_rate"]) is stays
    assert after["audit_labels"] == (210 if stays else 170)


def test_a_new_audit_corrects_the_published_faces_not_the_late_ones(tables: Tables) -> None:
    fill(tables, MONDAY)
    (before,) = summarize(tables, MONDAY)
    number = build_insert(tables)(LOCAL, MONDAY, FAR)
    batch = Batch("north-mall", MONDAY)
    tables.list([*(f"{n:06d}.jpg" for n in range(150)), *(f"late{n}.jpg" for n in range(4))], batch)
    tables.write(*(tables.build_score(image) for image in tables.list_work(batch)))
    (after,) = summarize(tables, MONDAY)
    assert (after["faces"], after["faces_scored"], after["audit_id"]) == (150, 154, number)
    assert after["called_happy_rate"] == before["called_happy_rate"]
    assert after["happy_rate"] != before["happy_rate"]
