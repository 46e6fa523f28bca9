"""Reading FER2013: every format that Kaggle distributes, and clear errors for all others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.model import fer2013
from tests.support import kaggle

ROWS = kaggle.draw_rows(training=21, test=7)


def test_the_three_formats_give_the_same_rows(tmp_path: Path) -> None:
    files = [
        kaggle.write_tar(tmp_path / "fer2013.tar.gz", ROWS),
        kaggle.write_csv(tmp_path / "fer2013.csv", ROWS),
        kaggle.write_csv(tmp_path / "icml_face_data.csv", ROWS, is_icml=True),
    ]
    for file in files:
        splits = fer2013.read(file)
        assert list(splits) == ["Training", "PublicTest", "PrivateTest"]
        first = 0
        for usage, split in splits.items():
            expected = [row for row in ROWS if row[2] == usage]
            assert np.array_equal(split.pixels, np.stack([pixels for _, pixels, _ in expected]))
            assert split.labels.tolist() == [label for label, _, _ in expected]
            assert split.rows.tolist() == list(range(first, first + len(expected)))
            assert split.votes is None
            first += len(expected)
        assert splits["Training"].pixels.dtype == np.uint8


def test_an_archive_is_recognized_by_its_content(tmp_path: Path) -> None:
    assert len(fer2013.read(kaggle.write_tar(tmp_path / "faces", ROWS))["Training"]) == 21


def test_row_numbers_are_correct_if_usages_alternate(tmp_path: Path) -> None:
    shuffled = ROWS[::-1]
    splits = fer2013.read(kaggle.write_csv(tmp_path / "fer2013.csv", shuffled))
    for usage, split in splits.items():
        for pixels, label, row in zip(split.pixels, split.labels, split.rows, strict=True):
            assert shuffled[row][2] == usage
            assert shuffled[row][0] == label
            assert np.array_equal(shuffled[row][1], pixels)


def test_a_usage_without_rows_is_an_empty_split(tmp_path: Path) -> None:
    private_rows = [row for row in ROWS if row[2] == "PrivateTest"]
    splits = fer2013.read(kaggle.write_csv(tmp_path / "fer2013.csv", private_rows))
    assert splits["Training"].pixels.shape == (0, 48, 48)
    assert len(splits["PrivateTest"]) == 7


def test_votes_are_assigned_to_their_rows(tmp_path: Path) -> None:
    data = kaggle.write_csv(tmp_path / "fer2013.csv", ROWS)
    votes = kaggle.write_votes(tmp_path / "fer2013new.csv", ROWS, for_label=8)
    for split in fer2013.read(data, votes).values():
        assert split.votes is not None
        assert split.votes.shape == (len(split), 10)
        columns = np.array(fer2013.VOTES_OF_CLASS)[split.labels]
        assert (split.votes[np.arange(len(split)), columns] == 8).all()
        assert (split.votes.sum(axis=1) == 10).all()


def test_each_class_has_its_column_of_votes() -> None:
    names = [fer2013.VOTE_COLUMNS[column] for column in fer2013.VOTES_OF_CLASS]
    assert names == ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]


def test_votes_of_other_rows_are_rejected(tmp_path: Path) -> None:
    data = kaggle.write_csv(tmp_path / "fer2013.csv", ROWS)
    for other in (ROWS[:-1], ROWS[::-1]):
        votes = kaggle.write_votes(tmp_path / "fer2013new.csv", other)
        with pytest.raises(ConfigurationError, match="same rows"):
            fer2013.read(data, votes)
    with pytest.raises(ConfigurationError, match="not an FER\\+ votes file"):
        fer2013.read(data, data)
    with pytest.raises(ConfigurationError, match="does not exist"):
        fer2013.read(data, tmp_path / "none.csv")


def test_copies_and_near_copies_of_test_rows_are_found(tmp_path: Path) -> None:
    changed_rows = list(ROWS)
    of_public, of_private = changed_rows[22][1], changed_rows[30][1]
    darker = (of_private * 0.6 + 10).astype(np.uint8)
    darker[:4] = 0  # a watermark
    changed_rows[3] = (changed_rows[3][0], of_public, "Training")  # under another label
    changed_rows[5] = (changed_rows[5][0], of_private, "Training")
    changed_rows[6] = (changed_rows[6][0], darker, "Training")
    changed_rows[8] = (changed_rows[8][0], darker[:, ::-1], "Training")
    changed_rows[9] = (changed_rows[9][0], np.full((48, 48), 90, np.uint8), "Training")
    splits = fer2013.read(kaggle.write_csv(tmp_path / "fer2013.csv", changed_rows))
    assert np.flatnonzero(fer2013.find_training_copies(splits)).tolist() == [3, 5, 6, 8]


def alter_line(line: int, text: str) -> str:
    lines = kaggle.format_csv(ROWS).splitlines()
    lines[line - 1] = text
    return "\n".join(lines)


CROP = " ".join(["7"] * 48 * 48)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header is empty"),
        ("path,label\n1,2\n", "not FER2013: its header is path, label"),
        ("<html>no such page</html>", "not FER2013"),
        ("emotion,pixels,Usage\n", "has no rows"),
        (alter_line(4, f"7,{CROP},Training"), "line 4: emotion '7'"),
        (alter_line(4, f",{CROP},Training"), "line 4: emotion ''"),
        (alter_line(4, f"3,{CROP} 7,Training"), "line 4: 2305 pixels"),
        (alter_line(4, "3,,Training"), "line 4: 0 pixels"),
        (alter_line(4, f"3,{CROP[:-1]}x,Training"), "line 4: pixels are not integers"),
        (alter_line(4, f"3,{CROP[:-1]}256,Training"), "line 4: a pixel is not between 0 and 255"),
        (alter_line(4, f"3,{CROP[:-1]}-1,Training"), "line 4: a pixel is not between 0 and 255"),
        (alter_line(4, f"3,{CROP},Test"), "line 4: unknown Usage 'Test'"),
        (alter_line(4, f"3,{CROP}"), "line 4: 2 fields"),
    ],
)
def test_an_invalid_format_is_rejected_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        fer2013.read(path)
    assert message in str(raised.value)
    assert "icml_face_data.csv" in raised.value.hint


def test_unreadable_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        fer2013.read(tmp_path / "none.tar.gz")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        fer2013.read(tmp_path)
    whole = kaggle.write_tar(tmp_path / "fer2013.tar.gz", ROWS).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        fer2013.read(cut)


def test_an_archive_without_the_table_is_rejected(tmp_path: Path) -> None:
    import tarfile

    path = tmp_path / "other.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__, "fer2013/README")
    with pytest.raises(ConfigurationError, match=r"contains neither fer2013\.csv"):
        fer2013.read(path)
