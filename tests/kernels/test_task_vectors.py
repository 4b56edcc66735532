"""The arithmetic of task vectors: compiled and in numpy the same bits, and both what papers say."""

import shutil
import sysconfig
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.kernels.task_vectors import (
    ALL,
    HALVES,
    Cut,
    Part,
    Stored,
    Together,
    combine,
    lost,
    mass,
    row_limits,
    tally,
)
from tensorsurgeon.specs import DType
from tests.kernels.spans import (
    COMPILED_DTYPES,
    both,
    compiled,
    decoded,
    lengths,
    oddities,
    spans,
    stored,
    ties,
)

HAS_COMPILER = (
    shutil.which("cc") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()
)
needs_compiler = pytest.mark.skipif(
    compiled is None and not HAS_COMPILER, reason="nothing here could compile the extension"
)

seeds = st.integers(0, 1 << 32)
weights = st.sampled_from([1.0, -0.25, 0.0, -0.0, 1e300, 0.1, -0.3, 0.7, 1.9])
quickly = settings(deadline=None, max_examples=60)


@needs_compiler
def test_the_extension_is_there_where_it_could_be_built():
    assert compiled is not None


def bits(values):
    """Bytes of values; which of two NaNs a sum keeps is the processor's choice."""
    values = np.array(values, np.float64)
    values[np.isnan(values)] = np.nan
    return values.tobytes()


def ranks_of(base, model):
    """Ranks as they are defined, NaNs the highest."""
    with np.errstate(all="ignore"):
        difference = np.abs(decoded(model) - decoded(base))
        words = difference.astype(np.float32).view(np.uint32)
    words[(words == 0) & (difference > 0)] = 1
    words[np.isnan(difference)] = 0x7F800001
    return words


def counted(base, model, prefix):
    counts = np.zeros(HALVES, np.int64)
    tally(base, model, prefix, counts)
    return counts


def combined(base, parts, together):
    out = np.empty(base.elements)
    return bits_and_left(out, combine(base, parts, together, out))


def bits_and_left(out, left):
    return bits(out), left


def limits_of(base, model, columns, lowest, rise):
    out = np.empty(model.elements, np.uint32)
    row_limits(base, model, columns, lowest, rise, out)
    return out


@st.composite
def cuts(draw, base, model):
    """Any cut: thresholds that elements lie at, all orders of them, and by chance."""
    n, rng = model.elements, np.random.default_rng(draw(seeds))
    words = rng.integers(0, 1 << 32, n, np.uint32)
    kind = draw(st.sampled_from(["all", "rank", "words", "limits"]))
    if kind == "all":
        return Cut()
    if kind == "words":
        return Cut(words=words, below=draw(st.integers(0, ALL)))
    if kind == "limits":
        return Cut(words=words, limits=rng.permutation(words))
    ranks = st.sampled_from(
        [0, 1, 0x7F800000, 0x7F800001, ALL, *ranks_of(base, model)[:9].tolist()]
    )
    counts = st.one_of(st.integers(0, 3), st.integers(0, 2 * n))
    return Cut(low=draw(ranks), high=draw(ranks), take=draw(counts), skip=draw(counts))


# ---- Compiled and in numpy ----


@given(data=st.data(), length=lengths)
@quickly
def test_any_tally_is_alike(data, length):
    model = data.draw(spans(length=length))
    base = data.draw(st.one_of(st.none(), spans(length=length)))
    prefix = data.draw(st.sampled_from([None, 0, 0x7F80, 0x3C80]))
    left, right = both(counted, base, model, prefix)
    assert left.tobytes() == right.tobytes()


@given(data=st.data(), length=lengths)
@quickly
def test_any_parts_combine_alike(data, length):
    base = data.draw(spans(length=length))
    parts = []
    for _ in range(data.draw(st.integers(1, 4))):
        span = data.draw(spans(length=length))
        cut = data.draw(cuts(base, span))
        parts.append(Part(span=span, weight=data.draw(weights), scale=data.draw(weights), cut=cut))
    elect, normalize = data.draw(st.booleans()), data.draw(st.booleans())
    together = Together(
        elect=elect, normalize=normalize, divisor=data.draw(weights), factor=data.draw(weights)
    )
    left, right = both(combined, base, parts, together)
    assert left == right


