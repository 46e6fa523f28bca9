"""An audit from the draw to the figures: two raters, in force, erased, and kept by a promotion."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from fer_batch.audit import finishing, labeling, refreshing, sampling
from fer_batch.audit.labeling import Label, open_labeling
from fer_batch.database import connections, roles
from fer_batch.deletion import erasure
from fer_batch.errors import ConfigurationError
from fer_batch.model.classifier import load_artifact
from fer_batch.settings import Settings
from tests.fixtures.night import DAY, Night, encode_crop, format_facility, spread
from tests.fixtures.servers import ERASER, INSPECTOR, SECRET, switch_login
from tests.support.models import build_tiny_onnx, write_tiny_cnn

NEXT = DAY + timedelta(1)
HAPPY, SAD = 130, 80
FACES = HAPPY + SAD


@pytest.fixture
def inspector(night: Night) -> Settings:
    """Settings of a login that may inspect the facility `shop`, after a first night of it."""
    night.write_registry(format_facility("shop"))
    night.fill("shop", HAPPY, SAD)
    night.run("first")
    assert night.settings.database_url is not None
    url = night.settings.database_url.get_secret_value()
    roles.grant(switch_login(url), INSPECTOR, "inspector", ["shop"])
    return night.settings.model_copy(
        update={"database_url": SecretStr(switch_login(url, INSPECTOR))}
    )


def read_numbers(night: Night) -> dict[str, int]:
    """The numbers of the newest audit's faces by key."""
    rows = night.query("select image_key, face_number from fer.audit_face order by audit_id")
    return {row["image_key"]: row["face_number"] for row in rows}


def is_bright(face: labeling.AuditFace) -> bool:
    """As `Night.fill` spreads the classes."""
    number = int(face.image.key[-8:-4])
    return spread(HAPPY, SAD)[number]


def label_all(settings: Settings, audit_id: int, rater: str) -> None:
    """Label every face by what it shows, in one transaction."""
    with open_labeling(settings, audit_id, rater) as opened:
        rows = [
            {
                "audit_id": audit_id,
                "face_number": face.number,
                "rater": rater,
                "is_settlement": False,
                "label": (Label.HAPPY if is_bright(face) else Label.SAD).value,
                "max_raters": 2,
            }
            for face in opened.faces
        ]
        with connections.transaction(opened._engine) as connection:
            connection.execute(labeling._STATEMENTS["insert_label"], rows)


def test_an_audit_corrects_later_days_and_earlier_ones_only_if_asked(
    night: Night, inspector: Settings
) -> None:
    audit_id = sampling.sample(inspector, "shop", 210, seed=1).audit.audit_id
    label_all(inspector, audit_id, "Ada")
    with open_labeling(inspector, audit_id, "Bo") as opened:
        assert opened.labels == {}
        first = opened.faces[0].number
        opened.save(first, Label.CANNOT_TELL)
        opened.save(first, Label.HAPPY)
        opened.remove(first)
        for face in opened.faces:
            if face.number <= 40:
                right = Label.HAPPY if is_bright(face) else Label.SAD
                opened.save(face.number, Label.CANNOT_TELL if face.number <= 20 else right)
    with open_labeling(inspector, audit_id, "Bo") as opened:  # continues
        assert sorted(opened.labels) == list(range(1, 41))
    with pytest.raises(ConfigurationError, match="labeled by Ada and Bo; a third rater"):
        open_labeling(inspector, audit_id, "Cy")
    with open_labeling(inspector, audit_id, "Cy", settle=True) as opened:
        assert sorted(face.number for face in opened.faces) == list(range(1, 21))
        for number in range(1, 11):
            opened.save(number, Label.HAPPY)
            opened.save(number, Label.NEITHER)
    finished = finishing.finish(inspector, audit_id, NEXT)
    assert (finished.local.labels, finished.local.method) == (210, "local")
    assert (finished.agreement.disputed, finished.agreement.settled) == (20, 10)
    assert finished.agreement.kappa is not None
    assert finished.agreement.both == 40
    assert finished.agreement.cannot_tell == (0, 20)
    assert 0.2 < finished.agreement.kappa.kappa < 0.7
    # Ten faces were settled as neither; ten others count in halves.
    assert finished.local.counts.sum() == pytest.approx(210)
    assert finished.local.counts[2].sum() == pytest.approx(15)
    assert finished.audit.expiry_day == NEXT + timedelta(inspector.audit_days)
    with pytest.raises(ConfigurationError, match="is finished"):
        open_labeling(inspector, audit_id, "Ada")

    before = night.read_summary("shop")
    night.fill("shop", 100, 60, NEXT)
    night.run("second", capture_day=NEXT, lookback_days=1)
    rows = night.query(
        "select capture_day, revision, method, audit_id, audit_labels"
        " from fer.satisfaction_summary"
        " where period = 'day' order by capture_day, revision"
    )
    assert [(row["capture_day"], row["revision"], row["method"]) for row in rows] == [
        (DAY, 1, "benchmark"),
        (NEXT, 1, "local"),
    ]
    assert (rows[1]["audit_id"], rows[1]["audit_labels"]) == (audit_id, 210)
    # The two days were corrected differently, so no change between them is claimed.
    assert night.query("select from fer.satisfaction_change where period = 'day'") == []

    (summary,) = night.open("asked", capture_day=DAY).estimate_anew(DAY)
    assert (summary["revision"], summary["method"]) == (2, "local")
    assert summary["reason"] == f"re-estimated with audit {audit_id}"
    assert summary["called_happy"] == before["called_happy"]
    night.run("third", capture_day=NEXT, lookback_days=1)  # takes nothing back
    assert len(night.query("select from fer.satisfaction_summary where period = 'day'")) == 3
    assert len(night.query("select from fer.satisfaction_change where period = 'day'")) == 1
    shown = night.query("select audit_id, reason from fer.satisfaction_daily order by capture_day")
    assert [row["audit_id"] for row in shown] == [audit_id, audit_id]

    # A labeled image is erased: its labels are gone, and the published figures stay.
    key = f"shop/{DAY}/0000.png"
    erased = read_numbers(night)[key]
    assert night.settings.database_url is not None
    url = night.settings.database_url.get_secret_value()
    eraser = connections.create_engine(switch_login(url, ERASER))
    erasure.erase(eraser, erasure.Target("shop", None, key), None, SECRET)
    eraser.dispose()
    assert key not in read_numbers(night)
    for table in ("audit_face", "audit_label", "audit_result"):
        assert not night.query(
            f"select from fer.{table} where face_number = %s",
            erased,
        )
    after = night.query(
        "select * from fer.satisfaction_summary where capture_day = %s and period = 'day'"
        " order by revision desc limit 1",
        DAY,
    )[0]
    assert (after["revision"], after["audit_labels"]) == (3, 210)
    assert after["happy_rate"] == summary["happy_rate"]


