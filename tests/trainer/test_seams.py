"""Seams are compared with the model that their layers are from, or not at all, and that is said."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tensorsurgeon import api
from tensorsurgeon.trainer.data import open_tokens
from tensorsurgeon.trainer.run_file import read_run
from tensorsurgeon.trainer.setup import HeldOutData
from tensorsurgeon.trainer.train import train
from tests.trainer.runs import apply_surgery, events_of, tiny_llama, write_run

Tokens = tuple[Path, Path]
Models = dict[str, Path]

STACK = {"stack": [{"model": "a", "layers": [0, 2]}, {"model": "b", "layers": [2, 4]}]}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Two models of one shape, and two of layers of both."""
    folder = tmp_path_factory.mktemp("models")
    found = {name: tiny_llama(folder / name, seed=seed) for seed, name in enumerate("ab", 1)}
    return found | {"stacked": made(folder, found, "stacked", STACK)}


def made(folder: Path, models: Models, name: str, expression: Mapping[str, Any]) -> Path:
    recipe = folder / f"{name}.yaml"
    sources = {name: str(models[name]) for name in "ab"}
    recipe.write_text(json.dumps({"models": sources | {name: expression}, "result": name}))
    api.apply(api.plan(recipe, output=folder / name))
    return folder / name


def seams_of(path: Path, model: Path, tokens: Tokens, **changes: Any) -> list[dict[str, Any]]:
    """The seams before a training of one step, which says what it has to say."""
    run = write_run(path, model, tokens, **({"steps": 1} | changes))
    train(read_run(run))
    events = events_of(run, "seams")
    return list(events[0]["seams"]) if events else []


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("the report leaves out")]


def usual_input(model: Path, layer: int, text: torch.Tensor) -> torch.Tensor:
    """(T, d) float64 what goes into a layer, by transformers."""
    made = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    with torch.no_grad():
        hidden: torch.Tensor = made.model(text[None], output_hidden_states=True).hidden_states[
            layer
        ][0]
    return hidden


def test_a_seam_is_not_compared_with_a_model_that_its_layer_is_not_from(
    models: Models, tokens: Tokens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = {"baseline": str(models["a"])}
    run = tmp_path / "run.yaml"
    assert seams_of(run, models["stacked"], tokens, evaluate=evaluate) == []
    (line,) = told(capsys)
    assert "the seam at layer 2: only the model 'b' of the recipe" in line
    assert "evaluate: baseline" in line
    assert events_of(run, "baseline")[0]["name"] == "a"


def test_a_seam_is_compared_with_the_model_that_its_layer_is_from(
    models: Models, tokens: Tokens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.yaml"
    evaluate = {"baseline": str(models["b"]), "sequences": 2}
    (seam,) = seams_of(run, models["stacked"], tokens, evaluate=evaluate)
    assert not told(capsys)
    assert (seam["layer"], seam["original"]) == (2, ["b", 2])
    cosines = []
    with open_tokens(tokens[1], tokenizer_digest=None, vocabulary=None) as shards:
        for sample in HeldOutData.read(read_run(run), shards).samples:
            for document in set(sample.documents.tolist()):
                mine = sample.documents == document
                text = torch.from_numpy(sample.tokens[mine])
                now, was = (usual_input(models[name], 2, text) for name in ("stacked", "b"))
                real = torch.from_numpy(sample.labels[mine] != -100)
                cosines.append(torch.cosine_similarity(now, was, dim=-1)[real])
    assert seam["cosine"] == pytest.approx(torch.cat(cosines).mean().item(), abs=1e-5)
    assert seam["cosine"] < 0.9


def test_a_copy_of_the_source_under_another_name_is_the_source(
    models: Models, tokens: Tokens, tmp_path: Path
) -> None:
    moved = tiny_llama(tmp_path / "moved", seed=2)
    evaluate = {"baseline": str(moved)}
    (seam,) = seams_of(tmp_path / "run.yaml", models["stacked"], tokens, evaluate=evaluate)
    assert seam["original"] == ["b", 2]


def test_a_second_training_knows_the_source_still(
    models: Models, tokens: Tokens, tmp_path: Path
) -> None:
    evaluate = {"baseline": str(models["b"])}
    trained = tmp_path / "trained"
    first = tmp_path / "first.yaml"
    seams_of(first, models["stacked"], tokens, evaluate=evaluate, output={"path": str(trained)})
    (seam,) = seams_of(tmp_path / "second.yaml", trained, tokens, evaluate=evaluate)
    last = events_of(first, "seams")[-1]["seams"][0]
    assert seam["cosine"] == pytest.approx(last["cosine"], abs=1e-5)


def test_seams_of_merged_layers_and_those_without_a_baseline_are_said_to_be_left_out(
    models: Models, tokens: Tokens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = {"linear": {"models": ["a", "b"], "weights": [0.5, 0.5]}}
    slices = [
        {"model": "a", "layers": [0, 1]},
        {"model": "b", "layers": [1, 2]},
        {"model": merged, "layers": [1, 3]},
        {"model": "b", "layers": [0, 2]},
        {"model": "a", "layers": [0, 1]},
    ]
    grown = made(tmp_path, models, "grown", {"stack": slices})
    seams = seams_of(tmp_path / "run.yaml", grown, tokens)
    assert [(seam["layer"], seam["original"]) for seam in seams] == [(6, ["a", 0])]
    without_baseline, after_merge = told(capsys)
    assert "the seams at layers 1, 4: only the model 'b'" in without_baseline
    assert "the seam at layer 2: no model" in after_merge


def test_without_held_out_data_seams_are_looked_at_with_samples_that_are_learned(
    models: Models, tokens: Tokens, tmp_path: Path
) -> None:
    dus = {"depth_up_scale": {"model": "base", "remove": 1}}
    grown = apply_surgery(tmp_path / "surgery", models["a"], dus)
    (seam,) = seams_of(tmp_path / "run.yaml", grown, tokens, data={"held_out": None})
    assert (seam["layer"], seam["original"]) == (3, ["base", 1])
    assert -1 < seam["cosine"] < 0.999
