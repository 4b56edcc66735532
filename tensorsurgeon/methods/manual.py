"""The manual's chapter on methods, in Markdown: recipes/methods.md."""

from collections.abc import Iterable, Iterator

from tensorsurgeon.mergekit.methods import METHODS, Form, Scope
from tensorsurgeon.mergekit.methods import Parameter as TheirParameter
from tensorsurgeon.methods.catalogue import ARXIV, FAMILIES
from tensorsurgeon.methods.description import Method, describe_all
from tensorsurgeon.methods.parameters import Parameter
from tensorsurgeon.methods.text import default_text, memory_text, reads_text

SHARED = ("normalize", "rescale", "density", "gamma", "epsilon", "lambda")
"""The parameters whose defaults are compared in one table."""

_HEAD = """\
# The methods

Every operator that an expression of a recipe can have, family by family. [The recipe
language](README.md) tells how expressions nest. `tensorsurgeon methods` lists the methods,
`tensorsurgeon methods NAME` tells of one what is said here, and `--json` is for programs. This page
is what `tensorsurgeon methods --markdown` prints, from the operators themselves.

In the tables of parameters

- **varies** means that the parameter is a number, a list of numbers over the depth, or a list of
  rules by the names of tensors: see
  [parameters that vary over the model](README.md#parameters-that-vary-over-the-model);
- **each** means that it may also be `{each: [0.5, 0.3]}`, with one for each model, in the order of
  `models`; each of these may vary.

In the examples `base`, `a`, `b` and `c` are names of models. A task vector is the difference of a
tuned model from its base. `tensorsurgeon plan` says of a recipe how many bytes are read, and how
much memory it takes.
"""

_DEFAULTS = """\
## Defaults

Where mergekit 0.1.5 has a method of the same name, its parameters have the same defaults here, also
those that are not in this table. Weights are 1 by default; mergekit has no default for them.
"""

_NAMES = """\
## Names in mergekit

Methods have mergekit's names, and so have most parameters. These are called otherwise, or have no
place here; `tensorsurgeon convert` translates a whole recipe.
"""


def manual() -> str:
    """The chapter, which ends in a line end."""
    methods = list(describe_all())
    parts = [_HEAD, _overview(methods), _DEFAULTS, _defaults(methods), _NAMES, _names()]
    for family in FAMILIES:
        members = [method for method in methods if method.family == family.name]
        title = family.name[:1].upper() + family.name[1:]
        parts += [f"## {title}\n\n{family.what[:1].upper()}{family.what[1:]}.\n"] * bool(members)
        parts += map(_entry, members)
    return "\n".join(parts)


def _overview(methods: Iterable[Method]) -> str:
    rows = ((m.family, f"[{m.name}](#{m.name})", m.brief) for m in methods)
    return _table(("family", "method", "what it does"), rows)


def _defaults(methods: Iterable[Method]) -> str:
    rows = []
    for method in methods:
        shared = {one.name: default_text(one) for one in method.parameters if one.name in SHARED}
        if shared:
            peer = "the same" if method.in_mergekit else "has no such method"
            rows.append((method.name, *(shared.get(name, "") for name in SHARED), peer))
    return _table(("method", *SHARED, "mergekit"), rows)


def _names() -> str:
    """What mergekit calls otherwise, and in which methods."""
    found: dict[tuple[str, str], list[str]] = {}
    for method in METHODS.values():
        if method.base != "none":
            ours = "the first of `models`" if method.base_is == "first" else "`base`"
            found.setdefault(("`base_model`", ours), []).append(method.name)
        if method.models == "model":
            found.setdefault(("the one of `models`", "`model`"), []).append(method.name)
        for parameter in method.parameters:
            for pair in _translated(parameter):
                found.setdefault(pair, []).append(method.name)
    rows = ((theirs, ours, ", ".join(names)) for (theirs, ours), names in found.items())
    return _table(("mergekit", "here", "in"), rows)


def _translated(parameter: TheirParameter) -> Iterator[tuple[str, str]]:
    """A parameter of mergekit's and what is written here, where that is not the same."""
    theirs, ours = parameter.name, parameter.ours
    if parameter.form is Form.NOTHING:
        yield f"`{theirs}`", f"nothing: {ours}"
    elif parameter.form is Form.LIST:
        yield f"`{theirs}` of each model", f"`{ours}`, a list in the order of `models`"
    elif any(here is not value for value, here in parameter.switch.items()):
        for value, here in parameter.switch.items():
            yield f"`{theirs}: {_word(value)}`", f"`{ours}: {_word(here)}`"
    elif parameter.form is Form.SCHEDULE and parameter.scope is not Scope.MERGE:
        if theirs != ours or parameter.scope is Scope.TUNED:
            yield f"`{theirs}` of each model", f"`{ours}: {{each: [...]}}`"
    elif theirs != ours:
        yield f"`{theirs}`", f"`{ours}`"


def _word(value: bool | str) -> str:
    return str(value).lower()


def _entry(method: Method) -> str:
    text = ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", "\n\n".join(method.text))
    rows = (
        (f"`{one.name}`", _takes(one), default_text(one), one.meaning) for one in method.parameters
    )
    table = _table(("parameter", "takes", "default", "meaning"), rows)
    cost = f"Inputs are read {reads_text(method.reads)}. Memory: {memory_text(method)}."
    return f"### {method.name}\n\n{text}\n\n{table}\n{cost}\n\n```yaml\n{method.example}\n```\n"


def _takes(one: Parameter) -> str:
    return one.type + ", **varies**" * one.varies + ", **each**" * one.each


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown; cells hold neither line ends nor `|`."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
