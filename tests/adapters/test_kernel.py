"""The compiled products of low rank against those in numpy: the same bits for any input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.kernels import Scratch, dot, low_rank
from tests.kernels.test_compiled import HAS_COMPILER

compiled = low_rank._COMPILED

pytestmark = pytest.mark.skipif(
    compiled is None and not HAS_COMPILER, reason="nothing here could compile the extension"
)

counts = st.one_of(st.integers(0, 9), st.sampled_from([63, 64, 65, 128, 511, 512, 513, 1500]))


def test_the_extension_is_there_where_it_could_be_built() -> None:
    assert compiled is not None


def both(function, *arguments):
    """What a function gives compiled and in numpy; of an array that it fills, what is in there."""
    found = []
    for implementation in (compiled, None):
        copies = [x.copy() if isinstance(x, np.ndarray) else x for x in arguments]
        with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
            patch.setattr(low_rank, "_COMPILED", implementation)
            result = function(*copies)
        result = copies[-1] if result is None else result
        result[np.isnan(result)] = np.nan  # which of two NaNs a sum keeps is the processor's choice
        found.append(result)
    return found


def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@given(n=counts, m=counts, rank=st.integers(1, 70), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_any_product_is_alike(n, m, rank, seed):
    rows, columns, out = random(seed, n, rank), random(seed + 1, rank, m), random(seed + 2, n, m)
    left, right = both(low_rank.add_product, rows, columns, -0.7, out)
    assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("rank", [1, 4, 7, 16])
def test_a_product_is_summed_over_the_rank_from_its_first_to_its_last(rank):
    rows, columns, out = random(0, 5, rank), random(1, rank, 130), random(2, 5, 130)
    total = np.zeros_like(out)
    for k in range(rank):
        total = total + rows[:, k : k + 1] * columns[k]
    found, _ = both(low_rank.add_product, rows, columns, 0.3, out)
    assert found.tobytes() == (out + total * 0.3).tobytes()


def test_oddities_pass_alike():
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1e308, -1e308])
    rows, columns = odd.reshape(4, 2), np.resize(odd, (2, 70))
    left, right = both(low_rank.add_product, rows, columns, 1.0, np.resize(odd[:3], (4, 70)))
    assert left.tobytes() == right.tobytes()


@given(n=counts, m=counts, seed=st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_any_sums_of_squares_are_alike(n, m, seed):
    values = random(seed, n, m)
    left, right = both(low_rank.row_squares, values)
    assert left.tobytes() == right.tobytes()
    left, right = both(low_rank.add_column_squares, values, random(seed + 1, m))
    assert left.tobytes() == right.tobytes()


def test_a_rows_squares_are_its_dot_product_and_a_columns_go_down_the_rows():
    values = random(5, 7, 1300)
    scratch = Scratch(1)
    assert low_rank.row_squares(values).tolist() == [dot(x, x, scratch=scratch) for x in values]
    sums = np.zeros(1300)
    low_rank.add_column_squares(values[:3], sums)
    low_rank.add_column_squares(values[3:], sums)
    whole = np.zeros(1300)
    low_rank.add_column_squares(values, whole)
    assert sums.tobytes() == whole.tobytes()


def test_what_does_not_fit_together_is_refused():
    assert compiled is not None
    with pytest.raises(ValueError, match="values are not 2 x 5 doubles"):
        compiled.add_product(np.zeros(6), np.zeros(15), 3, 1.0, np.zeros(9))
    with pytest.raises(ValueError, match="rows are not 2 x 3 doubles"):
        compiled.add_product(np.zeros(7), np.zeros(15), 3, 1.0, np.zeros(10))
    with pytest.raises(ValueError, match="rows are not 0 x 0 doubles"):
        compiled.add_product(np.zeros(6), np.zeros(15), 0, 1.0, np.zeros(10))
    with pytest.raises(ValueError, match="values are not 2 x 2 doubles"):
        compiled.row_squares(np.zeros(5), np.zeros(2))
    with pytest.raises(ValueError, match="values are not 2 x 2 doubles"):
        compiled.add_column_squares(np.zeros(5), np.zeros(2))
    with pytest.raises(TypeError):
        compiled.add_product(np.zeros(6), np.zeros(15), 3, 1.0, bytes(80))
