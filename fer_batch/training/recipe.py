"""The recipe of a training run as data: what the network is and how it learns.

A recipe goes into the card of the artefact that it made, so that the run can be made again.
It knows nothing of Keras or machines.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fer_batch.errors import ConfigurationError

MIN_NOISE_SIGMA, MAX_JPEG_QUALITY = 2.0, 80
"""The mildest of what a worse picture gets; how bad it may be is the recipe's."""


class Stage(BaseModel):
    """Residual blocks of one resolution, half of the one before (the first has the stem's)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(ge=1, description="Channels")
    blocks: int = Field(ge=1, description="Residual blocks of two 3×3 convolutions")


class Augmentation(BaseModel):
    """How far a training crop may be changed each time that it is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip_share: float = Field(default=0.5, ge=0, le=1, description="Crops mirrored left to right")
    rotate_deg: float = Field(default=15.0, ge=0, description="Largest turn either way")
    scale: float = Field(default=0.15, ge=0, lt=1, description="Largest change of size, as a share")
    shift_px: float = Field(default=3.0, ge=0, description="Largest shift either way, each axis")
    contrast: float = Field(default=0.3, ge=0, lt=1, description="Largest change of contrast")
    brightness: float = Field(default=30.0, ge=0, description="Largest change of grey value")
    blur_share: float = Field(default=0.1, ge=0, le=1, description="Crops blurred")
    blur_sigma_px: float = Field(default=1.2, gt=0, description="Largest sigma of the blur")
    cutout_share: float = Field(default=0.3, ge=0, le=1, description="Crops with a patch hidden")
    cutout_px: int = Field(default=14, ge=1, le=48, description="Largest side of the patch")
    few_pixels_share: float = Field(
        default=0.0, ge=0, le=1, description="Crops shrunk and enlarged again"
    )
    few_pixels_px: int = Field(default=13, ge=1, lt=48, description="Fewest pixels across")
    noise_share: float = Field(default=0.0, ge=0, le=1, description="Crops with noise added")
    noise_sigma: float = Field(
        default=20.0, ge=MIN_NOISE_SIGMA, description="Largest sigma, in grey values"
    )
    jpeg_share: float = Field(default=0.0, ge=0, le=1, description="Crops compressed as JPEG")
    jpeg_quality: int = Field(default=15, ge=1, le=MAX_JPEG_QUALITY, description="Lowest quality")


WORSE_PICTURES = Augmentation(
    blur_share=0.15,
    blur_sigma_px=1.8,
    few_pixels_share=0.15,
    noise_share=0.15,
    jpeg_share=0.15,
)
"""What the finish shows: each kind of fault in some of the crops."""


