"""PEFT in a process of its own: makes models and adapters, and merges them.

Run by the interpreter of mergekit's environment, never imported. It is given a file of JSON: a list
of cases, each with the `folder` to fill, the `model_type` and `model` (its config), `lora` (the
adapter's config) and the base's `dtype`. A folder then has `base`, `adapter`, `merged` (what PEFT's
merge makes of the two in float32), and `logits.npy`, of PEFT's model before it is merged.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS = [[1, 5, 9, 2, 11, 3, 7, 0]]


def make(case: dict) -> None:
    """Fills one case's folder."""
    folder = Path(case["folder"])
    torch.manual_seed(case.get("seed", 0))
    config = AutoConfig.for_model(case["model_type"], **case["model"])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.to(getattr(torch, case["dtype"])).save_pretrained(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(**case["lora"]))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    adapted.save_pretrained(folder / "adapter")
    adapted.eval()
    np.save(folder / "logits.npy", adapted(torch.tensor(TOKENS)).logits.numpy())
    adapted.merge_and_unload().save_pretrained(folder / "merged")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for case in json.loads(Path(sys.argv[1]).read_text()):
        make(case)
