"""`make bench-model`: how many faces a second, from decoded crops, beside what others would run.

Crops are 48×48 uint8, from a seeded generator: what is on them makes no difference to the speed.
Every contestant has all cores and a process of its own; they take turns. Whether a face's
probabilities depend on batch size, company or threads is measured too.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import (
    QUIET,
    Spread,
    as_plain,
    machine,
    result_path,
    usable_cores,
    write_json,
)
from benchmarks.rounds import Contestant, Work, in_turn, ready

SEED = 48
CROP_PX = 48
KERAS_BATCH = 256
LARGEST_DIFFERENCE = 1e-4
BATCH_SIZES = (1, 2, 3, 5, 8, 13, 32, 63, 64, 65, 100, 128, 200, 255, 256)

OURS = "fer-batch"
SAME_IN_KERAS = "the same network in Keras predict"
FER = "the fer package's network in Keras predict"
FER_SINGLY = "the fer package's network in Keras predict, one by one"

Crops = npt.NDArray[np.uint8]


def noise(count: int) -> Crops:
    """Crops without a face, uint8 N×48×48; the same for the same count."""
    rng = np.random.default_rng(SEED)
    return rng.integers(0, 256, (count, CROP_PX, CROP_PX), dtype=np.uint8)


# ---------------------------------------------------------------- contestants


def ours(count: int, threads: int) -> Work:
    """The code path that scores: chunk by chunk, from crops to the records of faces."""
    from fer_batch import choice
    from fer_batch.classifier import Classifier
    from fer_batch.records import Box
    from fer_batch.settings import Settings

    settings = Settings(_env_file=None, threads=threads)
    classifier = Classifier(settings, choice.in_use(settings).cnn)
    crops = noise(count)
    box = Box(0, 0, CROP_PX, CROP_PX)

    def work() -> int:
        done = 0
        for start in range(0, count, settings.chunk_images):
            chunk = crops[start : start + settings.chunk_images]
            done += len(classifier.score_faces(chunk, [box] * len(chunk)))
        return done

    work()
    return work


def same_in_keras(count: int) -> Work:
    """The network of the card's recipe; its weights are random, which costs the same."""
    from fer_batch import choice
    from fer_batch.settings import Settings
    from fer_batch.training import network
    from fer_batch.training.recipe import Recipe

    card = choice.in_use(Settings(_env_file=None)).cnn.card
    recipe = Recipe.model_validate((card.model_extra or {})["recipe"])
    model = network.build(recipe.model_copy(update={"precision": "float32"}))
    crops = noise(count)

    def work() -> int:
        return len(model.predict(crops, batch_size=KERAS_BATCH, verbose=0))

    work()
    return work


def fer_in_keras(count: int, is_singly: bool) -> Work:
    """The `fer` package's way: crops enlarged to 64×64 by OpenCV and scaled to -1 … 1."""
    import cv2

    from benchmarks import mini_xception

    model = mini_xception.build()
    crops = noise(count)
    size = (mini_xception.INPUT_PX, mini_xception.INPUT_PX)

    def ready_made(some: Crops) -> npt.NDArray[np.float32]:
        enlarged = np.stack([cv2.resize(crop, size) for crop in some])
        scaled = (enlarged.astype(np.float32) / 255 - 0.5) * 2
        return np.asarray(scaled[..., np.newaxis], np.float32)

    def work() -> int:
        if not is_singly:
            return len(model.predict(ready_made(crops), batch_size=KERAS_BATCH, verbose=0))
        for number in range(count):
            model.predict(ready_made(crops[number : number + 1]), verbose=0)
        return count

    work()
    return work


# ---------------------------------------------------------------- the same whatever the batch