@given(data=st.data(), length=lengths)
@quickly
def test_any_mass_is_alike(data, length):
    base, model = data.draw(spans(length=length)), data.draw(spans(length=length))
    left, right = both(mass, base, model, data.draw(cuts(base, model)))
    assert bits(left) == bits(right)


@given(data=st.data(), rows=st.integers(0, 5), columns=lengths.filter(bool))
@quickly
def test_any_rows_have_the_same_limits(data, rows, columns):
    length = rows * columns
    base, model = data.draw(spans(length=length)), data.draw(spans(length=length))
    lowest, rise = data.draw(st.sampled_from([(0.1, 0.2), (0.9, 0.3), (-0.1, 0.3), (0.5, 0.0)]))
    left, right = both(limits_of, base, model, columns, lowest, rise)
    assert left.tobytes() == right.tobytes()


@given(data=st.data(), length=lengths)
@quickly
def test_any_loss_is_alike(data, length):
    base, written = data.draw(spans(length=length)), data.draw(spans(length=length))
    values = decoded(data.draw(spans(length=length)))
    left, right = both(lost, base, values, written)
    assert bits(left) == bits(right)


@pytest.mark.parametrize("length", [511, 513, 1500, (1 << 14) + 700, (1 << 18) - 3])
def test_long_sums_are_alike_and_right(length):
    rng = np.random.default_rng(length)
    base, model = (stored(rng.lognormal(0, 3, length), DType.F64) for _ in range(2))
    words = rng.integers(0, 1 << 32, length, np.uint32)
    left, right = both(mass, base, model, Cut(words=words, below=1 << 31))
    assert left == right
    magnitudes = np.abs(decoded(model) - decoded(base)).astype(np.longdouble)
    exact = float(magnitudes.sum()), float(magnitudes[words < 1 << 31].sum())
    assert left[:2] == pytest.approx(exact, rel=1e-13)
    left, right = both(lost, base, decoded(model), base)
    assert left == right == pytest.approx((exact[0], exact[0]), rel=1e-13)


# ---- Against what they are defined as ----


def cut_of_largest(base, model, count, outliers=0):
    """Keeps so many, of the largest without the outliers: thresholds from two tallies."""

    def edge(place):
        """The rank at which the largest `place` end, and how many of those at it are of them."""
        word, above = 0, 0
        for prefix in (None, "upper"):
            counts = counted(base, model, word if prefix else None)
            at_least = above + counts[::-1].cumsum()[::-1]
            half = int(np.flatnonzero(at_least >= place)[-1])
            above = int(at_least[half] - counts[half])
            word = word << 16 | half
        return word, place - above

    low, take = edge(outliers + count)
    high, skip = edge(outliers) if outliers else (ALL, 0)
    return Cut(low=low, take=take - skip if low == high else take, high=high, skip=skip)


TWO_DTYPES = pytest.mark.parametrize(
    "dtypes",
    [(DType.BF16, DType.BF16), (DType.F32, DType.F16), (DType.F64, DType.F8_E4M3)],
    ids=str,
)
ONE = Together(elect=False, normalize=False, divisor=1.0, factor=1.0)


@TWO_DTYPES
@pytest.mark.parametrize(("count", "outliers"), [(1, 0), (700, 0), (1500, 0), (300, 41), (9, 700)])
def test_exactly_the_largest_are_kept_and_ties_by_lowest_index(dtypes, count, outliers):
    base, model = (stored(ties(i, 1500), dtype) for i, dtype in enumerate(dtypes))
    difference = decoded(model) - decoded(base)
    order = np.argsort(-np.abs(difference), kind="stable")[outliers : outliers + count]
    expected = decoded(base)
    expected[order] += difference[order]
    out = np.empty(1500)
    cut = cut_of_largest(base, model, count, outliers)
    [left] = combine(base, [Part(span=model, weight=1.0, cut=cut)], ONE, out)
    assert left == (0, 0)
    assert out.tobytes() == expected.tobytes()


