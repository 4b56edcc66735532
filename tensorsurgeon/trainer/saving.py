"""Checkpoints of a training: written beside it as it goes on, whole or not at all.

The order of a save, in which every step may be its last:

1. Every rank copies its part of the state to the processor's memory, the same at every save.
   The training goes on.
2. In a thread, every rank writes its copy to a file of its own in `step-….part` and flushes it;
   the first rank writes which tensor is where (`.metadata`), after every other has finished.
3. The first rank flushes every file again, as DCP does it with `.metadata` before its last bytes
   are written. It writes and flushes `meta.json`, then the folder.
4. It renames the folder to `step-…`, and flushes the folder around it.
5. It removes what is older than the checkpoints to keep, each first renamed.
6. At the next `poll` on which all ranks are through, all of them learn of it, or of its failure.

The thread talks to other ranks by a process group of its own, so that its messages cannot get
between the training's.
"""

import errno
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tensorsurgeon.errors import OutputError, ResumeError
from tensorsurgeon.specs import size_text
from tensorsurgeon.trainer.resume import (
    META_NAME,
    Saved,
    discard,
    encode_meta,
    find_latest,
    first_rank,
    make_folder,
    name_of,
    remove_leftovers,
    remove_old,
)
from tensorsurgeon.trainer.saved_index import SavedReader
from tensorsurgeon.trainer.staging import Staging, state_bytes
from tensorsurgeon.writing import Disk

State = dict[str, Any]
"""Nested dicts and lists of tensors and DTensors. A tensor that is no DTensor has to be
the same on every rank: one of them writes it."""

_PATIENCE = timedelta(hours=3)
"""How long a rank waits for the slowest disk. A rank that has ended is noticed at once."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A checkpoint that has just been completed.

    Attributes:
        step: how many steps had been taken.
        nbytes: of its files.
        seconds: from the call of `save` until it had its name.
        blocked: of these, how long the training stood still.
    """

    step: int
    nbytes: int
    seconds: float
    blocked: float


@dataclass(frozen=True, kw_only=True)
class _Saving:
    """A save that is under way, and `nbytes` of tensors; only the first rank's has a result."""

    step: int
    nbytes: int
    future: "Future[Written | None]"


