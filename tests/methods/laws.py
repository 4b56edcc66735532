"""Operators without a recipe, and small vectors for them to put together."""

from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from tensorsurgeon.operators import Coefficients, Gram, MergeOperator
from tensorsurgeon.recipe import Reference
from tests.methods.references import Float64

Kind = TypeVar("Kind", bound=MergeOperator)

LONGEST = 6
"""Elements of a vector."""

seeds = st.integers(0, 2**32 - 1)
positive = st.floats(0.05, 20)


def operator(kind: type[Kind], count: int, **parameters: Any) -> Kind:
    """An operator on so many models, with the parameters a recipe gives it.

    Its `coefficients` take what these are at a tensor once more.
    """
    models = tuple(Reference(f"m{i + 1}") for i in range(count))
    return kind.model_validate({"models": models, **parameters})


def gram(vectors: Float64) -> Gram:
    """(n, n) dot products of the rows of (n, elements)."""
    products: list[list[float]] = (vectors @ vectors.T).tolist()
    return products


def together(coefficients: Coefficients, vectors: Float64) -> Float64:
    """The sum of the rows that the coefficients stand for."""
    return np.asarray(np.array(coefficients.values) @ vectors)


@st.composite
def several(draw: st.DrawFn, least: int = 2, most: int = 5) -> Float64:
    """(n, elements) random vectors of unlike lengths; they may be alike in direction."""
    count, seed = draw(st.integers(least, most)), draw(seeds)
    close = draw(st.sampled_from([0.0, 0.9, 0.999]))
    random = np.random.default_rng(seed)
    own, common = random.standard_normal((count, LONGEST)), random.standard_normal(LONGEST)
    lengths = np.exp(random.uniform(-2, 2, (count, 1)))
    return np.asarray(lengths * (close * common + (1 - close) * own))


@st.composite
def weighted(draw: st.DrawFn, least: int = 2, most: int = 5) -> tuple[Float64, tuple[float, ...]]:
    """Vectors, and a positive weight for each."""
    vectors = draw(several(least, most))
    return vectors, tuple(draw(positive) for _ in vectors)
