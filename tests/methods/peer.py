"""mergekit's `merge_tensors` as a process of its own: a line of JSON asks, a line answers.

Run by the interpreter of mergekit's environment, never imported. Tensors travel in files. A request
has the `method`, its `parameters`, the files `inputs` and `output`, `base` (whether the first input
is one), and the dtypes to compute and to write in. The answer is empty, or what went wrong.
"""

import json
import sys

import torch
from mergekit.merge_methods.api import merge_tensors
from safetensors.torch import load_file, save_file


def answer(request: dict) -> None:
    """Merges tensors of one name after the other."""
    models = load_file(request["inputs"])
    ids = request["ids"]
    names = dict.fromkeys(key.partition("/")[2] for key in models)
    dtypes = {key: request[key] and getattr(torch, request[key]) for key in ("dtype", "out_dtype")}
    merged = {
        name: merge_tensors(
            [models[f"{model}/{name}"] for model in ids],
            request["method"],
            ids=ids,
            base_index=0 if request["base"] else None,
            parameters=request["parameters"],
            name=name,
            **dtypes,
        )
        for name in names
    }
    save_file({name: tensor.contiguous() for name, tensor in merged.items()}, request["output"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for line in sys.stdin:
        try:
            answer(json.loads(line))
            print(flush=True)
        except Exception as error:
            print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
