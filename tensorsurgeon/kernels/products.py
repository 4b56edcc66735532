"""Dot products in float64, in an order that no machine, thread or budget changes."""

import numpy as np

from tensorsurgeon.kernels.scratch import Values


def dot(left: Values, right: Values, product: Values) -> float:
    """The dot product of two spans.

    A product of two stored numbers of 32 bits or fewer is exact. The sum is numpy's pairwise one,
    whose order depends on the length alone; BLAS would be faster, but sums in an order of the
    processor's.

    Args:
        left: (n,) values.
        right: (n,) values.
        product: (n,) scratch; may be one of the two, which is then overwritten.
    """
    np.multiply(left, right, out=product)
    return float(np.add.reduce(product))
