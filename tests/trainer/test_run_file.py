"""What a run file may say, and what is told of one that says something else."""

from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.trainer.run_file import json_schema, parse_run, read_run

LEAST = """\
model: ./grown
folder: ./run
data: {train: ./tokens, sequence_length: 64}
steps: 10
batch: {sequences: 8, micro: 2}
optimizer: {learning_rate: 1.0e-4}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_run(text.encode(), Path("run.yaml"))
    return [str(problem) for problem in caught.value.problems]


def test_the_least_run_file_is_read_and_the_rest_has_defaults() -> None:
    run = parse_run(LEAST.encode(), Path("folder/run.yaml"))
    assert run.steps == 10
    assert run.tokens_per_step == 512
    assert run.folder == Path("folder/run")
    assert [source.path for source in run.settings.data.train] == ["./tokens"]
    assert run.settings.schedule.kind == "wsd"


def test_tokens_in_place_of_steps_are_rounded_up_to_whole_steps() -> None:
    run = parse_run(LEAST.replace("steps: 10", "tokens: 1e3").encode(), Path("run.yaml"))
    assert run.steps == 2


@pytest.mark.parametrize("number", ["1e9", "1.0e+9", "1000000000", "1_000_000_000"])
def test_large_numbers_are_read_however_they_are_written(number: str) -> None:
    text = LEAST.replace("steps: 10", f"tokens: {number}")
    assert parse_run(text.encode(), Path("run.yaml")).settings.tokens == 10**9


def test_every_mistake_is_told_at_its_place_and_all_of_them_at_once() -> None:
    text = LEAST.replace("steps: 10", "stesp: 10").replace("learning_rate", "learningrate")
    text = text.replace("sequence_length: 64", "sequence_length: 6.5")
    found = problems(text)
    assert any(p.startswith("run.yaml:4:1: ") and "did you mean 'steps'" in p for p in found)
    assert any(p.startswith("run.yaml:3:42: ") and "6.5" in p for p in found)
    assert any(p.startswith("run.yaml:6:13: ") and "'learning_rate'" in p for p in found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("steps: 10", ""), "'steps' or 'tokens' must be given, and here is neither"),
        (("steps: 10", "steps: 10\ntokens: 5"), "here is both"),
        (("sequences: 8", "sequences: 7"), "7 sequences do not divide into micro-batches of 2"),
        (("steps: 10", "steps: 0"), "at least 1, not 0"),
        (("steps: 10", "steps: true"), "a whole number, not true or false"),
        (("./tokens", "[]"), "at least 1"),
        (("steps: 10", "steps: 10\nstage: dpo"), None),
        (("steps: 10", "steps: 10\nstage: ppo"), "'ppo' is not known"),
        (("1.0e-4", "-1"), "greater than 0"),
        (("steps: 10", "steps: 10\nsteps: 11"), "is here twice"),
        (
            ("sequence_length: 64", "sequence_length: 64, packing: stream}\nstage: dpo\nlog: {"),
            "pairs cannot be cut apart",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(change: tuple[str, str], told: str | None) -> None:
    text = LEAST.replace(*change)
    if told is None:
        parse_run(text.encode(), Path("run.yaml"))
    else:
        assert any(told in problem for problem in problems(text))


def test_no_file_and_a_folder_are_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such file"):
        read_run(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="is not a file"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (LEAST, True),
        (LEAST.replace("./tokens", "[{path: a, weight: 0.5}, {path: b}]"), True),
        (LEAST.replace("steps", "stesp"), False),
        (LEAST.replace("./tokens", "[{pth: a}]"), False),
    ],
)
def test_the_schema_takes_what_is_read_and_refuses_what_is_not(text: str, valid: bool) -> None:
    document = YAML(typ="safe").load(text)
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    assert validator.is_valid(document) == valid
