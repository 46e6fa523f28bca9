"""The recipe: architecture and hyperparameters of a training run as data.

The card of an artifact contains its recipe, so that the run can be repeated. The names of the
fields are keys of the card and therefore do not change. This module does not depend on Keras.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fer_batch.errors import ConfigurationError
from fer_batch.phrases import describe_validation_error

MIN_NOISE_SIGMA, MAX_JPEG_QUALITY = 2.0, 80
"""The mildest noise (in gray values) and JPEG compression of the augmentation; the recipe sets the
strongest."""


class Stage(BaseModel):
    """Residual blocks of one resolution: half of the previous stage's, or the stem's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(ge=1, description="Channels")
    blocks: int = Field(ge=1, description="Residual blocks of two 3×3 convolutions")


class Augmentation(BaseModel):
    """The bounds of the random changes to a training crop, drawn anew in each epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip_share: float = Field(default=0.5, ge=0, le=1, description="Crops mirrored left to right")
    rotate_deg: float = Field(default=15.0, ge=0, description="Largest rotation, both ways")
    scale: float = Field(default=0.15, ge=0, lt=1, description="Largest change of size (a share)")
    shift_px: float = Field(default=3.0, ge=0, description="Largest shift on each axis, both ways")
    contrast: float = Field(default=0.3, ge=0, lt=1, description="Largest change of contrast")
    brightness: float = Field(default=30.0, ge=0, description="Largest change of gray value")
    blur_share: float = Field(default=0.1, ge=0, le=1, description="Crops blurred")
    blur_sigma_px: float = Field(default=1.2, gt=0, description="Largest sigma of the blur")
    cutout_share: float = Field(default=0.3, ge=0, le=1, description="Crops with a patch hidden")
    cutout_px: int = Field(default=14, ge=1, le=48, description="Largest side of the patch")
    few_pixels_share: float = Field(
        default=0.0, ge=0, le=1, description="Crops shrunk and enlarged again"
    )
    few_pixels_px: int = Field(default=13, ge=1, lt=48, description="Lowest resolution")
    noise_share: float = Field(default=0.0, ge=0, le=1, description="Crops with noise added")
    noise_sigma: float = Field(
        default=20.0, ge=MIN_NOISE_SIGMA, description="Largest sigma, in gray values"
    )
    jpeg_share: float = Field(default=0.0, ge=0, le=1, description="Crops compressed as JPEG")
    jpeg_quality: int = Field(default=15, ge=1, le=MAX_JPEG_QUALITY, description="Lowest quality")


FINE_TUNING_AUGMENTATION = Augmentation(
    blur_share=0.15,
    blur_sigma_px=1.8,
    few_pixels_share=0.15,
    noise_share=0.15,
    jpeg_share=0.15,
)
"""The augmentation of fine-tuning: each kind of corruption in a share of the crops."""


class FineTuning(BaseModel):
    """Further epochs with corrupted crops; the weights before and after them are averaged.

    The augmentation is independent of the recipe's; fields that are not given have the values of
    `FINE_TUNING_AUGMENTATION`. Averaging keeps the accuracy on clean images and most of the gained
    robustness to corruptions (Wortsman et al. 2022).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=0.006, gt=0, description="Peak")
    warmup_epochs: float = Field(default=0.5, ge=0, description="Linear rise to the peak")
    weight: float = Field(
        default=0.5, ge=0, le=1, description="Weight of the fine-tuned network in the average"
    )
    augmentation: Augmentation = FINE_TUNING_AUGMENTATION

    @field_validator("augmentation", mode="before")
    @classmethod
    def _complete_augmentation(cls, value: Any) -> Any:
        return FINE_TUNING_AUGMENTATION.model_dump() | value if isinstance(value, dict) else value


