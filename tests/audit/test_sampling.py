"""The draw of an audit: the same probability for each face, few of a session, by the seed."""

from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from fer_batch.audit import precision, sampling
from fer_batch.audit.labeling import order_faces
from fer_batch.audit.sampling import choose_positions, space_positions
from fer_batch.database import roles
from fer_batch.deletion import erasure
from fer_batch.errors import ConfigurationError, PermanentError
from fer_batch.records import Batch
from fer_batch.settings import Settings
from tests.fixtures.night import PERMISSION, format_facility
from tests.fixtures.servers import INSPECTOR, SECRET, build_settings, switch_login
from tests.fixtures.tables import CARD, Tables

MATRIX = np.array(CARD["confusions"]["PublicTest"]["plurality"]["48"], np.float64)


@given(faces=st.integers(1, 120), data=st.data())
def test_each_face_is_drawn_with_the_same_probability(faces: int, data: Any) -> None:
    wanted = data.draw(st.integers(1, faces))
    drawn = [space_positions(faces, wanted, start) for start in range(faces)]
    assert all(len(set(each)) == wanted for each in drawn)
    times = Counter(position for each in drawn for position in each)
    assert times == dict.fromkeys(range(faces), wanted)


@given(faces=st.integers(1, 5000), many=st.integers(1, 400), seed=st.integers(0), data=st.data())
def test_a_session_gives_few_faces(faces: int, many: int, seed: int, data: Any) -> None:
    positions = choose_positions(faces, many, seed)
    assert positions == choose_positions(faces, many, seed)
    wanted = min(many, faces)
    assert len(set(positions)) == wanted
    assert 0 <= min(positions) <= max(positions) < faces
    first = data.draw(st.integers(0, faces - 1))
    size = data.draw(st.integers(1, faces - first))
    of_session = [p for p in positions if first <= p < first + size]
    assert len(of_session) <= math.ceil(size * wanted / faces)


