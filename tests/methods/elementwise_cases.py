"""Methods on single elements, selections and masks, with several parameters each."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tests.methods import elementwise_references as references
from tests.methods.cases import Case

NAMES = ("m1", "m2", "m3", "m4")


def _case(
    method: str,
    count: int,
    reference: Callable[..., Any],
    parameters: Mapping[str, Any],
    *,
    in_mergekit: bool = False,
    **given: Any,
) -> Case:
    """Over a base and so many models; `given` is what the formula is told beside them."""
    models = (
        {"model": "m1"} if method in ("nearswap", "arcee_fusion") else {"models": NAMES[:count]}
    )
    return Case(
        expression={method: {"base": "base", **models, **parameters}},
        count=count,
        reference=partial(reference, **(given or parameters)),
        method=method if in_mergekit else None,
        parameters=parameters,
        based=True,
    )


def _nearswap(t: float) -> Case:
    return _case("nearswap", 1, references.nearswap, {"t": t}, in_mergekit=True)


def _magmax(count: int, lambda_: float = 1.0) -> Case:
    return _case("magmax", count, references.magmax, {"lambda": lambda_}, lambda_=lambda_)


def _emr(count: int, lambda_: float = 1.0) -> Case:
    return _case("emr", count, references.emr, {"lambda": lambda_}, lambda_=lambda_)


def _ram(count: int, epsilon: float) -> Case:
    return _case("ram", count, references.ram, {"epsilon": epsilon}, in_mergekit=True)


def _ramplus(count: int, epsilon: float, r: float, alpha: float) -> Case:
    parameters = {"epsilon": epsilon, "r": r, "alpha": alpha}
    return _case("ramplus_tl", count, references.ram, parameters, in_mergekit=True)


def _consensus(weights: tuple[float, ...], k: int, limits: tuple[float, ...], alpha: float) -> Case:
    given = {"weights": weights, "k": k, "alpha": alpha}
    parameters = {**given, "mask_lambda": {"each": limits}}
    return _case(
        "consensus", len(weights), references.consensus, parameters, **given, mask_lambda=limits
    )


def _sce(count: int, select_topk: float) -> Case:
    return _case("sce", count, references.sce, {"select_topk": select_topk}, in_mergekit=True)


CASES: Mapping[str, Case] = {
    "nearswap of a little": _nearswap(0.01),
    "nearswap of much": _nearswap(0.3),
    "magmax of one": _magmax(1),
    "magmax of two, half": _magmax(2, 0.5),
    "magmax of four": _magmax(4),
    "emr of one": _emr(1),
    "emr of two": _emr(2),
    "emr of four, negative": _emr(4, -0.3),
    "ram of two": _ram(2, 0.05),
    "ram of four": _ram(4, 0.1),
    "ramplus of two": _ramplus(2, 0.05, 0.1, 0.2),
    "ramplus of three, without a limit that is met": _ramplus(3, 0.1, 0.5, 1000.0),
    "consensus of two": _consensus((1, 1), 2, (0.4, 0.4), 1.0),
    "consensus of two, by any mask": _consensus((1, 1), 1, (0.6, 0.6), 0.5),
    "consensus of four by weights and limits": _consensus(
        (1, 0.5, -0.3, 2), 3, (0.2, 0.3, 0.6, 0.5), 0.7
    ),
    "sce of one": _sce(1, 1.0),
    "sce of two": _sce(2, 1.0),
    "sce of two, selected": _sce(2, 0.3),
    "sce of three, selected": _sce(3, 0.6),
    "sce of four, few selected": _sce(4, 0.05),
    "arcee fusion": _case("arcee_fusion", 1, references.arcee_fusion, {}, in_mergekit=True),
}

IN_MERGEKIT = {name: case for name, case in CASES.items() if case.method}
"""The cases that mergekit can be asked about."""

ONE_OF_EACH = {next(iter(case.expression)): case for case in CASES.values()}
"""A case of each method, by its name."""
