"""Mixtures: every source gets its share, and a sample's place depends on its number alone."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data.mixture import BLOCK, PERIOD, SOURCE_LIMIT, Mixture
from tensorsurgeon.trainer.data.orders import Recent, order

weights = st.lists(st.floats(0.1, 1000), min_size=1, max_size=SOURCE_LIMIT)


@settings(deadline=None, max_examples=30)
@given(weights=weights)
def test_after_every_block_each_source_is_within_one_sample_of_its_share(
    weights: list[float],
) -> None:
    mixture = Mixture(weights, 0)
    blocks = np.arange(2 * PERIOD + 1)
    counts = np.array([mixture.before_block(int(block)) for block in blocks])
    assert (counts.sum(axis=1) == blocks * BLOCK).all()
    assert (np.diff(counts, axis=0) >= 0).all()
    # In whole numbers: |count - blocks * units / PERIOD| < 1.
    assert (np.abs(counts * PERIOD - blocks[:, None] * mixture.units) < PERIOD).all()


@given(weights=st.lists(st.integers(1, 50), min_size=1, max_size=SOURCE_LIMIT))
@settings(deadline=None, max_examples=30)
def test_weights_are_kept_to_a_millionth(weights: list[int]) -> None:
    mixture = Mixture(weights, 0)
    assert int(mixture.units.sum()) == BLOCK * PERIOD
    for weight, units in zip(weights, mixture.units.tolist(), strict=True):
        assert abs(Fraction(units, BLOCK * PERIOD) - Fraction(weight, sum(weights))) < 1e-6


@settings(deadline=None, max_examples=20)
@given(
    weights=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 9),
    first=st.integers(0, 3 * PERIOD * BLOCK),
)
def test_each_source_counts_its_samples_up_without_a_gap(
    weights: list[int], seed: int, first: int
) -> None:
    mixture = Mixture(weights, seed)
    seen = mixture.before(first)
    for sample in range(first, first + 1500):
        source, index = mixture.place(sample)
        assert index == seen[source]
        seen[source] += 1
    assert (seen == mixture.before(first + 1500)).all()


def test_places_do_not_depend_on_what_was_asked_before() -> None:
    numbers = [0, 5000, 3, 1_000_000, 1023, 1024, 5000, 12_345_678_901]
    mixture = Mixture([3, 1, 2.5], 7)
    assert [mixture.place(i) for i in numbers] == [
        Mixture([3, 1, 2.5], 7).place(i) for i in numbers
    ]


def test_places_depend_on_the_seed() -> None:
    places = [[Mixture([1, 1], seed).place(i)[0] for i in range(100)] for seed in (0, 1)]
    assert places[0] != places[1]


def test_sources_are_shuffled_within_a_block() -> None:
    mixture = Mixture([1, 1], 0)
    sources = [mixture.place(i)[0] for i in range(BLOCK)]
    changes = sum(one != other for one, other in pairwise(sources))
    assert 400 < changes < 624


@pytest.mark.parametrize("weights", [[], [1.0] * 33, [1, 0], [1, -1], [1, float("nan")], [1e9, 1]])
def test_a_mixture_of_too_many_or_of_weights_that_are_none_is_refused(weights: list[float]) -> None:
    with pytest.raises(DataError):
        Mixture(weights, 0)


@settings(deadline=None)
@given(count=st.integers(0, 200), key=st.lists(st.integers() | st.text(), max_size=4))
def test_an_order_has_every_number_once(count: int, key: list[int | str]) -> None:
    assert sorted(order(count, *key).tolist()) == list(range(count))


def test_an_order_is_the_same_for_ever() -> None:
    # Written down once: if this changes, no run that was begun before can be resumed.
    assert order(8, 0, "web", 1).tolist() == [1, 2, 5, 6, 4, 3, 7, 0]
    mixture = Mixture([3, 1], 0)
    assert [mixture.place(i) for i in range(1024, 1028)] == [(0, 768), (0, 769), (0, 770), (1, 256)]


def test_orders_of_two_keys_have_nothing_in_common() -> None:
    one, other = order(10_000, 0, "a", 0), order(10_000, 0, "a", 1)
    assert (one == other).sum() < 10
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_what_is_kept_is_the_last_two() -> None:
    made = []
    recent = Recent(lambda number: made.append(number) or number)
    assert [recent(n) for n in (1, 2, 1, 2, 3, 2, 3, 1)] == [1, 2, 1, 2, 3, 2, 3, 1]
    assert made == [1, 2, 3, 1]
