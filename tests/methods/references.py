"""The methods from their definitions, in float64 on whole tensors: what the engine is held to.

Nothing of the engine is used here, no Gram matrix either. Tensors have any one shape.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Tensors = Sequence[Float64]
Weights = Sequence[float]


def linear(models: Tensors, weights: Weights, *, normalize: bool = True) -> Float64:
    """The weighted sum, divided by the sum of the weights."""
    total = sum(weight * model for weight, model in zip(weights, models, strict=True))
    return np.asarray(total / sum(weights) if normalize else total)


def task_arithmetic(
    base: Float64,
    models: Tensors,
    weights: Weights,
    *,
    normalize: bool = False,
    lambda_: float = 1.0,
) -> Float64:
    """The base plus the weighted sum of the task vectors (Ilharco et al. 2022)."""
    return base + lambda_ * linear([m - base for m in models], weights, normalize=normalize)


def slerp(a: Float64, b: Float64, t: float) -> Float64:
    """The point at `t` on the arc from `a` to `b` (Shoemake 1985); the angle is Kahan's."""
    u, v = a / norm(a), b / norm(b)
    angle = 2 * np.arctan2(norm(u - v), norm(u + v))
    if np.sin(angle) < 1e-15:
        return np.asarray((1 - t) * a + t * b)
    return np.asarray((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle))


def nuslerp(models: Tensors, weights: Weights, base: Float64 | None = None) -> Float64:
    """SLERP of two models, or of their task vectors, at the second weight's share."""
    origin = np.zeros_like(models[0]) if base is None else base
    t = weights[1] / sum(weights) if sum(weights) else 0.5
    return origin + slerp(models[0] - origin, models[1] - origin, t)


def multislerp(
    models: Tensors, weights: Weights, base: Float64 | None = None, *, normalize: bool = True
) -> Float64:
    """As published: from the mean direction to the plane that touches it, and back to the sphere.

    See goddard.blog/posts/multislerp-wow-what-a-cool-idea.
    """
    origin = np.zeros_like(models[0]) if base is None else base
    shares = [weight / sum(weights) if normalize else weight for weight in weights]
    vectors = [model - origin for model in models]
    units = [vector / norm(vector) for vector in vectors]
    mean = linear(units, shares, normalize=False)
    mean /= norm(mean)
    step = linear([unit - dot(unit, mean) * mean for unit in units], shares, normalize=False)
    length = sum(share * norm(vector) for share, vector in zip(shares, vectors, strict=True))
    return origin + length * along(mean, step)


def karcher(models: Tensors, weights: Weights, *, steps: int = 60) -> Float64:
    """The weighted mean direction along the sphere's arcs, as long as the weighted mean norm.

    The mean direction is sought from that of the weighted sum, by so many steps.
    """
    shares = np.array(weights) / sum(weights)
    units = [model / norm(model) for model in models]
    mean = linear(units, shares)
    mean /= norm(mean)
    for _ in range(steps):
        arcs = []
        for unit in units:
            angle = 2 * np.arctan2(norm(unit - mean), norm(unit + mean))
            aside = unit - dot(unit, mean) * mean
            arcs.append(aside * (angle / norm(aside) if norm(aside) else 0.0))
        step = linear(arcs, shares)
        if norm(step) < 1e-15:
            break
        mean = along(mean, step)
        mean /= norm(mean)
    return np.asarray(mean * sum(shares * [norm(model) for model in models]))


def geometric_median(models: Tensors, weights: Weights, *, steps: int = 5000) -> Float64:
    """The best of all models and of where Weiszfeld's iteration (1937) gets from their mean."""
    here, before = linear(models, weights), models[0]
    for _ in range(steps):
        distances = [norm(model - here) for model in models]
        if not all(distances) or norm(here - before) <= 1e-15 * norm(here):
            break
        pulls = [weight / distance for weight, distance in zip(weights, distances, strict=True)]
        here, before = linear(models, pulls), here
    return min([here, *models], key=lambda point: sum_of_distances(point, models, weights))


def model_stock(base: Float64, models: Tensors) -> Float64:
    """Between base and mean, at the ratio of Jang et al. (2024) for the mean of all cosines."""
    vectors = [model - base for model in models]
    count = len(models)
    cosine = np.mean(
        [
            dot(vectors[i], vectors[j]) / norm(vectors[i]) / norm(vectors[j])
            for i in range(count)
            for j in range(i)
        ]
    )
    t = count * cosine / (1 + (count - 1) * cosine)
    return np.asarray(t * np.mean(models, axis=0) + (1 - t) * base)


def dot(a: Float64, b: Float64) -> float:
    """The dot product of two tensors seen as vectors; numpy's sums are pairwise, BLAS's are not."""
    return float(np.sum(a * b))


def norm(tensor: Float64) -> float:
    """The Euclidean norm of a tensor seen as one vector."""
    return math.sqrt(dot(tensor, tensor))


def along(start: Float64, step: Float64) -> Float64:
    """Where an arc on the unit sphere ends: its start, its direction there times its length."""
    angle = norm(step)
    return np.cos(angle) * start + np.sinc(angle / np.pi) * step


def sum_of_distances(point: Float64, models: Tensors, weights: Weights) -> float:
    """What the geometric median makes least."""
    return sum(w * norm(model - point) for w, model in zip(weights, models, strict=True))
