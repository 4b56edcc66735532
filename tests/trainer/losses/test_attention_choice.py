"""Which attention is taken, and what is refused before any weight is read."""

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    FalconH1Config,
    FalconMambaConfig,
    JambaConfig,
    Lfm2Config,
    Llama4TextConfig,
    Mamba2Config,
    MambaConfig,
    NemotronHConfig,
    Qwen3NextConfig,
    RecurrentGemmaConfig,
    RwkvConfig,
)

from tensorsurgeon.errors import TrainingError
from tensorsurgeon.trainer.attention import VARLEN, check_packable, choose_attention
from tests.trainer.losses import models

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("family", "changes", "taken"),
    [
        ("llama", {}, VARLEN),
        ("mistral", {}, VARLEN),
        ("gemma3", {}, VARLEN),
        ("llama", {"attention_dropout": 0.1}, "sdpa"),
        ("gemma2", {}, "eager"),  # its scores are bent
        ("gpt_oss", {}, "eager"),  # its softmax has a sink
    ],
)
def test_auto_takes_the_first_that_works(family: str, changes: dict[str, Any], taken: str) -> None:
    config = models.config(family, **changes)
    chosen = choose_attention(config, CPU)
    assert chosen == taken
    models.model(config, chosen)  # and transformers takes it too


def test_auto_on_a_gpu_in_float32_takes_masks() -> None:
    assert choose_attention(models.config("llama"), CUDA, dtype=torch.float32) == "sdpa"


@pytest.mark.parametrize(
    ("family", "device", "asked", "why"),
    [
        ("gemma2", CPU, "sdpa", "does not support it|cannot bend scores"),
        ("gemma2", CPU, "varlen", "does not support it|cannot bend scores"),
        ("gpt_oss", CPU, "varlen", "a model of type gpt_oss does not support it"),
        ("llama", CPU, "flex_attention", "learns on a GPU only"),
        ("llama", CPU, "flash_attention_2", "needs a GPU"),
        ("llama", CUDA, "flash_attention_2", "needs a GPU and bfloat16"),
        ("llama", CUDA, "varlen", "on a GPU it needs bfloat16"),
    ],
)
def test_an_attention_that_would_not_work_is_refused(
    family: str, device: torch.device, asked: str, why: str
) -> None:
    with pytest.raises(TrainingError, match=why) as raised:
        choose_attention(models.config(family), device, asked, dtype=torch.float32)
    assert f"attention '{asked}' cannot be used" in str(raised.value)
    assert "fix: attention: auto" in str(raised.value)


@pytest.mark.parametrize("asked", ["sdpa", "eager"])
def test_what_is_asked_for_is_taken_where_it_works(asked: str) -> None:
    assert choose_attention(models.config("llama"), CPU, asked) == asked


@pytest.mark.parametrize(
    "config",
    [
        FalconH1Config(),
        FalconMambaConfig(),
        JambaConfig(),
        Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]),
        Mamba2Config(),
        MambaConfig(),
        NemotronHConfig(),
        Qwen3NextConfig(),
        RecurrentGemmaConfig(),
        RwkvConfig(),
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_with_recurrent_layers_or_convolutions_is_refused(config: Any) -> None:
    with pytest.raises(TrainingError, match="samples of several documents") as raised:
        check_packable(config)
    assert config.model_type in str(raised.value)


def test_attention_in_chunks_is_refused() -> None:
    with pytest.raises(TrainingError, match="chunked_attention"):
        check_packable(Llama4TextConfig())


def test_a_model_that_sees_both_ways_is_refused() -> None:
    config = models.config("gemma3", use_bidirectional_attention=True)
    with pytest.raises(TrainingError, match="would have to predict"):
        check_packable(config)


@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt_oss"]
)
def test_models_of_attention_alone_are_taken(family: str) -> None:
    check_packable(models.config(family))


def test_a_model_with_an_attention_of_its_own_keeps_it() -> None:
    assert choose_attention(BloomConfig(), CPU) == "eager"
    with pytest.raises(TrainingError, match="a model of type bloom does not support it"):
        choose_attention(BloomConfig(), CPU, "varlen")
