"""Shops of FER2013 faces: no face twice in one, each with what its voters said."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.local.demo import fer2013_shop
from fer_batch.local.demo.visits import Photograph
from fer_batch.model import fer2013
from fer_batch.records import CalledClass
from tests.support import kaggle

ROWS = 2100


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = [row for row in kaggle.draw_rows(0, ROWS) if row[2] == "PrivateTest"]
    folder = tmp_path_factory.mktemp("fer2013")
    kaggle.write_votes(folder / "fer2013new.csv", table)
    return kaggle.write_tar(folder / "fer2013.tar.gz", table)


def test_a_facility_shows_no_face_twice(archive: Path) -> None:
    first, second = fer2013_shop.load_fer2013_shops(archive, facilities=2)
    for facility in (first, second):
        contents = [image.data for image in facility.images]
        assert len(set(contents)) == len(contents)
        assert 150 <= len(contents) <= 450
        assert facility.faces is not None
        assert facility.faces.total() == len(contents)
        assert facility.mix is not None
        assert 0.15 <= facility.mix.happy <= 0.35
        assert facility.has_times
    assert first.facility_id != second.facility_id
    assert {i.data for i in first.images} & {i.data for i in second.images}
    again, _ = fer2013_shop.load_fer2013_shops(archive, facilities=2)
    assert again == first


def test_each_face_shows_what_most_voters_said() -> None:
    votes = np.zeros((40, 10), np.float32)
    for row, column in enumerate(("happiness", "sadness", "neutral", "anger") * 10):
        votes[row, fer2013.VOTE_COLUMNS.index(column)] = 8
    # Gray value 40, 80, 120 and 160: happy, sad, neutral, other; no two pictures are equal.
    pixels = np.repeat(np.array([40, 80, 120, 160] * 10, np.uint8), 48 * 48).reshape(-1, 48, 48)
    pixels[:, 0, 0] = np.arange(40)
    faces = fer2013_shop.Faces(pixels, votes)
    shown = [CalledClass.HAPPY] * 5 + [CalledClass.SAD] * 5 + [CalledClass.NEITHER] * 8
    photographs = [Photograph("a", second, (face,)) for second, face in enumerate(shown)]
    images = list(faces.draw_images(np.random.default_rng(1), photographs))
    assert len({image.data for image in images}) == len(images)
    grays = [round(cv2.imdecode(np.frombuffer(i.data, np.uint8), 0).mean()) for i in images]
    assert grays[:10] == [40] * 5 + [80] * 5
    assert set(grays[10:]) <= {120, 160}
    too_many = [Photograph("a", second, (CalledClass.SAD,)) for second in range(11)]
    with pytest.raises(ValueError, match="too few sad faces"):
        list(faces.draw_images(np.random.default_rng(1), too_many))
    pixels[1::4] = pixels[1]  # ten equal pictures of a sad face
    faces = fer2013_shop.Faces(pixels, votes)
    with pytest.raises(ValueError, match="too few sad faces"):
        list(faces.draw_images(np.random.default_rng(1), too_many[:2]))


def test_the_votes_must_be_beside_the_archive(tmp_path: Path) -> None:
    archive = kaggle.write_tar(tmp_path / "fer2013.tar.gz", kaggle.draw_rows(0, 7))
    with pytest.raises(ConfigurationError, match=r"fer2013new\.csv does not exist"):
        fer2013_shop.load_fer2013_shops(archive)
