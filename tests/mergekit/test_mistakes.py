"""What is wrong with a mergekit recipe, or has no effect there: told at its line, all at once.

In the recipes below ▸ marks the places that the message must name; it is not part of them.
"""

import json

import pytest

from tensorsurgeon.documents import load_documents
from tensorsurgeon.errors import RecipeError
from tensorsurgeon.mergekit import translate
from tests.cli.test_bad_recipes import problems, without_marks

TIES = "merge_method: ties\nbase_model: base\nmodels: [{model: a, parameters: {weight: 1}}]\n"

MISTAKES = {
    "a method that there is not": (
        "merge_method: ▸dare_tie\nmodels: [{model: a}]",
        "there is no merge_method 'dare_tie' -> did you mean 'dare_ties'?",
    ),
    "a key that mergekit does not know": (
        TIES + "▸dytpe: float16",
        "mergekit ignores 'dytpe' here -> did you mean 'dtype'?",
    ),
    "a parameter outside of parameters": (
        TIES + "▸normalize: true",
        "mergekit ignores 'normalize' here -> put it below 'parameters'",
    ),
    "a seed": (
        TIES + "▸random_seed: 0",
        "mergekit ignores 'random_seed' here -> remove it; a seed is mergekit's command line's",
    ),
    "a merge key of YAML 1.1": (
        TIES + "▸<<: {dtype: float16}",
        "mergekit ignores '<<' here -> write out what is merged in",
    ),
    "a key of a model that mergekit does not know": (
        "merge_method: linear\nmodels: [{model: a, ▸weight: 1, parameters: {weight: 1}}]",
        "mergekit ignores 'weight' here -> put it below 'parameters'",
    ),
    "a weight of a residual": (
        "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 4]}]\n"
        "  ▸residual_weight: 0.5",
        "mergekit ignores 'residual_weight' here -> remove it",
    ),
    "a parameter that the method has not": (
        TIES + "parameters: {▸gamma: 0.1}",
        "'ties' has no parameter 'gamma', and mergekit ignores it -> known: density, int8_mask,",
    ),
    "a density without pruning": (
        "merge_method: task_arithmetic\nbase_model: base\n"
        "models: [{model: a, parameters: {weight: 1, ▸density: 0.5}}]",
        "'task_arithmetic' has no parameter 'density', and mergekit ignores it",
    ),
    "a place on the arc for each model": (
        "merge_method: slerp\nbase_model: a\nparameters: {t: 1}\n"
        "models: [{model: a}, {model: b, parameters: {▸t: 0.5}}]",
        "'t' is one for the whole merge: mergekit ignores it at a model -> put it below",
    ),
    "a weight of the base": (
        "merge_method: ties\nbase_model: base\n"
        "models: [{model: base, parameters: {▸weight: 1}}, {model: a, parameters: {weight: 1}}]",
        "the base has no 'weight': mergekit ignores it -> remove it",
    ),
    "a model without a weight": (
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, ▸{model: x/b}]",
        "model 'x/b' has no weight -> parameters: {weight: 1.0}",
    ),
    "a base without a weight": (
        "merge_method: linear\nbase_model: ▸b\nmodels: [{model: a, parameters: {weight: 1}}]",
        "mergekit adds base_model 'b' to the models, and it has no weight -> list it below",
    ),
    "weights for some tensors only": (
        "merge_method: linear\n"
        "models: [▸{model: a, parameters: {weight: [{filter: mlp, value: 1}]}}]",
        "model 'a' has no weight where no filter matches -> end the list with - value: …",
    ),
    "no place on the arc": (
        "merge_method: ▸slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]",
        "'slerp' has no t -> parameters: {t: …}",
    ),
    "a filter behind one that takes all": (
        TIES + "parameters: {lambda: [{value: 1}, ▸{filter: mlp, value: 2}]}",
        "lambda: all tensors have a value above, and mergekit ignores this",
    ),
    "a filter behind one that takes its tensors": (
        TIES + "parameters: {lambda: [{filter: mlp, value: 1}, ▸{filter: mlp.up, value: 2}]}",
        "lambda: 'mlp' above takes these tensors, and mergekit ignores this",
    ),
    "a filter that is a glob": (
        TIES + "parameters: {lambda: [{filter: ▸'*.mlp.*', value: 1}]}",
        "lambda: a filter is a part of tensor names, and '*' or '?' is in none -> as self_attn",
    ),
    "a typo in a filter's keys": (
        TIES + "parameters: {lambda: [{▸filtre: mlp, value: 1}]}",
        "lambda: mergekit ignores 'filtre' -> did you mean 'filter'?",
    ),
    "a filter without a value": (
        TIES + "parameters: {lambda: [▸{filter: mlp}]}",
        "lambda: a filter needs a 'value'",
    ),
    "a number among filters": (
        TIES + "parameters: {lambda: [{filter: mlp, value: 1}, ▸0.5]}",
        "lambda: {filter: …, value: …}, not a number -> - value: 0.5",
    ),
    "an empty list": (
        TIES + "parameters: {lambda: ▸[]}",
        "lambda: an empty list, which mergekit ignores",
    ),
    "a density above 1": (
        TIES + "parameters: {density: [0.5, ▸1.5]}",
        "density: 1.5 is outside 0 to 1",
    ),
    "a place beyond the arc": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: ▸1.01}",
        "t: 1.01 is outside 0 to 1",
    ),
    "a weight in words": (
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: ▸half}}]",
        "weight: a number, not text",
    ),
    "a weight that is not finite": (
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: ▸.inf}}]",
        "weight: inf is not a finite number",
    ),
    "a weight of hundreds of digits": (
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: ▸1" + "0" * 400 + "}}]",
        "weight: inf is not a finite number",
    ),
    "a switch that is a number": (
        TIES + "parameters: {normalize: ▸0.5}",
        "normalize: true or false, not a number",
    ),
    "a switch that varies": (
        TIES + "parameters: {normalize: [{filter: mlp, value: ▸false}, {value: true}]}",
        "normalize is one for all tensors here -> give it one value, or use slices",
    ),
    "steps that are half a number": (
        "merge_method: karcher\nmodels: [{model: a}, {model: b}]\nparameters: {max_iter: ▸1.5}",
        "max_iter: a whole number, not 1.5",
    ),
    "columns of a whole": (
        "merge_method: nuslerp\nmodels: [{model: a}, {model: b}]\n"
        "parameters: {weight: 1, nuslerp_row_wise: ▸true}",
        "mergekit ignores nuslerp_row_wise unless nuslerp_flatten is false -> set nuslerp_flatten",
    ),
    "parameters that are a list": (
        TIES + "parameters: ▸[normalize]",
        "parameters: takes a mapping, not a list",
    ),
    "no base": (
        "merge_method: ▸ties\nmodels: [{model: a, parameters: {weight: 1}}]",
        "'ties' needs 'base_model' -> base_model: the model the others were tuned from",
    ),
    "a base that is not among the sources": (
        "merge_method: slerp\nbase_model: c\nparameters: {t: 1}\nslices:\n"
        "- ▸sources: [{model: a, layer_range: [0, 4]}, {model: b, layer_range: [0, 4]}]",
        "base_model 'c' is not among the sources of this slice -> add it, with a layer_range",
    ),
    "three models on an arc": (
        "merge_method: ▸slerp\nbase_model: a\nparameters: {t: 1}\n"
        "models: [{model: a}, {model: b}, {model: c}]",
        "'slerp' takes exactly 1 model beside the base, not 2",
    ),
    "model stock of one model": (
        "merge_method: ▸model_stock\nbase_model: a\nmodels: [{model: b}]",
        "'model_stock' takes at least 2 models beside the base, not 1",
    ),
    "a base that is passed through as well": (
        "merge_method: ▸passthrough\nbase_model: a\nmodels: [{model: b}]",
        "'passthrough' takes exactly 1 model, not 2 -> mergekit counts base_model as one: remove",
    ),
    "a model twice": (
        "merge_method: karcher\nmodels: [{model: a}, ▸{model: {model: a}}]",
        "model 'a' is here twice -> give it once",
    ),
    "models and slices": (
        "▸" + TIES + "slices: [{sources: [{model: a, layer_range: [0, 4]}]}]",
        "one of 'models', 'slices' and 'modules' says what is merged; here is models and slices",
    ),
    "nothing to merge": (
        "▸merge_method: linear\nmodels: []",
        "one of 'models', 'slices' and 'modules' says what is merged; here is none",
    ),
    "modules of their own": (
        "merge_method: passthrough\n▸modules:\n  text: {models: [{model: a}]}\n"
        "  vision: {models: [{model: b}]}",
        "modules that are merged each in its own way are not known here -> write 'models' in place",
    ),
    "an empty slice": (
        "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: ▸[4, 4]}]}]",
        "layer_range [4, 4] has no layers -> [first, end): the end is not taken",
    ),
    "a slice of unequal sources": (
        "merge_method: karcher\nslices:\n"
        "- ▸sources: [{model: a, layer_range: [0, 4]}, {model: b, layer_range: [0, 5]}]",
        "the sources of a slice have as many layers each, not 4, 5",
    ),
    "layers in words": (
        "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, ▸all]}]}]",
        "slices.0.sources.0.layer_range.1: a whole number, not text",
    ),
    "no layers": (
        "merge_method: passthrough\nslices: [{sources: [▸{model: a}]}]",
        "slices.0.sources.0 needs 'layer_range' -> known: model, parameters, layer_range",
    ),
    "a filter for a layer that no slice has": (
        "merge_method: slerp\nbase_model: a\n"
        "parameters: {t: [▸{filter: layers.9., value: 1}, {value: 0}]}\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]\n"
        "- sources: [{model: a, layer_range: [2, 4]}, {model: b, layer_range: [2, 4]}]",
        "filter 'layers.9.' names no layer of these slices, and mergekit ignores it -> layers",
    ),
    "a filter for a layer that a source has, but not the slice": (
        "merge_method: passthrough\nslices:\n- sources:\n  - model: a\n    layer_range: [4, 8]\n"
        "    parameters: {scale: [▸{filter: layers.9., value: 1}, {value: 0}]}",
        "filter 'layers.9.' names no layer of these slices, and mergekit ignores it",
    ),
    "a filter that may name a layer": (
        "merge_method: passthrough\nslices:\n- sources:\n  - model: a\n    layer_range: [4, 8]\n"
        "    parameters: {scale: [▸{filter: '5.mlp', value: 1}, {value: 0}]}",
        "scale: filter '5.mlp' may name a layer or not, and the slice begins at another -> write",
    ),
    "a dtype that there is not": (
        TIES + "dtype: ▸bf17",
        "dtype: 'bf17' is not known -> did you mean 'bf16'?",
    ),
    "two tokenizers": (
        TIES + "▸tokenizer_source: base\ntokenizer: {source: union}",
        "'tokenizer_source' and 'tokenizer' say the same -> keep one of them",
    ),
    "a template that is none": (
        TIES + "chat_template: ▸chatlm",
        "chat_template: 'chatlm' is neither a known name nor a template -> did you mean 'chatml'?",
    ),
    "a token of a model that is not merged": (
        TIES + "tokenizer: {tokens: {<s>: {source: ▸b}}}",
        "model 'b' is not merged, so that no row is taken of it -> known: a, base",
    ),
    "a token that is named in no way": (
        TIES + "tokenizer: {tokens: {<s>: {source: ▸{kind: model_token, model: a}}}}",
        "tokenizer.tokens.<s>.source: a model's token is named by 'token' or by 'token_id'",
    ),
    "padding to nothing": (
        TIES + "tokenizer: {pad_to_multiple_of: ▸0}",
        "tokenizer.pad_to_multiple_of: at least 1, not 0",
    ),
    "two adapters": (
        "merge_method: passthrough\nmodels: [{model: ▸a+b+c}]",
        "models.0.model: 'a+b+c' is not path@revision+adapter",
    ),
    "two revisions": (
        "merge_method: passthrough\nmodels: [{model: ▸a@b@c}]",
        "models.0.model: 'a@b@c' is not path@revision",
    ),
    "a model that is a number": (
        "merge_method: passthrough\nmodels: [{model: ▸5}]",
        "models.0.model: a model is path@revision+adapter, or {model: …}, not a number",
    ),
    "an architecture of one's own": (
        "merge_method: passthrough\n"
        "models: [{model: ▸{model: a, override_architecture: LlamaForCausalLM}}]",
        "models.0.model: override_architecture is for what mergekit keeps tables of",
    ),
    "a typo in a model": (
        "merge_method: passthrough\nmodels: [{model: ▸{model: a, lra: b}}]",
        "models.0.model: a model has no key 'lra'; known: model, lora",
    ),
    "a typo for a model": (
        "merge_method: passthrough\nmodels: [▸{▸modle: a}]",
        "models.0 needs 'model' -> known: model, parameters",
    ),
    "two documents that nothing joins": (
        "▸name: x\nmerge_method: passthrough\nmodels: [{model: a}]\n---\n"
        "merge_method: passthrough\nmodels: [{model: b}]",
        "no other document uses this one, and only one can be written -> keep the one, and those",
    ),
    "a circle of documents": (
        "merge_method: passthrough\nmodels: [{model: x}]\n---\n"
        "name: ▸x\nmerge_method: passthrough\nmodels: [{model: y}]\n---\n"
        "name: y\nmerge_method: passthrough\nmodels: [{model: x}]",
        "document 'x' is made of itself",
    ),
    "two documents of one name": (
        "name: x\nmerge_method: passthrough\nmodels: [{model: a}]\n---\n"
        "name: ▸x\nmerge_method: passthrough\nmodels: [{model: x}]",
        "two documents have the name 'x'",
    ),
    "a tokenizer in between": (
        "name: x\nmerge_method: passthrough\nmodels: [{model: a}]\n▸tokenizer_source: union\n---\n"
        "merge_method: passthrough\nmodels: [{model: x}]",
        "'tokenizer_source' of a document that another uses: nothing of it is written -> put it",
    ),
}


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as error:
        translate(load_documents(text.encode(), "m.yml"), "m.yml")
    return str(error.value)


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_told_at_its_place_with_the_fix(text: str, message: str) -> None:
    recipe, places = without_marks(text)
    found = problems(refusal(recipe))
    assert any(one.startswith(f"m.yml:{places[0]}: {message}") for one in found), found
    assert len(found) == len(places), found


def test_all_mistakes_are_told_together_in_the_order_of_lines() -> None:
    recipe, places = without_marks("""\
merge_method: ▸slerp
base_model: a
models:
  - {model: a, parameters: {▸t: 0.5, ▸weight: 3}}
  - {model: b, ▸weight: 0.5}
dtype: ▸bf17
parameters:
  ▸tt: 4
▸normalize: true
""")
    found = problems(refusal(recipe))
    assert [one.split(" ")[0] for one in found] == [f"m.yml:{place}:" for place in places]


def test_long_chains_and_lattices_of_documents_are_read_at_once() -> None:
    steps = [
        {
            "name": f"s{step}",
            "merge_method": "slerp",
            "base_model": f"s{step - 1}" if step else "a",
            "models": [{"model": f"s{step - 2}" if step > 1 else "b"}],
            "parameters": {"t": 0.5},
        }
        for step in range(2000)
    ]
    made = translate(load_documents(json.dumps(steps).encode(), "m.yml"), "m.yml")
    assert made.document["result"] == "s1999"
    assert list(made.document["models"])[-2:] == ["s1998", "s1999"]
