"""The network and its export: its size, invariances, and agreement of ONNX and Keras."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
import onnx
import pytest

from fer_batch.errors import ModelError
from fer_batch.training import export, network
from fer_batch.training.fit import predict
from fer_batch.training.recipe import Recipe, Stage

TINY = Recipe(
    stem_width=3,
    stages=(Stage(width=4, blocks=1), Stage(width=5, blocks=2)),
    is_mirrored=False,
)


@pytest.fixture(scope="module")
def model() -> object:
    """A tiny network with batch statistics like those of a trained one, to test their folding."""
    keras.utils.set_random_seed(7)
    built = network.build(TINY)
    rng = np.random.default_rng(5)
    built.set_weights(
        [
            rng.uniform(0.5, 2, w.shape)
            if "variance" in v.path
            else w + rng.normal(0, 0.2, w.shape)
            for v, w in zip(built.weights, built.get_weights(), strict=True)
        ]
    )
    return built


def generate_crops() -> np.ndarray:
    """Noise, and extreme camera images: black, white, a single bright pixel."""
    built = np.random.default_rng(4).integers(0, 256, (131, 48, 48), np.uint8)
    built[0], built[1], built[2] = 0, 255, 0
    built[2, 20, 20] = 255
    return built


def test_multiply_adds_are_counted_for_convolutions_and_the_last_layer(model: Any) -> None:
    stem = 24 * 24 * 9 * 1 * 3
    first = 24 * 24 * (9 * 3 * 4 + 9 * 4 * 4 + 3 * 4)
    second = 12 * 12 * (9 * 4 * 5 + 9 * 5 * 5 + 4 * 5 + 2 * 9 * 5 * 5)
    assert network.count_multiply_adds(model) == stem + first + second + 5 * 7


def test_the_shipped_recipe_is_small() -> None:
    shipped = network.build(Recipe())
    assert network.count_multiply_adds(shipped) <= 30_000_000
    assert shipped.count_params() < 1_000_000


def test_onnx_and_keras_agree_for_any_batch_size(model: Any) -> None:
    artifact, classify, difference = export.export_onnx(model, generate_crops())
    expected = predict(model, generate_crops())
    assert difference <= 1e-4
    for size in (1, 7, 64, 131):
        parts = [classify(generate_crops()[start : start + size]) for start in range(0, 131, size)]
        assert np.abs(np.concatenate(parts) - expected).max() <= 1e-4
    assert expected.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert expected.std(axis=0).max() > 1e-3  # otherwise any network would agree
    graph = onnx.load_from_string(artifact).graph
    assert [value.name for value in graph.input] == ["crops"]
    assert [value.name for value in graph.output] == ["probabilities"]


def test_a_mirrored_network_is_invariant_to_mirroring(model: Any) -> None:
    mirrored = network.build(TINY.model_copy(update={"is_mirrored": True}))
    mirrored.set_weights(model.get_weights())
    images, reflected = generate_crops(), np.ascontiguousarray(generate_crops()[:, :, ::-1])

    _, classify, _ = export.export_onnx(mirrored, images)

    assert np.abs(classify(images) - classify(reflected)).max() < 1e-6
    assert (
        np.abs(predict(model, images) - predict(model, reflected)).max() > 1e-3
    )  # not trivially equal
    mean = (np.log(predict(model, images)) + np.log(predict(model, reflected))) / 2
    expected = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    assert np.abs(classify(images) - expected).max() < 1e-5
    assert network.count_multiply_adds(mirrored) == 2 * network.count_multiply_adds(model)
    assert mirrored.count_params() == model.count_params()


def test_brightness_and_contrast_have_little_influence(model: Any) -> None:
    face = np.random.default_rng(4).integers(80, 160, (1, 48, 48)).astype(np.uint8)
    brighter = face + 80
    stronger = ((face.astype(int) - 120) * 3 + 120).clip(0, 255).astype(np.uint8)
    assert np.abs(predict(model, brighter) - predict(model, face)).max() < 1e-5
    # The contrast of the noise, 23 gray values, is far over the floor under the variance.
    assert np.abs(predict(model, stronger) - predict(model, face)).max() < 0.02


def test_the_file_does_not_depend_on_the_converters_order_of_nodes(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: set[tuple[str, ...]] = set()

    def load(path: object) -> onnx.ModelProto:
        """The converted network with its nodes in another valid order."""
        converted = real_load(path)
        remaining = list(converted.graph.node)
        del converted.graph.node[:]
        pending_outputs = {name for node in remaining for name in node.output}
        while remaining:
            ready = [node for node in remaining if pending_outputs.isdisjoint(node.input)]
            node = rng.choice(ready)
            remaining.remove(node)
            pending_outputs -= set(node.output)
            converted.graph.node.append(node)
        orders.add(tuple(node.name for node in converted.graph.node))
        onnx.checker.check_model(converted)
        return converted

    expected = export.export_onnx(model, generate_crops())[0]
    real_load, rng = onnx.load, random.Random(3)
    monkeypatch.setattr("fer_batch.training.export.onnx.load", load)
    files = {export.export_onnx(model, generate_crops())[0] for _ in range(3)}

    assert len(orders) > 1
    assert files == {expected}


def test_an_export_that_differs_from_keras_is_rejected(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "predict", lambda m, c: predict(m, c) + np.float32(2e-4))
    with pytest.raises(ModelError, match="differs from the Keras model"):
        export.export_onnx(model, generate_crops())


def test_a_diverged_network_is_rejected() -> None:
    broken = network.build(TINY)
    broken.set_weights([np.full_like(w, np.nan) for w in broken.get_weights()])
    with pytest.raises(ModelError, match="no probabilities"):
        export.export_onnx(broken, generate_crops())
