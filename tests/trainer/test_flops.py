"""FLOPs of a token, the peaks of devices, and the utilisation that comes of both."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig

from tensorsurgeon.trainer.flops import stated_peak
from tensorsurgeon.trainer.forecast import token_flops
from tensorsurgeon.trainer.run_file import read_run
from tensorsurgeon.trainer.setup import set_up
from tests.trainer.data.tokens import make_tokenizer
from tests.trainer.ranks import on_ranks
from tests.trainer.runs import LENGTH, events_of, tiny_llama, train_quietly, write_run

Tokens = tuple[Path, Path]

EMBEDDINGS, LAYER, NORM = 384 * 32, 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32, 32
"""Of the random Llama: queries and output, keys and values, MLP, two norms."""


def flops_of(model: Path, tokens: Tokens, folder: Path) -> float:
    run = write_run(folder / "run.yaml", model, tokens)
    return token_flops(set_up(read_run(run), device=torch.device("cpu"), ranks=1))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_flops_are_six_n_and_twelve_ldt_for_each_token(
    tied: bool, tokens: Tokens, tmp_path: Path
) -> None:
    model = tiny_llama(tmp_path / "model", layers=3, tie_word_embeddings=tied)
    multiplied = EMBEDDINGS + 3 * LAYER + NORM  # of two tables, one is only looked up
    assert flops_of(model, tokens, tmp_path) == 6 * multiplied + 12 * 3 * 32 * LENGTH


def test_of_experts_those_count_that_a_token_goes_through(tokens: Tokens, tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=512,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    make_tokenizer(tmp_path / "model")
    attention, router, norms = 2 * 32 * 32 + 2 * 32 * 16, 8 * 32, 2 * 32
    layer = attention + router + norms + 2 * (3 * 32 * 48)
    multiplied = 2 * layer + 32 + 384 * 32  # and the last norm and the head
    found = flops_of(tmp_path / "model", tokens, tmp_path)
    assert found == 6 * multiplied + 12 * 2 * 32 * LENGTH


@pytest.mark.parametrize("ranks", [1, 2])
def test_utilisation_is_of_the_peak_of_all_ranks(
    ranks: int, random_llama: Path, tokens: Tokens, tmp_path: Path
) -> None:
    engine = {"peak_flops": 3e12}
    run = write_run(
        tmp_path / "run.yaml", random_llama, tokens, steps=3, batch={"micro": 1}, engine=engine
    )
    if ranks == 1:
        train_quietly(run)
    else:
        on_ranks(ranks, train_quietly, run)
    a_token = 6 * (EMBEDDINGS + 4 * LAYER + NORM) + 12 * 4 * 32 * LENGTH
    steps = events_of(run, "step")
    assert len(steps) == 3
    for step in steps:
        used = step["tokens_per_second"] * a_token
        assert step["mfu"] == pytest.approx(used / (3e12 * ranks), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "half", "single"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12, 67e12),
        ("NVIDIA H100 PCIe", 756e12, 51e12),
        ("NVIDIA H100 NVL", 835e12, 60e12),
        ("NVIDIA H200", 989e12, 67e12),
        ("NVIDIA H200 NVL", 835e12, 60e12),
        ("NVIDIA GH200 480GB", 989e12, 67e12),
        ("NVIDIA B200", 2250e12, None),
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA A100 80GB PCIe", 312e12, 19.5e12),
        ("NVIDIA L40S", 362e12, 91.6e12),
        ("NVIDIA L4", 121e12, 30.3e12),
        ("NVIDIA A10", 125e12, 31.2e12),
        ("NVIDIA GeForce RTX 4090", 165e12, 82.6e12),
        ("Tesla V100-SXM2-16GB", None, 15.7e12),
        ("Tesla V100-PCIE-32GB", None, 14e12),
        ("Tesla T4", None, 8.1e12),
        # Others whose names begin alike, and parts of one that is known.
        ("NVIDIA RTX A1000", None, None),
        ("NVIDIA A10G", None, None),
        ("NVIDIA L40", None, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA GeForce RTX 4090 D", None, None),
        ("NVIDIA GeForce RTX 3090 Ti", None, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("AMD EPYC 7763 64-Core Processor", None, None),
    ],
)
def test_peak_is_the_one_its_maker_states_for_the_precision(
    name: str, half: float | None, single: float | None
) -> None:
    assert stated_peak(name, "bfloat16") == half
    assert stated_peak(name, "float32") == single
