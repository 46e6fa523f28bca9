"""Balancing Happy against Sad."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.training import balance, network
from fer_batch.training.fit import predict
from fer_batch.training.recipe import Recipe, Stage


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), sad_share=st.floats(0.1, 0.9))
def test_with_the_offset_as_many_sad_faces_are_expected_as_there_are(
    seed: int, sad_share: float
) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(7, 0.4), 200).astype(np.float32)
    labels = np.where(rng.random(200) < sad_share, 4, 3).astype(np.int8)
    labels[:3] = (3, 4, 6)
    offset = balance.sad_offset(probabilities, labels)
    polar = labels != 6
    chances = probabilities[polar].astype(float).clip(1e-12)
    odds = chances[:, 4] / chances[:, 3] * np.exp(offset)
    assert (odds / (1 + odds)).sum() == pytest.approx((labels == 4).sum(), abs=0.01)


def test_one_label_alone_moves_nothing() -> None:
    probabilities = np.full((5, 7), 1 / 7, np.float32)
    assert balance.sad_offset(probabilities, np.full(5, 3, np.int8)) == 0
    assert balance.sad_offset(probabilities, np.full(5, 6, np.int8)) == 0


def test_the_model_answers_with_the_offset() -> None:
    model = network.build(Recipe(stem_width=2, stages=(Stage(width=2, blocks=1),)))
    crops = np.random.default_rng(1).integers(0, 256, (5, 48, 48), np.uint8)
    before = np.log(predict(model, crops))
    balance.apply(model, 0.8)
    moved = np.log(predict(model, crops)) - before
    moved -= moved[:, :1]
    assert moved == pytest.approx(np.array([[0, 0, 0, -0.4, 0.4, 0, 0]] * 5), abs=1e-4)
