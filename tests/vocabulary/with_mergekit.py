"""Joins vocabularies with mergekit, in its own environment: cases in, tokens and rows out.

    python with_mergekit.py CASES.json RESULTS.json

A case has `models` (folder of each, in order), `rows` (of each embedding), `base` or null,
`source` (union, base or a folder), `tokens` and `pad` as mergekit's recipes have them, and a
`text` to split.
Row r of model i is 1 at i and r at n + i, so that a result tells what it was made of.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from mergekit.common import ModelReference
from mergekit.tokenizer import BuildTokenizer, PermutedVocabulary
from mergekit.tokenizer.config import TokenEmbeddingConfig


def run(case: dict[str, Any]) -> dict[str, Any]:
    models = [ModelReference.model_validate(folder) for folder in case["models"]]
    base = case["base"] and ModelReference.model_validate(case["base"])
    source = case["source"]
    if source not in ("union", "base"):
        source = ModelReference.model_validate(source)
    tokens = {
        token: TokenEmbeddingConfig.model_validate(rule) for token, rule in case["tokens"].items()
    }
    build = BuildTokenizer(
        base_model=base,
        referenced_models=tuple(models),
        tokenizer_source=source,
        add_tokens=tuple(tokens),
    )
    info = build.execute()
    permuted = PermutedVocabulary.model_construct(
        tokenizer_task=build,
        tokens=tokens,
        pad_to_multiple_of=case["pad"],
        base_model=base,
        vocabulary_axis=0,
    )
    tensors = {}
    for number, (model, rows) in enumerate(zip(models, case["rows"], strict=True)):
        tensors[model] = torch.zeros(rows, 2 * len(models), dtype=torch.float64)
        tensors[model][:, number] = 1
        tensors[model][:, len(models) + number] = torch.arange(rows)
    made = permuted.execute(tokenizer_info=info, tensors=tensors)
    return {
        "ids": info.tokenizer.get_vocab(),
        "split": info.tokenizer.tokenize(case["text"]),
        "embeddings": [made[model].tolist() for model in models],
    }


if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_bytes())
    results = {name: run(case) for name, case in cases.items()}
    Path(sys.argv[2]).write_text(json.dumps(results))
