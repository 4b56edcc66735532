"""Mistakes in a recipe: each is reported at its line and column, all of them in one go.

In the recipes below ▸ marks the place that the message must name; it is not part of them.
"""

from itertools import accumulate
from pathlib import Path

import pytest

from tests.cli.conftest import Refused, WriteRecipe

RECIPE = 3
"""The exit code of a mistake in a recipe."""

FRAME = """\
models:
  a: ./a
  b: ./b
  merged: {expression}
result: merged
output:
  path: ./out
"""


def without_marks(text: str) -> tuple[str, list[str]]:
    """The text, and the `line:column` of each ▸ that was in it."""
    *before, _ = text.split("▸")
    read = [part.split("\n") for part in accumulate(before)]
    places = [f"{len(lines)}:{len(lines[-1]) + 1}" for lines in read]
    return text.replace("▸", ""), places


def problems(message: str) -> list[str]:
    """The message's problems, each with its fix."""
    return message.rstrip("\n").replace("\n  fix: ", " -> ").split("\n")


EXPRESSIONS = {
    "a typo in an operator": (
        "{▸slrep: {models: [a, b], t: 0.5}}",
        "there is no operator 'slrep' -> did you mean 'slerp'?",
    ),
    "a typo in a parameter": (
        "{linear: {models: [a, b], ▸weigths: [1, 2]}}",
        "'linear' has no parameter 'weigths' -> did you mean 'weights'?",
    ),
    "a typo in a model's name": (
        "{slerp: {models: [a, ▸bb], t: 0.5}}",
        "there is no model 'bb' -> did you mean 'b'? known: a, b",
    ),
    "a typo in a slice": (
        "{stack: [{model: a, ▸layer: [0, 1]}, {model: b}]}",
        "'stack': slices.0 has no parameter 'layer' -> did you mean 'layers'?",
    ),
    "two operators": (
        "▸{linear: {models: [a, b]}, slerp: {models: [a, b], t: 0.5}}",
        "an expression has one key, its operator, and this has 2: linear, slerp -> indent",
    ),
    "a parameter left out": (
        "{slerp: ▸{models: [a, b]}}",
        "'slerp' needs 't' -> known: models, t",
    ),
    "t above 1": (
        "{slerp: {models: [a, b], t: ▸1.5}}",
        "'slerp': t: 1.5 is outside 0 to 1",
    ),
    "t not a number": (
        "{slerp: {models: [a, b], t: ▸.nan}}",
        "'slerp': t: nan is not a finite number",
    ),
    "t in words": (
        "{slerp: {models: [a, b], t: ▸half}}",
        "'slerp': t: a number, a list of numbers or a list of rules, not 'half'",
    ),
    "t true": (
        "{slerp: {models: [a, b], t: ▸true}}",
        "'slerp': t: a number, a list of numbers or a list of rules, not True",
    ),
    "t of 400 digits": (
        "{slerp: {models: [a, b], t: ▸1" + "0" * 400 + "}}",
        "'slerp': t: inf is not a finite number",
    ),
    "t of 5000 digits": (
        "{slerp: {models: [a, b], t: ▸1" + "0" * 5000 + "}}",
        "'slerp': t: nan is not a finite number",
    ),
    "t above 1 at one layer": (
        "{slerp: {models: [a, b], t: [0, ▸1.5, 1]}}",
        "'slerp': t.1: 1.5 is outside 0 to 1",
    ),
    "t without a value": (
        "{slerp: {models: [a, b], t: ▸[]}}",
        "'slerp': t: an empty list gives no value",
    ),
    "weights that sum to zero": (
        "{▸linear: {models: [a, b], weights: [1, -1]}}",
        "'linear': weights 1, -1 sum to zero and cannot be normalized -> change a weight",
    ),
    "weights that sum to zero at the last layer": (
        "{▸linear: {models: [a, b], weights: [1, [1, -1]]}}",
        "'linear': weights 1, -1 sum to zero and cannot be normalized -> change a weight",
    ),
    "more weights than models": (
        "{linear: ▸{models: [a, b], weights: [1, 2, 3]}}",
        "'linear': there are 2 models and 3 weights",
    ),
    "one weight for all": (
        "{linear: {models: [a, b], weights: ▸0.5}}",
        "'linear': weights: takes a list, not a number",
    ),
    "an infinite weight": (
        "{linear: {models: [a, b], weights: [1, ▸.inf]}}",
        "'linear': weights.1: inf is not a finite number",
    ),
    "one model to merge": (
        "{linear: {models: ▸[b]}}",
        "'linear': models: takes at least 2, not 1",
    ),
    "three models on an arc": (
        "{slerp: {models: ▸[a, b, a], t: 0.5}}",
        "'slerp': models: takes at most 2, not 3",
    ),
    "layers out of range": (
        "{▸stack: [{model: a, layers: [0, 3]}, {model: b}]}",
        "'stack': layers [0, 3] is out of range -> the model has 2 layers, so [0, 2] is all",
    ),
    "layers before the first": (
        "{▸stack: [{model: a, layers: [-1, 1]}, {model: b}]}",
        "'stack': layers [-1, 1] is out of range -> the model has 2 layers",
    ),
    "no layers": (
        "{▸stack: [{model: a, layers: [1, 1]}, {model: b}]}",
        "'stack': layers [1, 1] is empty",
    ),
    "layers with a step": (
        "{stack: [{model: a, layers: ▸[0, 2, 1]}, {model: b}]}",
        "'stack': slices.0.layers: takes at most 2, not 3",
    ),
    "a stack of nothing": (
        "{stack: ▸[]}",
        "'stack': slices: takes at least 1, not 0",
    ),
    "parameters that are a list": (
        "{linear: ▸[a, b]}",
        "'linear' takes a mapping of its parameters, not a list -> known: models, weights",
    ),
    "parameters left empty": (
        "{linear:▸ }",
        "'linear' takes a mapping of its parameters, not nothing -> known: models, weights",
    ),
    "an expression that is a list": (
        "▸[a, b]",
        "model 'merged': a model's name or {operator: …}, not a list",
    ),
    "a negative number of layers to remove": (
        "{depth_up_scale: {model: {linear: {models: [a, b]}}, remove: ▸-1}}",
        "'depth_up_scale': remove: at least 0, not -1",
    ),
    "all layers removed": (
        "{▸depth_up_scale: {model: {linear: {models: [a, b]}}, remove: 2}}",
        "'depth_up_scale': removing 2 of 2 layers leaves none -> remove at most 1",
    ),
    "truth for a number of layers": (
        "{depth_up_scale: {model: {linear: {models: [a, b]}}, remove: ▸true}}",
        "'depth_up_scale': remove: a whole number, not true or false",
    ),
    "more layers between copies than there are": (
        "{▸block_expansion: {model: {linear: {models: [a, b]}}, every: 3}}",
        "'block_expansion': every 3 layers of 2 adds none -> every: 1 to 2",
    ),
    "a rule that matches nothing": (
        "{▸slerp: {models: [a, b], t: [{match: '*.mpl.*', value: 0}, 0.5]}}",
        "'slerp': t: rule '*.mpl.*' matches no tensor that the rules before it have left -> names",
    ),
    "a rule behind one that takes everything": (
        "{▸slerp: {models: [a, b], t: [{match: '*', value: 0}, {match: '*.mlp.*', value: 1}, 1]}}",
        "'slerp': t: rule '*.mlp.*' matches no tensor that the rules before it have left",
    ),
    "a default before a rule": (
        "{slerp: {models: [a, b], t: [▸0.5, {match: '*.mlp.*', value: 0}]}}",
        "'slerp': t.0: only the last rule goes without a 'match'",
    ),
    "rules without a default": (
        "{slerp: {models: [a, b], t: [▸{match: '*.mlp.*', value: 0}]}}",
        "'slerp': t.0: the last rule has no 'match': it is the default",
    ),
    "a typo in a rule": (
        "{slerp: {models: [a, b], t: [▸{macth: '*.mlp.*', value: 0}, 0.5]}}",
        "'slerp': t.0: a rule has no key 'macth'; known: match, value",
    ),
    "a rule's value outside above 1": (
        "{slerp: {models: [a, b], t: [▸{value: [0, 1], outside: 2}]}}",
        "'slerp': t.0: 2 is outside 0 to 1",
    ),
    "a list outside": (
        "{slerp: {models: [a, b], t: [▸{value: [0, 1], outside: [0, 1]}]}}",
        "'slerp': t.0: 'outside' is one number",
    ),
    "a rule without a value": (
        "{slerp: {models: [a, b], t: [▸{match: '*.mlp.*'}, 0.5]}}",
        "'slerp': t.0: a rule needs a 'value'",
    ),
    "a rule's value above 1": (
        "{slerp: {models: [a, b], t: [▸{match: '*.mlp.*', value: [0, 2]}, 0.5]}}",
        "'slerp': t.0: 2 is outside 0 to 1",
    ),
    "a model used before it is defined": (
        "{linear: {models: [a, b, ▸merged]}}",
        "model 'merged' is used before it is defined -> move its definition up",
    ),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("expression", "problem"), EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_mistake_in_an_expression_is_reported_at_its_place(
    expression: str, problem: str, recipe: WriteRecipe, refused: Refused
) -> None:
    text, (place,) = without_marks(FRAME.format(expression=expression))
    path = recipe(text)
    (found,) = problems(refused("apply", path, code=RECIPE))
    assert found.startswith(f"{path}:{place}: {problem}")


RECIPES = {
    "an unused model": (
        "models:\n  a: ./a\n  ▸b: ./b\nresult: a\n",
        "model 'b' is never used -> use it or remove it",
    ),
    "a result that is not defined": (
        "models: {base: ./a}\nresult: ▸bsae\n",
        "there is no model 'bsae' -> did you mean 'base'?",
    ),
    "no result": (
        "▸models: {a: ./a}\n",
        "the recipe needs 'result' -> known: models, result, output, seed",
    ),
    "no models": (
        "result: {stack: [{model: {source: ./a}}]}\nmodels: ▸{}\n",
        "the recipe: models: a mapping of names to models, not an empty one",
    ),
    "a typo in a section": (
        "models: {a: ./a}\nresult: a\n▸ouput: {path: ./out}\n",
        "the recipe has no parameter 'ouput' -> did you mean 'output'?",
    ),
    "a typo in the output": (
        "models: {a: ./a}\nresult: a\noutput: {▸pth: ./out}\n",
        "the recipe: output has no parameter 'pth' -> did you mean 'path'?",
    ),
    "an output that is text": (
        "models: {a: ./a}\nresult: a\noutput: ▸./out\n",
        "the recipe: output: takes a mapping, not text",
    ),
    "an unknown dtype": (
        "models: {a: ./a}\nresult: a\noutput: {path: ./out, dtype: ▸bf16}\n",
        "the recipe: output.dtype: 'bf16' is not known -> did you mean 'bfloat16'?",
    ),
    "a shard size that is none": (
        "models: {a: ./a}\nresult: a\noutput: {path: ./out, max_shard_size: ▸5 gigs}\n",
        "the recipe: output.max_shard_size: '5 gigs' is not a size; write it as 512MB or 5GB",
    ),
    "a shard size of zero": (
        "models: {a: ./a}\nresult: a\noutput: {path: ./out, max_shard_size: ▸0}\n",
        "the recipe: output.max_shard_size: a size must be positive, not '0'",
    ),
    "a shard size that is not finite": (
        "models: {a: ./a}\nresult: a\noutput: {path: ./out, max_shard_size: ▸.inf}\n",
        "the recipe: output.max_shard_size: a size such as 5GB, not a number",
    ),
    "a tokenizer of nobody": (
        "models: {base: ./a}\nresult: base\noutput: {path: ./out, tokenizer: ▸bse}\n",
        "output: tokenizer: there is no model 'bse' -> did you mean 'base'?",
    ),
    "a seed that is truth": (
        "models: {a: ./a}\nresult: a\nseed: ▸true\n",
        "the recipe: seed: a whole number, not true or false",
    ),
    "a negative seed": (
        "models: {a: ./a}\nresult: a\nseed: ▸-1\n",
        "the recipe: seed: at least 0, not -1",
    ),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("text", "problem"), RECIPES.values(), ids=RECIPES.keys())
def test_mistake_around_the_expressions_is_reported_at_its_place(
    text: str, problem: str, recipe: WriteRecipe, refused: Refused
) -> None:
    clean, (place,) = without_marks(text)
    path = recipe(clean)
    (found,) = problems(refused("apply", path, code=RECIPE))
    assert found.startswith(f"{path}:{place}: {problem}")


def test_all_mistakes_are_reported_together_in_the_order_of_their_lines(
    recipe: WriteRecipe, refused: Refused
) -> None:
    text, places = without_marks("""\
models:
  base: ./a
  first: {▸slrep: {models: [base, base], t: 0.5}}
  second:
    slerp:
      models: [base, ▸frist]
      t: ▸1.5
      ▸tt: 1
  third:
    linear: {models: [second, {stack: [{model: ▸secnd}]}], weights: [1, ▸half]}
result: ▸thrid
output:
  ▸pth: ./out
""")
    path = recipe(text)
    found = problems(refused("plan", path, code=RECIPE))
    wrong = ["slrep", "frist", "1.5", "tt", "secnd", "half", "thrid", "pth"]
    assert [problem.partition(": ")[0] for problem in found] == [f"{path}:{p}" for p in places]
    assert [word in problem for word, problem in zip(wrong, found, strict=True)] == [True] * 8


def test_output_folder_named_nowhere_is_asked_for(
    models: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    path = recipe("models: {a: ./a}\nresult: a\n")
    assert problems(refused("apply", path, code=6)) == [
        f"{path}: the recipe names no output folder "
        "-> give one with -o, or as output: path in the recipe"
    ]
