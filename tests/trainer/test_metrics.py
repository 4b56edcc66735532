"""Metrics survive whatever ends a run, and a run that goes on writes as if it had not stopped."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.metrics import Metrics, read_metrics
from tests.trainer.report.synthetic import (
    baseline_event,
    evaluation_event,
    run_event,
    step_event,
    training,
)
from tests.trainer.runs import events_of, train_quietly, write_run

in_one_folder = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def written(path: Path, *events: Mapping[str, Any]) -> bytes:
    """A file of these events, and its bytes."""
    path.unlink(missing_ok=True)
    with Metrics(path) as metrics:
        for event in events:
            metrics.write(event)
    return path.read_bytes()


def events_to(steps: int, every: int = 3) -> list[dict[str, Any]]:
    """A run of so many steps, with evaluations and checkpoints every few."""
    found = [run_event(99, 2), baseline_event(), evaluation_event(0, 3.0)]
    for step in range(1, steps + 1):
        found.append(step_event(step))
        if step % every == 0:
            found.append(evaluation_event(step, 2.5))
            found.append(
                {"event": "layers", "step": step, "gradient_norms": [1, 2], "moved": [0, 1]}
            )
            found.append({"event": "saved", "step": step, "seconds": 0.5, "bytes": 7})
    return found


def test_every_event_is_read_as_it_was_written(tmp_path: Path) -> None:
    events = list(training(steps=40, depth=6, seams=2, resumed=20))
    written(tmp_path / "metrics.jsonl", *events)
    assert read_metrics(tmp_path / "metrics.jsonl") == events


def test_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    with Metrics(path) as metrics:
        for count, event in enumerate(events_to(3), 1):
            metrics.write(event)
            assert len(read_metrics(path)) == count


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path: Path, value: float) -> None:
    step = step_event(1, value, gradient_norm=np.float32(value), mfu=torch.tensor(value))
    norms = {"event": "layers", "step": 1, "gradient_norms": [value, 1], "moved": (0, value)}
    data = written(tmp_path / "m.jsonl", run_event(9, 2), step, norms)
    _, read, layers = read_metrics(tmp_path / "m.jsonl")
    assert (read["loss"], read["gradient_norm"], read["mfu"]) == (None, None, None)
    assert (layers["gradient_norms"], layers["moved"]) == ([None, 1], [0, None])
    assert not re.search(rb"nan|inf\b|infinity", data.lower())


def test_scalars_of_numpy_and_torch_are_plain_numbers(tmp_path: Path) -> None:
    step = step_event(1, np.float64(2.5), tokens=np.int64(7), mfu=torch.tensor(0.5))
    written(tmp_path / "m.jsonl", step | {"gradient_norm": torch.tensor([1.5])[0]})
    [read] = read_metrics(tmp_path / "m.jsonl")
    assert (read["loss"], read["tokens"], read["mfu"], read["gradient_norm"]) == (2.5, 7, 0.5, 1.5)


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "\u2028", '"', "模型"])
def test_any_name_makes_one_line_that_can_be_read(tmp_path: Path, name: str) -> None:
    written(tmp_path / "m.jsonl", run_event(9, name=name), step_event(1))
    assert [event["event"] for event in read_metrics(tmp_path / "m.jsonl")] == ["run", "step"]


def test_line_torn_at_any_byte_is_none_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    events = [run_event(9, 2, name="模"), step_event(1), evaluation_event(1, 2.0)]
    before = written(path, *events[:2])
    whole = written(path, *events)
    for end in range(len(before), len(whole)):
        path.write_bytes(whole[:end])
        assert read_metrics(path) == events[:2]
        with Metrics(path) as metrics:
            assert path.read_bytes() == before
            metrics.write(events[2])
        assert path.read_bytes() == whole


@in_one_folder
@given(
    killed=st.integers(0, 20),
    every=st.integers(1, 7),
    torn=st.binary(max_size=30).filter(lambda data: b"\n" not in data),
    data=st.data(),
)
def test_run_taken_back_and_gone_on_with_writes_as_if_never_interrupted(
    tmp_path: Path, killed: int, every: int, torn: bytes, data: st.DataObject
) -> None:
    path = tmp_path / "m.jsonl"
    events = events_to(20, every)
    uninterrupted = written(path, *events)
    back_to = data.draw(st.integers(0, killed))
    so_far = [event for event in events if event.get("step", 0) <= killed]
    written(path, *so_far, {"event": "end", "step": killed, "reason": "terminated"})
    path.write_bytes(path.read_bytes() + torn)
    with Metrics(path) as metrics:
        assert metrics.rewind(back_to) == 2.5 * back_to
        for event in events:
            if event.get("step", 0) > back_to:
                metrics.write(event)
    assert path.read_bytes() == uninterrupted
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.jsonl"]


def test_resumption_that_got_nowhere_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    again = [run_event(9, resumed_at=3), step_event(4), run_event(9, resumed_at=4), step_event(5)]
    written(path, *events_to(3), *again)
    with Metrics(path) as metrics:
        metrics.rewind(4)
        metrics.write(run_event(9, resumed_at=4))
    runs = [event["resumed_at"] for event in read_metrics(path) if event["event"] == "run"]
    assert runs == [None, 3, 4]


def test_run_that_begins_anew_forgets_everything(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    written(path, *events_to(3))
    with Metrics(path) as metrics:
        assert metrics.rewind(None) == 0
        metrics.write(run_event(9))
    assert read_metrics(path) == [run_event(9)]


def test_damaged_lines_are_removed_when_a_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    data = written(path, *events_to(2))
    path.write_bytes(b"\x00\x00\n" + data + b'{"event": 3}\n{"event": "step", "step": "x"}\n[]\n')
    with Metrics(path) as metrics:
        metrics.rewind(2)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON list where an object is expected"),
        ("{}", "has no 'event'"),
        ('{"event": "stop"}', "'stop' is not an event that is known"),
        ('{"event": "end", "step": 1}', "the event 'end' lacks 'reason'"),
        ('{"event": "end", "step": -1, "reason": "x"}', "step: must be greater than or equal to 0"),
        ('{"event": "end", "step": 1.5, "reason": "x"}', "step: "),
        ('{"event": "end", "step": 1, "step": 2, "reason": "x"}', "duplicate key 'step'"),
        ('{"event": "baseline", "name": "b", "loss": NaN, "tokens": 1}', "NaN is not JSON"),
        ('{"event": "baseline", "name": "b", "loss": 1e99, "tokens": 1}', "loss: must be less"),
        ('{"event": "evaluation", "step": 0, "loss": "2", "tokens": 1}', "loss: must be a valid"),
        (
            '{"event": "layers", "step": 1, "gradient_norms": [1], "moved": [1, 2]}',
            "gradient_norms: 1 layers, but the run has 2",
        ),
        (
            '{"event": "seams", "step": 1, "seams": [{"layer": 2, "original": ["b", 0], '
            '"cosine": 1, "norm_ratio": 1}]}',
            "a seam at layer 2, but the run has 2 layers",
        ),
    ],
)
def test_damaged_line_is_told_by_its_number(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f"{json.dumps(run_event(9, 2))}\n{line}\n{json.dumps(step_event(1))}\n")
    with pytest.raises(DataError) as error:
        read_metrics(path)
    assert str(error.value).startswith(f"{path}:2: {what}")
    assert "\n  fix: remove this line" in str(error.value)


def test_layers_before_any_run_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "m.jsonl", {"event": "layers", "step": 0, "gradient_norms": [], "moved": []})
    with pytest.raises(DataError, match="comes before the run that it is of"):
        read_metrics(tmp_path / "m.jsonl")


def test_keys_of_a_later_version_are_no_mistake(tmp_path: Path) -> None:
    written(tmp_path / "m.jsonl", step_event(1) | {"temperature": 61})
    assert read_metrics(tmp_path / "m.jsonl")[0]["temperature"] == 61


def test_metrics_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there are no metrics here\n  fix: "):
        read_metrics(tmp_path / "m.jsonl")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_processor_is_told_by_the_threads_that_compute(
    threads: int, random_llama: Path, tokens: tuple[Path, Path], tmp_path: Path
) -> None:
    run = write_run(
        tmp_path / "run.yaml", random_llama, tokens, steps=1, engine={"threads": threads}
    )
    try:
        train_quietly(run)
    finally:
        torch.set_num_threads(1)
    (event,) = events_of(run, "run")
    assert event["device"] == f"processor, {threads} thread{'s' * (threads > 1)}"


FULL = """
import resource, sys
from pathlib import Path
from tensorsurgeon.errors import OutputError
from tensorsurgeon.trainer.metrics import Metrics
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
metrics = Metrics(Path(sys.argv[1]))
try:
    for step in range(100):
        metrics.write({"event": "end", "step": step, "reason": "x" * 70})
