"""One method, with all there is to say of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tensorsurgeon.mergekit.methods import METHODS, Form
from tensorsurgeon.methods.catalogue import (
    KNOWN,
    brief_of,
    by_family,
    family_of,
    papers_of,
    paragraphs_of,
)
from tensorsurgeon.methods.parameters import Parameter, parameters_of
from tensorsurgeon.methods.reads import example_of, times_read, times_read_at_all
from tensorsurgeon.operators.matrices import MatrixOperator
from tensorsurgeon.recipe import Operator


@dataclass(frozen=True, kw_only=True)
class Reads:
    """How often a method reads its inputs.

    Attributes:
        least: with whatever parameters.
        most: with whatever parameters.
        example: with those of its example.
    """

    least: int
    most: int
    example: int


@dataclass(frozen=True, kw_only=True)
class Method:
    """An operator of the recipe language.

    Attributes:
        name: its key in a recipe.
        family: the family's name.
        brief: what it does, one line without papers.
        text: its docstring, in paragraphs of lines.
        papers: numbers of arXiv.
        parameters: what it takes.
        reads: how often it reads its inputs.
        holds_tensors: whether a tensor is held in memory as a whole; else spans of it are.
        example: an expression.
        in_mergekit: whether mergekit has a method of the name.
        left_out: parameters of mergekit's that have no place here, and why.
    """

    name: str
    family: str
    brief: str
    text: tuple[str, ...]
    papers: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    reads: Reads
    holds_tensors: bool
    example: str
    in_mergekit: bool
    left_out: tuple[tuple[str, str], ...]


def describe(name: str) -> Method:
    """All there is to say of a method that is known."""
    kind = KNOWN[name]
    peer = METHODS.get(name)
    theirs = () if peer is None else peer.parameters
    return Method(
        name=name,
        family=family_of(kind).name,
        brief=brief_of(kind),
        text=paragraphs_of(kind),
        papers=papers_of(kind),
        parameters=tuple(
            replace(
                ours,
                mergekit=tuple(t.name for t in theirs if t.ours == ours.name and t.name != t.ours),
            )
            for ours in parameters_of(kind)
        ),
        reads=_reads(kind),
        holds_tensors=issubclass(kind, MatrixOperator),
        example=kind.example,
        in_mergekit=peer is not None,
        left_out=tuple((t.name, t.ours) for t in theirs if t.form is Form.NOTHING),
    )


def describe_all() -> Iterator[Method]:
    """All methods, family by family."""
    for _, kinds in by_family():
        for kind in kinds:
            yield describe(kind.operator)


def _reads(kind: type[Operator]) -> Reads:
    example = example_of(kind)
    found = times_read_at_all(example)
    return Reads(least=min(found), most=max(found), example=times_read(example))
