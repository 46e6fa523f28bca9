"""`make bench-model`: faces per second from decoded crops, compared with common alternatives.

Crops are 48×48 uint8 noise from a seeded generator: their content does not affect the speed. Every
contestant has all cores and a separate process; they take turns. The benchmark also measures
whether the probabilities of a face depend on the size or composition of its batch or on threads.
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
    build_result_path,
    convert_spreads,
    count_usable_cores,
    describe_machine,
    write_json,
)
from benchmarks.rounds import Contestant, Work, rotate_order, running_contestants

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


def generate_noise(count: int) -> Crops:
    """Noise crops uint8 [count,48,48]; the same for the same count."""
    rng = np.random.default_rng(SEED)
    return rng.integers(0, 256, (count, CROP_PX, CROP_PX), dtype=np.uint8)


# ---------------------------------------------------------------- contestants


def make_fer_batch(count: int, threads: int) -> Work:
    """The code path of scoring: chunk by chunk, from crops to `FaceScore`."""
    from fer_batch.imaging.faces import DetectedFace
    from fer_batch.model import active_model
    from fer_batch.model.classifier import Classifier, score_faces
    from fer_batch.records import Box
    from fer_batch.settings import Settings

    settings = Settings(_env_file=None, threads=threads)
    classifier = Classifier(settings, active_model.load_active(settings).cnn)
    crops = generate_noise(count)
    face = DetectedFace(Box(0, 0, CROP_PX, CROP_PX))

    def work() -> int:
        done = 0
        for start in range(0, count, settings.chunk_images):
            chunk = crops[start : start + settings.chunk_images]
            done += len(
                score_faces(
                    classifier.classify(chunk),
                    [face] * len(chunk),
                    classifier.rule,
                )
            )
        return done

    work()
    return work


def make_same_in_keras(count: int) -> Work:
    """The network of the card's recipe; its weights are random, which does not change the cost."""
    from fer_batch.model import active_model
    from fer_batch.settings import Settings
    from fer_batch.training import network
    from fer_batch.training.recipe import Recipe

    card = active_model.load_active(Settings(_env_file=None)).cnn.card
    recipe = Recipe.model_validate((card.model_extra or {})["recipe"])
    model = network.build(recipe.model_copy(update={"precision": "float32"}))
    crops = generate_noise(count)

    def work() -> int:
        return len(model.predict(crops, batch_size=KERAS_BATCH, verbose=0))

    work()
    return work


def make_fer_in_keras(count: int, is_singly: bool) -> Work:
    """The method of the `fer` package: OpenCV enlarges crops to 64×64, values scaled to -1 to 1."""
    import cv2

    from benchmarks import mini_xception

    model = mini_xception.build()
    crops = generate_noise(count)
    size = (mini_xception.INPUT_PX, mini_xception.INPUT_PX)

    def preprocess(batch: Crops) -> npt.NDArray[np.float32]:
        enlarged = np.stack([cv2.resize(crop, size) for crop in batch])
        scaled = (enlarged.astype(np.float32) / 255 - 0.5) * 2
        return np.asarray(scaled[..., np.newaxis], np.float32)

    def work() -> int:
        if not is_singly:
            return len(model.predict(preprocess(crops), batch_size=KERAS_BATCH, verbose=0))
        for number in range(count):
            model.predict(preprocess(crops[number : number + 1]), verbose=0)
        return count

    work()
    return work


# ---------------------------------------------------------------- reproducibility


def measure_differences() -> dict[str, float]:
    """The largest change of a probability by batch size, batch composition and threads."""
    from fer_batch.model import active_model, classifier
    from fer_batch.settings import Settings

    settings = Settings(_env_file=None)
    cnn = active_model.load_active(settings).cnn
    crops = np.concatenate([generate_noise(128), _draw_faces(128)])
    single_threaded, two_threads = (
        classifier.Classifier(settings.model_copy(update={"threads": threads}), cnn)
        for threads in (1, 2)
    )
    expected = single_threaded.classify(crops).probabilities

    def compute_difference(
        probabilities: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
    ) -> float:
        return float(np.abs(probabilities - reference).max())

    by_size = []
    for size in BATCH_SIZES:
        with mock.patch.object(classifier, "BATCH_SIZE", size):
            by_size.append(
                compute_difference(single_threaded.classify(crops).probabilities, expected)
            )
    rng = np.random.default_rng(SEED)
    orders = [rng.permutation(len(crops)) for _ in range(10)]
    return {
        "batch_size_1_to_256": max(by_size),
        "batch_composition": max(
            compute_difference(single_threaded.classify(crops[o]).probabilities, expected[o])
            for o in orders
        ),
        "threads_1_and_2": compute_difference(two_threads.classify(crops).probabilities, expected),
    }


