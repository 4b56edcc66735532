"""Every causal family is the model that transformers itself loads, and comes back as it was."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tensorsurgeon.checkpoint import open_checkpoint
from tensorsurgeon.errors import ArchitectureError, MissingTensorError, TrainingError
from tensorsurgeon.trainer.attention import choose_attention
from tensorsurgeon.trainer.export import Training, plan_export, write_checkpoint
from tensorsurgeon.trainer.groups import assign
from tensorsurgeon.trainer.layer_map import read_layer_map
from tensorsurgeon.trainer.model import LanguageModel, build_model, read_model_config
from tensorsurgeon.trainer.parallel import joined, shard
from tensorsurgeon.trainer.run_file import Engine, read_run
from tensorsurgeon.trainer.setup import describe
from tensorsurgeon.trainer.slices import load_weights, stored_values
from tests.families.models import (
    BART,
    DECODERS,
    GEMMA4,
    INFERRED,
    JAMBA,
    LLAMA,
    LLAMA4,
    MINILM,
    MODERNBERT,
    PATTERNED,
    T5,
    Family,
)
from tests.trainer.ranks import on_ranks
from tests.trainer.runs import write_run

Tokens = tuple[Path, Path]

CAUSAL = {
    family.name: family
    for family in (*DECODERS, *INFERRED, *PATTERNED, GEMMA4, JAMBA, LLAMA4)
    if family is not MODERNBERT
}
TOKENS = torch.arange(20)[None] * 7 % 50
CPU = torch.device("cpu")


def attention_of(folder: Path) -> str:
    config = read_model_config(folder)
    try:
        return choose_attention(config, CPU, "sdpa")
    except TrainingError:
        return "eager"


def logits(module: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = module.eval()(TOKENS, use_cache=False).logits
    return found


def loaded(folder: Path) -> LanguageModel:
    checkpoint = open_checkpoint(folder)
    model = build_model(checkpoint, attention=attention_of(folder))
    load_weights(model, checkpoint, CPU)
    return model


def of_two_dtypes(folder: Path) -> Path:
    """The same model with every other tensor in bfloat16."""
    tensors = load_file(folder / "model.safetensors")
    for name in sorted(tensors)[::2]:
        if tensors[name].is_floating_point():
            tensors[name] = tensors[name].bfloat16()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def work(folders: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Of each family the logits on sharded weights; what they are made of is written again."""
    found = {}
    with joined(Engine(device="cpu", threads=1)) as ranks:
        for name, folder in folders.items():
            checkpoint = open_checkpoint(folder)
            model = build_model(checkpoint, attention=attention_of(folder))
            shard(model.module, model.layers, ranks)
            load_weights(model, checkpoint, ranks.device)
            found[name] = logits(model.module).numpy()
            model.module.reshard()
            write(model, folder, out / name)
    return found


def write(model: LanguageModel, folder: Path, final: Path) -> None:
    """A model's weights, as if all of them had been trained."""
    training = Training(run_file="{}", stage="pretrain", steps=1, tokens=1, seed=0)
    export = plan_export(open_checkpoint(folder), training, depth=len(model.layers))
    write_checkpoint(
        export, final, lambda name: stored_values(model, name) if name in model.parts else None
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: of_two_dtypes(family.save(tmp_path_factory.mktemp(name)))
        for name, family in CAUSAL.items()
    }


@pytest.fixture(scope="module")
def two_ranks(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], Path]:
    out = tmp_path_factory.mktemp("written")
    return on_ranks(2, work, folders, out, seconds=300), out


@pytest.mark.parametrize("name", CAUSAL)
def test_logits_are_those_of_transformers_bit_for_bit(name: str, folders: dict[str, Path]) -> None:
    reference = AutoModelForCausalLM.from_pretrained(
        folders[name], dtype=torch.float32, attn_implementation=attention_of(folders[name])
    )
    assert torch.equal(logits(loaded(folders[name]).module), logits(reference))


@pytest.mark.parametrize("name", CAUSAL)
def test_sharded_logits_are_those_of_the_whole_model(
    name: str, two_ranks: tuple[list[dict[str, Any]], Path], folders: dict[str, Path]
) -> None:
    whole = logits(loaded(folders[name]).module)
    for rank in two_ranks[0]:
        assert torch.allclose(torch.from_numpy(rank[name]), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CAUSAL)
def test_what_is_stored_comes_back_by_its_names_bit_for_bit(
    name: str, two_ranks: tuple[list[dict[str, Any]], Path], folders: dict[str, Path]
) -> None:
    before = load_file(folders[name] / "model.safetensors")
    after = load_file(two_ranks[1] / name / "model.safetensors")
    assert after.keys() == before.keys()
    for stored, tensor in before.items():
        assert after[stored].dtype is tensor.dtype
        assert after[stored].shape == tensor.shape
        assert torch.equal(after[stored].view(torch.uint8), tensor.view(torch.uint8)), stored


