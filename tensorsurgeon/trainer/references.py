"""Log-probabilities of the reference model, which preferences are learned against; made once."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from tensorsurgeon.errors import ResumeError, fix_for
from tensorsurgeon.trainer.data import TokenShards
from tensorsurgeon.trainer.evaluation import shares
from tensorsurgeon.trainer.learner import Learner
from tensorsurgeon.trainer.objectives import pair_sums
from tensorsurgeon.trainer.parallel import Ranks
from tensorsurgeon.trainer.resume import first_rank
from tensorsurgeon.trainer.run_file import Run
from tensorsurgeon.trainer.setup import all_samples
from tensorsurgeon.writing import Disk

_NAME = "log_probs"


def reference_log_probs(
    run: Run, shards: TokenShards, learner: Learner, model: str, ranks: Ranks
) -> Tensor:
    """(pairs, 2) float32 log-probabilities of the chosen and rejected answers of all pairs.

    They are read from the run's folder where an earlier part of the run left them.

    Args:
        run: its folder, and how it makes samples.
        shards: the pairs.
        learner: the reference model.
        model: what tells that model from others.
        ranks: each computes a share.

    Raises:
        ResumeError: what is in the folder is damaged.
        OutputError: it cannot be written.
    """
    path = run.folder / f"reference-{_key(run, shards, model)}.safetensors"
    pairs = shards.index.documents // 2
    found = first_rank(lambda: _read(path, pairs))
    if found is None:
        found = _compute(run, shards, learner, ranks, pairs)
        first_rank(lambda: _write(path, found))
    return found


def _key(run: Run, shards: TokenShards, model: str) -> str:
    data = run.settings.data
    parts = (model, shards.identity, str(data.sequence_length), data.too_long)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _compute(run: Run, shards: TokenShards, learner: Learner, ranks: Ranks, pairs: int) -> Tensor:
    table = torch.zeros(pairs, 2, dtype=torch.float32, device=ranks.device)
    every = all_samples(run, shards)
    micro = run.settings.batch.micro
    block = micro * ranks.size * 16
    for first in range(0, len(every), block):
        last = min(first + block, len(every))
        for batch in shares([every.sample(i) for i in range(first, last)], ranks, micro):
            sums = learner.measure(batch.to(ranks.device), pair_sums)
            table.index_add_(0, batch.pairs.to(ranks.device), sums)
    return ranks.sum(table).cpu()


def _read(path: Path, pairs: int) -> Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.exists():
        return None
    try:
        table = load(path.read_bytes()).get(_NAME)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise ResumeError(what, where=str(path), fix=fix_for(error)) from None
    except SafetensorError:
        table = None
    if table is None or table.shape != (pairs, 2) or table.dtype != torch.float32:
        raise ResumeError("is damaged", where=str(path), fix="remove it: it is made again")
    return table


def _write(path: Path, table: Tensor) -> None:
    from safetensors.torch import save

    disk, part = Disk(), path.with_name(f"{path.name}.part")
    disk.write_file(part, save({_NAME: table.contiguous()}))
    disk.rename(part, path)
    disk.flush_folder(path.parent)