class Recipe(BaseModel):
    """Everything except the data that determines a training run. The shipped CNN was trained with
    the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 2013
    stem_width: int = Field(
        default=16, ge=1, description="Channels of the first convolution, at 24×24"
    )
    stages: tuple[Stage, ...] = (
        Stage(width=16, blocks=1),
        Stage(width=32, blocks=2),
        Stage(width=64, blocks=2),
        Stage(width=144, blocks=1),
    )
    is_mirrored: bool = Field(
        default=True,
        description="Whether the artifact averages the predictions for a crop and its mirror "
        "image, for twice the multiply-adds; does not affect training",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Before the last layer")
    epochs: int = Field(default=180, ge=1)
    batch: int = Field(default=128, ge=1, description="Crops in one step")
    learning_rate: float = Field(default=0.1, gt=0, description="Peak, of SGD with Nesterov 0.9")
    warmup_epochs: float = Field(default=2.0, ge=0, description="Linear rise to the peak")
    weight_decay: float = Field(default=5e-4, ge=0, description="Of kernels, decoupled")
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    votes_weight: float = Field(
        default=0.5, ge=0, le=1, description="Weight of the FER+ votes in the class targets"
    )
    pair_weight: float = Field(
        default=1.0, ge=0, description="Weight of the Happy/Sad loss relative to the class loss"
    )
    pair_votes_weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of the FER+ votes in the targets of Happy against Sad",
    )
    teacher_weight: float = Field(
        default=0.6, ge=0, le=1, description="Weight of the teacher's soft labels in the targets"
    )
    mix_alpha: float = Field(
        default=0.0,
        ge=0,
        description="Parameter of mixup's Beta distribution; 0 turns mixup off",
    )
    sharpness_radius: float = Field(
        default=0.1,
        ge=0,
        description="Radius of SAM (sharpness-aware minimization), the Euclidean norm of the "
        "ascent step; 0 turns SAM off",
    )
    sharpness_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of a batch that determines the ascent step of SAM. With 0.5 a step "
        "takes 1.5 times the work of a plain step, with 1 twice the work",
    )
    sharpness_from: float = Field(
        default=0.6, ge=0, le=1, description="Share of the epochs after which SAM begins"
    )
    precision: Literal["float32", "mixed_bfloat16"] = Field(
        default="float32", description="Precision of training; the export starts from float32"
    )
    is_quantised: bool = Field(
        default=True,
        description="Whether to quantize the artifact to int8 if that costs at most 0.002 of "
        "accuracy and of calibration error on PublicTest",
    )
    average_decay: float = Field(
        default=0.998, ge=0, lt=1, description="Decay of the moving average of weights, per step"
    )
    average_every: int = Field(
        default=4,
        ge=1,
        description="Steps between two updates of the moving average; an update takes 1/20 of the "
        "time of a step",
    )
    augmentation: Augmentation = Augmentation()
    finish: FineTuning | None = FineTuning()

    def omit_fine_tuning(self) -> Recipe:
        """The recipe without fine-tuning."""
        return self.model_copy(update={"finish": None})

    def derive_fine_tuning(self, fine_tuning: FineTuning) -> Recipe:
        """The recipe of the fine-tuning epochs, with the other values of this recipe.

        All fine-tuning epochs use SAM if any epoch of this recipe does.
        """
        changes = {
            "epochs": fine_tuning.epochs,
            "learning_rate": fine_tuning.learning_rate,
            "warmup_epochs": fine_tuning.warmup_epochs,
            "augmentation": fine_tuning.augmentation,
            "sharpness_from": 0.0 if self.first_sam_epoch < self.epochs else 1.0,
            "finish": None,
        }
        return self.model_copy(update=changes)

    @property
    def first_sam_epoch(self) -> int:
        """The first epoch with SAM steps, counted from 0; `epochs` if there is none."""
        return round(self.sharpness_from * self.epochs) if self.sharpness_radius else self.epochs

    def compute_work(self, epochs: int) -> float:
        """The work of the first `epochs` epochs, in units of an epoch without SAM."""
        sam_epochs = max(0, epochs - self.first_sam_epoch)
        return epochs + sam_epochs * self.sharpness_share

    def compute_fingerprint(self) -> str:
        """64 hexadecimal digits that are equal for recipes with the same training, even if the
        export differs."""
        fields = self.model_dump(mode="json", exclude={"is_quantised"})
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: Path) -> Recipe:
    """The recipe of a JSON file; fields that the file leaves out have their defaults.

    Raises ConfigurationError that names each invalid field.
    """
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"the recipe {path} cannot be read: {error.strerror}", "Give the path of a JSON file"
        ) from error
    except ValidationError as error:
        raise ConfigurationError(
            f"the recipe {path} is invalid: {describe_validation_error(error, 'recipe')}",
            "fer_batch/training/recipe.py describes every field",
        ) from None
