"""A second opinion: TRL, in an environment of its own, on the same models and the same tokens.

It pads where we pack, and computes in the same float32; losses agree to a few units in the last
place, and gradients to the rounding of sums in another order.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tensorsurgeon.trainer.attention import VARLEN, choose_attention, packed_inputs
from tensorsurgeon.trainer.losses import IGNORED, linear_cross_entropy, token_log_probs
from tensorsurgeon.trainer.preference import document_sums, dpo_loss
from tests.trainer.losses import models

BETA = 0.2

Answer = tuple[list[int], list[int]]
"""A prompt and what answers it, in tokens."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What TRL found, in its folder."""

    folder: Path
    found: dict[str, Any]

    def model(self, name: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(
            self.folder / name, dtype=torch.float32, attn_implementation=VARLEN
        )


def write_models(folder: Path) -> None:
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, models.VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    policy = models.model(models.config("llama"), "sdpa")
    policy.save_pretrained(folder / "policy")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder / "policy")
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    policy.save_pretrained(folder / "reference")


def draw_words(length: int) -> list[int]:
    return torch.randint(3, models.VOCABULARY, (length,)).tolist()


def text(tokens: list[int]) -> str:
    return " ".join(f"w{token}" for token in tokens)


@pytest.fixture(scope="module")
def peer(trl_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Peer:
    folder = tmp_path_factory.mktemp("peer")
    write_models(folder)
    answers = [(draw_words(n), draw_words(m)) for n, m in ((4, 7), (1, 3), (9, 1))]
    examples = {
        "beta": BETA,
        "answers": [{"input_ids": p + a, "labels": [IGNORED] * len(p) + a} for p, a in answers],
        "pairs": [
            {
                "prompt": text(draw_words(n)) + " ",
                "chosen": text(draw_words(c)),
                "rejected": text(draw_words(r)),
            }
            for n, c, r in ((3, 5, 2), (6, 1, 8), (2, 4, 4), (5, 9, 1))
        ],
    }
    (folder / "examples.json").write_text(json.dumps(examples))
    script = Path(__file__).with_name("with_trl.py")
    done = subprocess.run([trl_python, script, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "found.json").read_text())
    choose_attention(models.config("llama"), torch.device("cpu"), "varlen")
    return Peer(folder=folder, found=found | {"answers": answers})


def pack(answers: list[Answer]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One sample of whole documents: (1, T) tokens, (T,) labels, (1, T) positions, (T,) numbers."""
    tokens, labels, positions, documents = [], [], [], []
    for number, (prompt, answer) in enumerate(answers):
        whole = prompt + answer
        tokens += whole
        labels += [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
        positions += range(len(whole))
        documents += [number] * len(whole)
    rows = (torch.tensor([tokens]), torch.tensor(labels), torch.tensor([positions]))
    return *rows, torch.tensor(documents)


def hidden_states(model: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    inputs = packed_inputs(positions, VARLEN)
    found: Tensor = model.model(tokens, **inputs, use_cache=False).last_hidden_state[0]
    return found


def assert_gradients_agree(model: Any, loss: Tensor, theirs: dict[str, Tensor]) -> None:
    loss.backward()
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        off = (gradient - theirs[name]).abs().max()
        assert off <= 1e-5 * theirs[name].abs().max(), name


def test_fine_tuning_on_packed_answers_is_that_of_trl_on_padded_ones(peer: Peer) -> None:
    model = peer.model("policy")
    tokens, labels, positions, _ = pack(peer.found["answers"])
    hidden = hidden_states(model, tokens, positions)
    loss = linear_cross_entropy(hidden, model.lm_head.weight, labels, chunk=5)
    loss = loss / (labels != IGNORED).sum()
    assert loss.item() == pytest.approx(peer.found["sft"], rel=1e-6)
    assert_gradients_agree(model, loss, load_file(peer.folder / "sft.safetensors"))


def test_preferences_of_packed_pairs_are_those_of_trl_on_padded_ones(peer: Peer) -> None:
    pairs = peer.found["pairs"]
    tokens, labels, positions, documents = pack(
        [
            (pair["prompt_ids"], pair[kind])
            for pair in pairs
            for kind in ("chosen_ids", "rejected_ids")
        ]
    )
    assert all(pair["chosen_ids"][-1] == 2 for pair in pairs)

    def sums(model: Any) -> Tensor:
        hidden = hidden_states(model, tokens, positions)
        log_probs = token_log_probs(hidden, model.lm_head.weight, labels, chunk=5)
        return document_sums(log_probs, documents, 2 * len(pairs)).view(-1, 2)

    policy = peer.model("policy")
    with torch.no_grad():
        before = sums(peer.model("reference"))
    found = dpo_loss(*sums(policy).T, *before.T, beta=BETA)
    loss = found.loss / len(pairs)
    assert loss.item() == pytest.approx(peer.found["dpo"], rel=1e-6)
    assert found.margin.item() / len(pairs) == pytest.approx(peer.found["margin"], rel=1e-5)
    assert found.accuracy.item() / len(pairs) == peer.found["accuracy"]
    assert_gradients_agree(policy, loss, load_file(peer.folder / "dpo.safetensors"))