class Saver:
    """Saves a training, one checkpoint at a time. All ranks call its methods, in the same order.

    From the first save on there is one more copy of the state in the processor's memory, until the
    saver ends; while one is under way there are `keep` + 1 checkpoints on the disk.

    Args:
        folder: of the checkpoints alone; on a disk that all ranks share. Leftovers of interrupted
            runs are removed from it, so the run's folder must be `held`.
        keep: how many complete checkpoints stay, at least 1.
        disk: what it is on.
        done: told of each checkpoint that is complete, on every rank.

    Raises:
        OutputError: the folder cannot be made, or a leftover not removed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        disk: Disk | None = None,
        done: Callable[[Written], None] | None = None,
    ) -> None:
        assert keep >= 1
        self._folder = folder
        self._keep = keep
        self._disk = disk or Disk()
        self._done = done
        self._is_first = dist.get_rank() == 0
        self._run = first_rank(self._begin)
        self._group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._staging = Staging()
        self._saving: _Saving | None = None
        self._newest: int | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        """Let a save that is under way end; of how it ends only the disk tells."""
        self._thread.shutdown()
        self._staging.close()

    def latest(self, notice: Callable[[str], None]) -> Saved | None:
        """The newest complete checkpoint, as `find_latest`; the same on all ranks."""
        return first_rank(lambda: find_latest(self._folder, notice))

    def load(self, saved: Saved, state: State) -> None:
        """Load a checkpoint into a state of the same names and shapes, on any number of ranks.

        Args:
            saved: the checkpoint. It holds pickles: one from a stranger can run a stranger's code.
            state: its tensors are overwritten in place, its Python values replaced.

        Raises:
            ResumeError: the checkpoint lacks a value, has another shape, or cannot be read.
        """
        try:
            load(state, storage_reader=SavedReader(saved.path))
        except CheckpointException as error:
            raise ResumeError(
                f"cannot be loaded: {_cause(error).strerror}",
                where=str(saved.path),
                fix="remove it to go on from the one before, or from the start",
            ) from error
        self._newest = saved.step

    def save(self, step: int, state: State, meta: Mapping[str, Any], *, wait: bool = False) -> None:
        """Begin to save; returns when the state is copied, and may change again.

        Where one is under way already, this waits for it first. A step that is saved is not saved
        again.

        Args:
            step: how many steps have been taken.
            state: what to save, of the same names and shapes each time.
            meta: what the training is, of JSON's own types; see `differences`.
            wait: return only when it is complete.

        Raises:
            OutputError: this save failed, if `wait`, or the one before; on all ranks.
        """
        self.wait()
        if step == self._newest:
            return
        began = time.monotonic()
        meta = json.loads(json.dumps(meta))
        copies = self._staging.copy(state)  # which no save reads any more: it was waited for
        blocked = time.monotonic() - began
        future = self._thread.submit(self._write, step, copies, meta, began, blocked)
        self._saving = _Saving(step=step, nbytes=state_bytes(state), future=future)
        if wait:
            self.wait()

    def poll(self) -> None:
        """Learn of a save that has ended since; to be called at every step.

        Raises:
            OutputError: it failed; on all ranks.
        """
        if self._saving is None:
            return
        ended = torch.tensor(int(self._saving.future.done()))
        dist.all_reduce(ended, op=dist.ReduceOp.MIN)
        if ended:
            self.wait()

    def wait(self) -> None:
        """Wait until the save that is under way has ended, if there is one.

        Raises:
            OutputError: it failed; on all ranks. Nothing of it is left; those before it are whole.
        """
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        error = saving.future.exception()
        mine = (_cause(error), None) if error else (None, saving.future.result())
        told: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(told, mine)
        if failures := [cause for cause, _ in told if cause]:
            try:
                first_rank(lambda: self._fail(saving, failures))
            except OutputError as failed:
                raise failed from error
        self._newest = saving.step
        if self._done:
            self._done(told[0][1])

    def _begin(self) -> str:
        """Clears the folder; hexadecimal digits for the names that are this run's alone."""
        try:
            make_folder(self._folder, self._disk)
            remove_leftovers(self._folder, self._disk)
        except OSError as error:
            what = f"cannot be made ready for checkpoints: {error.strerror}"
            raise OutputError(what, where=str(self._folder)) from None
        return secrets.token_hex(4)

    def _part_of(self, step: int) -> Path:
        return self._folder / f"{name_of(step)}.{self._run}.part"

    def _write(
        self, step: int, copies: State, meta: Mapping[str, Any], began: float, blocked: float
    ) -> Written | None:
        """Steps 2 to 5, in the thread."""
        writer = _Writer(self._part_of(step), per_thread_copy_ahead=0)  # else waits for the GPU
        metadata = save(copies, storage_writer=writer, process_group=self._group)
        if not self._is_first:
            return None
        nbytes = self._publish(step, metadata, meta)
        seconds = time.monotonic() - began
        remove_old(self._folder, self._keep, self._run, self._disk)
        return Written(step=step, nbytes=nbytes, seconds=seconds, blocked=blocked)

    def _publish(self, step: int, metadata: Metadata, meta: Mapping[str, Any]) -> int:
        """Flush what is written and give it its name; returns its bytes."""
        part, final = self._part_of(step), self._folder / name_of(step)
        files = {path.name: path.stat().st_size for path in part.iterdir()}
        stored = {info.relative_path for info in metadata.storage_data.values()}
        if lacking := stored - files.keys():
            another = f"{', '.join(sorted(lacking))}, written by another rank, is not here"
            why = f"{another}: all machines must share the disk of the run's folder"
            raise FileNotFoundError(errno.ENOENT, why)
        for name in files:
            with (part / name).open("rb+") as file:
                self._disk.flush(file.fileno())
        self._disk.write_file(part / META_NAME, encode_meta(step, files, meta))
        self._disk.flush_folder(part)
        if final.exists() or final.is_symlink():  # damaged, or this training would have begun there
            discard(final, self._run, self._disk)
        self._disk.rename(part, final)
        self._disk.flush_folder(self._folder)
        return sum(files.values())

    def _fail(self, saving: _Saving, failures: list[OSError]) -> NoReturn:
        """Remove what a save has left, and say why it failed."""
        with suppress(OSError):  # else the next run removes it
            self._disk.remove_tree(self._part_of(saving.step))
        reasons = "; ".join(dict.fromkeys(str(failure.strerror) for failure in failures))
        free = shutil.disk_usage(self._folder).free
        full = {failure.errno for failure in failures} & {errno.ENOSPC, errno.EDQUOT}
        raise OutputError(
            f"saving step {saving.step} failed: {reasons}; it needs {size_text(saving.nbytes)},"
            f" and {size_text(free)} are free",
            where=str(self._folder),
            fix="free space there, and the same command goes on" if full else "",
        )


