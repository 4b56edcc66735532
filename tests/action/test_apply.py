"""The action's steps but Install, run as they are on a tiny model."""

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.action.conftest import Given, stand_in
from tests.action.runner import Ran, Runner
from tests.cli.checkpoints import read_config, read_tensors, write_checkpoint

HOSTILE = (
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "--help",
    "-o",
    "a b *",
    "x\nfolder=/elsewhere",
    "x\n::error::forged",
)


def test_action_outputs_the_folder_and_sums_up_map_time_memory_and_check(
    runner: Runner, installed: Given
) -> None:
    ran = runner.run_action({"recipe": "recipe.yaml", "max-memory": "256MB"}, given=installed)
    assert ran.code == 0, ran.log
    folder = Path(ran.outputs["apply"]["folder"])
    assert folder.is_absolute()
    assert read_config(folder)["num_hidden_layers"] == 3
    assert "    layer map: 3 layers\n" in ran.summary
    assert re.search(r"^\| \d+\.\d\d s \| [\d.]+ MB \| 256 MB \|$", ran.summary, re.MULTILINE)
    assert "    transformers loads it as LlamaForCausalLM" in ran.summary


def test_limit_reaches_the_planner(runner: Runner, installed: Given) -> None:
    ran = runner.run_action({"recipe": "recipe.yaml", "max-memory": "20MB"}, given=installed)
    assert ran.code == 6
    assert "fix: " in ran.summary
    assert "apply" not in {step for step in ran.outputs if ran.outputs[step]}


def test_limit_that_is_no_size_is_refused(runner: Runner, installed: Given) -> None:
    ran = runner.run_action({"recipe": "recipe.yaml", "max-memory": "plenty"}, given=installed)
    assert ran.code == 2
    assert "write it as 512MB" in ran.summary


def test_peak_above_the_limit_fails_the_job(runner: Runner) -> None:
    ran = runner.run_action(
        {"recipe": "recipe.yaml", "max-memory": "30MB"},
        given=stand_in(runner, 'python3 -c "bytearray(60_000_000)"'),
    )
    assert ran.code == 1
    assert "at the peak, where max-memory is 30 MB" in ran.summary
    assert not ran.outputs["apply"]


def test_failure_is_told_in_the_summary_with_its_exit_code(
    runner: Runner, installed: Given
) -> None:
    (runner.workspace / "recipe.yaml").write_text("models: {base: ./model}\nresult: bas\n")
    ran = runner.run_action({"recipe": "recipe.yaml"}, given=installed)
    assert ran.code == 3
    assert "did you mean 'base'" in ran.summary
    assert ran.done[-1] == "Apply the recipe"


def test_program_that_a_signal_ends_fails_the_job(runner: Runner) -> None:
    ran = runner.run_action({"recipe": "recipe.yaml"}, given=stand_in(runner, "kill -9 $$"))
    assert ran.code == 137


def test_output_may_be_relative_to_the_workspace(runner: Runner, installed: Given) -> None:
    ran = runner.run_action(
        {"recipe": "recipe.yaml", "output": "made/here", "check": "false"}, given=installed
    )
    assert ran.code == 0, ran.log
    assert ran.outputs["apply"]["folder"] == str(runner.workspace / "made" / "here")


@pytest.mark.parametrize("name", HOSTILE)
def test_recipe_and_output_may_have_any_name(runner: Runner, installed: Given, name: str) -> None:
    (runner.workspace / "recipe.yaml").rename(runner.workspace / name.replace("/", "_"))
    output = f"made {name.replace('/', '_')}"
    ran = runner.run_action(
        {"recipe": name.replace("/", "_"), "output": output, "check": "false"}, given=installed
    )
    assert ran.code == 0, ran.log
    assert ran.outputs["apply"] == {"folder": str(runner.workspace / output)}
    assert len(read_tensors(runner.workspace / output)) == 30
    assert_nothing_ran(runner, ran)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("field", ["recipe", "max-memory", "check", "keep", "push-to", "version"])
