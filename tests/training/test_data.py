"""What the network sees: targets and augmented batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.fer2013 import VOTE_COLUMNS, Split
from fer_batch.training.data import Batches, augment, mix, targets
from fer_batch.training.recipe import Augmentation, Recipe

NOTHING = Augmentation(
    flip_share=0,
    rotate_deg=0,
    scale=0,
    shift_px=0,
    contrast=0,
    brightness=0,
    blur_share=0,
    cutout_share=0,
)


def crops(count: int = 20) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 48, 48), np.uint8)


def split(labels: list[int], votes: list[dict[str, int]] | None = None) -> Split:
    table = None
    if votes is not None:
        table = np.array([[v.get(column, 0) for column in VOTE_COLUMNS] for v in votes], np.float32)
    count = len(labels)
    return Split(crops(count), np.array(labels, np.int8), np.arange(count, dtype=np.int32), table)


def test_votes_are_mixed_with_the_label() -> None:
    rows = split([4], [{"neutral": 6, "sadness": 2, "unknown": 2}])
    recipe = Recipe(votes_weight=0.5, label_smoothing=0)
    # The pair, Happy against Sad, knows the label alone.
    assert targets(rows, recipe)[0].tolist() == [0, 0, 0, 0, 0.5 + 0.125, 0, 0.375, 0, 1]


def test_votes_for_happy_or_sad_are_mixed_with_the_pair() -> None:
    votes = [
        {"happiness": 3, "sadness": 1, "neutral": 6},
        {"neutral": 10},
        {"happiness": 5, "anger": 5},
    ]
    recipe = Recipe(pair_votes_weight=0.5, label_smoothing=0)
    found = targets(split([4, 4, 0], votes), recipe)[:, 7:].tolist()
    # Nobody voted for either in the second row, and the third has another label.
    assert found == [[0.375, 0.625], [0, 1], [0, 0]]


def test_a_row_whose_voters_named_no_expression_keeps_its_label() -> None:
    rows = split([4, 3], [{"NF": 10}, {"unknown": 7, "contempt": 3}])
    recipe = Recipe(votes_weight=0.5, label_smoothing=0)
    assert targets(rows, recipe)[:, :7].argmax(axis=1).tolist() == [4, 3]
    assert targets(rows, recipe)[:, :7].max(axis=1).tolist() == [1, 1]


@settings(max_examples=30)
@given(
    smoothing=st.floats(0, 0.9),
    weight=st.floats(0, 1),
    pair_weight=st.floats(0, 1),
    taught=st.floats(0, 1),
    has_votes=st.booleans(),
)
def test_targets_are_probabilities(
    smoothing: float, weight: float, pair_weight: float, taught: float, has_votes: bool
) -> None:
    votes = [{"happiness": 7, "NF": 3}, {"NF": 10}, {"fear": 1, "anger": 9}]
    rows = split([3, 6, 2], votes if has_votes else None)
    recipe = Recipe(
        label_smoothing=smoothing,
        votes_weight=weight,
        pair_votes_weight=pair_weight,
        teacher_weight=taught,
    )
    soft_labels = np.random.default_rng(1).dirichlet(np.ones(7), 3).astype(np.float32)
    found = targets(rows, recipe, soft_labels)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found[:, :7].sum(axis=1) == pytest.approx(1, abs=1e-6)
    # Happy against Sad is asked of the first row alone: the others have other labels.
    assert found[:, 7:].sum(axis=1) == pytest.approx([1, 0, 0], abs=1e-6)


def test_with_all_the_weight_the_teacher_is_repeated() -> None:
    soft_labels = np.array([[0.1, 0, 0, 0.6, 0.2, 0, 0.1]], np.float32)
    found = targets(split([4]), Recipe(teacher_weight=1), soft_labels)
    assert found[0] == pytest.approx([0.1, 0, 0, 0.6, 0.2, 0, 0.1, 0.75, 0.25])


def test_mixed_crops_keep_their_targets_shares() -> None:
    # Black crops are Happy, white ones Sad: the grey value says how much of each there must be.
    greys = np.repeat(np.array([0, 255], np.uint8), 50)
    faces = np.broadcast_to(greys[:, None, None], (100, 48, 48))
    wanted = targets(split([3] * 50 + [4] * 50), Recipe(label_smoothing=0))
    mixed, found = mix(faces, wanted, 0.5, np.random.default_rng(1))
    assert found[:, 4] == pytest.approx(mixed[:, 0, 0] / 255, abs=0.01)
    assert found[:, :7].sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert (mixed == mixed[:, :1, :1]).all()
    is_changed = mixed[:, 0, 0] != greys
    assert 10 < is_changed.sum() < 100
    # Each is still more itself than the other.
    assert np.array_equal(found[:, 4] > 0.5, greys > 0)


def test_without_mixing_a_batch_stays_as_it_is() -> None:
    faces, wanted = crops(3), np.eye(3, 9, dtype=np.float32)
    mixed, found = mix(faces, wanted, 0, np.random.default_rng(1))
    assert np.array_equal(mixed, faces)
    assert np.array_equal(found, wanted)


def test_nothing_to_change_changes_nothing() -> None:
    assert np.array_equal(augment(crops(), NOTHING, np.random.default_rng(1)), crops())


def test_mirroring_alone_mirrors() -> None:
    how = NOTHING.model_copy(update={"flip_share": 1})
    assert np.array_equal(augment(crops(), how, np.random.default_rng(1)), crops()[:, :, ::-1])


def test_every_part_of_the_augmentation_changes_crops_and_leaves_the_source_alone() -> None:
    for part in ("rotate_deg", "scale", "shift_px", "contrast", "brightness"):
        how = NOTHING.model_copy(update={part: getattr(Augmentation(), part)})
        source = crops()
        changed = augment(source, how, np.random.default_rng(1))
        assert changed.dtype == np.uint8
        assert changed.shape == source.shape
        # By chance a crop may be brightened by less than one grey value.
        assert (changed != source).any(axis=(1, 2)).mean() > 0.8, part
        assert np.array_equal(source, crops())
    for part in (
        "blur_share",
        "cutout_share",
        "few_pixels_share",
        "noise_share",
        "jpeg_share",
    ):
        how = NOTHING.model_copy(update={part: 1})
        assert (augment(crops(), how, np.random.default_rng(1)) != crops()).any(axis=(1, 2)).all()


def test_light_is_cut_at_black_and_white() -> None:
    how = NOTHING.model_copy(update={"brightness": 255.0, "contrast": 0.9})
    white = np.full((50, 48, 48), 250, np.uint8)
    changed = augment(white, how, np.random.default_rng(1))
    # A wrapped sum would spread a flat crop or make bright ones dark at random.
    assert (changed.reshape(50, -1).std(axis=1) == 0).all()
    assert (changed == 255).any()


def test_worse_pictures_are_no_worse_than_asked() -> None:
    faces = np.full((50, 48, 48), 128, np.uint8)
    how = NOTHING.model_copy(update={"noise_share": 1, "noise_sigma": 20})
    sigmas = augment(faces, how, np.random.default_rng(1)).reshape(50, -1).std(axis=1)
    assert sigmas.min() > 1.5
    assert 15 < sigmas.max() < 22
    noisy = np.random.default_rng(2).integers(0, 256, (50, 48, 48), np.uint8)
    lost = {}
    for lowest in (15, 80):
        how = NOTHING.model_copy(update={"jpeg_share": 1, "jpeg_quality": lowest})
        compressed = augment(noisy, how, np.random.default_rng(1))
        lost[lowest] = np.abs(compressed.astype(int) - noisy).mean(axis=(1, 2))
    assert lost[80].max() < np.median(lost[15])
    # Stripes two pixels wide stay with 40 pixels across, and are gone with a few.
    striped = np.tile(np.repeat(np.array([0, 255], np.uint8), 2), (50, 48, 12))
    for fewest, has_flat in ((40, False), (6, True)):
        how = NOTHING.model_copy(update={"few_pixels_share": 1, "few_pixels_px": fewest})
        contrast = augment(striped, how, np.random.default_rng(1)).reshape(50, -1).std(axis=1)
        assert (contrast.min() < 40) == has_flat


def test_a_batch_depends_on_seed_epoch_and_number_alone() -> None:
    rows = split([0, 1, 2, 3, 4, 5, 6] * 10)
    recipe = Recipe(batch=16)
    walked = Batches(rows, recipe)
    for _ in range(3):
        walked.on_epoch_end()
    jumped = Batches(rows, recipe)
    jumped.start(3)
    for index in (2, 0):
        for left, right in zip(walked[index], jumped[index], strict=True):
            assert np.array_equal(left, right)
    assert not np.array_equal(Batches(rows, recipe)[0][0], jumped[0][0])
    other = Batches(rows, recipe.model_copy(update={"seed": 1}))
    assert not np.array_equal(Batches(rows, recipe)[0][0], other[0][0])


def test_an_epoch_shows_each_row_once_but_for_a_short_last_batch() -> None:
    rows = split([0, 1, 2, 3, 4, 5, 6] * 10)
    recipe = Recipe(batch=16, augmentation=NOTHING)
    batches = Batches(rows, recipe)
    assert len(batches) == 4
    shown = np.concatenate([batches[index][0] for index in range(4)])
    places = {crop.tobytes() for crop in shown}
    assert len(places) == 64
    assert places <= {crop.tobytes() for crop in rows.pixels}