def differences() -> dict[str, float]:
    """The largest change of a probability by batch size, by company and by threads."""
    from fer_batch import choice, classifier
    from fer_batch.settings import Settings

    settings = Settings(_env_file=None)
    cnn = choice.in_use(settings).cnn
    crops = np.concatenate([noise(128), _faces(128)])
    one, two = (
        classifier.Classifier(settings.model_copy(update={"threads": threads}), cnn)
        for threads in (1, 2)
    )
    expected = one.classify(crops)

    def difference(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> float:
        return float(np.abs(found - wanted).max())

    by_size = []
    for size in BATCH_SIZES:
        with mock.patch.object(classifier, "BATCH", size):
            by_size.append(difference(one.classify(crops), expected))
    rng = np.random.default_rng(SEED)
    orders = [rng.permutation(len(crops)) for _ in range(10)]
    return {
        "batch_size_1_to_256": max(by_size),
        "batch_composition": max(difference(one.classify(crops[o]), expected[o]) for o in orders),
        "threads_1_and_2": difference(two.classify(crops), expected),
    }


def _faces(count: int) -> Crops:
    import cv2

    from fer_batch.demo.drawing import draw_face
    from fer_batch.demo.heads import Mouth

    rng = np.random.default_rng(SEED)
    mouths: tuple[Mouth, ...] = ("smile", "droop", "level")
    drawn = (draw_face(rng, mouth) for mouth in itertools.islice(itertools.cycle(mouths), count))
    return np.stack([cv2.cvtColor(face, cv2.COLOR_BGR2GRAY) for face in drawn]).astype(np.uint8)


# ---------------------------------------------------------------- the benchmark


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, Spread]:
    """Faces a second of each contestant, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number, order in in_turn(list(contestants), rounds):
        for name in order:
            rates[name].append(contestants[name].turn().items_per_s)
        said = ", ".join(f"{rates[name][-1]:,.0f}" for name in contestants)
        print(f"  round {number + 1} of {rounds}: {said} faces/s", flush=True)
    return {name: Spread.of(figures) for name, figures in rates.items()}


def show(rates: dict[str, Spread], ratios: dict[str, Spread], changed: dict[str, float]) -> None:
    print("\nfaces/s, median (min to max)")
    for name, spread in rates.items():
        print(f"  {name:<56}{spread}")
    print("\nfer-batch is so many times as fast as")
    for name, spread in ratios.items():
        print(f"  {name:<56}{spread}")
    print(f"\nlargest change of a probability (limit {LARGEST_DIFFERENCE:g})")
    for name, figure in changed.items():
        print(f"  {name.replace('_', ' '):<56}{figure:.1e}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; measures nothing")
    parser.add_argument("--rounds", type=int, default=7, help="at least 5 (default 7)")
    options = parser.parse_args()
    is_quick: bool = options.quick
    rounds = 2 if is_quick else max(options.rounds, 5)
    threads = usable_cores()
    described = machine()
    counts = (512, 256, 256, 4) if is_quick else (16_384, 4_096, 4_096, 40)
    faces = dict(zip((OURS, SAME_IN_KERAS, FER, FER_SINGLY), counts, strict=True))
    makers: dict[str, Any] = {
        OURS: (ours, (faces[OURS], threads)),
        SAME_IN_KERAS: (same_in_keras, (faces[SAME_IN_KERAS],)),
        FER: (fer_in_keras, (faces[FER], False)),
        FER_SINGLY: (fer_in_keras, (faces[FER_SINGLY], True)),
    }
    with ready(makers, QUIET) as contestants:
        rates = measure(contestants, rounds)
    ratios = {n: Spread.of_ratios(rates[OURS], rates[n]) for n in rates if n != OURS}
    changed = differences()
    show(rates, ratios, changed)
    write_json(
        result_path("model.json", is_quick=is_quick),
        {
            "is_quick": is_quick,
            "machine": described,
            "rounds": rounds,
            "threads": threads,
            "keras_batch": KERAS_BATCH,
            "faces_a_round": faces,
            "cnn": _cnn(),
            "faces_per_s": as_plain(rates),
            "times_as_fast_as": as_plain(ratios),
            "largest_change_of_a_probability": changed,
        },
    )
    return 3 if max(changed.values()) > LARGEST_DIFFERENCE else 0


def _cnn() -> dict[str, Any]:
    from fer_batch import choice
    from fer_batch.settings import Settings

    card = choice.in_use(Settings(_env_file=None)).cnn.card
    more = card.model_extra or {}
    return {
        "name": card.name,
        "artefact_sha256": card.artefact_sha256,
        "artefact_bytes": card.artefact_bytes,
        "multiply_adds": more.get("multiply_adds"),
        "parameters": more.get("parameters"),
    }


if __name__ == "__main__":
    sys.exit(main())
