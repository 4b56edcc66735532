"""The operators by family, each with what its docstring says."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tensorsurgeon.operators import (
    OPERATORS,
    ArceeFusion,
    GeometricOperator,
    LayerOperator,
    Lora,
    Nearswap,
    Sce,
    SumOperator,
)
from tensorsurgeon.operators.elementwise import Elementwise
from tensorsurgeon.operators.matrices import MatrixOperator
from tensorsurgeon.operators.task_vectors import TaskVectors
from tensorsurgeon.recipe import Operator

KNOWN: Mapping[str, type[Operator]] = {kind.operator: kind for kind in OPERATORS}
"""Every operator by its key in a recipe."""

_CITATION = re.compile(r" \([^()]*\b(?:19|20)\d\d\b[^()]*\)")
"""A paper in parentheses, which has a year."""

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Operators that are of one kind.

    Attributes:
        name: of the family.
        what: they have in common, one line.
        classes: an operator that is derived from one of these belongs to it.
    """

    name: str
    what: str
    classes: tuple[type[Operator], ...]


FAMILIES = (
    Family(
        name="layers",
        what="the layers of a new model are chosen; no number changes",
        classes=(LayerOperator,),
    ),
    Family(
        name="adapters",
        what="a small update is applied to one model",
        classes=(Lora,),
    ),
    Family(
        name="sums",
        what="a sum whose weights the recipe gives",
        classes=(SumOperator,),
    ),
    Family(
        name="geometric",
        what="a sum whose weights follow from how the models lie to each other",
        classes=(GeometricOperator,),
    ),
    Family(
        name="task vectors",
        what="a base plus differences from it, of which a part is kept by size or by chance",
        classes=(TaskVectors, Sce, ArceeFusion),
    ),
    Family(
        name="elementwise",
        what="each element is made of the same element of all models",
        classes=(Elementwise, Nearswap),
    ),
    Family(
        name="matrix",
        what="matrices are factored, so that whole tensors are held in memory",
        classes=(MatrixOperator,),
    ),
)
"""In the order they are listed; an operator is of the first it belongs to."""


def family_of(kind: type[Operator]) -> Family:
    """The family an operator belongs to."""
    return next(family for family in FAMILIES if issubclass(kind, family.classes))


def by_family() -> Iterator[tuple[Family, list[type[Operator]]]]:
    """The families that have operators, with these in the order of the manual."""
    for family in FAMILIES:
        kinds: list[type[Operator]] = [kind for kind in OPERATORS if family_of(kind) is family]
        if kinds:
            yield family, kinds


def paragraphs_of(kind: type[Operator]) -> tuple[str, ...]:
    """What an operator's docstring says, of which the first is the summary; lines are kept."""
    return tuple(inspect.cleandoc(kind.__doc__ or "").split("\n\n"))


def brief_of(kind: type[Operator]) -> str:
    """The summary, without papers."""
    return _CITATION.sub("", " ".join(paragraphs_of(kind)[0].split()))


def papers_of(kind: type[Operator]) -> tuple[str, ...]:
    """The papers it names, as numbers of arXiv."""
    return tuple(dict.fromkeys(ARXIV.findall(kind.__doc__ or "")))