def ties_by_formula(base, parts, kept, together):
    """Yadav et al. 2023, with weights: trim, elect, merge those that agree."""
    factors = np.array([[part.weight] for part in parts])
    stacked = np.stack([decoded(part.span) - decoded(base) for part in parts]) * factors * kept
    elected = np.where(stacked.sum(axis=0) >= 0, 1.0, -1.0)
    agree = np.sign(stacked) == elected
    divisor = (factors * agree).sum(axis=0) if together.normalize else np.ones(base.elements)
    divisor[divisor == 0] = 1.0
    return decoded(base) + (stacked * agree).sum(axis=0) / divisor * together.factor


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -0.5, 0.5), (0.3, -0.3, 2.0)], ids=str)
def test_elected_signs_follow_the_formula(weights, normalize):
    base, *models = (stored(ties(i, 1030), DType.BF16) for i in range(1 + len(weights)))
    rng = np.random.default_rng(1)
    kept = rng.random((len(weights), 1030)) < 0.6
    parts = [
        Part(span=span, weight=weight, cut=Cut(words=np.uint32(1) - mask, below=1))
        for span, weight, mask in zip(models, weights, kept.astype(np.uint32), strict=True)
    ]
    together = Together(elect=True, normalize=normalize, divisor=7.0, factor=0.75)
    out = np.empty(1030)
    combine(base, parts, together, out)
    assert out == pytest.approx(ties_by_formula(base, parts, kept, together), rel=1e-15, abs=1e-15)


@pytest.mark.parametrize(("divisor", "by"), [(0.0, 1.0), (4.0, 4.0)])
def test_sums_are_divided_by_the_divisor_or_by_one(divisor, by):
    base, model = (stored(ties(i, 99), DType.F32) for i in range(2))
    out = np.empty(99)
    together = Together(elect=False, normalize=True, divisor=divisor, factor=2.0)
    combine(base, [Part(span=model, weight=0.5, scale=3.0)], together, out)
    difference = decoded(model) - decoded(base)
    assert out.tobytes() == (decoded(base) + difference * 1.5 / by * 2.0).tobytes()


def test_a_default_cut_keeps_what_float32_would_make_zero():
    base = stored([0.0, 0.0, 0.0], DType.F64)
    model = stored([5e-324, -1e-200, 1.0], DType.F64)
    out = np.empty(3)
    for low in (0, 1):  # nothing but 0 has rank 0
        combine(base, [Part(span=model, weight=1.0, cut=Cut(low=low))], ONE, out)
        assert np.array_equal(out, decoded(model) if low == 0 else [0.0, 0.0, 1.0])
    assert counted(base, model, 0)[1] == 2


def test_every_nan_has_the_highest_rank():
    words = np.array([0x7FC00000, 0xFFC00001, 0x7FFFFFFF, 0x7F800000], np.uint32)
    model = Stored(words.view(np.uint8), DType.F32)
    for found in both(counted, None, model, 0x7F80):
        assert (found[1], found[0], found.sum()) == (3, 1, 4)


@pytest.mark.parametrize("columns", [1, 2, 7, 300, 2048])
def test_limits_rise_with_the_rank_in_a_row(columns):
    n = 8 * columns
    base, model = stored(ties(1, n), DType.BF16), stored(ties(2, n), DType.BF16)
    magnitudes = np.abs(decoded(model) - decoded(base)).reshape(-1, columns)
    order = magnitudes.argsort(axis=1, kind="stable")
    ranks = order.argsort(axis=1)
    chances = 0.2 + 0.3 * ranks / (columns - 1) if columns > 1 else np.full((8, 1), 0.35)
    found = limits_of(base, model, columns, 0.2, 0.3)
    assert np.array_equal(found, np.floor(chances * 2**32).astype(np.uint32).ravel())


def test_limits_stay_within_their_words():
    base, model = stored(np.zeros(2), DType.F32), stored([1.0, 2.0], DType.F32)
    assert limits_of(base, model, 2, -0.5, 2.0).tolist() == [0, ALL]


def test_lost_is_the_update_that_the_written_value_lacks():
    rng = np.random.default_rng(2)
    base = stored(rng.standard_normal(3000), DType.BF16)
    values = decoded(base) * (1 + rng.standard_normal(3000) * 2.0**-9)
    written = stored(values, DType.BF16)
    update = np.abs(values - decoded(base))
    undone = update[(decoded(written) == decoded(base)) & (values != decoded(base))]
    assert 0 < len(undone) < 3000
    assert lost(base, values, written) == pytest.approx((update.sum(), undone.sum()), rel=1e-13)


# ---- Spans ----


def part_of(span, start, stop):
    size = span.dtype.bits // 8
    return Stored(span.raw[start * size : stop * size], span.dtype)


