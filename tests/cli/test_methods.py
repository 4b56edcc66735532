"""What is told of the methods, in the terminal and in the manual, is what they are."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from ruamel.yaml import YAML

from tensorsurgeon import api
from tensorsurgeon.documents import fields_of
from tensorsurgeon.mergekit.methods import METHODS, Form
from tensorsurgeon.methods.catalogue import KNOWN, family_of
from tensorsurgeon.methods.description import Method, describe, describe_all
from tensorsurgeon.methods.text import default_text
from tensorsurgeon.operators import OPERATORS
from tensorsurgeon.plan.nodes import passes_of
from tensorsurgeon.recipe import Operator, parse_recipe
from tests.adapters.folders import factors, write_adapter
from tests.cli.checkpoints import HIDDEN, tiny_llama
from tests.cli.conftest import Command
from tests.conftest import ROOT

MANUAL = ROOT / "recipes" / "methods.md"

DEPTH = 32
"""Layers of the models of the examples, which are as deep as the 7B models people have."""

MATRIX = f"model.layers.{DEPTH // 2}.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def methods() -> dict[str, Method]:
    return {method.name: method for method in describe_all()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds all that the examples name: models, an adapter, and the checkpoints of a training."""
    folder = tmp_path_factory.mktemp("examples")
    for seed, name in enumerate(("base", "a", "b", "c")):
        tiny_llama(folder / name, DEPTH, seed=seed)
    module = MATRIX.removesuffix(".weight")
    write_adapter(folder / "adapter", factors(module, (HIDDEN, HIDDEN)))
    for step in range(1, 11):
        tiny_llama(folder / "runs" / f"step-{step}", DEPTH, seed=step)
    return folder


def recipe_of(expression: str) -> str:
    """A recipe with an expression of an example, and the models it is over."""
    used = dict.fromkeys(re.findall(r"(?<=[ \[])(base|a|b|c)(?=[],}])", expression))
    sources = "".join(f"  {name}: ./{name}\n" for name in used)
    return f"models:\n{sources}  merged: {expression}\nresult: merged\n"


@pytest.mark.parametrize("name", KNOWN)
def test_example_is_planned_and_reads_as_often_as_is_said(name: str, folder: Path) -> None:
    path = folder / f"{name}.yaml"
    path.write_text(recipe_of(KNOWN[name].example))
    (node,) = (t.node for t in api.plan(path).tensors if t.spec.name == MATRIX)
    reads = describe(name).reads
    assert passes_of(node) == reads.example
    assert 1 <= reads.least <= reads.example <= reads.most


def parsed(expression: str) -> Operator:
    """An expression of a recipe; a pattern matches ten folders."""

    def matching(pattern: str) -> list[str]:
        return [pattern.replace("*", str(step)) for step in range(10)]

    recipe = parse_recipe(recipe_of(expression).encode(), "recipe.yaml", OPERATORS, matching)
    merged = recipe.models["merged"]
    assert isinstance(merged, Operator)
    return merged


@pytest.mark.parametrize("name", KNOWN)
def test_defaults_that_are_told_are_those_that_count(name: str) -> None:
    example = KNOWN[name].example
    yaml = YAML(typ="safe", pure=True)
    (body,) = yaml.load(example).values()
    given = {} if isinstance(body, list) else body
    told = [
        f"{one.name}: {default_text(one)}"
        for one in describe(name).parameters
        if not one.required and one.default is not None and one.name not in given
    ]
    spelled = example if not told else f"{example.removesuffix('}}')}, {', '.join(told)}}}}}"
    assert dict(parsed(spelled)) == dict(parsed(example))


