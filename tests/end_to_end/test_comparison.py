"""The comparison of two CNNs on the images of one day from a real bucket."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fer_batch.database import connections
from fer_batch.deletion import erasure
from fer_batch.errors import ConfigurationError, ErasureSecretError, PermanentError
from fer_batch.facilities.loading import load_registry
from fer_batch.model.classifier import Cnn, load_artifact
from fer_batch.pipeline import comparison as comparison_module
from fer_batch.pipeline.comparison import compare_cnns, format_comparison
from tests.fixtures.night import DAY, Night, encode_crop, format_facility
from tests.fixtures.servers import ERASER, SECRET, switch_login
from tests.support.models import build_tiny_onnx, write_tiny_cnn


@pytest.fixture
def pair(night: Night, tmp_path: Path) -> tuple[Cnn, Cnn]:
    """The first classifies bright crops as Happy, the second dark ones."""
    folder = tmp_path / "inverted"
    folder.mkdir()
    other = write_tiny_cnn(folder, build_tiny_onnx(is_inverted=True), name="inverted")
    assert night.settings.model_card is not None
    return load_artifact(night.settings.model_card), load_artifact(other)


def compare(night: Night, first: Cnn, second: Cnn, name: str = "a") -> dict[str, Any]:
    registry = load_registry(night.settings.facilities_file, night.settings)
    known = registry.facilities[name]
    return compare_cnns(night.settings, first, second, known, DAY, datetime.now(UTC))


def test_both_counts_and_their_agreement_are_computed(night: Night, pair: tuple[Cnn, Cnn]) -> None:
    night.write_registry(format_facility("a", more='ready_marker = "_SUCCESS"\n'))
    night.fill("a", happy=30, sad=10)
    night.put(f"a/{DAY}/broken.png", encode_crop(True)[:40])
    night.put(f"a/{DAY}/_SUCCESS", b"done")
    comparison = compare(night, *pair)
    one, other = comparison["cnns"]
    assert (comparison["images"], comparison["faces"]) == (40, 40)
    called = [
        (row["name"], row["called_happy"], row["called_sad"], row["called_neither"])
        for row in (one, other)
    ]
    assert called == [("tiny", 30, 10, 0), ("inverted", 10, 30, 0)]
    assert (one["called_happy_rate"], other["called_happy_rate"]) == (0.75, 0.25)
    assert (one["called_sad_rate"], other["called_sad_rate"]) == (0.25, 0.75)
    assert comparison["agreement"] == 0
    # 0.99 against 0.00 for bright crops, 0.00 against 0.99 for dark ones.
    assert 0.9 < comparison["mean_abs_difference"] < 1
    assert "0.0% are called the same" in format_comparison(comparison)
    same = compare(night, pair[0], pair[0])
    assert (same["agreement"], same["mean_abs_difference"]) == (1, 0)
    # Nothing is stored.
    for table in ("image", "image_result", "model_version", "cnn", "facility", "batch"):
        assert night.query(f"select 1 from fer.{table}") == []  # noqa: S608


def test_counts_of_few_faces_are_suppressed(night: Night, pair: tuple[Cnn, Cnn]) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=20, sad=9)
    comparison = compare(night, *pair)
    assert comparison["faces"] == 29
    for name in ("called_happy", "called_sad", "called_neither", "called_happy_rate"):
        assert {row[name] for row in comparison["cnns"]} == {None}


def test_erased_images_are_not_read(
    night: Night, pair: tuple[Cnn, Cnn], monkeypatch: pytest.MonkeyPatch
) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=1, sad=2)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    assert night.settings.database_url is not None
    url = switch_login(night.settings.database_url.get_secret_value(), ERASER)
    eraser = connections.create_engine(url)
    erasure.erase(eraser, erasure.Target("a", DAY, f"a/{DAY}/0000.png"), None, SECRET)
    comparison = compare(night, *pair)
    assert (comparison["images"], comparison["faces"]) == (2, 2)
    with pytest.raises(ErasureSecretError, match="images of a were erased"):
        compare(night.with_settings(erasure_secret=None), *pair)

    load, calls = comparison_module._load_erased, []

    def load_and_erase(*of_day: Any) -> Any:
        calls.append(load(*of_day))
        if len(calls) == 2:  # the first one is at the beginning
            erasure.erase(eraser, erasure.Target("a", DAY, f"a/{DAY}/0001.png"), None, SECRET)
        return calls[-1]

    with monkeypatch.context() as patches:
        patches.setattr(comparison_module, "_load_erased", load_and_erase)
        patches.setattr(comparison_module, "_CHUNK_IMAGES", 1)
        assert compare(night, *pair)["images"] == 1
    erasure.erase(eraser, erasure.Target("a", DAY), None, SECRET)
    with pytest.raises(ConfigurationError, match=f"{DAY} was erased"):
        compare(night, *pair)


def test_a_day_without_a_face(night: Night, pair: tuple[Cnn, Cnn]) -> None:
    night.write_registry(format_facility("a"))
    comparison = compare(night, *pair)
    assert (comparison["images"], comparison["faces"], comparison["agreement"]) == (0, 0, None)
    assert format_comparison(comparison) == "No face was found."


def test_without_a_permission_no_request_is_sent_to_s3(
    night: Night, pair: tuple[Cnn, Cnn], sent_operations: Callable[[], list[str]]
) -> None:
    night.write_registry(format_facility("a", permission=""))
    night.fill("a", happy=3, sad=0)
    sent_operations().clear()
    with pytest.raises(PermanentError, match="no permission is recorded"):
        compare(night, *pair)
    assert sent_operations() == []


def test_without_a_database_nothing_is_read(
    night: Night, pair: tuple[Cnn, Cnn], sent_operations: Callable[[], list[str]]
) -> None:
    """It alone knows what was erased."""
    night.write_registry(format_facility("a"))
    sent_operations().clear()
    with pytest.raises(ConfigurationError, match="FER_DATABASE_URL"):
        compare(night.with_settings(database_url=None), *pair)
    assert sent_operations() == []
