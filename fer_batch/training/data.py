"""What the network sees in training: targets out of labels and votes, and augmented batches.

A batch depends on the seed, the epoch and its number alone, so a run that is resumed sees what
it would have seen. Runs on one thread beside the training step, several times faster than it.
"""

from __future__ import annotations

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from fer_batch.fer2013 import CLASSES, CROP_PX, HAPPY, SAD, VOTES_OF_CLASS, Split
from fer_batch.robustness import as_jpeg, few_pixels
from fer_batch.training.recipe import MAX_JPEG_QUALITY, MIN_NOISE_SIGMA, Augmentation, Recipe

POLAR = [HAPPY, SAD]
"""Columns of the two classes that the product reports."""


def targets(
    split: Split, recipe: Recipe, soft_labels: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """[N,9] float32: seven classes, then Happy against Sad for the rows with one of those labels.

    The seven sum to 1: the label, mixed with the share of the FER+ votes where there are any, then
    with the teacher's `soft_labels` [N,7] if given. The pair sums to 1, or is 0, 0 in rows of the
    other labels; it takes the votes for Happy and Sad in the same way, with a weight of its own.
    Label smoothing goes on the label's part; voters who disagree need none.
    """
    classes = len(CLASSES)
    one_hot: NDArray[np.float32] = np.eye(classes, dtype=np.float32)[split.labels]
    seven = one_hot * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
    pair = one_hot[:, POLAR]
    is_polar = pair.any(axis=1, keepdims=True)
    pair = pair * (1 - recipe.label_smoothing) + is_polar * np.float32(recipe.label_smoothing / 2)
    if split.votes is not None:
        votes = split.votes[:, VOTES_OF_CLASS]
        seven = _with_votes(seven, votes, recipe.votes_weight)
        pair = is_polar * _with_votes(pair, votes[:, POLAR], recipe.pair_votes_weight)
    if soft_labels is not None:
        taught = soft_labels[:, POLAR]
        taught = is_polar * taught / np.maximum(taught.sum(axis=1, keepdims=True), 1e-6)
        share = recipe.teacher_weight
        seven = seven * (1 - share) + soft_labels * share
        pair = pair * (1 - share) + taught * share
    return np.concatenate([seven, pair], axis=1).astype(np.float32)


def _with_votes(
    wanted: NDArray[np.float32], votes: NDArray[np.float32], weight: float
) -> NDArray[np.float32]:
    """Targets mixed with the shares of the votes. Rows without one vote for any of the columns
    (contempt, unknown, no face, another expression) keep their label alone."""
    cast = votes.sum(axis=1, keepdims=True)
    share = np.where(cast > 0, weight, 0).astype(np.float32)
    mixed: NDArray[np.float32] = wanted * (1 - share) + votes / np.maximum(cast, 1) * share
    return mixed


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled, augmented batches of one epoch after the other, for `keras.Model.fit`."""

    def __init__(
        self, split: Split, recipe: Recipe, soft_labels: NDArray[np.float32] | None = None
    ) -> None:
        super().__init__()
        self._pixels = split.pixels
        self._targets = targets(split, recipe, soft_labels)
        self._recipe = recipe
        self.start(0)

    def start(self, epoch: int) -> None:
        """Give the batches of this epoch, counted from 0."""
        self._epoch = epoch
        rng = np.random.default_rng((self._recipe.seed, epoch))
        self._order = rng.permutation(len(self._pixels))

    def __len__(self) -> int:
        # The last, short batch is left out: its statistics would disturb normalisation.
        return max(1, len(self._pixels) // self._recipe.batch)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        size = self._recipe.batch
        chosen = self._order[index * size : (index + 1) * size]
        rng = np.random.default_rng((self._recipe.seed, self._epoch, index))
        crops = augment(self._pixels[chosen], self._recipe.augmentation, rng)
        return mix(crops, self._targets[chosen], self._recipe.mix_alpha, rng)

    def on_epoch_end(self) -> None:
        """Keras calls this between epochs."""
        self.start(self._epoch + 1)


def mix(
    crops: NDArray[np.uint8],
    wanted: NDArray[np.float32],
    alpha: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Each of `crops` [N,48,48] and its target [N,9] mixed with another's of the batch.

    The other's share is drawn from Beta(alpha, alpha), folded so that it is at most a half
    (Zhang, Cissé, Dauphin, Lopez-Paz 2017). With `alpha` 0 both stay as they are.
    """
    if alpha == 0:
        return crops, wanted
    drawn = rng.beta(alpha, alpha, len(crops)).astype(np.float32)
    share = np.minimum(drawn, 1 - drawn)[:, None]
    other = rng.permutation(len(crops))
    grey = crops * (1 - share[..., None]) + crops[other] * share[..., None]
    return grey.round().astype(np.uint8), wanted * (1 - share) + wanted[other] * share


def augment(
    crops: NDArray[np.uint8], how: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A changed copy of `crops` [N,48,48], each one by chance within the bounds of `how`."""
    changed = _moved(crops, how, rng)
    for index in np.flatnonzero(rng.random(len(crops)) < how.blur_share):
        sigma = rng.uniform(0.3, max(0.3, how.blur_sigma_px))
        changed[index] = cv2.GaussianBlur(changed[index], (0, 0), sigma)
    changed = _lit(changed, how, rng)
    for index in np.flatnonzero(rng.random(len(crops)) < how.cutout_share):
        height, width = rng.integers(1, how.cutout_px + 1, 2)
        y, x = rng.integers(0, (CROP_PX - height + 1, CROP_PX - width + 1))
        changed[index, y : y + height, x : x + width] = rng.integers(0, 256)
    _make_worse(changed, how, rng)
    return changed


def _make_worse(crops: NDArray[np.uint8], how: Augmentation, rng: np.random.Generator) -> None:
    """Few pixels, noise and compression, in place, in the order in which a camera adds them."""
    for index in _chosen(len(crops), how.few_pixels_share, rng):
        across = int(rng.integers(how.few_pixels_px, CROP_PX))
        crops[index] = few_pixels(across)(crops[index])
    for index in _chosen(len(crops), how.noise_share, rng):
        noise = rng.normal(0, rng.uniform(MIN_NOISE_SIGMA, how.noise_sigma), (CROP_PX, CROP_PX))
        crops[index] = (crops[index] + noise).clip(0, 255).round()
    for index in _chosen(len(crops), how.jpeg_share, rng):
        quality = int(rng.integers(how.jpeg_quality, MAX_JPEG_QUALITY + 1))
        crops[index] = as_jpeg(quality)(crops[index])


def _chosen(count: int, share: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Which of so many crops. Without a share nothing is drawn: older recipes keep their chance."""
    return np.flatnonzero(rng.random(count) < share) if share else np.empty(0, np.intp)


def _moved(
    crops: NDArray[np.uint8], how: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Mirrored, turned, scaled and shifted in one interpolation; the edge is continued."""
    count = len(crops)
    angle = np.deg2rad(rng.uniform(-how.rotate_deg, how.rotate_deg, count))
    scale = 1 + rng.uniform(-how.scale, how.scale, count)
    mirror = np.where(rng.random(count) < how.flip_share, -1.0, 1.0)
    shift = rng.uniform(-how.shift_px, how.shift_px, (count, 2))
    centre = (CROP_PX - 1) / 2
    matrices = np.empty((count, 2, 3))
    matrices[:, 0, 0] = np.cos(angle) * scale * mirror
    matrices[:, 0, 1] = -np.sin(angle) * scale
    matrices[:, 1, 0] = np.sin(angle) * scale * mirror
    matrices[:, 1, 1] = np.cos(angle) * scale
    matrices[:, :, 2] = centre + shift - matrices[:, :, :2].sum(axis=2) * centre
    moved = np.empty_like(crops)
    for index, matrix in enumerate(matrices):
        cv2.warpAffine(
            crops[index],
            matrix,
            (CROP_PX, CROP_PX),
            dst=moved[index],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return moved


def _lit(
    crops: NDArray[np.uint8], how: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Contrast and brightness changed; grey values past the ends are cut, as a camera does."""
    count = (len(crops), 1, 1)
    gain = 1 + rng.uniform(-how.contrast, how.contrast, count).astype(np.float32)
    offset = rng.uniform(-how.brightness, how.brightness, count).astype(np.float32)
    lit = (crops - np.float32(128)) * gain + 128 + offset
    return lit.clip(0, 255).astype(np.uint8)