def test_every_operator_is_told_of_once_and_in_full(methods: dict[str, Method]) -> None:
    assert sorted(methods) == sorted(KNOWN)
    assert len(KNOWN) == len(OPERATORS)
    for method in methods.values():
        assert method.brief.endswith("."), method.name
        assert "  " not in method.brief, method.name
        assert method.example, method.name
        told = [one.name for one in method.parameters if "[]" not in one.name]
        assert sorted(told) == sorted(fields_of(KNOWN[method.name])), method.name
        for one in method.parameters:
            assert one.type, f"{method.name}: {one.name}"
            assert one.meaning, f"{method.name}: {one.name}"
            assert "|" not in one.type + one.meaning, f"{method.name}: {one.name}"


FAMILIES = {
    "stack": "layers",
    "lora": "adapters",
    "linear": "sums",
    "passthrough": "sums",
    "slerp": "geometric",
    "ties": "task vectors",
    "arcee_fusion": "task vectors",
    "nearswap": "elementwise",
    "tsv_m": "matrix",
}


@pytest.mark.parametrize(("name", "family"), FAMILIES.items(), ids=FAMILIES)
def test_method_is_listed_below_its_family(name: str, family: str) -> None:
    assert family_of(KNOWN[name]).name == family


READS = {
    "stack": (1, 1),
    "lora": (1, 2),
    "linear": (1, 1),
    "slerp": (2, 2),
    "model_stock": (1, 2),
    "ties": (1, 5),
    "breadcrumbs": (1, 4),
    "dare_ties": (1, 2),
    "sce": (2, 4),
}


@pytest.mark.parametrize(("name", "bounds"), READS.items(), ids=READS)
def test_inputs_are_read_so_often_by_the_parameters(name: str, bounds: tuple[int, int]) -> None:
    reads = describe(name).reads
    assert (reads.least, reads.most) == bounds


TYPES = {
    ("ties", "base"): "a model",
    ("ties", "models"): "1 model or more",
    ("slerp", "models"): "2 models",
    ("stack", "slices"): "a list of mappings",
    ("stack", "slices[].layers"): "2 whole numbers",
    ("block_expansion", "every"): "a whole number, 1 or more",
    ("block_expansion", "zero"): "a list of text",
    ("linear", "weights"): "a list of numbers",
    ("linear", "normalize"): "true or false",
    ("karcher", "tol"): "a number above 0",
    ("checkpoint_average", "decay"): "a number between 0 and 1",
    ("checkpoint_average", "checkpoints"): "text or a list of text",
    ("dare_ties", "density"): "a number from 0 to 1",
    ("dare_ties", "rescale"): "none, l1 or density",
    ("ram", "epsilon"): "a number, 0 or more",
}


@pytest.mark.parametrize(("place", "words"), TYPES.items(), ids=map(".".join, TYPES))
def test_what_a_parameter_takes_is_told_in_words(place: tuple[str, str], words: str) -> None:
    method, name = place
    (found,) = (one for one in describe(method).parameters if one.name == name)
    assert found.type == words


def test_parameter_tells_whether_it_varies_over_tensors_and_over_models() -> None:
    marks = {one.name: (one.varies, one.each) for one in describe("ties").parameters}
    assert marks["density"] == (True, True)
    assert marks["weights"] == marks["lambda"] == (True, False)
    assert marks["normalize"] == marks["base"] == (False, False)


def test_defaults_are_mergekit_s(methods: dict[str, Method]) -> None:
    for theirs in METHODS.values():
        ours = {one.name: one for one in methods[theirs.name].parameters}
        for parameter in theirs.parameters:
            if parameter.form is Form.NOTHING or parameter.only_with is not None:
                continue
            one, default = ours[parameter.ours], parameter.default
            if default is None:
                assert one.required or one.name == "weights", f"{theirs.name}: {one.name}"
            else:
                is_switch = isinstance(default, bool)
                expected = parameter.switch[default] if is_switch else default
                assert one.default == expected, f"{theirs.name}: {one.name}"


