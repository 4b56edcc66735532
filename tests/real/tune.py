"""Makes the tests' second model: SmolLM2-135M after a few optimiser steps on other text.

    python tests/real/tune.py BASE FOLDER

The text is this repository's LICENSE. No tensor stays as it was, but most weights move by an ulp
or two of bfloat16: for a merge that is the hard case, inputs that are nearly parallel.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

TEXT = Path(__file__).parent.parent.parent / "LICENSE"
STEPS, WINDOW = 6, 128
MATRIX_RATE, VECTOR_RATE = 2e-4, 4e-3
"""Norm weights are near 1, where bfloat16 is 30 times coarser than at a matrix's weights."""


def tune(base: Path, folder: Path) -> None:
    """Writes the tuned model to `folder`, in the base model's layout; whole or not at all."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    text = tokenizer(TEXT.read_text(encoding="utf-8"), return_tensors="pt").input_ids[0]
    train(model, text)

    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        model.to(torch.bfloat16).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def train(model: Any, text: Any) -> None:
    """One AdamW step on each of the first windows of `text`, (tokens,) token ids."""
    import torch

    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "lr": MATRIX_RATE}, {"params": vectors, "lr": VECTOR_RATE}]
    )
    for window in text.split(WINDOW)[:STEPS]:
        loss = model(window[None], labels=window[None]).loss
        print(f"loss {loss.item():.3f} nats per token")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    tune(Path(sys.argv[1]), Path(sys.argv[2]))
