"""What cannot be trained is refused: where, what and the fix are told, and nothing is left."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon.trainer.data.shards import tokenizer_digest
from tests.cli.checkpoints import file_bytes
from tests.trainer.data.tokens import Written
from tests.trainer.refusals import Tokens, Trainer
from tests.trainer.runs import apply_surgery, tiny_llama, write_run
from tests.trainer.warm import Warm, warm


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("told")) as made:
        yield made


@pytest.fixture
def trainer(command: Warm, random_llama: Path, tokens: Tokens, tmp_path: Path) -> Trainer:
    return Trainer(command=command, model=random_llama, tokens=tokens, folder=tmp_path)


FROZEN = {"match": "*", "frozen": True}

IN_RUN_FILE: dict[str, tuple[dict[str, Any], str, str]] = {
    "too-long": (
        {"data": {"sequence_length": 1024}},
        "run.yaml:6:20: data.sequence_length: 1024 is longer than the model allows, which is 512",
        "at most 512",
    ),
    "glob-of-nothing": (
        {"groups": [{"match": "model.layer.*"}]},
        "groups.0.match: 'model.layer.*' matches no parameter",
        "a glob is of the whole name, such as 'model.layers.0.",
    ),
    "unknown-selector": (
        {"groups": [{"match": "@new"}, {"match": "@sem"}]},
        "groups.1.match: there is no selector '@sem'",
        "did you mean '@seam'? known: @copied, ",
    ),
    "no-new-layers": (
        {"groups": [{"match": "@new"}]},
        "groups.0.match: '@new' matches no parameter",
        "the checkpoint's manifest tells of no added layer",
    ),
    "no-seam": (
        {"preset": "dus"},
        "preset: '@seam' matches no parameter",
        "the checkpoint's manifest tells of no seam layer; remove the group, or the preset",
    ),
    "no-such-layer": (
        {"groups": [{"match": "layers 3-9"}]},
        "groups.0.match: 'layers 3-9': the model has layers 0 to 3",
        "",
    ),
    "all-frozen": (
        {"groups": [{"match": "@norms", "learning_rate": 0}, FROZEN]},
        "groups: everything is frozen: there is nothing to train",
        "leave something unfrozen, with a learning rate above 0",
    ),
    "micro-batches": (
        {"batch": {"sequences": 5, "micro": 2}},
        "batch: cannot divide 5 sequences into micro-batches of 2",
        "make 'sequences' a multiple of 'micro' times the number of ranks",
    ),
    "sft-of-text": (
        {"stage": "sft"},
        "tokens holds text, not sft",
        "prepare them with --format for the stage 'sft'",
    ),
    "dpo-of-text": (
        {"stage": "dpo"},
        "tokens holds text, not preference",
        "prepare them with --format for the stage 'dpo'",
    ),
    "baseline-of-nothing": (
        {"data": {"held_out": None}, "evaluate": {"baseline": "./none"}},
        "evaluate.baseline: is measured on held-out tokens, and there are none",
        "name some: data: held_out",
    ),
}


@pytest.mark.parametrize("name", IN_RUN_FILE)
def test_run_file_that_does_not_fit_is_told_at_its_line(name: str, trainer: Trainer) -> None:
    changes, what, fix = IN_RUN_FILE[name]
    told = trainer.refused(3, f"{trainer.run}:", what, **changes)
    assert not fix or f"\n  fix: {fix}" in told


def test_batch_that_does_not_divide_by_the_ranks_is_told_on_each(trainer: Trainer) -> None:
    write_run(trainer.run, trainer.model, trainer.tokens, batch={"sequences": 3, "micro": 1})
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29461"}
    ranks = [
        trainer.command.start(trainer.run, env=together | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in "01"
    ]
    for done in [rank.wait() for rank in ranks]:
        assert done.returncode == 3, done.stderr
        assert "batch: cannot divide 3 sequences into micro-batches of 1 on 2 ranks" in done.stderr
        assert "\n  fix: make 'sequences' a multiple of 2\n" in done.stderr


@pytest.mark.parametrize("inside", ["", "/run"], ids=["the-folder-itself", "in-it"])
@pytest.mark.parametrize("what", ["model", "tokens", "held-out"])
def test_run_does_not_write_into_what_it_reads(what: str, inside: str, trainer: Trainer) -> None:
    path = {"model": trainer.model, "tokens": trainer.tokens[0], "held-out": trainer.tokens[1]}
    before = file_bytes(path[what])
    trainer.refused(
        3,
        f"run.yaml:2:9: folder: {path[what]}{inside} is, or lies in, {path[what]}, which is read",
        "\n  fix: name a folder of the run's own",
        folder=f"{path[what]}{inside}",
    )
    assert file_bytes(path[what]) == before


@pytest.mark.parametrize("place", [0, 1], ids=["train", "held-out"])
def test_shards_of_another_tokenizer_are_refused(place: int, trainer: Trainer) -> None:
    other = trainer.folder / "other"
    shutil.copytree(trainer.tokens[place], other)
    index = json.loads((other / "tokens.json").read_text())
    model = trainer.copy()
    (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + "\n")
    shards = trainer.shards([(list(range(200)), None)], tokenizer=tokenizer_digest(model))
    tokens = [shards, shards]
    tokens[place] = other
    trainer.refused(
        10,
        f"{other}: was made with another tokenizer than the model's: SHA-256 {index['tokenizer']}",
        "\n  fix: prepare the tokens again with --tokenizer and the model's folder",
        model=model,
        tokens=(tokens[0], tokens[1]),
    )


def test_model_without_a_tokenizer_is_refused(trainer: Trainer) -> None:
    model = trainer.copy()
    (model / "tokenizer.json").unlink()
    trainer.refused(10, f"{model}: has no tokenizer", "\n  fix: ", model=model)


ONE_TOKEN = [([5], None)] * 100

DATA: dict[str, tuple[Written, dict[str, Any], str, str]] = {
    "one-token": (
        [([5], None)],
        {},
        "has no document of two tokens, and so nothing to predict",
        "prepare more tokens",
    ),
    "documents-of-one-token": (
        ONE_TOKEN,
        {},
        "has no document of two tokens, and so nothing to predict",
        "prepare more tokens",
    ),
    "less-than-a-sample": (
        [(list(range(30)), None)],
        {},
        "has 30 tokens, less than one sample of 64",
        "lower data: sequence_length, prepare more tokens, or set packing to documents",
    ),
    "beyond-the-embedding": (
        [(list(range(300, 400)), None)],
        {"vocabulary": 500},
        "has token 399, and the model's embedding only 384 rows",
        "prepare the tokens again with --tokenizer and the model's folder",
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_teach_nothing_are_refused(name: str, trainer: Trainer) -> None:
    documents, others, what, fix = DATA[name]
    shards = trainer.shards(documents, **others)
    said = f"{shards}: {what}\n  fix: {fix}"
    trainer.refused(10, said, tokens=(shards, trainer.tokens[1]))


def test_text_that_is_empty_makes_no_shards(trainer: Trainer) -> None:
    (trainer.folder / "empty.txt").touch()
    done = trainer.command.run(
        *("prepare", trainer.folder / "empty.txt", "--tokenizer", trainer.model),
        *("-o", trainer.folder / "tokens"),
    )
    assert done.returncode == 10
    assert "tokens: would be empty" in done.stderr
    assert [path.name for path in trainer.folder.iterdir()] == ["empty.txt"]


def test_held_out_samples_without_anything_to_predict_are_refused(trainer: Trainer) -> None:
    shards = trainer.shards([*ONE_TOKEN, ([5, 6], None)])
    trainer.refused(
        10,
        f"{shards}: has nothing to predict in the 1 sample to be measured",
        "\n  fix: raise evaluate: sequences, or prepare more tokens",
        tokens=(trainer.tokens[0], shards),
        evaluate={"sequences": 1},
    )


@pytest.mark.parametrize("place", [0, 1], ids=["train", "held-out"])
def test_folder_without_shards_is_refused(place: int, trainer: Trainer) -> None:
    tokens = [*trainer.tokens]
    tokens[place] = trainer.folder / "none"
    trainer.refused(
        10,
        f"{trainer.folder}/none: there is no such folder",
        "\n  fix: 'tensorsurgeon train prepare' makes token shards of texts",
        f"{('data.train.0.path', 'data.held_out')[place]} at {trainer.run}:{4 + place}:",
        tokens=(tokens[0], tokens[1]),
    )


def test_folder_without_a_model_is_refused(trainer: Trainer) -> None:
    trainer.refused(
        5,
        f"{trainer.folder}/none: there is no such folder",
        f"model at {trainer.run}:1:8",
        model=trainer.folder / "none",
    )


def test_baseline_that_is_missing_is_told_before_anything_is_written(trainer: Trainer) -> None:
    said = f"{trainer.run.parent}/none: there is no such folder"
    trainer.refused(5, said, evaluate={"baseline": "./none"})


def test_baseline_of_another_tokenizer_is_refused(trainer: Trainer) -> None:
    other = trainer.copy()
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    said = f"evaluate.baseline: {other} has another tokenizer than the model"
    trainer.refused(3, f"{trainer.run}:", said, evaluate={"baseline": str(other)})


def test_baseline_that_lacks_a_token_is_refused(trainer: Trainer) -> None:
    other = tiny_llama(trainer.folder / "other", vocab_size=100)
    said = f"evaluate.baseline: {other} has 100 rows of embeddings, and the data token "
    trainer.refused(3, f"{trainer.run}:", said, evaluate={"baseline": str(other)})


def test_baseline_of_another_width_is_refused_where_seams_are_compared(trainer: Trainer) -> None:
    other = tiny_llama(trainer.folder / "other", hidden_size=48)
    expression = {"depth_up_scale": {"model": "base", "remove": 1}}
    grown = apply_surgery(trainer.folder / "surgery", trainer.model, expression)
    said = f"evaluate.baseline: {other} has a width of 48, the model 32"
    trainer.refused(3, said, model=grown, evaluate={"baseline": str(other)})


def test_gpu_that_is_asked_for_and_not_there_is_told(trainer: Trainer) -> None:
    trainer.refused(
        10,
        "there is no GPU here",
        f"engine at {trainer.run}:",
        "\n  fix: engine: device: cpu trains on the processor",
        engine={"device": "cuda"},
        env={"CUDA_VISIBLE_DEVICES": ""},
    )


def test_output_that_is_there_or_in_the_way_is_refused(trainer: Trainer) -> None:
    there = trainer.copy()
    before = file_bytes(there)
    is_there = f"{there}: is already there\n  fix: --overwrite replaces it"
    trainer.refused(6, is_there, output={"path": str(there)})
    assert file_bytes(there) == before
    inside = f"{trainer.model}/out: lies in, around or at the source {trainer.model}"
    trainer.refused(6, inside, output={"path": f"{trainer.model}/out"})
    run = str(trainer.run.with_suffix(""))
    at_folder = f"{run}: lies in, around or at the source {run}"
    trainer.refused(6, at_folder, output={"path": run}, folder=run)
    data = str(trainer.tokens[0])
    no_checkpoint = f"{data}: is not replaced: it has files, but no config.json"
    trainer.refused(6, no_checkpoint, output={"path": data}, options=("--overwrite",))


def test_folder_that_cannot_be_made_is_refused(trainer: Trainer) -> None:
    (trainer.folder / "file").touch()
    path = f"{trainer.folder}/file/run"
    trainer.refused(7, f"{path}: cannot be made: Not a directory", "\n  fix: ", folder=path)
