"""Training data: targets and augmented batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.model.fer2013 import VOTE_COLUMNS, Split
from fer_batch.training.data import AugmentedBatches, apply_mixup, augment, build_targets
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


def generate_crops(count: int = 20) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 48, 48), np.uint8)


def build_split(labels: list[int], votes: list[dict[str, int]] | None = None) -> Split:
    table = None
    if votes is not None:
        table = np.array([[v.get(column, 0) for column in VOTE_COLUMNS] for v in votes], np.float32)
    count = len(labels)
    return Split(
        generate_crops(count), np.array(labels, np.int8), np.arange(count, dtype=np.int32), table
    )


def test_votes_are_mixed_with_the_label() -> None:
    rows = build_split([4], [{"neutral": 6, "sadness": 2, "unknown": 2}])
    recipe = Recipe(votes_weight=0.5, label_smoothing=0)
    # The pair, Happy against Sad, depends only on the label.
    assert build_targets(rows, recipe)[0].tolist() == [0, 0, 0, 0, 0.5 + 0.125, 0, 0.375, 0, 1]


def test_votes_for_happy_or_sad_are_mixed_with_the_pair() -> None:
    votes = [
        {"happiness": 3, "sadness": 1, "neutral": 6},
        {"neutral": 10},
        {"happiness": 5, "anger": 5},
    ]
    recipe = Recipe(pair_votes_weight=0.5, label_smoothing=0)
    targets = build_targets(build_split([4, 4, 0], votes), recipe)[:, 7:].tolist()
    # The second row has no vote for either; the third has another label.
    assert targets == [[0.375, 0.625], [0, 1], [0, 0]]


def test_a_row_without_a_vote_for_an_expression_keeps_its_label() -> None:
    rows = build_split([4, 3], [{"NF": 10}, {"unknown": 7, "contempt": 3}])
    recipe = Recipe(votes_weight=0.5, label_smoothing=0)
    assert build_targets(rows, recipe)[:, :7].argmax(axis=1).tolist() == [4, 3]
    assert build_targets(rows, recipe)[:, :7].max(axis=1).tolist() == [1, 1]


@settings(max_examples=30)
@given(
    smoothing=st.floats(0, 0.9),
    weight=st.floats(0, 1),
    pair_weight=st.floats(0, 1),
    teacher_weight=st.floats(0, 1),
    has_votes=st.booleans(),
)
def test_targets_are_probabilities(
    smoothing: float, weight: float, pair_weight: float, teacher_weight: float, has_votes: bool
) -> None:
    votes = [{"happiness": 7, "NF": 3}, {"NF": 10}, {"fear": 1, "anger": 9}]
    rows = build_split([3, 6, 2], votes if has_votes else None)
    recipe = Recipe(
        label_smoothing=smoothing,
        votes_weight=weight,
        pair_votes_weight=pair_weight,
        teacher_weight=teacher_weight,
    )
    soft_labels = np.random.default_rng(1).dirichlet(np.ones(7), 3).astype(np.float32)
    targets = build_targets(rows, recipe, soft_labels)
    assert targets.dtype == np.float32
    assert targets.min() >= 0
    assert targets[:, :7].sum(axis=1) == pytest.approx(1, abs=1e-6)
    # Only the first row has a pair: the others have other labels.
    assert targets[:, 7:].sum(axis=1) == pytest.approx([1, 0, 0], abs=1e-6)


def test_with_full_weight_the_targets_are_the_soft_labels() -> None:
    soft_labels = np.array([[0.1, 0, 0, 0.6, 0.2, 0, 0.1]], np.float32)
    targets = build_targets(build_split([4]), Recipe(teacher_weight=1), soft_labels)
    assert targets[0] == pytest.approx([0.1, 0, 0, 0.6, 0.2, 0, 0.1, 0.75, 0.25])


def test_mixup_mixes_crops_and_targets_with_the_same_share() -> None:
    # Black crops are Happy, white ones Sad: the gray value is the expected share of Sad.
    grays = np.repeat(np.array([0, 255], np.uint8), 50)
    faces = np.broadcast_to(grays[:, None, None], (100, 48, 48))
    targets_before = build_targets(build_split([3] * 50 + [4] * 50), Recipe(label_smoothing=0))
    mixed, targets = apply_mixup(faces, targets_before, 0.5, np.random.default_rng(1))
    assert targets[:, 4] == pytest.approx(mixed[:, 0, 0] / 255, abs=0.01)
    assert targets[:, :7].sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert (mixed == mixed[:, :1, :1]).all()
    is_changed = mixed[:, 0, 0] != grays
    assert 10 < is_changed.sum() < 100
    # The share of the other crop is at most a half.
    assert np.array_equal(targets[:, 4] > 0.5, grays > 0)


def test_without_mixup_a_batch_is_unchanged() -> None:
    faces, targets_before = generate_crops(3), np.eye(3, 9, dtype=np.float32)
    mixed, targets = apply_mixup(faces, targets_before, 0, np.random.default_rng(1))
    assert np.array_equal(mixed, faces)
    assert np.array_equal(targets, targets_before)


def test_an_empty_augmentation_changes_nothing() -> None:
    assert np.array_equal(
        augment(generate_crops(), NOTHING, np.random.default_rng(1)), generate_crops()
    )


def test_flipping_mirrors_the_crops() -> None:
    augmentation = NOTHING.model_copy(update={"flip_share": 1})
    assert np.array_equal(
        augment(generate_crops(), augmentation, np.random.default_rng(1)),
        generate_crops()[:, :, ::-1],
    )


def test_every_part_of_the_augmentation_changes_copies_of_the_crops() -> None:
    for part in ("rotate_deg", "scale", "shift_px", "contrast", "brightness"):
        augmentation = NOTHING.model_copy(update={part: getattr(Augmentation(), part)})
        source = generate_crops()
        changed = augment(source, augmentation, np.random.default_rng(1))
        assert changed.dtype == np.uint8
        assert changed.shape == source.shape
        # A random change of brightness can be less than one gray value.
        assert (changed != source).any(axis=(1, 2)).mean() > 0.8, part
        assert np.array_equal(source, generate_crops())
    for part in (
        "blur_share",
        "cutout_share",
        "few_pixels_share",
        "noise_share",
        "jpeg_share",
    ):
        augmentation = NOTHING.model_copy(update={part: 1})
        assert (
            (augment(generate_crops(), augmentation, np.random.default_rng(1)) != generate_crops())
            .any(axis=(1, 2))
            .all()
        )


def test_gray_values_are_clipped_at_black_and_white() -> None:
    augmentation = NOTHING.model_copy(update={"brightness": 255.0, "contrast": 0.9})
    white = np.full((50, 48, 48), 250, np.uint8)
    changed = augment(white, augmentation, np.random.default_rng(1))
    # Integer overflow would spread a flat crop or make bright pixels dark.
    assert (changed.reshape(50, -1).std(axis=1) == 0).all()
    assert (changed == 255).any()


def test_corruptions_stay_within_the_bounds_of_the_recipe() -> None:
    faces = np.full((50, 48, 48), 128, np.uint8)
    augmentation = NOTHING.model_copy(update={"noise_share": 1, "noise_sigma": 20})
    sigmas = augment(faces, augmentation, np.random.default_rng(1)).reshape(50, -1).std(axis=1)
    assert sigmas.min() > 1.5
    assert 15 < sigmas.max() < 22
    noisy = np.random.default_rng(2).integers(0, 256, (50, 48, 48), np.uint8)
    lost = {}
    for lowest in (15, 80):
        augmentation = NOTHING.model_copy(update={"jpeg_share": 1, "jpeg_quality": lowest})
        compressed = augment(noisy, augmentation, np.random.default_rng(1))
        lost[lowest] = np.abs(compressed.astype(int) - noisy).mean(axis=(1, 2))
    assert lost[80].max() < np.median(lost[15])
    # Stripes two pixels wide survive 40 pixels across and disappear at low resolution.
    striped = np.tile(np.repeat(np.array([0, 255], np.uint8), 2), (50, 48, 12))
    for fewest, has_flat in ((40, False), (6, True)):
        augmentation = NOTHING.model_copy(update={"few_pixels_share": 1, "few_pixels_px": fewest})
        contrast = (
            augment(striped, augmentation, np.random.default_rng(1)).reshape(50, -1).std(axis=1)
        )
        assert (contrast.min() < 40) == has_flat


def test_a_batch_depends_only_on_seed_epoch_and_index() -> None:
    rows = build_split([0, 1, 2, 3, 4, 5, 6] * 10)
    recipe = Recipe(batch=16)
    sequential = AugmentedBatches(rows, recipe)
    for _ in range(3):
        sequential.on_epoch_end()
    jumped = AugmentedBatches(rows, recipe)
    jumped.start_epoch(3)
    for index in (2, 0):
        for part in (0, 1):
            assert np.array_equal(sequential[index][part], jumped[index][part])
    assert not np.array_equal(AugmentedBatches(rows, recipe)[0][0], jumped[0][0])
    other = AugmentedBatches(rows, recipe.model_copy(update={"seed": 1}))
    assert not np.array_equal(AugmentedBatches(rows, recipe)[0][0], other[0][0])


def test_an_epoch_has_each_row_once_except_an_incomplete_last_batch() -> None:
    rows = build_split([0, 1, 2, 3, 4, 5, 6] * 10)
    recipe = Recipe(batch=16, augmentation=NOTHING)
    batches = AugmentedBatches(rows, recipe)
    assert len(batches) == 4
    shown = np.concatenate([batches[index][0] for index in range(4)])
    shown_crops = {crop.tobytes() for crop in shown}
    assert len(shown_crops) == 64
    assert shown_crops <= {crop.tobytes() for crop in rows.pixels}
