"""Quantization: nearly equal results on every processor, otherwise float32 is kept."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fer_batch.model.classifier import open_artifact
from fer_batch.model.fer2013 import Split
from fer_batch.resources import find_artifacts_dir
from fer_batch.training import export, network, quantization
from fer_batch.training.recipe import Recipe, Stage

SMALL = Recipe(stem_width=16, stages=(Stage(width=16, blocks=1), Stage(width=32, blocks=1)))
ANY_DEGRADATION = 1.0
"""More than accuracy or calibration can lose, so that quantization is always accepted."""


def generate_crops(count: int = 96) -> np.ndarray:
    """Different smooth patterns, so that a network gives different probabilities."""
    rng = np.random.default_rng(8)
    coarse = rng.integers(0, 256, (count, 6, 6))
    return np.kron(coarse, np.ones((1, 8, 8))).astype(np.uint8)


def build_public_split(labels: list[int] | None = None) -> Split:
    images = generate_crops()
    all_labels = labels or [3, 4, 6] * (len(images) // 3)
    return Split(images, np.array(all_labels, np.int8), np.arange(len(images), dtype=np.int32))


@pytest.fixture(scope="module")
def exported() -> bytes:
    keras.utils.set_random_seed(7)
    return export.export_onnx(network.build(SMALL), generate_crops())[0]


@pytest.fixture(scope="module")
def quantized(exported: bytes) -> bytes:
    return quantization.quantize_int8(exported, generate_crops())


def test_the_quantized_network_is_smaller_and_nearly_equal(
    exported: bytes, quantized: bytes
) -> None:
    before, after = (
        open_artifact(a, "network", 1)(generate_crops()) for a in (exported, quantized)
    )
    assert before.std(axis=0).max() > 0.01  # otherwise any network would agree
    assert 0 < np.abs(after - before).max() < 0.03
    assert len(quantized) < len(exported) / 2


def test_batch_size_and_composition_do_not_change_a_probability(quantized: bytes) -> None:
    classify = open_artifact(quantized, "network", 1)
    together = classify(generate_crops())
    alone = np.concatenate([classify(crop[None]) for crop in generate_crops()])
    assert np.abs(alone - together).max() < 1e-6
    assert np.abs(classify(generate_crops()[::-1])[::-1] - together).max() < 1e-6


def test_a_face_and_its_mirror_image_get_the_same_probabilities(quantized: bytes) -> None:
    classify = open_artifact(quantized, "network", 1)
    assert (
        np.abs(classify(generate_crops()) - classify(generate_crops()[:, :, ::-1].copy())).max()
        < 1e-6
    )


def test_the_file_depends_only_on_network_and_crops(exported: bytes, quantized: bytes) -> None:
    assert quantization.quantize_int8(exported, generate_crops()) == quantized
    assert b"fer-quantize" not in quantized  # the temporary folder


def list_int8_kernels(artifact: bytes) -> list[np.ndarray]:
    """The int8 kernels of the convolutions."""
    weights = onnx.load_from_string(artifact).graph.initializer
    kernels = (numpy_helper.to_array(weight) for weight in weights)
    return [kernel for kernel in kernels if kernel.dtype == np.int8 and kernel.ndim == 4]


def test_two_products_never_overflow_16_bits(quantized: bytes) -> None:
    """Without VNNI, two products of uint8 and int8 are added in 16 bits and saturate on overflow:
    the results would differ between processors."""
    shipped = (find_artifacts_dir() / "fer48.onnx").read_bytes()
    for artifact, least in ((quantized, 5), (shipped, 15)):
        kernels = list_int8_kernels(artifact)
        assert len(kernels) >= least
        for kernel in kernels:
            assert 2 * 255 * int(np.abs(kernel.astype(int)).max()) < 2**15


def test_rounding_differences_before_quantization_have_little_influence() -> None:
    """Processors round the first convolution (float32) differently, so some activations are
    quantized to the neighboring integer. The test changes the last bits of its weights."""
    shipped = onnx.load_from_string((find_artifacts_dir() / "fer48.onnx").read_bytes())
    first = next(node for node in shipped.graph.node if node.op_type == "Conv").input[1]
    (weight,) = [w for w in shipped.graph.initializer if w.name == first]
    kernel = numpy_helper.to_array(weight)
    assert kernel.dtype == np.float32
    rng = np.random.default_rng(5)
    nudged = kernel * (1 + rng.uniform(-2e-7, 2e-7, kernel.shape)).astype(np.float32)
    classify = open_artifact(shipped.SerializeToString(), "unchanged", 1)
    weight.CopyFrom(numpy_helper.from_array(nudged, first))
    classify_nudged = open_artifact(shipped.SerializeToString(), "nudged", 1)

    changes = np.abs(classify_nudged(generate_crops(640)) - classify(generate_crops(640)))

    assert 0 < changes.max() < 0.05
    assert changes.mean() < 1e-3


def test_standardization_stays_in_float32(quantized: bytes) -> None:
    """The variance of a crop spans four orders of magnitude, too much for int8."""
    graph = onnx.load_from_string(quantized).graph
    makers = {name: node for node in graph.node for name in node.output}
    root = next(node for node in graph.node if node.op_type == "Sqrt")
    assert makers[root.input[0]].op_type == "Add"


def quantize(exported: bytes, rows: Split) -> tuple[bytes, Any, dict[str, Any]]:
    classify = open_artifact(exported, "network", 1)
    return quantization.quantize_if_accurate(exported, classify, generate_crops(), rows)


def test_quantization_with_little_degradation_is_used(
    exported: bytes, quantized: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MAX_DEGRADATION", ANY_DEGRADATION)
    artifact, classify, facts = quantize(exported, build_public_split())
    assert artifact == quantized
    assert np.array_equal(
        classify(generate_crops()), open_artifact(quantized, "network", 1)(generate_crops())
    )
    assert facts["is_taken"]
    assert 0 < facts["mean_change_of_a_probability"] < facts["largest_change_of_a_probability"]


@pytest.mark.parametrize("worse", [0.003, float("nan")])
@pytest.mark.parametrize("key", ["accuracy_lost", "calibration_error_added"])
def test_quantization_with_too_much_degradation_is_not_used(
    exported: bytes, key: str, worse: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "compute_metrics", _degrade_second_call(key, worse))
    artifact, classify, facts = quantize(exported, build_public_split())
    assert artifact == exported
    assert np.array_equal(
        classify(generate_crops()), open_artifact(exported, "network", 1)(generate_crops())
    )
    assert not facts["is_taken"]
    assert facts[key] == pytest.approx(worse, nan_ok=True)


def _degrade_second_call(key: str, by: float) -> Any:
    """A replacement for `compute_metrics`: its second call, for the quantized network, is worse in
    `key`."""
    calls = []

    def compute_metrics(*_: Any) -> dict[str, Any]:
        calls.append(key)
        worse = by if len(calls) == 2 else 0.0
        accuracy = 0.95 - (worse if key == "accuracy_lost" else 0)
        ece = 0.01 + (worse if key == "calibration_error_added" else 0)
        return {"happy_sad": {"rows": 9, "accuracy": accuracy}, "calibration": {"ece": ece}}

    return compute_metrics


def test_without_happy_or_sad_faces_float32_is_kept(exported: bytes) -> None:
    artifact, _, facts = quantize(exported, build_public_split([6] * 96))
    assert artifact == exported
    assert facts == {"is_taken": False}
