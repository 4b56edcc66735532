"""What is saved is what was there when it was asked for, and as many are kept as shall be."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch import Tensor

from tensorsurgeon.errors import BusyError, ResumeError
from tensorsurgeon.trainer.resume import find_latest, held
from tensorsurgeon.trainer.saving import Saver, Written
from tests.trainer.saving.ranks import outcomes, run, start
from tests.trainer.saving.states import loaded, save_steps, state_of
from tests.trainer.saving.traced import Job, train_on


def change(state: Any, meta: dict[str, Any]) -> None:
    for tensor in (state["sharded"], *state["more"].values(), *state["counts"]["pair"]):
        tensor.fill_(-7)
    meta["seen"].append(-7)


def save_and_change(folder: Path) -> None:
    """The first rank cannot begin to write before the other has come, and so not before it changes
    its state; the other changes it at once."""
    state, meta = state_of(1), {"seen": [1]}
    with Saver(folder, keep=1) as saver:
        if dist.get_rank() == 0:
            saver.save(1, state, meta)
            change(state, meta)
            dist.barrier()
        else:
            dist.barrier()
            saver.save(1, state, meta)
            change(state, meta)
        saver.wait()


def test_state_may_change_as_soon_as_save_returns(tmp_path: Path) -> None:
    run(2, save_and_change, tmp_path)
    assert run(1, loaded, tmp_path) == [(1, {1.0}, {"seen": [1]})]


@pytest.mark.parametrize("world", [1, 2])
def test_as_many_are_kept_as_shall_be_and_each_is_told_once(world: int, tmp_path: Path) -> None:
    damaged = tmp_path / "step-00000001"
    damaged.mkdir()
    (tmp_path / "notes.part").touch()
    ranks = run(world, save_steps, tmp_path, 2, [2, 3, 4, 5, 6])
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["notes.part", "step-00000005", "step-00000006"]
    for told in ranks:
        assert [written.step for written in told] == [2, 3, 4, 5, 6]
        assert told == ranks[0]
        assert all(0 < written.blocked <= written.seconds for written in told)
        size = sum(path.stat().st_size for path in (tmp_path / left[1]).iterdir())
        assert told[3].nbytes == size - (tmp_path / left[1] / "meta.json").stat().st_size
    assert run(world, loaded, tmp_path)[0] == (6, {6.0}, {"step": 6})


def save_twice(folder: Path) -> list[Written]:
    told: list[Written] = []
    with Saver(folder, keep=2, done=told.append) as saver:
        saver.save(4, state_of(4), {})
        saver.save(4, state_of(4), {}, wait=True)
        assert len(told) == 1
    with Saver(folder, keep=2, done=told.append) as saver:
        saved = saver.latest(print)
        assert saved
        saver.load(saved, state_of(0))
        saver.save(4, state_of(4), {}, wait=True)
    return told


def test_step_that_is_saved_already_is_not_saved_again(tmp_path: Path) -> None:
    (told,) = run(1, save_twice, tmp_path)
    assert len(told) == 1


def test_all_ranks_are_told_at_one_step_however_long_the_first_takes(tmp_path: Path) -> None:
    place = tmp_path / "place"
    job = Job(folder=tmp_path / "run", place=place, world=2, steps=10_000, work=train_on)
    one, other = job.injected("fdatasync:delay_enter=200ms:when=1")
    assert one == other
    assert isinstance(one, int), one
    assert one > 10


def lose_a_file(saved: Path) -> None:
    (saved / "__0_0.distcp").unlink()


def cut_a_file(saved: Path) -> None:
    os.truncate(saved / ".metadata", 100)


def lose_meta(saved: Path) -> None:
    (saved / "meta.json").unlink()


def cut_meta(saved: Path) -> None:
    os.truncate(saved / "meta.json", 100)


def of_another_step(saved: Path) -> None:
    shutil.copy(saved.with_name("step-00000002") / "meta.json", saved)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1 to 3."""
    run(1, save_steps, tmp_path, 3, [1, 2, 3])
    return tmp_path


DAMAGES = {
    lose_a_file: "__0_0.distcp is missing",
    cut_a_file: ".metadata has 100 bytes, not ",
    lose_meta: "meta.json is missing",
    cut_meta: "meta.json is not what it should be",
    of_another_step: "meta.json is of step 2",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    damage: Callable[[Path], None], three: Path
) -> None:
    damage(three / "step-00000003")
    told: list[str] = []
    found = find_latest(three, told.append)
    assert found
    assert found.step == 2
    (message,) = told
    assert message.startswith(f"{three}/step-00000003: is damaged: {DAMAGES[damage]}")
    assert message.endswith("; going on from step-00000002")
    run(1, save_steps, three, 3, [3])
    assert run(1, loaded, three) == [(3, {3.0}, {"step": 3})]


def test_older_damaged_checkpoint_is_of_no_interest(three: Path) -> None:
    lose_meta(three / "step-00000002")
    told: list[str] = []
    found = find_latest(three, told.append)
    assert found
    assert (found.step, told) == (3, [])


def test_folder_of_damaged_checkpoints_alone_is_an_error(three: Path) -> None:
    for step in (1, 2, 3):
        lose_meta(three / f"step-0000000{step}")
    with pytest.raises(ResumeError) as refused:
        find_latest(three, print)
    assert str(refused.value).count("is damaged: meta.json is missing") == 3
    assert "  fix: remove them to begin anew" in str(refused.value)


def test_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert find_latest(tmp_path / "none", print) is None
    (tmp_path / "step-00000001.0123abcd.part").mkdir()
    (tmp_path / "step-1").mkdir()
    assert find_latest(tmp_path, print) is None


def flip_bytes(folder: Path) -> None:
    with (folder / "__0_0.distcp").open("r+b") as file:
        file.write(b"nonsense")


def test_checkpoint_that_cannot_be_read_is_an_error_of_every_rank(three: Path) -> None:
    flip_bytes(three / "step-00000003")
    for error in outcomes(2, loaded, three):
        assert isinstance(error, ResumeError)
        assert f"{three}/step-00000003: cannot be loaded: " in str(error)
        assert "fix: remove it" in str(error)


def hold(folder: Path, seconds: float) -> None:
    with held(folder):
        time.sleep(seconds)


def test_second_training_on_a_folder_is_refused_on_all_ranks_until_the_first_ends(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "runs" / "first"
    holders = start(2, hold, folder, 60)
    lock = folder / "lock"
    pid = f'"pid": {holders[0].process.pid},'
    while not (lock.exists() and pid in lock.read_text()):
        assert holders[0].process.is_alive()
        time.sleep(0.01)
    for error in outcomes(2, hold, folder, 0):
        assert isinstance(error, BusyError)
        who = f"another training is at work here: process {holders[0].process.pid} on "
        assert f"{folder}: {who}" in str(error)
        assert "folder: in the run file" in str(error)
    for rank in holders:
        os.kill(rank.process.pid, signal.SIGKILL)
    assert [rank.outcome() for rank in holders] == [None, None]
    run(2, hold, folder, 0)


def fail_to_serialise(folder: Path) -> None:
    with Saver(folder, keep=1) as saver:
        saver.save(1, {"a": Tensor()}, {"not JSON": object()})


def test_meta_that_is_no_json_is_refused_where_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        run(1, fail_to_serialise, tmp_path)
    assert not list(tmp_path.iterdir())
