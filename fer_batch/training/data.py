"""Training data: targets from labels, votes and soft labels, and augmented batches.

A batch depends only on the seed, the epoch and its index, so a resumed run gets the same batches.
One thread beside the training step is enough: it is several times faster than the step.
"""

from __future__ import annotations

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from fer_batch.model.corruptions import compress_jpeg, downsample
from fer_batch.model.fer2013 import CLASSES, CROP_PX, HAPPY, SAD, VOTES_OF_CLASS, Split
from fer_batch.training.recipe import MAX_JPEG_QUALITY, MIN_NOISE_SIGMA, Augmentation, Recipe

HAPPY_SAD_COLUMNS = [HAPPY, SAD]
"""Columns of the two classes that fer-batch reports."""


def build_targets(
    split: Split, recipe: Recipe, soft_labels: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """float32 [N,9]: targets of the seven classes, then of the pair Happy against Sad.

    The class targets sum to 1: the label, mixed with the shares of the FER+ votes if there are any,
    then with the teacher's `soft_labels` float32 [N,7] if given (Hinton, Vinyals, Dean 2015). The
    pair sums to 1 in rows labeled Happy or Sad and is 0, 0 in the others; it is mixed with the
    votes for Happy and Sad in the same way, with a separate weight. Label smoothing (Szegedy et
    al. 2016) applies to the label only, because votes already express disagreement.
    """
    classes = len(CLASSES)
    one_hot: NDArray[np.float32] = np.eye(classes, dtype=np.float32)[split.labels]
    class_targets = one_hot * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
    pair = one_hot[:, HAPPY_SAD_COLUMNS]
    is_polar = pair.any(axis=1, keepdims=True)
    pair = pair * (1 - recipe.label_smoothing) + is_polar * np.float32(recipe.label_smoothing / 2)
    if split.votes is not None:
        votes = split.votes[:, VOTES_OF_CLASS]
        class_targets = _mix_votes(class_targets, votes, recipe.votes_weight)
        pair = is_polar * _mix_votes(pair, votes[:, HAPPY_SAD_COLUMNS], recipe.pair_votes_weight)
    if soft_labels is not None:
        teacher_pair = soft_labels[:, HAPPY_SAD_COLUMNS]
        pair_sum = np.maximum(teacher_pair.sum(axis=1, keepdims=True), 1e-6)
        teacher_pair = is_polar * teacher_pair / pair_sum
        weight = recipe.teacher_weight
        class_targets = class_targets * (1 - weight) + soft_labels * weight
        pair = pair * (1 - weight) + teacher_pair * weight
    return np.concatenate([class_targets, pair], axis=1).astype(np.float32)


def _mix_votes(
    targets: NDArray[np.float32], votes: NDArray[np.float32], weight: float
) -> NDArray[np.float32]:
    """Targets [N,C] mixed with the shares of the votes [N,C].

    Rows without a vote for any of the columns (only contempt, unknown, no face or another
    expression) keep their target.
    """
    total = votes.sum(axis=1, keepdims=True)
    share = np.where(total > 0, weight, 0).astype(np.float32)
    mixed: NDArray[np.float32] = targets * (1 - share) + votes / np.maximum(total, 1) * share
    return mixed


class AugmentedBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled, augmented batches of consecutive epochs, for `keras.Model.fit`.

    An item is crops uint8 [batch,48,48] and targets float32 [batch,9].
    """

    def __init__(
        self, split: Split, recipe: Recipe, soft_labels: NDArray[np.float32] | None = None
    ) -> None:
        super().__init__()
        self._pixels = split.pixels
        self._targets = build_targets(split, recipe, soft_labels)
        self._recipe = recipe
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Switch to the batches of this epoch, counted from 0."""
        self._epoch = epoch
        rng = np.random.default_rng((self._recipe.seed, epoch))
        self._order = rng.permutation(len(self._pixels))

    def __len__(self) -> int:
        # The incomplete last batch is dropped: its statistics would disturb batch normalization.
        return max(1, len(self._pixels) // self._recipe.batch)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        size = self._recipe.batch
        rows = self._order[index * size : (index + 1) * size]
        rng = np.random.default_rng((self._recipe.seed, self._epoch, index))
        crops = augment(self._pixels[rows], self._recipe.augmentation, rng)
        return apply_mixup(crops, self._targets[rows], self._recipe.mix_alpha, rng)

    def on_epoch_end(self) -> None:
        """Advance to the next epoch; called by Keras."""
        self.start_epoch(self._epoch + 1)


def apply_mixup(
    crops: NDArray[np.uint8],
    targets: NDArray[np.float32],
    alpha: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mixup: each of `crops` uint8 [N,48,48] and its target [N,9] mixed with another of the batch.

    The share of the other crop is drawn from Beta(alpha, alpha) and folded to at most 0.5 (Zhang,
    Cissé, Dauphin, Lopez-Paz 2017). With `alpha` 0 both are returned unchanged.
    """
    if alpha == 0:
        return crops, targets
    beta = rng.beta(alpha, alpha, len(crops)).astype(np.float32)
    share = np.minimum(beta, 1 - beta)[:, None]
    other = rng.permutation(len(crops))
    gray = crops * (1 - share[..., None]) + crops[other] * share[..., None]
    return gray.round().astype(np.uint8), targets * (1 - share) + targets[other] * share


def augment(
    crops: NDArray[np.uint8], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A randomly augmented copy of `crops` uint8 [N,48,48], within the bounds of `augmentation`."""
    augmented = _warp(crops, augmentation, rng)
    for index in np.flatnonzero(rng.random(len(crops)) < augmentation.blur_share):
        sigma = rng.uniform(0.3, max(0.3, augmentation.blur_sigma_px))
        augmented[index] = cv2.GaussianBlur(augmented[index], (0, 0), sigma)
    augmented = _scale_light(augmented, augmentation, rng)
    for index in np.flatnonzero(rng.random(len(crops)) < augmentation.cutout_share):
        height, width = rng.integers(1, augmentation.cutout_px + 1, 2)
        y, x = rng.integers(0, (CROP_PX - height + 1, CROP_PX - width + 1))
        augmented[index, y : y + height, x : x + width] = rng.integers(0, 256)
    _corrupt(augmented, augmentation, rng)
    return augmented


def _corrupt(
    crops: NDArray[np.uint8], augmentation: Augmentation, rng: np.random.Generator
) -> None:
    """Low resolution, noise and compression, in place, in the order in which a camera adds them."""
    for index in _draw_rows(len(crops), augmentation.few_pixels_share, rng):
        size_px = int(rng.integers(augmentation.few_pixels_px, CROP_PX))
        crops[index] = downsample(size_px)(crops[index])
    for index in _draw_rows(len(crops), augmentation.noise_share, rng):
        sigma = rng.uniform(MIN_NOISE_SIGMA, augmentation.noise_sigma)
        noise = rng.normal(0, sigma, (CROP_PX, CROP_PX))
        crops[index] = (crops[index] + noise).clip(0, 255).round()
    for index in _draw_rows(len(crops), augmentation.jpeg_share, rng):
        quality = int(rng.integers(augmentation.jpeg_quality, MAX_JPEG_QUALITY + 1))
        crops[index] = compress_jpeg(quality)(crops[index])


def _draw_rows(count: int, share: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """A random choice of row indices below `count`.

    With a share of 0 no random number is drawn, so recipes without these corruptions reproduce
    their random sequence.
    """
    return np.flatnonzero(rng.random(count) < share) if share else np.empty(0, np.intp)


def _warp(
    crops: NDArray[np.uint8], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Mirror, rotate, scale and shift in one interpolation; edge pixels are replicated."""
    count = len(crops)
    angle = np.deg2rad(rng.uniform(-augmentation.rotate_deg, augmentation.rotate_deg, count))
    scale = 1 + rng.uniform(-augmentation.scale, augmentation.scale, count)
    mirror = np.where(rng.random(count) < augmentation.flip_share, -1.0, 1.0)
    shift = rng.uniform(-augmentation.shift_px, augmentation.shift_px, (count, 2))
    center = (CROP_PX - 1) / 2
    matrices = np.empty((count, 2, 3))
    matrices[:, 0, 0] = np.cos(angle) * scale * mirror
    matrices[:, 0, 1] = -np.sin(angle) * scale
    matrices[:, 1, 0] = np.sin(angle) * scale * mirror
    matrices[:, 1, 1] = np.cos(angle) * scale
    matrices[:, :, 2] = center + shift - matrices[:, :, :2].sum(axis=2) * center
    warped = np.empty_like(crops)
    for index, matrix in enumerate(matrices):
        cv2.warpAffine(
            crops[index],
            matrix,
            (CROP_PX, CROP_PX),
            dst=warped[index],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return warped


def _scale_light(
    crops: NDArray[np.uint8], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Change contrast and brightness; values outside 0 to 255 are clipped, as by a camera."""
    contrast, brightness = augmentation.contrast, augmentation.brightness
    shape = (len(crops), 1, 1)
    gain = 1 + rng.uniform(-contrast, contrast, shape).astype(np.float32)
    offset = rng.uniform(-brightness, brightness, shape).astype(np.float32)
    relit = (crops - np.float32(128)) * gain + 128 + offset
    return relit.clip(0, 255).astype(np.uint8)
