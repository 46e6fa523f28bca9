"""The network: its size is counted, not guessed, and ONNX answers like Keras."""

from __future__ import annotations

import random

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
    """A tiny network with the statistics of a trained one, so that folding them is tested."""
    keras.utils.set_random_seed(7)
    made = network.build(TINY)
    rng = np.random.default_rng(5)
    made.set_weights(
        [
            rng.uniform(0.5, 2, w.shape)
            if "variance" in v.path
            else w + rng.normal(0, 0.2, w.shape)
            for v, w in zip(made.weights, made.get_weights(), strict=True)
        ]
    )
    return made


def crops() -> np.ndarray:
    """Noise, and what a camera may also give: black, white, a single bright pixel."""
    made = np.random.default_rng(4).integers(0, 256, (131, 48, 48), np.uint8)
    made[0], made[1], made[2] = 0, 255, 0
    made[2, 20, 20] = 255
    return made


def test_multiply_adds_are_those_of_the_convolutions_and_the_last_layer(model: object) -> None:
    stem = 24 * 24 * 9 * 1 * 3
    first = 24 * 24 * (9 * 3 * 4 + 9 * 4 * 4 + 3 * 4)
    second = 12 * 12 * (9 * 4 * 5 + 9 * 5 * 5 + 4 * 5 + 2 * 9 * 5 * 5)
    assert network.multiply_adds(model) == stem + first + second + 5 * 7


def test_the_recipe_that_ships_is_small() -> None:
    shipped = network.build(Recipe())
    assert network.multiply_adds(shipped) <= 30_000_000
    assert shipped.count_params() < 1_000_000


def test_onnx_answers_like_keras_whatever_the_batch(model: object) -> None:
    artefact, classify, difference = export.to_onnx(model, crops())
    expected = predict(model, crops())
    assert difference <= 1e-4
    for size in (1, 7, 64, 131):
        parts = [classify(crops()[start : start + size]) for start in range(0, 131, size)]
        assert np.abs(np.concatenate(parts) - expected).max() <= 1e-4
    assert expected.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert expected.std(axis=0).max() > 1e-3  # else anything would agree
    graph = onnx.load_from_string(artefact).graph
    assert [value.name for value in graph.input] == ["crops"]
    assert [value.name for value in graph.output] == ["probabilities"]


def test_a_mirrored_network_says_the_same_of_a_face_and_its_mirror_image(model: object) -> None:
    mirrored = network.build(TINY.model_copy(update={"is_mirrored": True}))
    mirrored.set_weights(model.get_weights())
    seen, reflected = crops(), np.ascontiguousarray(crops()[:, :, ::-1])

    _, classify, _ = export.to_onnx(mirrored, seen)

    assert np.abs(classify(seen) - classify(reflected)).max() < 1e-6
    assert np.abs(predict(model, seen) - predict(model, reflected)).max() > 1e-3  # it is no wonder
    mean = (np.log(predict(model, seen)) + np.log(predict(model, reflected))) / 2
    expected = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    assert np.abs(classify(seen) - expected).max() < 1e-5
    assert network.multiply_adds(mirrored) == 2 * network.multiply_adds(model)
    assert mirrored.count_params() == model.count_params()


def test_light_and_contrast_hardly_matter(model: object) -> None:
    face = np.random.default_rng(4).integers(80, 160, (1, 48, 48)).astype(np.uint8)
    brighter = face + 80
    stronger = ((face.astype(int) - 120) * 3 + 120).clip(0, 255).astype(np.uint8)
    assert np.abs(predict(model, brighter) - predict(model, face)).max() < 1e-5
    # The contrast of the noise, 23 grey values, is far over the floor under the variance.
    assert np.abs(predict(model, stronger) - predict(model, face)).max() < 0.02


def test_the_file_is_the_same_in_whatever_order_the_converter_lists_the_nodes(
    model: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = set()

    def load(path: object) -> onnx.ModelProto:
        """The converted network with its nodes in another order, in which it runs as well."""
        converted = real_load(path)
        waiting = list(converted.graph.node)
        del converted.graph.node[:]
        made_later = {name for node in waiting for name in node.output}
        while waiting:
            ready = [node for node in waiting if made_later.isdisjoint(node.input)]
            chosen = rng.choice(ready)
            waiting.remove(chosen)
            made_later -= set(chosen.output)
            converted.graph.node.append(chosen)
        orders.add(tuple(node.name for node in converted.graph.node))
        onnx.checker.check_model(converted)
        return converted

    expected = export.to_onnx(model, crops())[0]
    real_load, rng = onnx.load, random.Random(3)
    monkeypatch.setattr("fer_batch.training.export.onnx.load", load)
    files = {export.to_onnx(model, crops())[0] for _ in range(6)}

    assert len(orders) > 1
    assert files == {expected}


def test_an_export_that_answers_otherwise_is_never_written(
    model: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "predict", lambda m, c: predict(m, c) + np.float32(2e-4))
    with pytest.raises(ModelError, match="differs from the Keras model"):
        export.to_onnx(model, crops())


def test_a_network_that_diverged_is_never_written() -> None:
    broken = network.build(TINY)
    broken.set_weights([np.full_like(w, np.nan) for w in broken.get_weights()])
    with pytest.raises(ModelError, match="no probabilities"):
        export.to_onnx(broken, crops())
