"""Two CNNs on one day's images, out of a real bucket."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fer_batch import erasure, registry
from fer_batch.classifier import Cnn, load_artefact
from fer_batch.comparison import as_text, compare
from fer_batch.errors import ConfigurationError, PermanentError
from tests.end_to_end.conftest import DAY, Night, crop, facility
from tests.support.models import tiny_onnx, write_tiny_cnn


@pytest.fixture
def pair(night: Night, tmp_path: Path) -> tuple[Cnn, Cnn]:
    """Bright is Happy for the one, dark for the other."""
    folder = tmp_path / "inverted"
    folder.mkdir()
    other = write_tiny_cnn(folder, tiny_onnx(is_inverted=True), name="inverted")
    assert night.settings.model_card is not None
    return load_artefact(night.settings.model_card), load_artefact(other)


def compared(night: Night, first: Cnn, second: Cnn, name: str = "a") -> dict[str, Any]:
    known = registry.load(night.settings.facilities_file, night.settings)[name]
    return compare(night.settings, first, second, known, DAY, datetime.now(UTC))


def test_both_are_counted_and_how_far_they_agree(night: Night, pair: tuple[Cnn, Cnn]) -> None:
    night.registry(facility("a", more='ready_marker = "_SUCCESS"\n'))
    night.fill("a", happy=30, sad=10)
    night.put(f"a/{DAY}/broken.png", crop(True)[:40])
    night.put(f"a/{DAY}/_SUCCESS", b"done")
    found = compared(night, *pair)
    one, other = found["cnns"]
    assert (found["images"], found["faces"]) == (40, 40)
    assert (one["name"], one["happy"], one["sad"], one["uncertain"]) == ("tiny", 30, 10, 0)
    assert (other["name"], other["happy"], other["sad"]) == ("inverted", 10, 30)
    assert (one["happy_share"], other["happy_share"]) == (0.75, 0.25)
    assert one["happy_share_low"] < 0.75 < one["happy_share_high"]
    assert found["agreement"] == 0
    # 0.99 against 0.00 for bright crops, 0.00 against 0.99 for dark ones.
    assert 0.9 < found["mean_abs_difference"] < 1
    assert "0.0% are called the same" in as_text(found)
    same = compared(night, pair[0], pair[0])
    assert (same["agreement"], same["mean_abs_difference"]) == (1, 0)
    # Nothing of it is stored.
    for table in ("image", "image_result", "model_version", "cnn", "facility", "batch"):
        assert night.rows(f"select 1 from fer.{table}") == []  # noqa: S608


def test_few_faces_are_not_divided(night: Night, pair: tuple[Cnn, Cnn]) -> None:
    night.registry(facility("a"))
    night.fill("a", happy=20, sad=9)
    found = compared(night, *pair)
    assert found["faces"] == 29
    assert {row["happy"] for row in found["cnns"]} == {None}
    assert {row["happy_share"] for row in found["cnns"]} == {None}


def test_what_was_erased_is_not_read_again(night: Night, pair: tuple[Cnn, Cnn]) -> None:
    night.registry(facility("a"))
    night.fill("a", happy=1, sad=2)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    erasure.erase(run.engine, erasure.Target("a", DAY, f"a/{DAY}/0000.png"))
    found = compared(night, *pair)
    assert (found["images"], found["faces"]) == (2, 2)
    erasure.erase(run.engine, erasure.Target("a", DAY))
    with pytest.raises(ConfigurationError, match=f"{DAY} was erased"):
        compared(night, *pair)


def test_a_day_without_a_face(night: Night, pair: tuple[Cnn, Cnn]) -> None:
    night.registry(facility("a"))
    found = compared(night, *pair)
    assert (found["images"], found["faces"], found["agreement"]) == (0, 0, None)
    assert as_text(found) == "No face was found."


def test_without_a_permission_nothing_is_asked_of_s3(
    night: Night, pair: tuple[Cnn, Cnn], watched: Callable[[], list[str]]
) -> None:
    night.registry(facility("a", permission=""))
    night.fill("a", happy=3, sad=0)
    watched().clear()
    with pytest.raises(PermanentError, match="no permission is recorded"):
        compared(night, *pair)
    assert watched() == []
