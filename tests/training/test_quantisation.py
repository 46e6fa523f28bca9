"""Eight bits: the same answers to a little, on every processor, or float32 is kept."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fer_batch.classifier import open_artefact
from fer_batch.fer2013 import Split
from fer_batch.resources import artefacts_dir
from fer_batch.training import export, network, quantisation
from fer_batch.training.recipe import Recipe, Stage

SMALL = Recipe(stem_width=16, stages=(Stage(width=16, blocks=1), Stage(width=32, blocks=1)))
ANY_COST = 1.0
"""More than accuracy or calibration can lose."""


def crops(count: int = 96) -> np.ndarray:
    """Smooth patterns that differ, so that a network has something to tell apart."""
    rng = np.random.default_rng(8)
    coarse = rng.integers(0, 256, (count, 6, 6))
    return np.kron(coarse, np.ones((1, 8, 8))).astype(np.uint8)


def public(labels: list[int] | None = None) -> Split:
    made = crops()
    given = labels or [3, 4, 6] * (len(made) // 3)
    return Split(made, np.array(given, np.int8), np.arange(len(made), dtype=np.int32))


@pytest.fixture(scope="module")
def exported() -> bytes:
    keras.utils.set_random_seed(7)
    return export.to_onnx(network.build(SMALL), crops())[0]


@pytest.fixture(scope="module")
def quantised(exported: bytes) -> bytes:
    return quantisation.to_eight_bits(exported, crops())


def test_eight_bits_say_nearly_the_same_in_a_smaller_file(
    exported: bytes, quantised: bytes
) -> None:
    before, after = (open_artefact(a, "network", 1)(crops()) for a in (exported, quantised))
    assert before.std(axis=0).max() > 0.01  # else anything would agree
    assert 0 < np.abs(after - before).max() < 0.03
    assert len(quantised) < len(exported) / 2


def test_neither_company_nor_batch_changes_an_answer(quantised: bytes) -> None:
    classify = open_artefact(quantised, "network", 1)
    together = classify(crops())
    alone = np.concatenate([classify(crop[None]) for crop in crops()])
    assert np.abs(alone - together).max() < 1e-6
    assert np.abs(classify(crops()[::-1])[::-1] - together).max() < 1e-6


def test_a_face_and_its_mirror_image_get_the_same_answer(quantised: bytes) -> None:
    classify = open_artefact(quantised, "network", 1)
    assert np.abs(classify(crops()) - classify(crops()[:, :, ::-1].copy())).max() < 1e-6


def test_the_file_depends_on_network_and_crops_alone(exported: bytes, quantised: bytes) -> None:
    assert quantisation.to_eight_bits(exported, crops()) == quantised
    assert b"fer-quantise" not in quantised  # where it was made


def whole_weights(artefact: bytes) -> list[np.ndarray]:
    """The int8 kernels of the convolutions."""
    weights = onnx.load_from_string(artefact).graph.initializer
    kernels = (numpy_helper.to_array(weight) for weight in weights)
    return [kernel for kernel in kernels if kernel.dtype == np.int8 and kernel.ndim == 4]


def test_no_processor_has_to_cut_a_sum_of_two_products(quantised: bytes) -> None:
    """Without VNNI two products of uint8 and int8 are added in 16 bits, and cut where they do
    not fit: the answers would be others than here."""
    shipped = (artefacts_dir() / "fer48.onnx").read_bytes()
    for artefact, least in ((quantised, 5), (shipped, 15)):
        kernels = whole_weights(artefact)
        assert len(kernels) >= least
        for kernel in kernels:
            assert 2 * 255 * int(np.abs(kernel.astype(int)).max()) < 2**15


def test_another_rounding_before_the_whole_numbers_changes_little() -> None:
    """Processors round the first convolution, in float32, in their own ways, and some activation
    then falls on the other side of a half. Here the last bits of its weights are changed."""
    shipped = onnx.load_from_string((artefacts_dir() / "fer48.onnx").read_bytes())
    first = next(node for node in shipped.graph.node if node.op_type == "Conv").input[1]
    (weight,) = [w for w in shipped.graph.initializer if w.name == first]
    kernel = numpy_helper.to_array(weight)
    assert kernel.dtype == np.float32
    rng = np.random.default_rng(5)
    nudged = kernel * (1 + rng.uniform(-2e-7, 2e-7, kernel.shape)).astype(np.float32)
    classify = open_artefact(shipped.SerializeToString(), "as it is", 1)
    weight.CopyFrom(numpy_helper.from_array(nudged, first))
    classify_nudged = open_artefact(shipped.SerializeToString(), "nudged", 1)

    changes = np.abs(classify_nudged(crops(640)) - classify(crops(640)))

    assert 0 < changes.max() < 0.05
    assert changes.mean() < 1e-3


def test_light_is_measured_in_float32(quantised: bytes) -> None:
    """The variance of a crop spans four orders of magnitude: eight bits cannot hold it."""
    graph = onnx.load_from_string(quantised).graph
    makers = {name: node for node in graph.node for name in node.output}
    root = next(node for node in graph.node if node.op_type == "Sqrt")
    assert makers[root.input[0]].op_type == "Add"


def choose(exported: bytes, rows: Split) -> tuple[bytes, Any, dict[str, Any]]:
    classify = open_artefact(exported, "network", 1)
    return quantisation.where_it_costs_little(exported, classify, crops(), rows)


def test_what_costs_little_is_taken_and_said(
    exported: bytes, quantised: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "MAX_COST", ANY_COST)
    artefact, classify, facts = choose(exported, public())
    assert artefact == quantised
    assert np.array_equal(classify(crops()), open_artefact(quantised, "network", 1)(crops()))
    assert facts["is_taken"]
    assert 0 < facts["mean_change_of_a_probability"] < facts["largest_change_of_a_probability"]


@pytest.mark.parametrize("worse", [0.003, float("nan")])
@pytest.mark.parametrize("key", ["accuracy_lost", "calibration_error_added"])
def test_what_costs_too_much_stays_in_float32(
    exported: bytes, key: str, worse: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "figures", _worse_the_second_time(key, worse))
    artefact, classify, facts = choose(exported, public())
    assert artefact == exported
    assert np.array_equal(classify(crops()), open_artefact(exported, "network", 1)(crops()))
    assert not facts["is_taken"]
    assert facts[key] == pytest.approx(worse, nan_ok=True)


def _worse_the_second_time(key: str, by: float) -> Any:
    """Stands in for `figures`: the quantised network, asked second, is worse in `key`."""
    asked = []

    def figures(*_: Any) -> dict[str, Any]:
        asked.append(key)
        worse = by if len(asked) == 2 else 0.0
        accuracy = 0.95 - (worse if key == "accuracy_lost" else 0)
        ece = 0.01 + (worse if key == "calibration_error_added" else 0)
        return {"happy_sad": {"rows": 9, "accuracy": accuracy}, "calibration": {"ece": ece}}

    return figures


def test_without_a_happy_or_sad_face_nothing_is_given_up(exported: bytes) -> None:
    artefact, _, facts = choose(exported, public([6] * 96))
    assert artefact == exported
    assert facts == {"is_taken": False}