@pytest.mark.parametrize(
    ("name", "prefix", "stored", "parameters"),
    [
        ("llama", "model.layers.", "model.norm.weight", {"model.norm.weight"}),
        ("gpt-neox", "gpt_neox.layers.", "embed_out.weight", {"lm_head.weight"}),
        (
            "mixtral",
            "model.layers.",
            "model.layers.4.block_sparse_moe.experts.3.w3.weight",
            {"model.layers.4.mlp.experts.gate_up_proj"},
        ),
        (
            "gemma3-multimodal",
            "model.language_model.layers.",
            "language_model.model.norm.weight",
            {"model.language_model.norm.weight"},
        ),
    ],
)
def test_stored_names_and_parameters_are_told_apart(
    name: str, prefix: str, stored: str, parameters: set[str], folders: dict[str, Path]
) -> None:
    folder = folders[name]
    model = build_model(open_checkpoint(folder), attention=attention_of(folder))
    assert model.prefix == prefix
    assert {owner for owner, _ in model.parts.get(stored, ())} == parameters
    assert dict(model.module.named_modules())[f"{prefix}0"] is model.layers[0]
    assert model.body.get_submodule(prefix.removeprefix(model.body_prefix)[:-1]) is model.layers
    assert model.head not in set(model.body.modules())


def test_selectors_see_the_parameters_of_the_model(
    folders: dict[str, Path], tokens: Tokens, tmp_path: Path
) -> None:
    folder = folders["qwen3-moe"]
    checkpoint = open_checkpoint(folder)
    parameters = describe(build_model(checkpoint, attention="sdpa"))
    groups = [
        {"match": "*.experts.gate_up_proj", "learning_rate": 0.5},
        {"match": "layers 1-2", "frozen": True},
        {"match": "@embeddings", "weight_decay": 0.3},
    ]
    run = read_run(write_run(tmp_path / "run.yaml", folder, tokens, groups=groups))
    treatments = assign(run, parameters, read_layer_map(checkpoint, 5))
    layer = "model.layers.{}.mlp.experts.{}".format
    assert treatments[layer(1, "gate_up_proj")].learning_rate == 0.5
    assert not treatments[layer(1, "gate_up_proj")].frozen
    assert treatments[layer(2, "down_proj")].frozen
    assert not treatments[layer(3, "down_proj")].frozen
    assert treatments["model.embed_tokens.weight"].weight_decay == 0.3
    assert treatments["lm_head.weight"].weight_decay != 0.3


def test_a_body_stored_without_its_prefix_is_found(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["gpt2"], tmp_path / "model")
    whole = logits(loaded(folder).module)
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    assert bare.keys() != tensors.keys()
    save_file(bare, folder / "model.safetensors", {"format": "pt"})
    model = loaded(folder)
    assert torch.equal(logits(model.module), whole)
    assert [owner for owner, _ in model.parts["wte.weight"]] == ["transformer.wte.weight"]


def test_what_the_model_has_no_use_for_is_copied_as_it_is_stored(tmp_path: Path) -> None:
    folder = LLAMA.save(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    tensors[name] = torch.rand(4)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with joined(Engine(device="cpu", threads=1)):
        model = loaded(folder)
        assert model.untrained == (name,)
        write(model, folder, tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(after[name], tensors[name])


def test_a_checkpoint_of_another_config_is_refused_with_what_differs(tmp_path: Path) -> None:
    folder = LLAMA.save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    changed = config | {"num_hidden_layers": 6, "intermediate_size": 40, "attention_bias": True}
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(MissingTensorError) as caught:
        build_model(open_checkpoint(folder), attention="sdpa")
    told = str(caught.value)
    assert "lacks model.layers.0.self_attn.k_proj.bias" in told
    shapes = "'model.layers.0.mlp.down_proj.weight' is [32, 48], and config.json makes it [32, 40]"
    assert shapes in told
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(MissingTensorError) as caught:
        build_model(open_checkpoint(folder), attention="sdpa")
    left = "has, and the model does not, model.layers.4.input_layernorm.weight"
    assert left in str(caught.value)
    assert "and 4 more" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "error", "why"),
    [
        (T5, ArchitectureError, "transformers makes no causal language model of it"),
        (MODERNBERT, ArchitectureError, "transformers makes no causal language model of it"),
        (BART, MissingTensorError, "has, and the model does not, final_logits_bias"),
        (MINILM, MissingTensorError, "lacks cls.predictions.bias"),
    ],
    ids=str,
)
def test_what_is_no_causal_language_model_is_refused(
    family: Family, error: type[Exception], why: str, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(family.save(tmp_path / "model"))
    with pytest.raises(error) as caught:
        build_model(checkpoint, attention="sdpa")
    assert why in str(caught.value)
