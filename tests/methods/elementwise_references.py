"""Methods on single elements, selections and masks from their definitions, on whole tensors.

In float64, with numpy alone; nothing of the engine is used. Each takes a base and the models.
"""

from collections.abc import Sequence

import numpy as np

from tests.methods.references import Float64, Tensors


def nearswap(base: Float64, models: Tensors, *, t: float) -> Float64:
    """A weight for each element, as its author has it."""
    (model,) = models
    apart = np.abs(model - base)
    weight = np.clip(t / np.where(apart == 0, np.inf, apart), 0, 1)
    return weight * model + (1 - weight) * base


def magmax(base: Float64, models: Tensors, *, lambda_: float = 1.0) -> Float64:
    """By the index of the largest, the first of equal ones (Marczak et al. 2024)."""
    deltas = np.array([model - base for model in models])
    largest = np.argmax(np.abs(deltas), axis=0)
    return np.asarray(base + lambda_ * np.take_along_axis(deltas, largest[None], axis=0)[0])


def emr(base: Float64, models: Tensors, *, lambda_: float = 1.0) -> Float64:
    """A sign times the largest magnitude among those of that sign (Huang et al. 2024)."""
    deltas = np.array([model - base for model in models])
    sign = np.where(deltas.sum(0) >= 0, 1.0, -1.0)
    sizes = np.abs(deltas) * (np.sign(deltas) == sign)
    return np.asarray(base + lambda_ * sign * sizes.max(0))


def ram(
    base: Float64,
    models: Tensors,
    *,
    epsilon: float = 1e-5,
    r: float = 0.0,
    alpha: float = 0.0,
) -> Float64:
    """Shared regions averaged, unique ones times lambda_t (Yuan et al. 2026)."""
    deltas = np.array([model - base for model in models])
    changed = np.abs(deltas) > epsilon
    count = changed.sum(0)
    total = np.zeros_like(base)
    for delta, mask in zip(deltas, changed, strict=True):
        shared, unique = mask & (count > 1), mask & (count == 1)
        overlap = shared.sum() / unique.sum() if unique.any() else 0.0
        total[shared] += delta[shared] / count[shared]
        total[unique] += delta[unique] * (1 + r * np.clip(overlap, 0, alpha))
    return base + total


def consensus(
    base: Float64,
    models: Tensors,
    *,
    weights: Sequence[float],
    k: int = 2,
    mask_lambda: Sequence[float],
    alpha: float = 1.0,
) -> Float64:
    """Masks of single tasks, and how many have an element (Wang et al. 2024)."""
    deltas = [w * (model - base) for w, model in zip(weights, models, strict=True)]
    merged = np.sum(deltas, axis=0)
    masks = [
        np.abs(delta) >= limit * np.abs(merged - delta)
        for limit, delta in zip(mask_lambda, deltas, strict=True)
    ]
    return np.asarray(base + alpha * np.where(np.sum(masks, axis=0) >= k, merged, 0.0))


def sce(base: Float64, models: Tensors, *, select_topk: float = 1.0) -> Float64:
    """Select by variance, calculate by squares, erase by sign (Wan et al. 2024)."""
    deltas = np.array([(model - base).reshape(-1) for model in models])
    if select_topk < 1:
        spread = deltas.std(0).astype(np.float32)
        wanted = int(np.count_nonzero(spread) * select_topk)
        left_out = np.argsort(-spread, kind="stable")[wanted:]
        deltas[:, left_out] = 0
    squares = (deltas**2).sum(1, keepdims=True) / max(base.size, 1)
    total = squares.sum()
    shares = squares / total if total else np.full_like(squares, 1 / len(models))
    agree = np.sign(deltas) == np.where(deltas.sum(0) >= 0, 1, -1)
    divisor = (shares * agree).sum(0)
    merged = (shares * deltas * agree).sum(0) / np.where(divisor, divisor, 1.0)
    return np.asarray(base + merged.reshape(base.shape))


def arcee_fusion(base: Float64, models: Tensors) -> Float64:
    """By the divergence of rows, and quartiles of all importances sorted."""
    (model,) = models
    p, q = softmax(model) + 1e-8, softmax(base) + 1e-8
    divergence = (p * np.log(p / q)).sum(-1, keepdims=True).astype(np.float32)
    importance = (np.abs(model - base) * divergence).astype(np.float32)
    ordered = np.sort(importance.reshape(-1)).astype(np.float64)
    lower, median, upper = (ordered[int(share * (base.size - 1))] for share in (0.25, 0.5, 0.75))
    return np.where(importance >= median + 1.5 * (upper - lower), model, base)


def softmax(rows: Float64) -> Float64:
    """Along the last axis."""
    powers = np.exp(rows - rows.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))
