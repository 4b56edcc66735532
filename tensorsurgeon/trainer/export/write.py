"""A trained checkpoint written by all ranks together: the first one's disk, everybody's values.

Each rank calls for the tensors in the same order, since to gather one takes them all. Before the
next they agree that it was written, so that what fails on the first rank ends all of them. The
order on the disk is that of `tensorsurgeon.writing.workplace`, without a journal: what an
interrupted export has left is of no use, since the training is saved elsewhere.
"""

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from tensorsurgeon import __version__
from tensorsurgeon.checkpoint import (
    CARD_NAME,
    INDEX_NAME,
    MANIFEST_NAME,
    FileIdentity,
    Manifest,
    ShardReader,
    encode_manifest,
)
from tensorsurgeon.errors import OutputError, TensorSurgeonError
from tensorsurgeon.specs import Progress
from tensorsurgeon.trainer.export.card import card_text
from tensorsurgeon.trainer.export.plan import Export, ExportedTensor
from tensorsurgeon.trainer.export.provenance import layer_map_of, origin_of
from tensorsurgeon.trainer.export.shown import shown_run_file
from tensorsurgeon.trainer.export.sidecars import of_surgery, sidecars_of
from tensorsurgeon.trainer.export.tensors import TensorWriter
from tensorsurgeon.trainer.export.training import Losses
from tensorsurgeon.trainer.resume import first_rank
from tensorsurgeon.writing import (
    Disk,
    ShardFiles,
    Workplace,
    check_replaceable,
    index_of,
    json_bytes,
    locked,
    output_explained,
    parents_made,
    read_journal,
)

Values = Callable[[str], Tensor | None]
"""All of a parameter on the processor, by its name in the checkpoint; a collective.

None stands for what was not trained: it is copied as it is stored. A tensor that is stored and yet
tied to another has the other's values.
"""


def write_checkpoint(
    export: Export,
    final: Path,
    values: Values,
    *,
    losses: Losses | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    disk: Disk | None = None,
) -> None:
    """Write a trained checkpoint; every rank of the process group calls it.

    The memory it takes is that of one tensor. Where the same training has put its result there
    already and was interrupted right after, nothing more is done.

    Args:
        export: what to write, the same on all ranks.
        final: the folder to make.
        values: asked once for each tensor, in the order of `export.tensors`.
        losses: for the model card.
        overwrite: whether to replace a checkpoint that is there.
        progress: told how far it is, in bytes of tensors.
        disk: what to write to.

    Raises:
        BusyError: another run is writing there.
        CheckpointError: what was trained cannot be read any more, or has changed.
        OutputError: writing failed, or a value is not finite or does not fit the dtype.
        PlanError: something is there that is not to be replaced.
        All of them on all ranks; nothing is left behind.
    """
    with ExitStack() as stack:
        writing = _Writing(export, Workplace.of(final), disk or Disk(), stack)
        if not first_rank(lambda: writing.begin(overwrite=overwrite)):
            return
        done, total = 0, sum(tensor.spec.nbytes for tensor in export.tensors)
        for tensor in export.tensors:
            _write_one(writing, tensor, values)
            done += tensor.spec.nbytes
            if progress is not None:
                progress(done, total)
        first_rank(lambda: writing.publish(losses or Losses(), overwrite=overwrite))


def is_finished(export: Export, final: Path) -> bool:
    """Whether an interrupted run of the same training had put the result into its place already."""
    place = Workplace.of(final)
    return place.is_published(read_journal(place.journal), export.binding)


def _write_one(writing: "_Writing", tensor: ExportedTensor, values: Values) -> None:
    """By itself, so that the values are gone before the next are gathered."""
    whole = values(tensor.spec.name)
    first_rank(lambda: writing.write(tensor, whole))