def _draw_faces(count: int) -> Crops:
    import cv2

    from fer_batch.local.demo.drawing import draw_face
    from fer_batch.local.demo.heads import Mouth

    rng = np.random.default_rng(SEED)
    mouths: tuple[Mouth, ...] = ("smile", "droop", "level")
    drawn = (draw_face(rng, mouth) for mouth in itertools.islice(itertools.cycle(mouths), count))
    return np.stack([cv2.cvtColor(face, cv2.COLOR_BGR2GRAY) for face in drawn]).astype(np.uint8)


# ---------------------------------------------------------------- the benchmark


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, Spread]:
    """Faces per second of each contestant in each round."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number, order in rotate_order(list(contestants), rounds):
        for name in order:
            rates[name].append(contestants[name].run_turn().items_per_s)
        latest = ", ".join(f"{rates[name][-1]:,.0f}" for name in contestants)
        print(f"  round {number + 1} of {rounds}: {latest} faces/s", flush=True)
    return {name: Spread.from_values(figures) for name, figures in rates.items()}


def show(rates: dict[str, Spread], ratios: dict[str, Spread], changes: dict[str, float]) -> None:
    print("\nfaces/s, median (min to max)")
    for name, spread in rates.items():
        print(f"  {name:<56}{spread}")
    print("\nspeed of fer-batch relative to")
    for name, spread in ratios.items():
        print(f"  {name:<56}{spread}")
    print(f"\nlargest change of a probability (limit {LARGEST_DIFFERENCE:g})")
    for name, figure in changes.items():
        print(f"  {name.replace('_', ' '):<56}{figure:.1e}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    parser.add_argument("--rounds", type=int, default=7, help="at least 5 (default 7)")
    options = parser.parse_args()
    is_quick: bool = options.quick
    rounds = 2 if is_quick else max(options.rounds, 5)
    threads = count_usable_cores()
    machine_facts = describe_machine()
    counts = (512, 256, 256, 4) if is_quick else (16_384, 4_096, 4_096, 40)
    faces = dict(zip((OURS, SAME_IN_KERAS, FER, FER_SINGLY), counts, strict=True))
    makers: dict[str, Any] = {
        OURS: (make_fer_batch, (faces[OURS], threads)),
        SAME_IN_KERAS: (make_same_in_keras, (faces[SAME_IN_KERAS],)),
        FER: (make_fer_in_keras, (faces[FER], False)),
        FER_SINGLY: (make_fer_in_keras, (faces[FER_SINGLY], True)),
    }
    with running_contestants(makers, QUIET) as contestants:
        rates = measure(contestants, rounds)
    ratios = {n: Spread.from_ratios(rates[OURS], rates[n]) for n in rates if n != OURS}
    changes = measure_differences()
    show(rates, ratios, changes)
    write_json(
        build_result_path("model.json", is_quick=is_quick),
        {
            "is_quick": is_quick,
            "machine": machine_facts,
            "rounds": rounds,
            "threads": threads,
            "keras_batch": KERAS_BATCH,
            "faces_a_round": faces,
            "cnn": _describe_cnn(),
            "faces_per_s": convert_spreads(rates),
            "times_as_fast_as": convert_spreads(ratios),
            "largest_change_of_a_probability": changes,
        },
    )
    return 3 if max(changes.values()) > LARGEST_DIFFERENCE else 0


def _describe_cnn() -> dict[str, Any]:
    from fer_batch.model import active_model
    from fer_batch.settings import Settings

    card = active_model.load_active(Settings(_env_file=None)).cnn.card
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
