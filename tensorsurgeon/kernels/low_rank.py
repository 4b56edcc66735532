"""Products of low rank added to values, and sums of squares, each in one order.

Compiled where this was built with a C compiler, else in numpy, with the same bits: sums go over the
rank from its first to its last, every product and every sum is rounded to float64, and none of it
is left to BLAS, whose orders differ from machine to machine.
"""

import os
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.kernels.scratch import Values

Matrix = NDArray[np.float64]
"""(rows, columns), C-contiguous."""

_REVISION = 1
"""Of the compiled arithmetic; see there."""

_BLOCK = 1 << 14
"""Elements worked on at a time, if rows are not longer: what lies in between stays in the cache."""

_SQUARES = 512
"""A row's sum of squares is taken in so many columns, which are then folded in halves."""


def _load() -> ModuleType | None:
    if os.environ.get("TENSORSURGEON_KERNELS") == "numpy":
        return None
    try:
        from tensorsurgeon.kernels import _low_rank
    except ImportError:  # no compiler, or a system it was not built for
        return None
    # What an earlier version was built to may still lie beside this one.
    return _low_rank if getattr(_low_rank, "REVISION", 0) == _REVISION else None


_COMPILED = _load()


def add_product(rows: Matrix, columns: Matrix, factor: float, out: Matrix) -> None:
    """Add factor times the product of two matrices.

    Args:
        rows: (n, rank) float64.
        columns: (rank, m) float64.
        factor: of the product.
        out: (n, m) float64.
    """
    if _COMPILED is not None:
        _COMPILED.add_product(rows, columns, len(columns), factor, out)
        return
    step = max(1, _BLOCK // max(1, out.shape[1]))
    for start in range(0, len(out), step):
        block = out[start : start + step]
        total, product = np.zeros_like(block), np.empty_like(block)
        for k, column in enumerate(columns):
            np.multiply(rows[start : start + step, k, None], column, out=product)
            np.add(total, product, out=total)
        np.multiply(total, factor, out=total)
        np.add(block, total, out=block)


def row_squares(values: Matrix) -> Values:
    """The sum of squares of each row, in an order that depends on its length alone."""
    if _COMPILED is not None:
        found = np.empty(len(values))
        _COMPILED.row_squares(values, found)
        return found
    step = _BLOCK // _SQUARES
    blocks = [_row_squares(values[start : start + step]) for start in range(0, len(values), step)]
    return np.concatenate([np.empty(0), *blocks])


def add_column_squares(values: Matrix, sums: Values) -> None:
    """Add the squares of each column to its sum, row after row.

    Args:
        values: (n, m) float64.
        sums: (m,) float64.
    """
    if _COMPILED is not None:
        _COMPILED.add_column_squares(values, sums)
        return
    for row in values:
        sums += row * row


def _row_squares(values: Matrix) -> Values:
    sums = np.zeros((len(values), _SQUARES))
    for start in range(0, values.shape[1], _SQUARES):
        few = values[:, start : start + _SQUARES]
        sums[:, : few.shape[1]] += few * few
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0]
