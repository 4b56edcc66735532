"""The merges of a base and tuned models, and of many models."""

from collections.abc import Mapping
from typing import Any

from tests.bench.job import Job
from tests.bench.shapes import Shape

TUNED = ("a", "b", "c")
MANY = tuple("abcdefgh")


def based(name: str, title: str, count: int, **parameters: Any) -> Job:
    """A method of the same name in both engines, over a base and models tuned from it.

    Args:
        name: the method's.
        title: what the tables call it.
        count: how many tuned models.
        parameters: ours; those of models are the same for each.
    """
    names = TUNED[:count]
    of_models = {
        key: parameters[key] for key in ("density", "epsilon", "gamma") if key in parameters
    }
    others = {key: value for key, value in parameters.items() if key not in of_models}
    weighted = bool(of_models)

    def ours(_: Shape) -> dict[str, Any]:
        weights = {"weights": [0.5] * count} if weighted else {}
        return {name: {"base": "base", "models": list(names), **weights, **parameters}}

    def peers(_: Shape, paths: Mapping[str, str]) -> dict[str, Any]:
        own = {"parameters": {"weight": 0.5, **of_models}} if weighted else {}
        return {
            "merge_method": name,
            "base_model": paths["base"],
            "models": [{"model": paths[model], **own} for model in names],
            "parameters": others,
            "dtype": "bfloat16",
        }

    return Job(
        name=name, title=title, models=("base", *names), merged=ours, peer=peers, peer_runs=1
    )


def unbased(name: str, title: str, names: tuple[str, ...], *, weighted: bool) -> Job:
    """A method of the same name in both engines, over models without a base."""
    own = {"parameters": {"weight": 1.0}} if weighted else {}
    return Job(
        name=name if len(names) <= len(TUNED) else f"{name}-{len(names)}",
        title=title,
        models=names,
        merged=lambda _: {name: {"models": list(names)}},
        peer=lambda _, paths: {
            "merge_method": name,
            "models": [{"model": paths[model], **own} for model in names],
            "dtype": "bfloat16",
        },
        peer_runs=1,
    )


METHODS = (
    based("ties", "TIES, density 0.5", 2, density=0.5),
    based("dare_ties", "DARE-TIES, density 0.5", 2, density=0.5),
    based("breadcrumbs", "breadcrumbs, density 0.5", 2, density=0.5, gamma=0.01),
    based("della", "DELLA, density 0.5", 2, density=0.5, epsilon=0.1),
    based("sce", "SCE, top 0.5", 2, select_topk=0.5),
    based("model_stock", "model stock of 3", 3),
    unbased("karcher", "Karcher mean of 3", TUNED, weighted=False),
    unbased("linear", "linear of 8", MANY, weighted=True),
)