def test_hostile_input_is_refused_and_neither_run_nor_repeated_to_the_runner(
    runner: Runner, installed: Given, field: str, name: str
) -> None:
    runner.environment["HF_TOKEN"] = "none"
    ran = runner.run_action({"recipe": "recipe.yaml", field: name}, given=installed)
    assert ran.code == 2
    assert f"{field}" in ran.log
    assert_nothing_ran(runner, ran)


def test_model_is_not_pushed_whose_weights_are_missing_left_over_or_misshapen(
    runner: Runner, installed: Given
) -> None:
    tensors = read_tensors(runner.workspace / "model")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    norm = tensors["model.norm.weight"]
    tensors |= {"model.norm.weight": norm[:4].copy(), "model.extra.weight": norm}
    write_checkpoint(runner.workspace / "model", tensors)
    runner.environment["HF_TOKEN"] = "none"
    ran = runner.run_action({"recipe": "recipe.yaml", "push-to": "org/name"}, given=installed)
    assert ran.code == 1
    assert ran.done[-1] == "Load the result with transformers"
    assert "2 missing_keys: ['model.layers.1.mlp.up_proj.weight'" in ran.summary
    assert "1 unexpected_keys: ['model.extra.weight']" in ran.summary
    assert "1 mismatched_keys: [" in ran.summary


def test_check_of_an_unknown_model_says_how_to_do_without(runner: Runner, installed: Given) -> None:
    write_checkpoint(
        runner.workspace / "model",
        read_tensors(runner.workspace / "model"),
        {"model_type": "of\n::error::nobody", "num_hidden_layers": 2},
    )
    ran = runner.run_action({"recipe": "recipe.yaml"}, given=installed)
    assert ran.code == 1
    assert "fix: where transformers does not know the model" in ran.summary
    assert_nothing_ran(runner, ran)
    unchecked = {"recipe": "recipe.yaml", "check": "false", "output": "again"}
    assert runner.run_action(unchecked, given=installed).code == 0


def test_what_the_program_prints_stays_text_in_the_log_and_in_the_summary(runner: Runner) -> None:
    forged = "::error::forged\\r```\\n</pre><b>bold</b>\\n# heading\\n::add-path::/tmp\\nunended"
    ran = runner.run_action(
        {"recipe": "recipe.yaml", "check": "false"},
        given=stand_in(runner, f"printf '{forged}' >&2"),
    )
    assert ran.code == 0, ran.log
    assert_nothing_ran(runner, ran)
    markdown = MarkdownIt("commonmark").enable("table").parse(ran.summary)
    blocks = [token.type for token in markdown if not token.level and token.nesting >= 0]
    assert blocks == ["heading_open", "table_open", "code_block"]
    assert "# heading" in markdown[-1].content


def test_lines_of_progress_are_left_out_of_the_summary(runner: Runner) -> None:
    ran = runner.run_action(
        {"recipe": "recipe.yaml", "check": "false"},
        given=stand_in(runner, "echo '1.2 GB of 14.5 GB (8%)'; echo 'layer map: 1 layers'"),
    )
    assert "1.2 GB of 14.5 GB (8%)" in ran.log
    assert "GB of" not in ran.summary
    assert "    layer map: 1 layers" in ran.summary


def assert_nothing_ran(runner: Runner, ran: Ran) -> None:
    """No command of a hostile value was run, by bash or by the runner that reads the log."""
    assert not list(runner.workspace.rglob("pwned"))
    heeded, mark = [], ""
    for line in ran.log.splitlines():
        if line.startswith("::stop-commands::"):
            mark = line.removeprefix("::stop-commands::")
            assert len(mark) == 32
        elif mark and line == f"::{mark}::":
            mark = ""
        elif not mark and line.startswith("::"):
            heeded.append(line)
    assert not mark
    assert all(line.startswith("::error title=TensorSurgeon::") for line in heeded), heeded
