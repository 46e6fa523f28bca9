"""Balancing Happy against Sad."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.training import balance, network
from fer_batch.training.fit import predict
from fer_batch.training.recipe import Recipe, Stage


def margins(probabilities: np.ndarray) -> np.ndarray:
    chances = probabilities.astype(float).clip(1e-12)
    return np.log(chances[:, 4] / chances[:, 3])


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), sad_share=st.floats(0.1, 0.9))
def test_balanced_as_many_sad_faces_are_expected_as_there_are(seed: int, sad_share: float) -> None:
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(200) < sad_share, 4, 3).astype(np.int8)
    labels[:3] = (3, 4, 6)
    chances = rng.dirichlet(np.full(7, 0.4), 200)
    chances[np.arange(200), labels] += 1
    probabilities = (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32)
    found = balance.fit(probabilities, labels)
    assert found.scale > 0
    polar = labels != 6
    sad = 1 / (1 + np.exp(-(found.scale * margins(probabilities)[polar] + found.offset)))
    # The prior holds the offset back by its own size.
    assert sad.sum() + found.offset == pytest.approx((labels == 4).sum(), abs=0.01)


def test_a_network_too_sure_of_itself_is_made_less_sure() -> None:
    rng = np.random.default_rng(3)
    true_margin = rng.normal(0, 1.5, 4000)
    labels = np.where(rng.random(4000) < 1 / (1 + np.exp(-true_margin)), 4, 3).astype(np.int8)
    said = 1 / (1 + np.exp(-(2 * true_margin - 1)))
    probabilities = np.zeros((4000, 7), np.float32)
    probabilities[:, 4], probabilities[:, 3] = said, 1 - said
    found = balance.fit(probabilities, labels)
    assert found.scale == pytest.approx(0.5, abs=0.05)
    assert found.offset == pytest.approx(0.5, abs=0.1)


def test_one_label_alone_moves_nothing() -> None:
    probabilities = np.full((5, 7), 1 / 7, np.float32)
    assert balance.fit(probabilities, np.full(5, 3, np.int8)) == (1, 0)
    assert balance.fit(probabilities, np.full(5, 6, np.int8)) == (1, 0)


def test_the_model_answers_with_the_balance() -> None:
    model = network.build(Recipe(stem_width=2, stages=(Stage(width=2, blocks=1),)))
    crops = np.random.default_rng(1).integers(0, 256, (5, 48, 48), np.uint8)
    before = predict(model, crops)
    balance.apply(model, balance.Balance(1.7, 0.8))
    after = predict(model, crops)
    assert margins(after) == pytest.approx(1.7 * margins(before) + 0.8, abs=1e-4)
    others = [0, 1, 2, 5, 6]
    same = np.log(after[:, others]) - np.log(before[:, others])
    assert same == pytest.approx(np.repeat(same[:, :1], 5, axis=1), abs=1e-4)