class Finish(BaseModel):
    """Epochs after the others that show worse pictures too; the weights of the network before and
    after them are averaged.

    Its augmentation takes nothing from the recipe's; what is not given of it is as in
    `WORSE_PICTURES`. The mean keeps what the first network knew of good pictures and most of what
    the second learned of worse ones (Wortsman et al. 2022).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=0.006, gt=0, description="Peak")
    warmup_epochs: float = Field(default=0.5, ge=0, description="Linear rise to the peak")
    weight: float = Field(
        default=0.5, ge=0, le=1, description="Of the network after them in the mean"
    )
    augmentation: Augmentation = WORSE_PICTURES

    @field_validator("augmentation", mode="before")
    @classmethod
    def _completed(cls, given: Any) -> Any:
        return WORSE_PICTURES.model_dump() | given if isinstance(given, dict) else given


class Recipe(BaseModel):
    """Everything that decides a training run but the data. The defaults made what ships."""

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
        description="Whether the artefact answers with the mean of a crop and its mirror image, "
        "for twice the multiply-adds; training shows one of them at a time either way",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Before the last layer")
    epochs: int = Field(default=180, ge=1)
    batch: int = Field(default=128, ge=1, description="Crops in one step")
    learning_rate: float = Field(default=0.1, gt=0, description="Peak, of SGD with Nesterov 0.9")
    warmup_epochs: float = Field(default=2.0, ge=0, description="Linear rise to the peak")
    weight_decay: float = Field(default=5e-4, ge=0, description="Of kernels, decoupled")
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    votes_weight: float = Field(
        default=0.5, ge=0, le=1, description="Weight of the FER+ votes beside the label"
    )
    pair_weight: float = Field(
        default=1.0, ge=0, description="Weight of Happy against Sad alone, beside the seven classes"
    )
    pair_votes_weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of the FER+ votes for Happy against Sad beside the label",
    )
    teacher_weight: float = Field(
        default=0.6, ge=0, le=1, description="Weight of the teacher's soft labels, where given"
    )
    mix_alpha: float = Field(
        default=0.0,
        ge=0,
        description="Of the Beta distribution that says how much of another crop is mixed into "
        "each; 0 mixes nothing",
    )
    sharpness_radius: float = Field(
        default=0.1,
        ge=0,
        description="Of sharpness-aware steps: each takes the gradient at the point this far "
        "(Euclidean norm) up the loss from the weights; 0 takes plain steps",
    )
    sharpness_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Of a batch, the crops that say which way is up. Half of them take 1.5 times "
        "the work of a plain step, all take twice",
    )
    sharpness_from: float = Field(
        default=0.6, ge=0, le=1, description="Share of the epochs after which they begin"
    )
    precision: Literal["float32", "mixed_bfloat16"] = Field(
        default="float32", description="Of the training's arithmetic; the export begins in float32"
    )
    is_quantised: bool = Field(
        default=True,
        description="Whether the artefact's convolutions then compute in eight bits, where that "
        "costs at most 0.002 of accuracy and calibration on PublicTest",
    )
    average_decay: float = Field(
        default=0.998, ge=0, lt=1, description="Of the running average of the weights, per step"
    )
    average_every: int = Field(
        default=4,
        ge=1,
        description="Steps from one look at the weights for their average to the next; a look "
        "takes 1/20 of a step",
    )
    augmentation: Augmentation = Augmentation()
    finish: Finish | None = Finish()

    def before_finish(self) -> Recipe:
        """The epochs before the finish, or all where there is none."""
        return self.model_copy(update={"finish": None})

    def of_finish(self, finish: Finish) -> Recipe:
        """The epochs of `finish` by the other values of this recipe; if any of these epochs
        are sharpness-aware, all of those are."""
        changed = {
            "epochs": finish.epochs,
            "learning_rate": finish.learning_rate,
            "warmup_epochs": finish.warmup_epochs,
            "augmentation": finish.augmentation,
            "sharpness_from": 0.0 if self.first_sharp_epoch < self.epochs else 1.0,
            "finish": None,
        }
        return self.model_copy(update=changed)

    @property
    def first_sharp_epoch(self) -> int:
        """The first epoch of sharpness-aware steps, counted from 0; `epochs` if there is none."""
        return round(self.sharpness_from * self.epochs) if self.sharpness_radius else self.epochs

    def work(self, epochs: int) -> float:
        """What the first `epochs` cost, in plain epochs."""
        sharp = max(0, epochs - self.first_sharp_epoch)
        return epochs + sharp * self.sharpness_share

    def fingerprint(self) -> str:
        """64 hex digits that are equal for recipes that train alike, whatever is exported then."""
        trained = self.model_dump(mode="json", exclude={"is_quantised"})
        text = json.dumps(trained, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path) -> Recipe:
    """A recipe out of a JSON file; what the file leaves out has its default.

    Raises ConfigurationError naming each value that is wrong.
    """
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the recipe {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'recipe'}: {e['msg']}"
            for e in error.errors()
        )
        raise ConfigurationError(
            f"the recipe {path} is wrong: {wrong}",
            "Every value is explained in fer_batch/training/recipe.py",
        ) from None