def test_each_rater_has_an_order_of_their_own() -> None:
    numbers = list(range(1, 201))
    orders = [order_faces(seed, rater, numbers) for seed in (1, 2) for rater in ("Ada", "Bo")]
    assert all(sorted(order) == numbers for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == order_faces(1, "Ada", numbers[::-1])


def test_labels_are_expected_to_make_intervals_narrower() -> None:
    """As measured in docs/statistics.md: a day alone, and four weeks with many labels."""

    def expect(labels: int, **others: Any) -> dict[str, precision.Expectation]:
        arguments: dict[str, Any] = {
            "days": 6,
            "days_a_week": 6,
            "design_effect": 2,
            "confusion": MATRIX,
            "publish_period": "day",
        }
        expected = precision.expect((500, 150, 1150), labels=labels, **(arguments | others))
        return {each.period: each for each in expected}

    few, many = expect(200), expect(1000)
    assert [few[period].faces for period in few] == [300, 1800, 7200]
    for period in few:
        assert (few[period].width_without or 0) > few[period].width > many[period].width
    assert 0.2 < (few["day"].width_without or 0) < 0.4
    assert many["four weeks"].width < 0.08
    assert list(expect(200, publish_period="week")) == ["week", "four weeks"]
    assert {each.width_without for each in expect(200, confusion=None).values()} == {None}


# ---------------------------------------------------------------- in Postgres


@pytest.fixture
def settings(tables: Tables, tmp_path: Path) -> Settings:
    """Those of an inspector of north-mall, with a registry of this facility and another."""
    file = tmp_path / "facilities.toml"
    file.write_text(format_facility("north-mall") + format_facility("outlet"))
    roles.grant(tables.admin_url, INSPECTOR, "inspector", ["north-mall"])
    return build_settings(switch_login(tables.url, INSPECTOR), facilities_file=file)


def fill(tables: Tables, *, days: int = 2, images: int = 60) -> None:
    """Days of one camera in order of time: three images of a visit, a visit every minute and
    a half; the last two days of the window have the same content in their first images."""
    tables.add("north-mall", name_template="{camera}_{captured_at:%H%M%S}.jpg")
    for age in range(days):
        batch = Batch("north-mall", tables.batch.capture_day + timedelta(age))
        seconds = [36_000 + 90 * (n // 3) + n % 3 for n in range(images)]
        names = [f"till_{s // 3600:02}{s // 60 % 60:02}{s % 60:02}.jpg" for s in seconds]
        prefix = f"north-mall/{batch.capture_day}/"
        tables.list(
            {f"{prefix}{name}": f"{age}-{max(n, 1)}" for n, name in enumerate(names)}, batch
        )
        tables.write(*(tables.build_score(image) for image in tables.list_work(batch)))
        tables.summarize(batch)


def read_faces(tables: Tables, audit_id: int) -> list[Any]:
    return list(
        tables.query(
            "SELECT capture_day, image_key, face_index, session_number FROM fer.audit_face"
            " WHERE audit_id = :audit_id ORDER BY face_number",
            audit_id=audit_id,
        )
    )


def test_a_draw_is_reproducible_and_spread_over_sessions(
    tables: Tables, settings: Settings
) -> None:
    fill(tables)
    drawn = sampling.sample(settings, "north-mall", 40, seed=7)
    # The first two images of a day have the same content: their faces count once.
    assert (drawn.audit.faces_in_window, drawn.audit.faces_drawn, drawn.days) == (118, 40, 2)
    assert drawn.audit.created_by == INSPECTOR
    faces = read_faces(tables, drawn.audit.audit_id)
    per_session = Counter(face.session_number for face in faces)
    assert len({(face.capture_day, face.image_key) for face in faces}) == 40
    assert max(per_session.values()) <= 2
    assert len(per_session) == drawn.sessions >= 20
    assert tables.query("SELECT DISTINCT called_class FROM fer.audit_result") == [("happy",)]
    # Another order of rows and other statistics change nothing; another seed does.
    tables.execute("UPDATE fer.image SET size_bytes = size_bytes + 1 WHERE image_key LIKE '%1.jpg'")
    again = sampling.sample(settings, "north-mall", 40, seed=7)
    assert read_faces(tables, again.audit.audit_id) == faces
    other = sampling.sample(settings, "north-mall", 40, seed=8)
    assert read_faces(tables, other.audit.audit_id) != faces


def test_the_window_has_published_days_only(tables: Tables, settings: Settings) -> None:
    fill(tables, days=1)
    later = Batch("north-mall", tables.batch.capture_day + timedelta(1))
    tables.list([f"north-mall/{later.capture_day}/till_10000{n}.jpg" for n in range(5)], later)
    tables.write(*(tables.build_score(image) for image in tables.list_work(later)))
    tables.summarize(later)  # too few faces to publish
    drawn = sampling.sample(settings, "north-mall", 1000)
    assert (drawn.audit.faces_drawn, drawn.audit.last_day) == (59, tables.batch.capture_day)
    with pytest.raises(ConfigurationError, match="no published results in this window"):
        sampling.sample(settings, "north-mall", 30, first_day=later.capture_day)
    with pytest.raises(ConfigurationError, match="no published results in this window"):
        sampling.sample(settings, "north-mall", 30, last_day=later.capture_day + timedelta(40))
    with pytest.raises(ConfigurationError, match="cannot be sampled"):
        sampling.sample(settings, "north-mall", 29)


def test_permission_erasure_and_grants_hold_as_for_a_run(
    tables: Tables, settings: Settings
) -> None:
    fill(tables)
    tables.fill(60, 60, tables.add("outlet"))
    tables.summarize(Batch("outlet", tables.batch.capture_day))
    erased = f"north-mall/{tables.batch.capture_day}/till_100130.jpg"
    erasure.erase(tables.eraser, erasure.Target("north-mall", None, erased), None, SECRET)
    drawn = sampling.sample(settings, "north-mall", 1000)
    keys = {face.image_key for face in read_faces(tables, drawn.audit.audit_id)}
    assert drawn.audit.faces_drawn == 117
    assert erased not in keys
    # The facility that was not granted has rows, but this login sees none.
    with pytest.raises(ConfigurationError, match="hold no face of outlet"):
        sampling.sample(settings, "outlet", 30)
    ended = PERMISSION.replace("2099-12-31", "2026-03-01")
    settings.facilities_file.write_text(format_facility("north-mall", permission=ended))
    with pytest.raises(PermanentError, match="permission ended on 2026-03-01"):
        sampling.sample(settings, "north-mall", 30)
    settings.facilities_file.write_text(
        format_facility("north-mall", permission=PERMISSION.replace("2020-01-01", "2026-03-02"))
    )
    assert sampling.sample(settings, "north-mall", 1000).days == 1  # the notice is of the later day


def test_the_job_cannot_draw_or_label(tables: Tables, settings: Settings) -> None:
    fill(tables, days=1)
    job = settings.model_copy(update={"database_url": SecretStr(tables.url)})
    with pytest.raises(PermanentError, match="permission denied"):
        sampling.sample(job, "north-mall", 30)