def test_list_has_a_line_for_each_method(command: Command) -> None:
    done = command("methods")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 100
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(listed) == sorted(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_method_is_told_of_with_all_its_parameters(name: str, command: Command) -> None:
    done = command("methods", name)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 100
    for one in describe(name).parameters:
        assert any(line.startswith(f"  {one.name}  ") for line in lines), one.name
    assert f"example   {KNOWN[name].example}" in lines
    told = " ".join(done.out.split())
    for paper in describe(name).papers:
        assert f"arXiv:{paper}" in told


def test_text_of_a_method(command: Command) -> None:
    told = command("methods", "multislerp").out
    assert told.startswith("multislerp, of the family: geometric\n\nSpherical average: ")
    for part in (
        """
  models     1 model or more; required
             the tuned models
""",
        """
  normalize  true or false; default true
             divide the weights by their sum (normalize_weights in mergekit)
""",
        """
inputs    read twice
memory    a few spans of each input for each thread, whatever the tensors' size
mergekit  has it by this name
""",
    ):
        assert part in told


def test_json_of_the_list_holds_that_of_each_method(command: Command) -> None:
    listed = json.loads(command("methods", "--json").out)
    assert sorted(one["name"] for one in listed) == sorted(KNOWN)
    for one in (listed[0], listed[-1]):
        assert json.loads(command("methods", one["name"], "--json").out) == one
    (ties,) = (one for one in listed if one["name"] == "ties")
    assert ties["arxiv"] == ["2306.01708"]
    assert ties["inputs_read"] == {"least": 1, "most": 5, "example": 3}
    (density,) = (one for one in ties["parameters"] if one["name"] == "density")
    assert (density["default"], density["required"], density["varies"]) == (1.0, False, True)


def test_unknown_method_is_a_usage_error_that_names_the_nearest(command: Command) -> None:
    done = command("methods", "breadcrumb")
    assert (done.code, done.out) == (2, "")
    what = "error: there is no method 'breadcrumb': did you mean 'breadcrumbs'? known: "
    assert what in done.err


@pytest.mark.parametrize("other", ["ties", "--json"])
def test_markdown_goes_with_nothing_else(other: str, command: Command) -> None:
    done = command("methods", other, "--markdown")
    assert (done.code, done.out) == (2, "")
    assert "--markdown is of all methods" in done.err


@pytest.mark.parametrize("arguments", [(), ("ties",), ("--json",), ("--markdown",)], ids=str)
def test_numpy_is_not_imported_to_tell_of_methods(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys; from tensorsurgeon.cli import cli\n"
        f"cli(['methods', *{arguments}], standalone_mode=False)\n"
        "assert not {'numpy', 'torch', 'huggingface_hub'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)


def test_manual_is_what_the_command_prints(command: Command) -> None:
    printed = command("methods", "--markdown")
    assert (printed.code, printed.err) == (0, "")
    assert printed.out == MANUAL.read_text(encoding="utf-8"), (
        "make it anew with: tensorsurgeon methods --markdown > recipes/methods.md"
    )


def headings(text: str) -> Iterator[str]:
    """The titles of a Markdown text, as links name them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            yield re.sub(r"[^\w-]", "", token.content.lower().replace(" ", "-"))


def test_links_of_the_manual_lead_somewhere() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https:)([^)#]*)#?([^)]*)\)", text):
        path = MANUAL.parent / (target or MANUAL.name)
        if anchor:
            assert anchor in list(headings(path.read_text(encoding="utf-8"))), f"{target}#{anchor}"
        else:
            assert path.exists(), target


def test_formulas_make_no_lists_in_the_manual() -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(MANUAL.read_text(encoding="utf-8"))
    entries = tokens[next(i for i, token in enumerate(tokens) if token.content == "Defaults") :]
    kinds = {token.type for token in entries}
    assert not {"bullet_list_open", "ordered_list_open", "html_block", "code_block"} & kinds
    inside = {inner.type for token in entries for inner in token.children or ()}
    assert not {"em_open", "html_inline"} & inside
    assert sum(token.type == "table_open" for token in entries) == len(KNOWN) + 2
