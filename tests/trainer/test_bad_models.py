"""Models that cannot be trained, or are not what their config says, are refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, MambaConfig, MambaForCausalLM

from tensorsurgeon.checkpoint import MANIFEST_NAME, encode_manifest, read_manifest
from tests.trainer.data.tokens import make_tokenizer
from tests.trainer.refusals import Trainer
from tests.trainer.runs import apply_surgery, write_run


def test_config_and_tensors_of_other_shapes_are_named(trainer: Trainer) -> None:
    trainer.refused(
        5,
        f"{trainer.folder}/model: ",
        "'model.layers.1.mlp.up_proj.weight' is [64, 32], and config.json makes it [48, 32]",
        "config.json and the tensors are of different models",
        model=trainer.copy(intermediate_size=48),
    )


def test_tensor_that_is_missing_is_named(trainer: Trainer) -> None:
    model = trainer.with_tensors(lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    trainer.refused(5, "model: lacks model.layers.1.mlp.up_proj.weight", model=model)


def test_layers_that_are_missing_are_named(trainer: Trainer) -> None:
    told = trainer.refused(5, "lacks model.layers.4.", model=trainer.copy(num_hidden_layers=5))
    assert "and 4 more" in told


def test_tensor_that_the_model_does_not_have_is_named(trainer: Trainer) -> None:
    extra = {"model.layers.9.mlp.up_proj.weight": torch.zeros(3)}
    model = trainer.with_tensors(lambda tensors: tensors.update(extra))
    trainer.refused(5, "model.layers.9.mlp.up_proj.weight", "the model does not", model=model)


def test_shard_that_is_cut_is_named(trainer: Trainer) -> None:
    model = trainer.copy()
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-100])
    trainer.refused(
        5,
        f"{model}/model.safetensors: is cut short",
        "\n  fix: download the file again",
        model=model,
    )


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ({"model_type": "frobnicator"}, 4, "transformers does not know this model: "),
        ({"model_type": "t5"}, 4, "transformers makes no causal language model of it: "),
        (
            {"model_type": "frobnicator", "auto_map": {"AutoConfig": "code.Config"}},
            4,
            "transformers does not know this model: ",
        ),
    ],
    ids=["unknown", "encoder-decoder", "code-of-its-own"],
)
def test_model_of_an_unknown_class_is_refused(
    config: dict[str, Any], code: int, said: str, trainer: Trainer
) -> None:
    trainer.refused(
        code, f"{trainer.folder}/model/config.json: ", said, model=trainer.copy(**config)
    )


def test_code_beside_a_model_is_never_run(trainer: Trainer) -> None:
    model = trainer.copy(
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    )
    (model / "own.py").write_text(f"open({str(trainer.folder / 'ran')!r}, 'w')\n")
    write_run(trainer.run, model, trainer.tokens, steps=1)
    done = trainer.command.run(trainer.run)
    assert done.returncode == 0, done.stderr
    assert not (trainer.folder / "ran").exists()


SMALL = {"vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 2}


def test_state_space_model_is_refused_since_documents_would_leak(trainer: Trainer) -> None:
    model = trainer.folder / "mamba"
    MambaForCausalLM(MambaConfig(**SMALL, state_size=4)).save_pretrained(model)
    make_tokenizer(model)
    trainer.refused(
        10,
        f"{model}/config.json: a model of type mamba cannot learn from samples of several ",
        "\n  fix: train a model whose layers are all full or sliding attention",
        model=model,
    )


def test_model_that_sees_what_it_would_predict_is_refused(trainer: Trainer) -> None:
    model = trainer.folder / "bert"
    config = BertConfig(**SMALL, intermediate_size=64, num_attention_heads=4)
    BertLMHeadModel(config).save_pretrained(model)
    make_tokenizer(model)
    for attention in ("auto", "eager"):
        write_run(trainer.run, model, trainer.tokens, engine={"attention": attention})
        done = trainer.command.run(trainer.run)
        assert done.returncode == 10, done.stderr
        assert "Bert" in done.stderr
        assert "Traceback" not in done.stderr
        assert '"step"' not in (trainer.run.with_suffix("") / "metrics.jsonl").read_text()


def test_manifest_of_another_number_of_layers_is_refused(trainer: Trainer) -> None:
    expression = {"depth_up_scale": {"model": "base", "remove": 1}}
    grown = apply_surgery(trainer.folder / "surgery", trainer.model, expression)
    path = grown / MANIFEST_NAME
    manifest = read_manifest(path)
    path.write_bytes(encode_manifest(replace(manifest, layer_map=manifest.layer_map[:-1])))
    said = f"{path}: speaks of 5 layers, and the model has 6"
    trainer.refused(5, said, model=grown)
    path.write_bytes(path.read_bytes().replace(b'"seam": true', b'"seam": false', 1))
    trainer.refused(5, f"{path}: has changed since it was written", model=grown)