@given(data=st.data(), length=st.integers(1, 1200))
@quickly
def test_however_a_tensor_is_cut_into_spans_the_result_is_the_same(data, length):
    dtypes = [*COMPILED_DTYPES, DType.F8_E5M2]
    base, model = (data.draw(spans(length=length, dtypes=dtypes)) for _ in range(2))
    cut = data.draw(cuts(base, model).filter(lambda cut: cut.words is None))
    edges = data.draw(st.sets(st.integers(0, length // 4).map(lambda at: 4 * at)))
    edges = sorted({0, length, *edges})
    whole, pieces = np.empty(length), np.empty(length)
    [left] = combine(base, [Part(span=model, weight=1.0, cut=cut)], ONE, whole)
    counts = np.zeros(HALVES, np.int64)
    for start, stop in pairwise(edges):
        origin, span = part_of(base, start, stop), part_of(model, start, stop)
        part = Part(span=span, weight=1.0, cut=cut)
        *_, mass_take, mass_skip = mass(origin, span, cut)
        [(take, skip)] = combine(origin, [part], ONE, pieces[start:stop])
        assert (take, skip) == (mass_take, mass_skip)
        cut = replace(cut, take=take, skip=skip)
        tally(origin, span, None, counts)
    assert bits(pieces) == bits(whole)
    assert (cut.take, cut.skip) == left
    assert np.array_equal(counts, counted(base, model, None))


@pytest.mark.parametrize("narrow", [DType.F8_E4M3, DType.F8_E5M2], ids=lambda dtype: dtype.value)
def test_eight_bits_count_as_the_values_they_are(narrow):
    rng = np.random.default_rng(4)
    base, model = (stored(oddities(rng, 600), narrow) for _ in range(2))
    wide_base, wide = (stored(decoded(span), DType.F64) for span in (base, model))
    cut = Cut(low=0x3C000000)
    parts = [[Part(span=span, weight=0.5, cut=cut)] for span in (model, wide)]
    assert combined(base, parts[0], ONE) == combined(wide_base, parts[1], ONE)
    assert np.array_equal(counted(base, model, None), counted(wide_base, wide, None))
    assert bits(mass(base, model, cut)) == bits(mass(wide_base, wide, cut))
    assert bits(lost(base, decoded(wide), model)) == bits(lost(wide_base, decoded(wide), wide))
    limits = [limits_of(*pair, 60, 0.1, 0.2) for pair in ((base, model), (wide_base, wide))]
    assert np.array_equal(*limits)


@needs_compiler
def test_what_does_not_fit_together_is_refused():
    three, four = (stored(np.zeros(n), DType.F32) for n in (3, 4))
    out, words = np.empty(4), np.zeros(3, np.uint32)
    with pytest.raises(ValueError, match="model: 12 bytes are not 4 elements"):
        combine(four, [Part(span=three, weight=1.0)], ONE, out)
    with pytest.raises(ValueError, match="values are not 3 words of 8 bytes"):
        combine(three, [Part(span=three, weight=1.0)], ONE, out)
    with pytest.raises(ValueError, match="words are not 4 words of 4 bytes"):
        combine(four, [Part(span=four, weight=1.0, cut=Cut(words=words))], ONE, out)
    with pytest.raises(ValueError, match="words are not 4 words of 4 bytes"):
        mass(four, four, Cut(words=np.zeros(4, np.uint32), limits=words))
    with pytest.raises(ValueError, match="counts are not 65536 words"):
        tally(None, four, None, np.zeros(9, np.int64))
    with pytest.raises(ValueError, match="4 elements are not rows of 3"):
        row_limits(four, four, 3, 0.1, 0.2, np.zeros(4, np.uint32))
    with pytest.raises(ValueError, match="base: 12 bytes are not 4 elements"):
        tally(three, four, None, np.zeros(HALVES, np.int64))
    with pytest.raises(ValueError, match="no dtype 9"):
        compiled.lost(four.raw, 9, out, four.raw, 9)
    with pytest.raises(TypeError):
        compiled.combine(four.raw, 2, ((four.raw, 2, 1.0, 1.0, None),), 1, 1, 1.0, 1.0, out)
    with pytest.raises(TypeError):
        compiled.combine(four.raw, 2, (3,), 1, 1, 1.0, 1.0, out)