class _Writing:
    """The first rank's part.

    Args:
        export: what to write.
        place: where.
        disk: what to write to.
        stack: closes and removes what has to be, at the end.
    """

    def __init__(self, export: Export, place: Workplace, disk: Disk, stack: ExitStack) -> None:
        self._export, self._place, self._disk, self._stack = export, place, disk, stack
        self._digests: dict[str, str] = {}
        self._trained: set[str] = set()

    def begin(self, *, overwrite: bool) -> bool:
        """Take the place and lay the shards down; False where all is done already."""
        place, disk, enter = self._place, self._disk, self._stack.enter_context
        with _explained(place.final):
            enter(parents_made(place.final.parent, disk))
            enter(locked(place, disk))
            enter(_removed_on_failure(place, disk))
            if not overwrite and is_finished(self._export, place.final):
                disk.flush_folder(place.final.parent)  # it may have ended before it did
                place.remove(disk)
                return False
            place.put_back(disk)
            _check_free(place.final, overwrite=overwrite)
            _discard_all(place, disk)
            disk.make_folder(place.checkpoint)
            identities = self._export.checkpoint.identities
            paths = {tensor.stored.path for tensor in self._export.tensors}
            files = {p: i for p in paths if isinstance(i := identities[p], FileIdentity)}
            self._reader = ShardReader(files)
            self._stack.callback(self._reader.close)
            self._shards = ShardFiles(disk, place.checkpoint)
            self._stack.callback(self._shards.close)
            self._writer = TensorWriter(self._reader, self._shards)
            self._stack.callback(self._writer.close)
            self._shards.lay_down(self._export.shards)
        return True

    def write(self, tensor: ExportedTensor, values: Tensor | None) -> None:
        """Write one tensor."""
        with _explained(self._place.final):
            self._digests[tensor.spec.name] = self._writer.write(tensor, values)
            if values is not None:
                self._trained.add(tensor.spec.name)

    def publish(self, losses: Losses, *, overwrite: bool) -> None:
        """Write what lies beside the shards, and put all of it into its place."""
        place, disk = self._place, self._disk
        with _explained(place.final):
            self._shards.flush()
            self._reader.check_unchanged()
            self._write_others(losses)
            disk.flush_folder(place.checkpoint)
            _check_free(place.final, overwrite=overwrite)  # it may have been made only now
            place.publish(disk, overwrite=overwrite)
            place.remove(disk)

    def _write_others(self, losses: Losses) -> None:
        """The files that go along, card, index, config, and last the manifest."""
        export, folder = self._export, self._place.checkpoint
        files: dict[str, dict[str, Any]] = {}

        def write(name: str, data: bytes) -> None:
            self._disk.write_file(folder / name, data)
            files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        for name, data in sidecars_of(export.checkpoint):
            write(name, data)
        for name, data in of_surgery(export.checkpoint, export.surgery).items():
            write(name, data)
        shown = shown_run_file(export.training.run_file)
        title = self._place.final.name
        card = card_text(export, shown, losses, title=title, beside=tuple(files))
        self._disk.write_file(folder / CARD_NAME, card.encode())
        if len(export.shards) > 1:
            write(INDEX_NAME, json_bytes(index_of(export.shards)))
        write("config.json", json_bytes(export.config))
        manifest = encode_manifest(self._manifest(shown, files))
        self._disk.write_file(folder / MANIFEST_NAME, manifest)

    def _manifest(self, shown: str, files: dict[str, dict[str, Any]]) -> Manifest:
        export = self._export
        training, surgery = export.training, export.surgery
        return Manifest(
            tensorsurgeon=__version__,
            recipe={
                "sha256": hashlib.sha256(training.run_file.encode()).hexdigest(),
                "text": shown,
            },
            seed=training.seed,
            sources=export.sources,
            layer_map=layer_map_of(surgery, export.depth),
            files=files,
            shards={
                shard.name: {
                    "bytes": shard.nbytes,
                    "header_bytes": len(shard.header),
                    "header": hashlib.sha256(shard.header).hexdigest(),
                }
                for shard in export.shards
            },
            tensors={tensor.spec.name: self._entry(tensor) for tensor in export.tensors},
            created={
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "binding": export.binding,
                "run": os.urandom(16).hex(),
            },
        )

    def _entry(self, tensor: ExportedTensor) -> dict[str, Any]:
        name = tensor.spec.name
        parameters = self._export.training.parameters
        return {
            "dtype": tensor.spec.dtype.value,
            "shape": list(tensor.spec.shape),
            "shard": tensor.shard,
            "offset": tensor.offset,
            "sha256": self._digests[name],
            "origin": origin_of(
                name, self._export.surgery, parameters, is_trained=name in self._trained
            ),
        }


def _check_free(final: Path, *, overwrite: bool) -> None:
    if final.exists() or final.is_symlink():
        check_replaceable(final, overwrite=overwrite)


def _discard_all(place: Workplace, disk: Disk) -> None:
    """Remove what an earlier run has left, of whatever kind it was."""
    if place.journal.exists() or place.journal.is_symlink():
        # It goes first, for sure: what it says must never be of the shards to come.
        disk.remove_tree(place.journal)
        disk.flush_folder(place.root)
    for path in (place.checkpoint, place.old):
        place.discard(disk, path)


@contextmanager
def _removed_on_failure(place: Workplace, disk: Disk) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError, OutputError):  # the error that led here says more
            place.put_back(disk)
            place.remove(disk)
        raise


@contextmanager
def _explained(final: Path) -> Iterator[None]:
    """What the system or the writer says, as an error of ours that speaks of the run file."""
    try:
        with output_explained(final):
            yield
    except TensorSurgeonError as error:
        raise _of_run_file(error, final) from error


def _of_run_file(error: TensorSurgeonError, final: Path) -> TensorSurgeonError:
    """The same error; where its fix names an option that a training has not, the run file's."""
    told = type(error).of(
        dataclasses.replace(
            problem,
            where=problem.where or str(final),
            fix=problem.fix.replace("with -o", "as output: path:"),
        )
        for problem in error.problems
    )
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
