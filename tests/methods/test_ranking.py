"""Thresholds among computed scores, against sorting all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tensorsurgeon.operators.ranking import Ranking, Threshold
from tensorsurgeon.operators.streaming import blocks
from tensorsurgeon.specs import SPAN
from tests.methods.references import Float64
from tests.methods.streamed import inputs_of

SCORES = {
    "continuous": lambda random, n: random.random(n),
    "few values": lambda random, n: random.integers(0, 4, n) / 4,
    "of any size": lambda random, n: 10 ** random.uniform(-60, 30, n),
    "all zero": lambda random, n: np.zeros(n),
    "alike to float32": lambda random, n: 1 + random.random(n) * 1e-9,
}


def ranking_of(scores: Float64) -> Ranking:
    return Ranking(inputs_of(scores), lambda block, start: block[0])


def kept(threshold: Threshold, scores: Float64) -> NDArray[np.bool_]:
    keep = threshold.keeping()
    return np.concatenate([keep(block[0]) for block in blocks(inputs_of(scores))])


def first(scores: Float64, place: int) -> NDArray[np.bool_]:
    order = np.argsort(-scores.astype(np.float32), kind="stable")
    mask = np.zeros(len(scores), bool)
    mask[order[:place]] = True
    return mask


@pytest.mark.parametrize("kind", SCORES)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 300), data=st.data())
def test_exactly_the_largest_are_kept_and_ties_by_index(
    kind: str, seed: int, n: int, data: st.DataObject
) -> None:
    scores = np.asarray(SCORES[kind](np.random.default_rng(seed), n))
    place = data.draw(st.integers(1, n))
    ranking = ranking_of(scores)
    (threshold,) = ranking.thresholds([place])
    assert ranking.nonzero == np.count_nonzero(scores.astype(np.float32))
    assert np.array_equal(kept(threshold, scores), first(scores, place))


@pytest.mark.parametrize("kind", SCORES)
def test_they_are_in_a_tensor_of_several_spans(kind: str) -> None:
    n = 2 * SPAN + 77
    scores = np.asarray(SCORES[kind](np.random.default_rng(1), n))
    places = [1, n // 10, n // 2, n]
    ordered = np.sort(scores.astype(np.float32))[::-1]
    for place, threshold in zip(places, ranking_of(scores).thresholds(places), strict=True):
        assert threshold.value == ordered[place - 1]
        for _ in range(2):  # every pass begins anew
            assert np.array_equal(kept(threshold, scores), first(scores, place))
