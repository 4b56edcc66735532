"""Whole trainings of tiny models: what surgery does to a loss, and what training makes of it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tensorsurgeon.verify import verify
from tests.trainer.ranks import on_ranks
from tests.trainer.runs import (
    apply_surgery,
    events_of,
    losses_of,
    train_quietly,
    write_run,
)

Tokens = tuple[Path, Path]

DUS = {"depth_up_scale": {"model": "base", "remove": 1}}
EXPANSION = {"block_expansion": {"model": "base", "every": 2}}


@pytest.fixture(scope="module")
def grown(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return apply_surgery(tmp_path_factory.mktemp("dus"), base, DUS)


@pytest.fixture(scope="module")
def expanded(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return apply_surgery(tmp_path_factory.mktemp("expanded"), base, EXPANSION)


def test_identity_expansion_leaves_the_loss_as_it_was(
    expanded: Path, base: Path, tokens: Tokens, tmp_path: Path
) -> None:
    evaluate = {"baseline": str(base)}
    run = write_run(tmp_path / "run.yaml", expanded, tokens, steps=1, evaluate=evaluate)
    train_quietly(run)
    (baseline,) = events_of(run, "baseline")
    before = events_of(run, "evaluation")[0]
    assert before["step"] == 0
    assert abs(before["loss"] - baseline["loss"]) < 1e-6


def test_depth_up_scaling_worsens_the_loss_and_training_brings_it_back(
    grown: Path, base: Path, tokens: Tokens, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path / "run.yaml",
        grown,
        tokens,
        steps=60,
        preset="dus",
        evaluate={"every": 20, "baseline": str(base)},
        log={"layers": 30},
    )
    train_quietly(run)
    (baseline,) = events_of(run, "baseline")
    held_out = [event["loss"] for event in events_of(run, "evaluation")]
    assert held_out[0] > baseline["loss"] + 0.01
    assert held_out[-1] <= baseline["loss"]


def test_the_held_out_loss_is_that_of_transformers(
    grown: Path, tokens: Tokens, tmp_path: Path
) -> None:
    from tensorsurgeon.trainer.data import HeldOut, open_tokens

    run = write_run(tmp_path / "run.yaml", grown, tokens, steps=1, evaluate={"sequences": 1000})
    train_quietly(run)
    model = AutoModelForCausalLM.from_pretrained(grown, dtype=torch.float64)
    total, count = 0.0, 0
    with open_tokens(tokens[1], tokenizer_digest=None, vocabulary=None) as shards:
        held_out = HeldOut(shards, sequence_length=64, packing="stream")
        for sample in map(held_out.sample, range(len(held_out))):
            for document in set(sample.documents.tolist()):
                here = sample.documents == document
                text, labels = sample.tokens[here], sample.labels[here]
                with torch.no_grad():
                    logits = model(torch.from_numpy(text)[None]).logits[0]
                total += torch.nn.functional.cross_entropy(
                    logits, torch.from_numpy(labels), reduction="sum", ignore_index=-100
                ).item()
                count += int((labels != -100).sum())
    before = events_of(run, "evaluation")[0]
    assert before["tokens"] == count
    assert before["loss"] == pytest.approx(total / count, abs=1e-6)


def test_two_ranks_learn_the_same_as_one(grown: Path, tokens: Tokens, tmp_path: Path) -> None:
    one = write_run(tmp_path / "one.yaml", grown, tokens, preset="dus")
    two = write_run(tmp_path / "two.yaml", grown, tokens, preset="dus", batch={"micro": 1})
    train_quietly(one)
    on_ranks(2, train_quietly, two)
    assert losses_of(two) == pytest.approx(losses_of(one), abs=1e-5)
    for kind in ("evaluation", "layers", "seams"):
        for first, second in zip(events_of(one, kind), events_of(two, kind), strict=True):
            numbers = [event.get("loss") or event.get("moved") for event in (first, second)]
            if kind == "seams":
                numbers = [[s["cosine"] for s in e["seams"]] for e in (first, second)]
            assert numbers[1] == pytest.approx(numbers[0], abs=1e-4)


def test_the_batch_size_of_the_hardware_changes_nothing(
    grown: Path, tokens: Tokens, tmp_path: Path
) -> None:
    small = write_run(tmp_path / "small.yaml", grown, tokens, batch={"micro": 1})
    large = write_run(tmp_path / "large.yaml", grown, tokens, batch={"micro": 4})
    train_quietly(small)
    train_quietly(large)
    assert losses_of(small) == pytest.approx(losses_of(large), abs=1e-5)


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_activation_checkpointing_changes_no_number(
    kind: str, grown: Path, tokens: Tokens, tmp_path: Path
) -> None:
    plain = write_run(tmp_path / "plain.yaml", grown, tokens, steps=3)
    again = write_run(
        tmp_path / "again.yaml", grown, tokens, steps=3, engine={"activation_checkpointing": kind}
    )
    train_quietly(plain)
    train_quietly(again)
    assert losses_of(again) == losses_of(plain)


def test_block_expansion_trains_the_new_layers_and_nothing_else(
    expanded: Path, tokens: Tokens, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path / "run.yaml",
        expanded,
        tokens,
        preset="block-expansion",
        output={"path": str(tmp_path / "trained")},
    )
    outcome = train_quietly(run)
    assert outcome.path is not None
    before = AutoModelForCausalLM.from_pretrained(expanded).state_dict()
    after = AutoModelForCausalLM.from_pretrained(outcome.path).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    moved = events_of(run, "layers")[-1]["moved"]
    new = [i for i, entry in enumerate(events_of(run, "run")[0]["layers"]) if entry["new"]]
    assert {int(name.split(".")[2]) for name in changed} == set(new)
    assert [i for i, distance in enumerate(moved) if distance] == new
    assert not verify(outcome.path).problems


def test_what_comes_out_has_the_loss_that_was_measured_last(
    grown: Path, tokens: Tokens, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path / "first.yaml", grown, tokens, output={"path": str(tmp_path / "trained")}
    )
    outcome = train_quietly(run)
    assert outcome.path is not None
    assert outcome.last is not None
    again = write_run(tmp_path / "again.yaml", outcome.path, tokens, steps=1)
    train_quietly(again)
    assert events_of(again, "evaluation")[0]["loss"] == pytest.approx(outcome.last.loss, abs=1e-6)
    # The second training still knows what the surgery did.
    assert events_of(again, "run")[0]["layers"] == events_of(run, "run")[0]["layers"]
