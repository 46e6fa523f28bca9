"""Soft labels: a teacher's probabilities for the training rows, and for those rows only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fer_batch import fer2013
from fer_batch.errors import ConfigurationError
from fer_batch.training import teacher
from tests.support import kaggle
from tests.support.models import tiny_onnx, write_tiny_cnn

MADE = kaggle.rows(training=40, tested=10)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    data = kaggle.write_csv(tmp_path / "fer2013.csv", MADE)
    out = tmp_path / "runs" / "soft.npz"
    assert teacher.write([write_tiny_cnn(tmp_path)], data, out, threads=1) == 40
    return data, out


def test_every_training_row_gets_probabilities(made: tuple[Path, Path]) -> None:
    data, out = made
    training = fer2013.read(data)["Training"]
    found, sha256 = teacher.read(out, training)
    assert found.shape == (40, 7)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert len(sha256) == 64
    chosen = np.arange(40) % 3 == 0
    some, _ = teacher.read(out, training.only(chosen))
    assert np.array_equal(some, found[chosen])


def test_several_teachers_give_their_mean(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = made
    other = tmp_path / "other"
    other.mkdir()
    cards = [write_tiny_cnn(tmp_path), write_tiny_cnn(other, tiny_onnx(is_inverted=True))]
    training = fer2013.read(data)["Training"]
    alone = []
    for card in cards:
        teacher.write([card], data, out, threads=1)
        alone.append(teacher.read(out, training))
    teacher.write(cards, data, out, threads=1)
    both, sha256s = teacher.read(out, training)
    assert sha256s.split() == [sha256 for _, sha256 in alone]
    assert np.abs(alone[0][0] - alone[1][0]).max() > 0.05
    assert both == pytest.approx((alone[0][0] + alone[1][0]) / 2, abs=2e-3)  # kept as float16


def test_no_pixel_is_in_the_file(made: tuple[Path, Path]) -> None:
    with np.load(made[1]) as saved:
        assert {name: saved[name].ndim for name in saved.files} == {
            "probabilities": 2,
            "rows": 1,
            "labels": 1,
            "teacher_sha256": 0,
        }


def test_soft_labels_of_other_rows_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    other = [((label + 1) % 7, pixels, usage) for label, pixels, usage in MADE]
    data = kaggle.write_csv(tmp_path / "other.csv", other)
    with pytest.raises(ConfigurationError, match="of other rows"):
        teacher.read(made[1], fer2013.read(data)["Training"])
    more = kaggle.write_csv(tmp_path / "more.csv", kaggle.rows(training=60, tested=10))
    with pytest.raises(ConfigurationError, match="of other rows"):
        teacher.read(made[1], fer2013.read(more)["Training"])
    np.save(tmp_path / "array.npy", np.zeros(3))
    array = (tmp_path / "array.npy").read_bytes()
    for content in (made[1].read_bytes()[:100], b"", array):
        (tmp_path / "wrong.npz").write_bytes(content)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            teacher.read(tmp_path / "wrong.npz", fer2013.read(made[0])["Training"])
