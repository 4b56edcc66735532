"""What an adapter makes of a weight, in float64 and in a few lines."""

import numpy as np

from tests.methods.references import Float64


def adapted(
    weight: Float64,
    a: Float64,
    b: Float64,
    *,
    scale: float,
    magnitude: Float64 | None = None,
    transposed: bool = False,
    share: float = 1.0,
) -> Float64:
    """W + share * (W' - W), where W' is W + scale * B A, with rows of these lengths.

    Args:
        weight: (out, in), or (in, out) where it is transposed.
        a: (rank, in).
        b: (out, rank).
        scale: of the product.
        magnitude: (out,), DoRA's; None for none.
        transposed: whether the weight is.
        share: how far to go.
    """
    rows = weight.T if transposed else weight
    changed = rows + scale * (b @ a)
    if magnitude is not None:
        changed *= (magnitude / np.linalg.norm(changed, axis=1))[:, None]
    changed = (1 - share) * rows + share * changed
    return changed.T if transposed else changed
