"""Methods as text for people and as JSON for programs."""

from dataclasses import asdict
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from tensorsurgeon.methods.catalogue import KNOWN, brief_of, by_family

if TYPE_CHECKING:
    from tensorsurgeon.methods.description import Method, Reads
    from tensorsurgeon.methods.parameters import Parameter

_WIDTH = 100

_VARIES = "varies: a number, a list of numbers over the depth, or rules by the names of tensors"

_EACH = "each: also {each: [...]} with one for each model, in the order of models"

_TIMES = {1: "once", 2: "twice"}


def list_text() -> str:
    """Every method in a line, below its family."""
    lines, width = [], max(map(len, KNOWN))
    for family, kinds in by_family():
        lines += [f"{family.name}: {family.what}"]
        lines += [f"  {kind.operator:<{width}}  {brief_of(kind)}" for kind in kinds]
        lines += [""]
    return "\n".join([*lines, "'tensorsurgeon methods NAME' tells more of one."])


def method_text(method: "Method") -> str:
    """One method: what it does, what it takes, what it costs, and an example."""
    lines = [f"{method.name}, of the family: {method.family}", ""]
    for paragraph in method.text:
        lines += [*wrap(" ".join(paragraph.split()), _WIDTH), ""]
    width = max(len(one.name) for one in method.parameters)
    lines += ["parameters"]
    for one in method.parameters:
        lines += [f"  {one.name:<{width}}  {_takes(one)}"]
        indent = " " * (width + 4)
        lines += wrap(_meaning(one), _WIDTH, initial_indent=indent, subsequent_indent=indent)
    lines += [""]
    lines += [f"  {_VARIES}"] * any(one.varies for one in method.parameters)
    lines += [f"  {_EACH}"] * any(one.each for one in method.parameters)
    lines += [""] * bool(lines[-1])
    lines += [
        f"inputs    read {reads_text(method.reads)}",
        f"memory    {memory_text(method)}",
        f"mergekit  {_peer(method)}",
        f"example   {method.example}",
    ]
    return "\n".join(lines)


def method_json(method: "Method") -> dict[str, Any]:
    """One method for programs."""
    facts = asdict(method)
    return {
        "name": method.name,
        "family": method.family,
        "summary": method.brief,
        "text": [" ".join(paragraph.split()) for paragraph in method.text],
        "arxiv": list(method.papers),
        "parameters": facts["parameters"],
        "inputs_read": facts["reads"],
        "memory": memory_text(method),
        "example": method.example,
        "in_mergekit": method.in_mergekit,
    }


def reads_text(reads: "Reads") -> str:
    """How often inputs are read."""
    example = _times(reads.example)
    if reads.least == reads.most:
        return example
    between = f"{_times(reads.least)} or {_times(reads.most)}"
    if reads.most - reads.least > 1:
        between = f"{reads.least} to {reads.most} times"
    return f"{between}; {example} in the example"


def _times(count: int) -> str:
    """A number of times, in words."""
    return _TIMES.get(count, f"{count} times")


def memory_text(method: "Method") -> str:
    """What is held of tensors."""
    if method.holds_tensors:
        return "one tensor for each thread, several times over in float64"
    return "a few spans of each input for each thread, whatever the tensors' size"


def default_text(one: "Parameter") -> str:
    """A parameter's default, as it is written in a recipe; empty where its meaning tells."""
    if one.required:
        return "required"
    if one.default is None:
        return ""
    if isinstance(one.default, bool):
        return str(one.default).lower()
    if isinstance(one.default, str):
        return one.default
    return f"{one.default:g}".replace("e-0", "e-")


def _takes(one: "Parameter") -> str:
    marks = ["varies"] * one.varies + ["each"] * one.each
    default = default_text(one)
    if default and not one.required:
        default = f"default {default}"
    return "; ".join(filter(None, (one.type, ", ".join(marks), default)))


def _meaning(one: "Parameter") -> str:
    theirs = f" ({' and '.join(one.mergekit)} in mergekit)" if one.mergekit else ""
    return one.meaning + theirs


def _peer(method: "Method") -> str:
    return "has it by this name" if method.in_mergekit else "has no such method"