def test_few_labels_are_used_but_stay_benchmark(night: Night, inspector: Settings) -> None:
    audit_id = sampling.sample(inspector, "shop", 60).audit.audit_id
    with open_labeling(inspector, audit_id, "Ada") as opened:
        for face in opened.faces[:29]:
            opened.save(face.number, Label.HAPPY if is_bright(face) else Label.SAD)
        with pytest.raises(ConfigurationError, match="29 labeled faces, and 30 are needed"):
            finishing.finish(inspector, audit_id)
        for face in opened.faces[29:40]:
            opened.save(face.number, Label.HAPPY if is_bright(face) else Label.SAD)
    before = night.read_summary("shop")
    finishing.finish(inspector, audit_id, DAY)
    night.run("again")
    summary = night.read_summary("shop")
    assert (summary["method"], summary["audit_labels"]) == ("benchmark", 40)
    assert summary["audit_id"] == audit_id
    assert before["audit_id"] is None
    assert summary["benchmark_weight"] < before["benchmark_weight"] == 1


def test_a_promotion_keeps_the_audit_where_the_objects_still_exist(
    night: Night, inspector: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit_id = sampling.sample(inspector, "shop", 208).audit.audit_id
    label_all(inspector, audit_id, "Ada")
    with open_labeling(inspector, audit_id, "Ada") as opened:
        of_image = {face.image: [face] for face in opened.faces}
    finishing.finish(inspector, audit_id, NEXT)
    keys = sorted(read_numbers(night))
    night.s3.client.delete_object(Bucket=night.s3.bucket, Key=keys[0])
    night.put(keys[1], encode_crop(True, number=9999))
    card = write_tiny_cnn(tmp_path, build_tiny_onnx(is_inverted=True), name="other")
    promoted = night.with_settings(model_card=card)
    promoted.fill("shop", 100, 60, NEXT)
    findings = promoted.run("without", capture_day=NEXT)
    summary = promoted.read_summary("shop")
    assert summary["audit_id"] is None
    assert [each["check"] for each in findings if "audit" in each["check"]] == [
        "audit_of_another_version"
    ]
    refreshed = refreshing.refresh(inspector, audit_id, load_artifact(card))
    assert (refreshed.scored, refreshed.same) == (206, 0)
    assert refreshed.not_scored == {"missing": 1, "changed": 1}
    assert refreshing.refresh(inspector, audit_id, load_artifact(card)) == refreshed
    promoted.run("with", capture_day=NEXT)
    summary = promoted.read_summary("shop")
    assert (summary["method"], summary["audit_id"], summary["audit_labels"]) == (
        "local",
        audit_id,
        206,
    )
    # The new CNN calls bright faces sad, and the labels say so.
    assert summary["called_happy_rate"] < 0.4 < 0.6 < summary["happy_rate"]

    # An image that is erased before its turn comes is not read.
    monkeypatch.setattr(refreshing, "_CHUNK_IMAGES", 1)
    engine = connections.create_engine(inspector)
    images = refreshing._list_remaining(engine, audit_id, of_image)
    _, second, *others = (image.key for image in of_image)
    next(images)
    assert night.settings.database_url is not None
    url = night.settings.database_url.get_secret_value()
    eraser = connections.create_engine(switch_login(url, ERASER))
    erasure.erase(eraser, erasure.Target("shop", None, second), None, SECRET)
    eraser.dispose()
    assert [image.key for image in images] == others
    engine.dispose()
