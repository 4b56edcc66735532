"""What comes after pretraining: answers alone, and preferences."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.ranks import on_ranks
from tests.trainer.runs import events_of, losses_of, train_quietly, trained_by_command, write_run

LINES = [
    line.strip()
    for line in (Path(__file__).parents[2] / "recipes" / "demo.txt").read_text().splitlines()
    if 20 < len(line.strip()) < 70
][:12]


def prepared(folder: Path, model: Path, form: str, records: list[dict[str, Any]]) -> Path:
    source = folder / f"{form}.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    told = trained_by_command(
        "prepare",
        str(source),
        f"--format={form}",
        f"--tokenizer={model}",
        f"--output={folder / form}",
    )
    assert told.returncode == 0, told.stderr
    return folder / form


@pytest.fixture(scope="module")
def pairs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [
        {"prompt": line[:8], "chosen": line[8:], "rejected": line[8:][::-1]} for line in LINES
    ]
    return prepared(tmp_path_factory.mktemp("pairs"), base, "preference", records)


def log_prob(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """By transformers, in float64: of the answer and the end of the document."""
    given = tokenizer(prompt, add_special_tokens=False).input_ids
    text = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    tokens = torch.tensor(given + text)
    with torch.no_grad():
        logits = model(tokens[None]).logits[0].log_softmax(-1)
    picked = logits[:-1].gather(1, tokens[1:, None])[len(given) - 1 :]
    return float(picked.sum())


def test_sft_learns_the_answers_alone(base: Path, tmp_path: Path) -> None:
    records = [{"instruction": line[:10], "output": line[10:]} for line in LINES[:4]]
    chats = prepared(tmp_path, base, "alpaca", records)
    data = {"sequence_length": 384, "held_out": str(chats)}
    run = write_run(
        tmp_path / "run.yaml",
        base,
        (chats, chats),
        stage="sft",
        data=data,
        batch={"sequences": 2, "micro": 2},
        optimizer={"learning_rate": 1e-3, "weight_decay": 0},
    )
    train_quietly(run)
    losses = [event["loss"] for event in events_of(run, "evaluation")]
    assert losses[-1] < losses[0]
    answered = sum(len(record["output"].encode()) + 1 for record in records)
    assert events_of(run, "evaluation")[0]["tokens"] == answered
    steps = events_of(run, "step")
    assert [event["tokens"] for event in steps] == [2 * 384 * (n + 1) for n in range(8)]
    assert {event["valid"] for event in steps} == {2 * answered}  # a sample has all of it


def test_dpo_begins_at_log_two_and_learns_to_prefer(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path / "run.yaml",
        base,
        (pairs, pairs),
        stage="dpo",
        data={"sequence_length": 128},
        steps=12,
        batch={"sequences": 2, "micro": 1},
        optimizer={"learning_rate": 3e-4, "weight_decay": 0},
        dpo={"beta": 0.5},
    )
    train_quietly(run)
    measured = events_of(run, "evaluation")
    assert measured[0]["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert measured[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert measured[-1]["loss"] < 0.5
    assert measured[-1]["accuracy"] > 0.9
    assert measured[0]["pairs"] == len(LINES)
    assert "tokens" not in measured[0]
    assert {event["pairs"] for event in events_of(run, "step")} == {2}


def test_dpo_is_measured_against_the_reference_it_names(
    base: Path, random_llama: Path, pairs: Path, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path / "run.yaml",
        base,
        (pairs, pairs),
        stage="dpo",
        data={"sequence_length": 128},
        steps=1,
        batch={"sequences": 2, "micro": 1},
        dpo={"beta": 0.05, "reference": str(random_llama)},
    )
    train_quietly(run)
    tokenizer = AutoTokenizer.from_pretrained(base)
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        for folder in (base, random_llama)
    )
    losses = []
    for line in LINES:
        prompt, chosen, rejected = line[:8], line[8:], line[8:][::-1]
        margin = sum(
            sign
            * (
                log_prob(policy, tokenizer, prompt, answer)
                - log_prob(reference, tokenizer, prompt, answer)
            )
            for sign, answer in ((1, chosen), (-1, rejected))
        )
        losses.append(-torch.nn.functional.logsigmoid(torch.tensor(0.05 * margin)).item())
    wanted = sum(losses) / len(losses)
    assert events_of(run, "evaluation")[0]["loss"] == pytest.approx(wanted, abs=1e-5)


def test_the_reference_is_computed_once_and_two_ranks_agree(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    settings = {
        "stage": "dpo",
        "data": {"sequence_length": 128},
        "steps": 3,
        "batch": {"sequences": 2, "micro": 1},
    }
    one = write_run(tmp_path / "one.yaml", base, (pairs, pairs), **settings)
    two = write_run(tmp_path / "two.yaml", base, (pairs, pairs), **settings)
    train_quietly(one)
    on_ranks(2, train_quietly, two)
    assert losses_of(two) == pytest.approx(losses_of(one), abs=1e-5)
    (stored,) = (tmp_path / "one").glob("reference-*.safetensors")
    before = stored.stat()
    train_quietly(one, resume=False)
    assert stored.stat().st_mtime_ns == before.st_mtime_ns
