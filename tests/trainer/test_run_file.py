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
        (("sequences: 8", "sequences: 7"), "cannot divide 7 sequences into micro-batches of 2"),
        (("steps: 10", "steps: 0"), "at least 1, not 0"),
        (("steps: 10", "steps: true"), "a whole number, not true or false"),
        (("./tokens", "[]"), "at least 1"),
        (("steps: 10", "steps: 10\nstage: dpo"), None),
        (("steps: 10", "steps: 10\nstage: ppo"), "'ppo' is not known"),
        (("sequences: 8", "sequences: 1"), "batch: cannot divide 1 sequence into micro-batches"),
        (("1.0e-4", "-1"), "run.yaml:6:28: optimizer.learning_rate: above 0, not -1"),
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


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("seed: -1", "7:7: seed: at least 0, not -1"),
        ("seed: 1.5", "7:7: seed: a whole number, not 1.5"),
        ("seed: .nan", "7:7: seed: a whole number, not nan"),
        ("seed: true", "7:7: seed: a whole number, not true or false"),
        ("schedule: {decay: 2}", "7:19: schedule.decay: at most 1, not 2"),
        ("schedule: {decay: much}", "7:19: schedule.decay: a number, not text"),
        ("dpo: {label_smoothing: 0.5}", "7:24: dpo.label_smoothing: below 0.5, not 0.5"),
        ("dpo: {beta: 0}", "7:13: dpo.beta: above 0, not 0"),
        ("log: {tensorboard: 7}", "7:20: log.tensorboard: true or false, not a number"),
        ("output: {path: 7}", "7:16: output.path: text, not a number"),
        ("output: ./out", "7:9: output: takes a mapping, not text"),
        ("steps: 10.5", "7:8: steps: a whole number, not 10.5"),
        ("modle: ./grown", "7:1: has no parameter 'modle'"),
        ("log: {evry: 1}", "7:7: log has no parameter 'evry'"),
    ],
)
def test_a_value_is_refused_by_its_name_with_what_it_may_be_and_what_it_is(
    extra: str, told: str
) -> None:
    text = LEAST.replace("steps: 10\n", "tokens: 9e9\n") if "steps" in extra else LEAST
    (found,) = problems(f"{text}{extra}\n")
    assert found.partition("\n")[0] == f"run.yaml:{told}"


def test_what_is_left_out_is_told_without_a_subject() -> None:
    (found,) = problems(LEAST.replace("model: ./grown\n", ""))
    assert found.startswith("run.yaml:1:1: needs 'model'\n  fix: known: model, folder, ")


@pytest.mark.parametrize(("truth", "meant"), [("true", "on"), ("false", "off")])
def test_truth_where_a_word_is_wanted_is_shown_as_written_with_the_word(
    truth: str, meant: str
) -> None:
    assert problems(f"{LEAST}engine: {{compile: {truth}}}\n") == [
        f"run.yaml:7:19: engine.compile: '{truth}' is not known\n"
        f"  fix: did you mean '{meant}'? known: auto, off, on"
    ]


def test_a_warm_up_of_one_step_is_told_in_the_singular() -> None:
    text = LEAST.replace("steps: 10", "steps: 1") + "schedule: {warm_up: 1}\n"
    assert problems(text)[0].startswith("run.yaml:7:21: schedule: a warm-up of 1 step fills all 1")


@pytest.mark.parametrize("length", ["steps: 10", "tokens: 5120", "tokens: 4700"])
def test_a_warm_up_that_fills_the_run_is_refused_however_its_length_is_given(length: str) -> None:
    text = LEAST.replace("steps: 10", length) + "schedule: {warm_up: 10}\n"
    assert problems(text) == [
        "run.yaml:7:21: schedule: a warm-up of 10 steps fills all 10\n"
        "  fix: lower warm_up, or train for longer"
    ]
    parse_run(text.replace("warm_up: 10", "warm_up: 9").encode(), Path("run.yaml"))


IDLE = {
    "dpo: {reference: ./other}": (
        "7:7: dpo: 'reference' does nothing in the stage 'pretrain'",
        "remove it, or set stage: dpo",
    ),
    "stage: sft\ndpo: {beta: 0.1}": (
        "8:7: dpo: 'beta' does nothing in the stage 'sft'",
        "remove it, or set stage: dpo",
    ),
    "schedule: {kind: cosine, decay: 0.2}": (
        "7:26: schedule: 'decay' does nothing in a schedule of the kind 'cosine'",
        "remove it, or set kind: wsd",
    ),
    "schedule: {kind: constant, final: 0.5}": (
        "7:28: schedule: 'final' does nothing in a schedule of the kind 'constant'",
        "remove it, or set kind: wsd or cosine",
    ),
    "stage: dpo\nevaluate: {baseline: ./base}": (
        "8:12: evaluate: 'baseline' is not measured in the stage 'dpo'",
        "remove it; dpo: reference names the model to learn against",
    ),
}


@pytest.mark.parametrize("extra", IDLE)
def test_settings_that_would_do_nothing_are_refused_at_their_line(extra: str) -> None:
    what, fix = IDLE[extra]
    assert problems(f"{LEAST}{extra}\n") == [f"run.yaml:{what}\n  fix: {fix}"]


@pytest.mark.parametrize(
    "extra",
    [
        "stage: dpo\ndpo: {beta: 0.2, reference: ./other}",
        "schedule: {kind: wsd, decay: 0.2, final: 0.1}",
        "schedule: {kind: cosine, final: 0.1}",
        "schedule: {kind: constant, warm_up: 5}",
        "stage: sft\nevaluate: {baseline: ./base}",
    ],
)
def test_settings_that_do_something_are_read(extra: str) -> None:
    parse_run(f"{LEAST}{extra}\n".encode(), Path("run.yaml"))


@pytest.mark.parametrize("choice", ["truncate", "skip"])
def test_what_becomes_of_long_documents_is_not_asked_where_all_are_cut(choice: str) -> None:
    text = LEAST.replace("length: 64", f"length: 64, too_long: {choice}")
    assert problems(text) == [
        "run.yaml:3:46: data: 'too_long' does nothing where documents are cut as a stream\n"
        "  fix: remove it, or set packing: documents"
    ]
    assert problems(text.replace("too_long", "packing: stream, too_long"))
    whole = text.replace("too_long", "packing: documents, too_long")
    for said in (whole, f"{text}stage: sft\n", text.replace(choice, "error")):
        parse_run(said.encode(), Path("run.yaml"))


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
