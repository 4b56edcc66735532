"""Log-probabilities of the reference model, which preferences are learned against; made once.

They are kept in a file of the run's folder: `log_probs`, (pairs, 2) float32. While there are some
still to be computed, it has `known` as well, (pairs,) bool: which are not.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tensorsurgeon.errors import ResumeError, fix_for
from tensorsurgeon.trainer.data import Sample, TokenShards
from tensorsurgeon.trainer.evaluation import shares
from tensorsurgeon.trainer.learner import Learner
from tensorsurgeon.trainer.objectives import pair_sums
from tensorsurgeon.trainer.parallel import Ranks
from tensorsurgeon.trainer.resume import first_rank
from tensorsurgeon.trainer.run_file import Run
from tensorsurgeon.trainer.setup import all_samples
from tensorsurgeon.writing import Disk, output_explained

_BATCHES = 16
"""Batches of a block on each rank. A block is computed whole or not at all: batches are the same
wherever this was interrupted, and so is each bit."""


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Log-probabilities of all pairs, and which of them are known; None once all are."""

    log_probs: Tensor
    known: Tensor | None


def reference_log_probs(
    run: Run,
    shards: TokenShards,
    learner: Learner,
    model: str,
    ranks: Ranks,
    *,
    every: float = 60.0,
) -> Tensor:
    """(pairs, 2) float32 log-probabilities of the chosen and rejected answers of all pairs.

    They are read from the run's folder, as far as an earlier part of the run left them there. A
    pair that is too long, and left out, has zeros.

    Args:
        run: its folder, and how it makes samples.
        shards: the pairs.
        learner: the reference model.
        model: what tells that model from others.
        ranks: each computes a share.
        every: seconds after which what is computed is written.

    Raises:
        ResumeError: what is in the folder is damaged.
        OutputError: it cannot be written.
    """
    path = run.folder / f"reference-{_key(run, shards, model)}.safetensors"
    pairs = shards.index.documents // 2
    table = first_rank(lambda: _read(path, pairs))
    if table.known is None:
        return table.log_probs
    written = time.monotonic()
    for samples in _blocks(run, shards, ranks):
        if all(table.known[sample.pairs].all() for sample in samples):
            continue
        _compute(table.log_probs, table.known, samples, learner, ranks, run.settings.batch.micro)
        if ranks.highest(time.monotonic() - written) >= every:
            first_rank(lambda: _write(path, table))
            written = time.monotonic()
    whole = _Table(log_probs=table.log_probs, known=None)
    first_rank(lambda: _write(path, whole))
    return whole.log_probs


def _key(run: Run, shards: TokenShards, model: str) -> str:
    data = run.settings.data
    parts = (model, shards.identity, str(data.sequence_length), data.too_long)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _blocks(run: Run, shards: TokenShards, ranks: Ranks) -> Iterator[list[Sample]]:
    every = all_samples(run, shards)
    size = run.settings.batch.micro * ranks.size * _BATCHES
    for first in range(0, len(every), size):
        yield [every.sample(i) for i in range(first, min(first + size, len(every)))]


def _compute(
    log_probs: Tensor,
    known: Tensor,
    samples: list[Sample],
    learner: Learner,
    ranks: Ranks,
    micro: int,
) -> None:
    """Enter the pairs of some samples, on all ranks; each computes a share of them."""
    # Of the block's pairs alone: a table of all of them would go to every rank at each block.
    numbers = torch.cat([torch.from_numpy(sample.pairs) for sample in samples])
    row = torch.empty(len(known), dtype=torch.int64)
    row[numbers] = torch.arange(len(numbers))
    found = torch.zeros(len(numbers), 2, device=ranks.device)
    for batch in shares(samples, ranks, micro):
        sums = learner.measure(batch.to(ranks.device), pair_sums)
        found.index_add_(0, row[batch.pairs].to(ranks.device), sums)
    log_probs[numbers] = ranks.sum(found).cpu()
    known[numbers] = True


def _read(path: Path, pairs: int) -> _Table:
    """What is there; without the file, nothing is known."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.exists():
        return _Table(log_probs=torch.zeros(pairs, 2), known=torch.zeros(pairs, dtype=torch.bool))
    try:
        found = load(path.read_bytes())
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise ResumeError(what, where=str(path), fix=fix_for(error)) from None
    except SafetensorError:
        found = {}
    log_probs, known = found.get("log_probs"), found.get("known")
    if (
        log_probs is None
        or (log_probs.shape, log_probs.dtype) != ((pairs, 2), torch.float32)
        or (known is not None and (known.shape, known.dtype) != ((pairs,), torch.bool))
    ):
        raise ResumeError("is damaged", where=str(path), fix="remove it: it is made again")
    return _Table(log_probs=log_probs, known=known)


def _write(path: Path, table: _Table) -> None:
    from safetensors.torch import save

    tensors = {"log_probs": table.log_probs}
    if table.known is not None:
        tensors["known"] = table.known
    disk, part = Disk(), path.with_name(f"{path.name}.part")
    with output_explained(path):
        disk.write_file(part, save(tensors))
        disk.rename(part, path)
        disk.flush_folder(path.parent)
