"""Platt scaling of Happy against Sad."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.training import network, platt_scaling
from fer_batch.training.fit import predict
from fer_batch.training.recipe import Recipe, Stage


def compute_margins(probabilities: np.ndarray) -> np.ndarray:
    weights = probabilities.astype(float).clip(1e-12)
    return np.log(weights[:, 4] / weights[:, 3])


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), sad_share=st.floats(0.1, 0.9))
def test_the_expected_number_of_sad_faces_is_the_actual_number(seed: int, sad_share: float) -> None:
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(200) < sad_share, 4, 3).astype(np.int8)
    labels[:3] = (3, 4, 6)
    weights = rng.dirichlet(np.full(7, 0.4), 200)
    weights[np.arange(200), labels] += 1
    probabilities = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    scaling = platt_scaling.fit(probabilities, labels)
    assert scaling.scale > 0
    is_polar = labels != 6
    sad = 1 / (
        1 + np.exp(-(scaling.scale * compute_margins(probabilities)[is_polar] + scaling.offset))
    )
    # The prior shifts the sum by the size of the offset.
    assert sad.sum() + scaling.offset == pytest.approx((labels == 4).sum(), abs=0.01)


def test_an_overconfident_network_is_scaled_down() -> None:
    rng = np.random.default_rng(3)
    true_margin = rng.normal(0, 1.5, 4000)
    labels = np.where(rng.random(4000) < 1 / (1 + np.exp(-true_margin)), 4, 3).astype(np.int8)
    p_sad = 1 / (1 + np.exp(-(2 * true_margin - 1)))
    probabilities = np.zeros((4000, 7), np.float32)
    probabilities[:, 4], probabilities[:, 3] = p_sad, 1 - p_sad
    scaling = platt_scaling.fit(probabilities, labels)
    assert scaling.scale == pytest.approx(0.5, abs=0.05)
    assert scaling.offset == pytest.approx(0.5, abs=0.1)


def test_a_single_label_gives_the_identity() -> None:
    probabilities = np.full((5, 7), 1 / 7, np.float32)
    assert platt_scaling.fit(probabilities, np.full(5, 3, np.int8)) == (1, 0)
    assert platt_scaling.fit(probabilities, np.full(5, 6, np.int8)) == (1, 0)


def test_the_scaling_is_applied_to_the_model() -> None:
    model = network.build(Recipe(stem_width=2, stages=(Stage(width=2, blocks=1),)))
    crops = np.random.default_rng(1).integers(0, 256, (5, 48, 48), np.uint8)
    before = predict(model, crops)
    platt_scaling.apply(model, platt_scaling.PlattScaling(1.7, 0.8))
    after = predict(model, crops)
    assert compute_margins(after) == pytest.approx(1.7 * compute_margins(before) + 0.8, abs=1e-4)
    others = [0, 1, 2, 5, 6]
    same = np.log(after[:, others]) - np.log(before[:, others])
    assert same == pytest.approx(np.repeat(same[:, :1], 5, axis=1), abs=1e-4)
