"""Findings of several nights in the database: the same, over, and returned ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from fer_batch.database import connections, ledger
from fer_batch.deletion import erasure, retention
from fer_batch.errors import ConfigurationError
from fer_batch.findings import history, storing
from fer_batch.findings.history import StoredFinding
from fer_batch.records import Batch
from fer_batch.settings import Settings
from tests.fixtures.servers import SECRET, migrate_to
from tests.fixtures.tables import Tables
from tests.satisfaction.conftest import Calendar

DAY = date(2026, 3, 1)
ALL = ("open", "acknowledged", "closed")


def day(number: int) -> date:
    return DAY + timedelta(number)


def find(number: int, check: str = "frozen_camera", **changes: Any) -> dict[str, Any]:
    return {
        "check": check,
        "severity": "warning",
        "facility_id": "north-mall",
        "capture_day": day(number),
        "meaning": "a camera is frozen",
        "finding": f"first {number}.jpg",
        "subject": "till",
        "closing_rule": "same camera",
    } | changes


def store(
    tables: Tables, days: list[int], *found: Mapping[str, Any], run_id: str = "run-1", **others: Any
) -> None:
    batches = [Batch(others.get("facility_id", "north-mall"), day(n)) for n in days]
    with tables.transaction() as connection:
        settings = others.get("settings") or Settings(_env_file=None)
        storing.store_findings(connection, batches, found, run_id, settings)


def read(tables: Tables, *states: Any, **others: Any) -> list[StoredFinding]:
    with tables.transaction() as connection:
        return history.list_findings(connection, None, states or ALL, **others)


def write_images(calendar: Calendar, number: int, *cameras: str) -> None:
    """Write the summary of a complete day with images of these cameras."""
    calendar.write_day(np.ones((20, 3)), day(number), cameras=dict.fromkeys(cameras, 30))


def test_a_finding_lasts_while_nights_show_it_and_is_closed_afterwards(calendar: Calendar) -> None:
    tables = calendar.tables
    store(tables, [0], find(0))
    store(tables, [0, 1], find(0), find(1), run_id="run-2")
    (finding,) = read(tables)
    assert (finding.check, finding.subject, finding.state) == ("frozen_camera", "till", "open")
    assert (finding.first_day, finding.last_day, finding.days) == (day(0), day(1), 2)
    assert finding.details == "first 1.jpg"
    with tables.transaction() as connection:
        (until,) = history.list_findings(connection, ["north-mall"], until=day(0))
        assert history.list_findings(connection, ["outlet"]) == []
    assert (until.last_day, until.days, until.details) == (day(0), 1, "first 0.jpg")
    write_images(calendar, 2, "door")  # nothing of the camera
    store(tables, [1, 2], find(1))
    assert [each.state for each in read(tables)] == ["open"]
    write_images(calendar, 3, "door", "till")
    store(tables, [1, 2, 3], find(1))
    (finding,) = read(tables)
    assert (finding.state, finding.closed_by) == ("closed", None)
    assert finding.closed_comment == "2026-03-04 does not show it"
    store(tables, [4], find(4))
    assert [(each.state, each.first_day) for each in read(tables)] == [
        ("open", day(4)),
        ("closed", day(0)),
    ]


def test_a_day_that_was_not_checked_or_not_finished_closes_nothing(calendar: Calendar) -> None:
    tables = calendar.tables
    store(tables, [0], find(0))
    write_images(calendar, 1, "till")  # its run failed before it stored the findings
    store(tables, [0], find(0))
    calendar.write_day([[5, 5, 5]], day(2), is_due=False, cameras={"till": 9})
    store(tables, [2])
    calendar.write_day([], day(3))  # no image
    store(tables, [3])
    assert [each.state for each in read(tables)] == ["open"]
    store(tables, [1])
    assert [each.state for each in read(tables)] == ["closed"]


def test_a_summary_that_is_newer_than_the_check_closes_nothing(calendar: Calendar) -> None:
    tables = calendar.tables
    store(tables, [0], find(0))
    store(tables, [1])
    write_images(calendar, 1, "till")
    store(tables, [0], find(0))
    assert [each.state for each in read(tables)] == ["open"]


def test_a_run_of_an_old_day_changes_nothing_but_the_history(calendar: Calendar) -> None:
    tables = calendar.tables
    for number in (2, 6):
        write_images(calendar, number, "till")
    store(tables, [5], find(5))
    store(tables, [2])
    assert [each.state for each in read(tables)] == ["open"]
    store(tables, [6])
    store(tables, [1, 2], find(1))
    assert [(each.state, each.first_day) for each in read(tables)] == [
        ("closed", day(1)),
        ("closed", day(5)),
    ]


def test_other_facilities_keep_their_findings(calendar: Calendar) -> None:
    tables = calendar.tables
    tables.add("tokyo", time_zone="Asia/Tokyo")
    store(tables, [0], find(0))
    calendar.write_day(np.ones((20, 3)), day(1), "tokyo", cameras={"till": 9})
    store(tables, [0, 1], find(0, facility_id="tokyo"), facility_id="tokyo")
    assert [(f.facility_id, f.state) for f in read(tables)] == [
        ("north-mall", "open"),
        ("tokyo", "closed"),
    ]


def test_two_cameras_and_two_pictures_of_one(tables: Tables) -> None:
    store(tables, [0], find(0), find(0, finding="first b.jpg"), find(0, subject="door"))
    assert [(f.subject, f.details) for f in read(tables)] == [
        ("door", "first 0.jpg"),
        ("till", "first 0.jpg; first b.jpg"),
    ]
    store(tables, [0], find(0, subject="door"))
    assert [(f.subject, f.state) for f in read(tables)] == [("door", "open"), ("till", "closed")]


def test_an_invalid_entry_replaces_nothing_and_is_over_when_it_is_corrected(tables: Tables) -> None:
    invalid = find(1, "invalid_in_registry", severity="error", subject="", closing_rule="later day")
    store(tables, [0], find(0))
    store(tables, [], find(0, "invalid_in_registry", subject="", closing_rule="later day"))
    store(tables, [], invalid)
    assert [(f.check, f.state, f.days) for f in read(tables)] == [
        ("invalid_in_registry", "open", 2),
        ("frozen_camera", "open", 1),
    ]
    store(tables, [1])  # the run is cleared
    assert {f.check: f.state for f in read(tables)} == {
        "invalid_in_registry": "closed",
        "frozen_camera": "open",
    }


def test_findings_of_a_facility_that_left_the_registry_are_closed(tables: Tables) -> None:
    tables.add("outlet")
    store(tables, [0], find(0))
    with tables.transaction() as connection:
        ledger.sync_facilities(connection, {"outlet": tables.facilities["outlet"]})
    store(tables, [0], facility_id="outlet")
    (finding,) = read(tables)
    assert finding.closed_comment == "the facility is not in the registry any more"


def test_concurrent_runs_open_one_finding(tables: Tables) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: store(tables, [n], find(n)), range(6)))
    (finding,) = read(tables)
    assert (finding.first_day, finding.last_day, finding.days) == (day(0), day(5), 6)


def change(tables: Tables, how: Any, *numbers: int, by: str = "Ada", comment: str = "x") -> Any:
    with tables.transaction() as connection:
        return how(connection, numbers, by, comment)


def test_an_acknowledged_finding_stays_listed(calendar: Calendar) -> None:
    tables = calendar.tables
    store(tables, [0], find(0))
    number = read(tables)[0].finding_id
    (finding,) = change(tables, history.acknowledge, number, comment=" ordered ")
    known = (finding.state, finding.acknowledged_by, finding.acknowledged_comment)
    assert known == ("acknowledged", "Ada", "ordered")
    assert change(tables, history.acknowledge, number, by="Bob", comment="ordered") == [finding]
    (changed,) = change(tables, history.acknowledge, number, by="Bob", comment="arrived")
    assert (changed.acknowledged_by, changed.acknowledged_comment) == ("Bob", "arrived")
    store(tables, [1], find(1))
    assert [(f.state, f.last_day) for f in read(tables)] == [("acknowledged", day(1))]
    write_images(calendar, 2, "till")
    store(tables, [2])
    (over,) = read(tables)
    assert (over.state, over.acknowledged_comment) == ("closed", "arrived")
    with pytest.raises(ConfigurationError, match=f"finding {number} is closed"):
        change(tables, history.acknowledge, number)


def test_a_closed_finding_returns_with_a_later_day_as_a_new_one(tables: Tables) -> None:
    store(tables, [0, 1], find(0), find(1))
    number = read(tables)[0].finding_id
    (finding,) = change(tables, history.close, number, comment="camera replaced")
    assert (finding.state, finding.closed_by) == ("closed", "Ada")
    assert change(tables, history.close, number, by="Bob", comment="again") == [finding]
    store(tables, [0, 1], find(0), find(1))
    assert [f.state for f in read(tables)] == ["closed"]
    store(tables, [1, 2], find(1), find(2))
    assert [(f.state, f.first_day) for f in read(tables)] == [("open", day(2)), ("closed", day(0))]
    assert read(tables, "closed")[0].closed_comment == "camera replaced"


@pytest.mark.parametrize("how", [history.acknowledge, history.close])
@pytest.mark.parametrize(
    ("numbers", "by", "comment", "said"),
    [
        ([1, 7, 2**70, -1], "Ada", "x", f"there is no finding -1, 7, {2**70}"),
        ([1], "Ada", " \n", "the comment is empty"),
        ([1], "", "x", "the name is empty"),
        ([1], "Ada", "\udcff", "the comment is not valid UTF-8"),
    ],
)
def test_wrong_arguments_change_nothing(
    tables: Tables, how: Any, numbers: list[int], by: str, comment: str, said: str
) -> None:
    store(tables, [0], find(0))
    with pytest.raises(ConfigurationError, match=said):
        change(tables, how, *numbers, by=by, comment=comment)
    assert [f.state for f in read(tables)] == ["open"]


def test_an_erased_image_is_not_named_by_a_finding(tables: Tables) -> None:
    tables.fill(2, 0)
    tables.summarize()
    store(tables, [0], find(0, finding="first 000000.jpg"), find(0, subject="door"))
    door, till = read(tables)
    change(tables, history.acknowledge, till.finding_id, comment="000000.jpg is the poster")
    change(tables, history.close, door.finding_id, comment="not 000001.jpg")
    key = "000000.jpg"
    erasure.erase(tables.eraser, erasure.Target("north-mall", DAY, key), None, SECRET)
    till, door = read(tables)  # the closed one comes last
    assert (till.details, till.acknowledged_comment) == ("", "(erased)")
    assert (door.details, door.closed_comment) == ("", "not 000001.jpg")
    store(tables, [0], find(0, finding=f"first {key}"))  # found before the erasure
    assert key not in str(read(tables))
    with tables.transaction() as connection:
        ledger.begin_run(connection, "later", tables.version)
    store(tables, [0], find(0, finding="first 000001.jpg"), run_id="later")
    assert read(tables)[0].details == "first 000001.jpg"


def test_an_erased_day_has_no_findings(tables: Tables) -> None:
    tables.fill(1, 1)
    tables.summarize()
    store(tables, [0, 1], find(0), find(0, subject="door"), find(1))
    erasure.erase(tables.eraser, erasure.Target("north-mall", DAY), None, SECRET)
    assert [(f.subject, f.state, f.details) for f in read(tables)] == [
        ("till", "open", "first 1.jpg"),
        ("door", "closed", ""),
    ]


def test_a_withdrawn_day_leaves_no_open_finding(tables: Tables) -> None:
    tables.list([])
    tables.summarize()
    store(tables, [0], find(0, "day_without_images", subject="", closing_rule="later images"))
    erasure.erase(tables.eraser, erasure.Target("north-mall", DAY), None, SECRET)
    assert [(f.state, f.closed_comment) for f in read(tables)] == [
        ("closed", "the rows of its days were deleted")
    ]
    assert tables.query("SELECT * FROM fer.checked_day") == []


def test_retention_deletes_what_its_days_showed(tables: Tables) -> None:
    for number in range(2):
        tables.fill(1, 0, Batch("north-mall", day(number)))
    store(tables, [0, 1], find(0), find(1))
    retention.retain(tables.retainer, day(1))
    assert tables.query("SELECT capture_day, details FROM fer.finding_day") == [
        (day(1), "first 1.jpg")
    ]


def test_findings_of_the_version_before_become_open_findings(postgres_url: str) -> None:
    """Each problem is one finding, and the days that were shown stay known."""
    from fer_batch.database import schema

    engine = connections.create_engine(postgres_url)
    with connections.transaction(engine) as connection:
        migrate_to(connection, "0009")
        connection.execution_options(no_parameters=True).exec_driver_sql(
            "INSERT INTO fer.finding (facility_id, capture_day, check_name, severity, meaning,"
            " finding, run_id) SELECT 'north-mall', day, name, 'warning', 'm', text, 'run-1'"
            " FROM (VALUES (DATE '2026-03-01', 'frozen_camera', 'camera till: one picture'),"
            " ('2026-03-02', 'frozen_camera', 'camera till: a'),"
            " ('2026-03-02', 'frozen_camera', 'camera till: b'),"
            " ('2026-03-02', 'summary_missing', '9 images listed')) AS v (day, name, text)"
        )
    schema.upgrade(postgres_url)
    with connections.transaction(engine) as connection:
        found = history.list_findings(connection)
    assert [(f.check, f.subject, f.first_day, f.days, f.details) for f in found] == [
        ("frozen_camera", "till", DAY, 2, "camera till: a; camera till: b"),
        ("summary_missing", "", day(1), 1, "9 images listed"),
    ]
    engine.dispose()


def test_a_finding_is_new_to_the_run_that_opened_it_only_and_has_no_details(
    calendar: Calendar,
) -> None:
    tables = calendar.tables

    def begin_and_store(
        run_id: str, *found: Mapping[str, Any], days: Sequence[int] = (0, 1)
    ) -> list[dict[str, Any]]:
        with tables.transaction() as connection:
            ledger.begin_run(connection, run_id, tables.version)
        store(tables, [*days], *found, run_id=run_id)
        with tables.transaction() as connection:
            return history.list_new_findings(connection, ["north-mall"], run_id)

    (new,) = begin_and_store("night-1", find(0))
    assert new.pop("opened_at") == read(tables)[0].opened_at
    assert new == {
        "facility_id": "north-mall",
        "check": "frozen_camera",
        "subject": "till",
        "severity": "warning",
        "meaning": "a camera is frozen",
        "first_day": day(0),
        "last_day": day(0),
    }
    assert begin_and_store("night-2", find(0), find(1)) == []
    error = find(1, check="listing_failed", severity="error")
    assert [each["check"] for each in begin_and_store("night-3", find(1), error)] == [
        "listing_failed"
    ]
    # The run of an earlier night is cleared; its days do not show what later ones opened.
    again = begin_and_store("night-1", find(0), days=[0])
    assert [each["check"] for each in again] == ["frozen_camera"]
    with tables.transaction() as connection:
        assert history.list_new_findings(connection, ["outlet"], "night-3") == []
        assert history.list_new_findings(connection, ["north-mall"], "never began") == []
        # The message of an earlier run may be late: it names what is still open.
        [finding] = [
            each for each in history.list_findings(connection) if each.check == "listing_failed"
        ]
        history.close(connection, [finding.finding_id], "Ada", "repaired")
        assert history.list_new_findings(connection, ["north-mall"], "night-3") == []