except OutputError as error:
    print(error)
"""


def test_full_disk_is_told_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    arguments = [sys.executable, "-c", FULL, path]
    found = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(f"{path}: metrics cannot be written: File too large\n  fix: ")
    events = read_metrics(path)
    assert [event["step"] for event in events] == list(range(len(events)))
    assert len(events) == 8
    assert path.read_bytes().endswith(b"\n")


ENDLESS = """
import sys
from pathlib import Path
from tensorsurgeon.trainer.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
for step in range(10**9):
    metrics.write({"event": "end", "step": step, "reason": "x" * 500})
    if step == 1000:
        print("on", flush=True)
"""


def test_process_killed_while_writing_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    arguments = [sys.executable, "-c", ENDLESS, path]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    steps = [event["step"] for event in read_metrics(path)]
    assert len(steps) > 1000
    assert steps == list(range(len(steps)))


def board_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(folder))
    shown.Reload()
    return {
        tag: [(event.step, round(event.value, 4)) for event in shown.Scalars(tag)]
        for tag in shown.Tags()["scalars"]
    }


def test_tensorboard_shows_the_same_numbers_and_forgets_what_was_taken_back(
    tmp_path: Path,
) -> None:
    board = tmp_path / "board"
    with Metrics(tmp_path / "m.jsonl", tensorboard=board) as metrics:
        for event in [run_event(9, 2), *(step_event(n, float(n)) for n in range(1, 7))]:
            metrics.write(event)
        metrics.rewind(3)
        metrics.write(step_event(4, 4.5, gradient_norm=math.nan))
        metrics.write(evaluation_event(4, 2.25))
        metrics.write({"event": "layers", "step": 4, "gradient_norms": [None, 2], "moved": [0, 1]})
    found = board_scalars(board)
    assert found["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5)]
    assert [step for step, _ in found["train/gradient_norm"]] == [1, 2, 3]
    assert found["held_out/loss"] == [(4, 2.25)]
    assert found["gradient_norm/layer_001"] == [(4, 2.0)]
    assert "gradient_norm/layer_000" not in found
    assert found["moved/layer_000"] == [(4, 0.0)]


def test_tensorboard_that_is_not_installed_is_told_at_the_start(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from pathlib import Path; from tensorsurgeon.errors import TrainingError\n"
        "from tensorsurgeon.trainer.metrics import Metrics\n"
        "try:\n    Metrics(Path('m.jsonl'), tensorboard=Path('board'))\n"
        "except TrainingError as error:\n    print(error)\n"
    )
    arguments = [sys.executable, "-c", program]
    found = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == (
        "metrics for TensorBoard need the package tensorboard, which is not installed\n"
        "  fix: pip install tensorboard\n"
    )
    assert not list(tmp_path.iterdir())
