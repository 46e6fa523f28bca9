"""Soft labels: a teacher's probabilities for the training rows, bound to those rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.model import fer2013
from fer_batch.training import distillation
from tests.support import kaggle
from tests.support.models import build_tiny_onnx, write_tiny_cnn

ROWS = kaggle.draw_rows(training=40, test=10)


@pytest.fixture
def soft_label_files(tmp_path: Path) -> tuple[Path, Path]:
    data = kaggle.write_csv(tmp_path / "fer2013.csv", ROWS)
    out = tmp_path / "runs" / "soft.npz"
    assert distillation.write([write_tiny_cnn(tmp_path)], data, out, threads=1) == 40
    return data, out


def test_every_training_row_gets_soft_labels(soft_label_files: tuple[Path, Path]) -> None:
    data, out = soft_label_files
    training = fer2013.read(data)["Training"]
    soft_labels, sha256 = distillation.read(out, training)
    assert soft_labels.shape == (40, 7)
    assert soft_labels.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert len(sha256) == 64
    mask = np.arange(40) % 3 == 0
    selected, _ = distillation.read(out, training.select(mask))
    assert np.array_equal(selected, soft_labels[mask])


def test_the_soft_labels_of_several_teachers_are_averaged(
    soft_label_files: tuple[Path, Path], tmp_path: Path
) -> None:
    data, out = soft_label_files
    other = tmp_path / "other"
    other.mkdir()
    cards = [write_tiny_cnn(tmp_path), write_tiny_cnn(other, build_tiny_onnx(is_inverted=True))]
    training = fer2013.read(data)["Training"]
    alone = []
    for card in cards:
        distillation.write([card], data, out, threads=1)
        alone.append(distillation.read(out, training))
    distillation.write(cards, data, out, threads=1)
    both, sha256s = distillation.read(out, training)
    assert sha256s.split() == [sha256 for _, sha256 in alone]
    assert np.abs(alone[0][0] - alone[1][0]).max() > 0.05
    assert both == pytest.approx((alone[0][0] + alone[1][0]) / 2, abs=2e-3)  # kept as float16


def test_the_file_contains_no_pixels(soft_label_files: tuple[Path, Path]) -> None:
    with np.load(soft_label_files[1]) as saved:
        assert {name: saved[name].ndim for name in saved.files} == {
            "probabilities": 2,
            "rows": 1,
            "labels": 1,
            "teacher_sha256": 0,
        }


def test_soft_labels_of_other_rows_are_rejected(
    soft_label_files: tuple[Path, Path], tmp_path: Path
) -> None:
    other = [((label + 1) % 7, pixels, usage) for label, pixels, usage in ROWS]
    data = kaggle.write_csv(tmp_path / "other.csv", other)
    with pytest.raises(ConfigurationError, match="belong to other rows"):
        distillation.read(soft_label_files[1], fer2013.read(data)["Training"])
    more = kaggle.write_csv(tmp_path / "more.csv", kaggle.draw_rows(training=60, test=10))
    with pytest.raises(ConfigurationError, match="belong to other rows"):
        distillation.read(soft_label_files[1], fer2013.read(more)["Training"])
    np.save(tmp_path / "array.npy", np.zeros(3))
    array = (tmp_path / "array.npy").read_bytes()
    for content in (soft_label_files[1].read_bytes()[:100], b"", array):
        (tmp_path / "wrong.npz").write_bytes(content)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            distillation.read(tmp_path / "wrong.npz", fer2013.read(soft_label_files[0])["Training"])