class _Writer(FileSystemWriter):
    """Names the disk's own error, in place of which `torch.save` speaks of positions in a file."""

    def write_data(self, *args: Any, **kwargs: Any) -> Any:
        """Write this rank's file; an OSError tells why it cannot."""
        try:
            return super().write_data(*args, **kwargs)
        except Exception as error:
            cause: BaseException | None = error
            while cause:
                if isinstance(cause, OSError):
                    raise OSError(cause.errno, cause.strerror) from error
                cause = cause.__cause__ or cause.__context__
            raise


_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def training_state(model: nn.Module, optimizer: torch.optim.AdamW) -> State:
    """Weights, moments and step counts of a training by parameter, not copied; a tied weight once.

    What is frozen is not among it, which the model's own checkpoint has, nor what the run file says
    of the optimiser, as learning rates.

    Args:
        model: whole or sharded, compiled or not: the names are the same.
        optimizer: of any groups; where it lacks moments, gets those of before the first step.
    """
    _begin_moments(optimizer)
    weights = get_model_state_dict(model)
    for name in _frozen(model) | _tied(model).keys():
        del weights[name]
    flat = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    moments = {name: value for name, value in flat.items() if name.startswith("state.")}
    return {"model": weights, "optimizer": moments}


def restore_training_state(
    model: nn.Module, optimizer: torch.optim.AdamW, state: Mapping[str, Any]
) -> None:
    """Have a training go on from its `training_state`; what that has not stays as it is."""
    _begin_moments(optimizer)
    weights = {**get_model_state_dict(model), **state["model"]}
    tied = {name: weights[first] for name, first in _tied(model).items()}
    set_model_state_dict(model, {**weights, **tied})
    flat = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    set_optimizer_state_dict(model, optimizer, {**flat, **state["optimizer"]}, options=_FLAT)


def _begin_moments(optimizer: torch.optim.AdamW) -> None:
    """Have moments for every parameter, as they are before its first step.

    DCP would make them as well, but leaves the step counts at 1, and so another bias correction.
    """
    groups = optimizer.param_groups
    trained = [p for group in groups for p in group["params"] if p.requires_grad]
    new = [p for p in trained if p not in optimizer.state]
    if not new:
        return
    gradients, rates = [p.grad for p in trained], [group["lr"] for group in groups]
    optimizer.zero_grad()
    for parameter in new:
        parameter.grad = torch.zeros_like(parameter)
    for group in groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    for parameter, gradient in zip(trained, gradients, strict=True):
        parameter.grad = gradient
    for parameter in new:
        optimizer.state[parameter]["step"].zero_()


def _tied(model: nn.Module) -> dict[str, str]:
    """Each further name of a parameter that has several, and its first."""
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for plain, parameter in _named(model):
        if (found := first.setdefault(id(parameter), plain)) != plain:
            tied[plain] = found
    return tied


def _frozen(model: nn.Module) -> set[str]:
    """Every name of what is not trained."""
    return {name for name, parameter in _named(model) if not parameter.requires_grad}


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters by the names that states have, each of its names."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield name.replace("_orig_mod.", ""), parameter  # of what is compiled


def _cause(error: BaseException) -> OSError:
    """What other ranks are told of an error."""
    causes = [error]
    if isinstance(error, CheckpointException):
        causes = [cause for cause, _ in error.failures.values()]
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause
    return OSError(0, f"{type(causes[0]).__name__}: {str(causes[0]).partition(chr(10))[0]}")
