"""Drift: faces unlike those of the audit give a finding, another day of the camera does not."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import cv2
import numpy as np
import pytest

from fer_batch.audit.drift import compute_reference
from fer_batch.database import connections
from fer_batch.imaging.decoding import Pixels
from fer_batch.imaging.faces import DetectedFace
from fer_batch.local.demo.day import NAME_TEMPLATE
from fer_batch.local.demo.drawing import Portrait
from fer_batch.local.demo.heads import Expression
from fer_batch.local.demo.visits import Mix, Traffic, draw_visits
from fer_batch.model.classifier import Classifier, find_shipped_card, load_artifact, score_faces
from fer_batch.pipeline import checks
from fer_batch.records import Batch, Box, CalledClass, ImageScore, Outcome
from fer_batch.satisfaction import periods
from fer_batch.settings import Settings
from tests.fixtures.tables import Tables

FIRST = date(2026, 3, 1)
WINDOW_DAYS = 3
LOOKS = {
    CalledClass.HAPPY: Expression("smile", 0.5),
    CalledClass.SAD: Expression("droop", 0.6),
    CalledClass.NEITHER: Expression("level"),
}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(Settings(_env_file=None, threads=1), load_artifact(find_shipped_card()))


class Camera:
    """A shop whose visitors the shipped CNN scores, day by day."""

    def __init__(self, tables: Tables, classifier: Classifier) -> None:
        self.tables, self.classifier = tables, classifier
        self.batch = tables.add("shop", name_template=NAME_TEMPLATE)

    def deliver(
        self, age: int, crops: dict[str, Pixels], *, side_px: int = 48, broken: int = 0
    ) -> Batch:
        """Score the crops of a day, by their names, and `broken` files."""
        face = DetectedFace(Box(0, 0, side_px, side_px))
        pixels = [cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY) for crop in crops.values()]
        scores = score_faces(
            self.classifier.classify(np.array(pixels)), [face] * len(crops), self.classifier.rule
        )
        batch = Batch("shop", FIRST + timedelta(age))
        prefix = f"shop/{batch.capture_day}/"
        keys = {f"{prefix}{name}.jpg": score for name, score in zip(crops, scores, strict=True)}
        self.tables.list([*keys, *(f"{prefix}till_0000{n:02}.jpg" for n in range(broken))], batch)
        self.tables.write(
            *(
                self.tables.build_score(image, keys[image.key])
                if image.key in keys
                else ImageScore(image, Outcome.UNREADABLE)
                for image in self.tables.list_work(batch)
            )
        )
        self.tables.summarize(batch)
        return batch

    def audit(self) -> dict[str, Any]:
        """Store an audit with the window's reference."""
        days = [FIRST + timedelta(age) for age in range(WINDOW_DAYS)]
        with connections.transaction(self.tables.engine) as connection:
            reference = compute_reference(connection, "shop", days, self.tables.version)
        store_audit(self.tables, reference, days)
        return reference

    def check(self, batch: Batch, **settings: Any) -> list[str]:
        return check_day(self.tables, batch, **settings)


def store_audit(tables: Tables, reference: dict[str, Any], days: list[date]) -> None:
    tables.execute(
        "INSERT INTO fer.audit (facility_id, model_version, first_day, last_day, seed,"
        " faces_in_window, faces_drawn, reference)"
        " VALUES ('shop', :version, :first_day, :last_day, 1, 800, 200, :reference)",
        version=tables.version,
        first_day=days[0],
        last_day=days[-1],
        reference=json.dumps(reference),
    )


def check_day(tables: Tables, batch: Batch, **settings: Any) -> list[str]:
    """The details of the finding about a day; every summary names the audit."""
    tables.execute(
        "UPDATE fer.satisfaction_summary SET audit_id = audit.audit_id, audit_labels = 200"
        " FROM fer.audit WHERE method = 'benchmark'"
    )
    found = checks.check_data(
        tables.engine, [batch], tables.version, "run-1", Settings(_env_file=None, **settings)
    )
    return [f["finding"] for f in found if f["check"] == "faces_differ_from_audit"]


def draw_crops(seed: int, visits: int = 40) -> dict[str, Pixels]:
    """What a camera sees in a day, by the names of the images."""
    rng, crops = np.random.default_rng((48, seed)), {}
    for visit in draw_visits(rng, Traffic(visits, ("till",), 8, 20), Mix(0.35, 0.05)):
        portrait = Portrait(rng)
        for photograph in visit:
            crops[photograph.name] = portrait.photograph(rng, LOOKS[photograph.faces[0]])
    return crops


def darken(crop: Pixels) -> Pixels:
    """Little light: an eighth of it, while the noise of the camera stays."""
    noise = np.random.default_rng(int(crop.sum())).normal(0, 5, crop.shape)
    return np.clip(np.round(crop / 8 + noise), 0, 255).astype(np.uint8)


def test_a_camera_that_was_turned_darker(tables: Tables, classifier: Classifier) -> None:
    camera = Camera(tables, classifier)
    for age in range(WINDOW_DAYS):
        camera.deliver(age, draw_crops(age))
    reference = camera.audit()
    assert reference["edges"]["face_px"] == [48, 48.000001]
    assert {sum(counts) for counts in reference["counts"].values()} == {reference["faces"]}
    assert len(reference["edges"]["p_happy"]) == 9

    crops = draw_crops(7)
    assert len(crops) >= 100
    assert camera.check(camera.deliver(7, crops)) == []
    dark = camera.deliver(8, {name: darken(crop) for name, crop in crops.items()})
    (finding,) = camera.check(dark)
    assert "p_neither" in finding
    assert "population stability index" in finding
    assert finding.endswith("compared with audit 1. If the change is to stay, label again")
    assert "size" not in finding
    # The thresholds are settings, and a day with few faces gives no finding.
    assert camera.check(dark, alert_drift_index=50, alert_drift_difference=0.9) == []
    assert camera.check(dark, alert_min_faces=len(crops) + 1) == []

    # A camera that was moved: faces of another size; and one whose files are broken.
    (finding,) = camera.check(camera.deliver(9, crops, side_px=64))
    assert finding.startswith("the size of the faces ")
    assert "p_happy" not in finding
    (finding,) = camera.check(camera.deliver(10, crops, broken=55))
    assert "% are unreadable, in the audit 0 %" in finding


def test_a_facility_that_publishes_by_week_is_compared_by_weeks(tables: Tables) -> None:
    tables.add("shop", publish_period="week")
    monday = date(2026, 3, 2)
    weeks = [[monday + timedelta(7 * week + n) for n in range(7)] for week in range(3)]
    for week, (happy, neither) in zip(weeks, ((10, 20), (10, 20), (25, 5)), strict=True):
        for day in week:
            tables.fill(happy, 5, Batch("shop", day), neither=neither)
            tables.summarize(Batch("shop", day))
    batches = [[Batch("shop", day) for day in week] for week in weeks]
    with connections.transaction(tables.engine) as connection:
        for week_batches in batches:
            periods.write_period_summaries(connection, week_batches, tables.facilities, "run-1")
        reference = compute_reference(connection, "shop", weeks[0], tables.version)
    assert (reference["faces"], reference["images"]) == (7 * 35, 7 * 35)
    assert reference["faces_effective"] > 100
    store_audit(tables, reference, weeks[0])
    assert check_day(tables, batches[1][-1]) == []
    (finding,) = check_day(tables, batches[2][-1])
    assert "of the faces 14 % are called neither, in the audit 57 %" in finding
    assert check_day(tables, batches[2][-2]) == [], "no week ends on a Saturday"
