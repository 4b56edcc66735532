"""Whole trainings of tiny models: what surgery does to a loss, and what training makes of it."""

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from tensorsurgeon.trainer.data import open_tokens
from tensorsurgeon.trainer.run_file import read_run
from tensorsurgeon.trainer.setup import HeldOutData, open_data
from tensorsurgeon.verify import verify
from tests.trainer.data.tokens import make_tokenizer
from tests.trainer.ranks import on_ranks
from tests.trainer.runs import (
    apply_surgery,
    events_of,
    losses_of,
    tiny_llama,
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
    assert held_out[0] > baseline["loss"] + 0.002
    assert held_out[-1] <= baseline["loss"]


def test_the_held_out_loss_is_that_of_transformers(
    grown: Path, tokens: Tokens, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run.yaml", grown, tokens, steps=1, evaluate={"sequences": 1000})
    train_quietly(run)
    model = AutoModelForCausalLM.from_pretrained(grown, dtype=torch.float64)
    total, count = 0.0, 0
    with open_tokens(tokens[1], tokenizer_digest=None, vocabulary=None) as shards:
        for sample in HeldOutData.read(read_run(run), shards).samples:
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
    norms = [[e["gradient_norm"] for e in events_of(run, "step")] for run in (one, two)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
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


def test_samples_are_the_same_however_the_paths_of_their_data_are_written(
    random_llama: Path, tokens: Tokens, tmp_path: Path
) -> None:
    shutil.copytree(tokens[0], tmp_path / "tokens")
    shutil.copytree(tokens[0], tmp_path / "copy")
    found = []
    for path in ("tokens", "./tokens", str(tmp_path / "tokens"), "copy"):
        data = {"train": [{"path": path}, {"path": "../" + tmp_path.name + "/tokens"}]}
        run = read_run(write_run(tmp_path / "run.yaml", random_llama, tokens, data=data))
        samples = map(open_data(run, random_llama, 384)[0].sample, range(40))
        found.append([(sample.source, sample.tokens.tolist()) for sample in samples])
    assert found == found[:1] * 4
    twice = [[text for source, text in found[0] if source == number] for number in (0, 1)]
    assert twice[0][:5] != twice[1][:5]


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


@pytest.mark.parametrize("ranks", [2, 4], ids=["whole-replicas", "sharded-replicas"])
def test_replicas_of_the_model_learn_the_same(
    ranks: int, grown: Path, tokens: Tokens, tmp_path: Path
) -> None:
    settings = {"steps": 4, "batch": {"sequences": 8, "micro": 1}}  # each rank accumulates
    one = write_run(tmp_path / "one.yaml", grown, tokens, **settings)
    replicas = write_run(
        tmp_path / "replicas.yaml", grown, tokens, engine={"replicate": 2}, **settings
    )
    train_quietly(one)
    on_ranks(ranks, train_quietly, replicas)
    assert losses_of(replicas) == pytest.approx(losses_of(one), abs=1e-5)
    norms = [[e["gradient_norm"] for e in events_of(run, "step")] for run in (one, replicas)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_computing_in_bfloat16_learns_nearly_the_same(
    grown: Path, tokens: Tokens, tmp_path: Path
) -> None:
    exact = write_run(tmp_path / "exact.yaml", grown, tokens)
    half = write_run(tmp_path / "half.yaml", grown, tokens, engine={"precision": "bfloat16"})
    train_quietly(exact)
    train_quietly(half)
    assert losses_of(half) == pytest.approx(losses_of(exact), abs=0.05)
    assert losses_of(half) != losses_of(exact)


@pytest.mark.parametrize("kind", ["none", "selective", "full"])
def test_compiled_layers_learn_the_same(kind: str, tokens: Tokens, tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "model", layers=1)
    runs = [
        write_run(
            tmp_path / f"{compiled}.yaml",
            model,
            tokens,
            steps=2,
            evaluate={"every": 100, "sequences": 1},
            log={"layers": 100},
            engine={"compile": compiled, "activation_checkpointing": kind},
        )
        for compiled in ("off", "on")
    ]
    for run in runs:
        train_quietly(run)
    assert losses_of(runs[1]) == pytest.approx(losses_of(runs[0]), abs=1e-5)


def test_a_frozen_prefix_runs_without_gradients(
    grown: Path, tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaAttention

    seen: list[bool] = []
    plain = LlamaAttention.forward

    def watched(self: Any, hidden_states: torch.Tensor, **others: Any) -> Any:
        if torch.is_grad_enabled():
            seen.append(hidden_states.requires_grad)
        return plain(self, hidden_states, **others)

    monkeypatch.setattr(LlamaAttention, "forward", watched)
    groups = [{"match": "layers 4-5"}, {"match": "*", "frozen": True}]
    run = write_run(
        tmp_path / "run.yaml", grown, tokens, steps=1, groups=groups, batch={"micro": 4}
    )
    train_quietly(run)
    # The first trained layer's norm is trained, and so what its attention gets.
    assert seen == [False] * 4 + [True] * 2


def test_the_seams_numbers_are_those_of_the_models_themselves(
    grown: Path, base: Path, tokens: Tokens, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run.yaml", grown, tokens, steps=1, evaluate={"sequences": 4})
    train_quietly(run)
    read = read_run(run)
    with open_tokens(tokens[1], tokenizer_digest=None, vocabulary=None) as shards:
        samples = HeldOutData.read(read, shards).samples
    (seam,) = events_of(run, "seams")[0]["seams"]
    here, there = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        for folder in (grown, base)
    )
    cosines, now, was = [], [], []
    for sample in samples:
        for document in set(sample.documents.tolist()):
            mine = sample.documents == document
            text = torch.from_numpy(sample.tokens[mine])[None]
            real = torch.from_numpy(sample.labels[mine] != -100)
            with torch.no_grad():
                one = here.model(text, output_hidden_states=True).hidden_states[seam["layer"]][0]
                two = there.model(text, output_hidden_states=True).hidden_states[
                    seam["original"][1]
                ][0]
            cosines.append(torch.cosine_similarity(one, two, dim=-1)[real])
            now.append(one.norm(dim=-1)[real])
            was.append(two.norm(dim=-1)[real])
    assert seam["cosine"] == pytest.approx(torch.cat(cosines).mean().item(), abs=1e-5)
    ratio = torch.cat(now).mean() / torch.cat(was).mean()
    assert seam["norm_ratio"] == pytest.approx(ratio.item(), rel=1e-5)


def test_three_steps_are_those_of_a_plain_loop_over_transformers(
    grown: Path, tokens: Tokens, tmp_path: Path
) -> None:
    """One document at a time, no sharding, no packing, torch's own cross-entropy and AdamW."""
    run = write_run(
        tmp_path / "run.yaml",
        grown,
        tokens,
        steps=3,
        preset="dus",
        schedule={"kind": "wsd", "warm_up": 2, "decay": 0.4},
        output={"path": str(tmp_path / "trained")},
    )
    outcome = train_quietly(run)
    assert outcome.path is not None
    read = read_run(run)
    model = AutoModelForCausalLM.from_pretrained(grown, dtype=torch.float32)
    seam = {f"model.layers.{4 - 1}."}
    groups = []
    for name, parameter in model.named_parameters():
        factor = 2.0 if any(name.startswith(prefix) for prefix in seam) else 1.0
        decay = 0.1 if parameter.ndim > 1 else 0.0
        groups.append({"params": [parameter], "weight_decay": decay, "factor": factor})
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    rates = [3e-3 * factor for factor in (0.5, 1.0, 0.5)]
    data, _ = open_data(read, grown, 384)
    for step, rate in enumerate(rates):
        samples = [data.sample(4 * step + i) for i in range(4)]
        count = sum(int((sample.labels != -100).sum()) for sample in samples)
        total = torch.zeros(())
        for sample in samples:
            for document in set(sample.documents.tolist()):
                mine = sample.documents == document
                logits = model(torch.from_numpy(sample.tokens[mine])[None]).logits[0]
                labels = torch.from_numpy(sample.labels[mine])
                total = total + torch.nn.functional.cross_entropy(
                    logits, labels, reduction="sum", ignore_index=-100
                )
        loss = total / count
        assert losses_of(run)[step] == pytest.approx(loss.item(), abs=2e-5)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        optimizer.step()
        optimizer.zero_grad()
    trained = AutoModelForCausalLM.from_pretrained(outcome.path, dtype=torch.float32)
    for name, wanted in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], wanted, atol=2e-4, rtol=1e-3)


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


def test_layers_of_several_kinds_are_all_compiled(
    expanded: Path, tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tracing alone: what the compiler makes of the graphs is of no interest here.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    torch._dynamo.reset()
    run = write_run(
        tmp_path / "run.yaml",
        expanded,
        tokens,
        preset="block-expansion",
        evaluate={"every": 2, "sequences": 7},
        log={"layers": 2},
        steps=3,
        engine={"compile": "on"},
    )
    train_quietly(run)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0


def test_a_model_of_experts_learns(tokens: Tokens, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        max_position_embeddings=128,
    )
    model = make_tokenizer(tmp_path / "model")
    MixtralForCausalLM(config).save_pretrained(model)
    run = write_run(
        tmp_path / "run.yaml", model, tokens, output={"path": str(tmp_path / "trained")}
    )
    outcome = train_quietly(run)
    assert outcome.first is not None
    assert outcome.last is not None
    assert outcome.last.loss < outcome.first.loss
    _, told = MixtralForCausalLM.from_pretrained(outcome.path, output_loading_info=True)
    assert not any(told.values())
