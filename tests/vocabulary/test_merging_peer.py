"""The same recipes through mergekit: every token has the row that mergekit gives it."""

import numpy as np
import pytest
from ruamel.yaml import YAML

from tensorsurgeon import api
from tests.mergekit.conftest import Mergekit, mergekit
from tests.vocabulary.checkpoints import EMBEDDING, HEAD, Bench, config_of, rows_of, three, vocab_of
from tests.vocabulary.makers import PAD

__all__ = ["mergekit"]

MERGE = """\
merge_method: task_arithmetic
base_model: ./forest
models:
  - {model: ./sea, parameters: {weight: 0.5}}
  - {model: ./both, parameters: {weight: 0.7}}
dtype: float32
"""
MEAN = """\
merge_method: linear
models:
  - {model: ./sea, parameters: {weight: 1}}
  - {model: ./forest, parameters: {weight: 3}}
  - {model: ./both, parameters: {weight: 2}}
dtype: float32
"""
SLERP = """\
merge_method: slerp
base_model: ./sea
models: [{model: ./both}, {model: ./sea}]
parameters: {t: 0.3}
dtype: float32
"""
TOKENS = """\
tokenizer:
  source: ./both
  pad_to_multiple_of: 64
  tokens:
    "<a>": {source: {kind: zero}, force: true}
    "ship": {source: {kind: model_token, model: ./both, token: "<a>"}}
    "t": {source: ./both, force: true}
    "r": {source: {kind: model_token, model: ./forest, token_id: 5}, force: true}
    "<|pad|>": {source: ./forest}
"""

CASES = {
    "union": MERGE + "tokenizer_source: union\n",
    "base": MERGE + "tokenizer_source: base\n",
    "a model's": MERGE + "tokenizer_source: ./both\n",
    "union without a base": MEAN + "tokenizer_source: union\n",
    "rules": MEAN + TOKENS,
    "slerp": SLERP + "tokenizer_source: union\n",
    "ties": MERGE.replace("task_arithmetic", "ties") + "tokenizer: {source: union}\n",
    "template": MERGE + "tokenizer_source: union\nchat_template: chatml\n",
}


@pytest.mark.parametrize(
    ("name", "tied"), [*((name, False) for name in CASES), ("union", True), ("rules", True)]
)
def test_every_token_has_the_row_that_mergekit_gives_it(
    name: str, tied: bool, bench: Bench, mergekit: Mergekit
) -> None:
    for model, tiny in three(tied=tied).items():
        tiny.write(bench.folder / model)
    path, theirs = bench.folder / "mergekit.yaml", bench.folder / "theirs"
    path.write_text(CASES[name].replace("./", f"{bench.folder}/"))
    ours = api.apply(api.plan(path, output=bench.folder / "ours"), threads=1).path
    assert ours is not None
    assert mergekit(YAML(typ="safe", pure=True).load(path), theirs) == {}
    here, there = vocab_of(ours), vocab_of(theirs)
    assert PAD in here
    assert here.keys() == there.keys()
    assert config_of(ours)["vocab_size"] == config_of(theirs)["vocab_size"]
    for tensor in (EMBEDDING,) if tied else (EMBEDDING, HEAD):
        found, wanted = rows_of(ours, tensor), rows_of(theirs, tensor)
        assert found.shape == wanted.shape
        for token, number in here.items():
            row = wanted[there[token]]
            np.testing.assert_allclose(found[number], row, rtol=0, atol=2e-6, err_msg=token)
    template = "chat_template.jinja"
    assert (ours / template).exists() is (theirs / template).exists()
