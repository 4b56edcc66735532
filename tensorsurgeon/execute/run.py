"""A plan carried out, from the lock to the folder in its place; `workplace` tells the order."""

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import (
    INDEX_NAME,
    MANIFEST_NAME,
    FileIdentity,
    Identity,
    Reader,
    ShardReader,
    check_unchanged,
    encode_manifest,
)
from tensorsurgeon.errors import CheckpointError, OutputError, PlanError
from tensorsurgeon.execute.other_files import content_of
from tensorsurgeon.execute.provenance import binding_of, make_manifest
from tensorsurgeon.execute.workers import Workers
from tensorsurgeon.plan import Plan
from tensorsurgeon.specs import Progress
from tensorsurgeon.writing import (
    Disk,
    Journal,
    Record,
    ShardFiles,
    Workplace,
    check_replaceable,
    index_of,
    json_bytes,
    locked,
    manifest_of,
    output_explained,
    parents_made,
    read_journal,
)

OpenReader = Callable[[Plan, Path], Reader]

AFRESH = "starting afresh, without what an interrupted run has left: "
CHANGED = "files of it are gone or have changed"
SENT = "shards of it were sent, and not kept"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run did.

    Attributes:
        path: the folder it made; None where everything was sent elsewhere.
        address: where people can look at what was sent elsewhere.
        seconds: wall time, flushes included.
        threads: how many it used.
        tensors_copied: tensors written without arithmetic.
        tensors_computed: all others.
        tensors_resumed: how many of all these an earlier run had made.
        compiled: False if numpy computed what compiled arithmetic could.
        notes: what operators had to say, and for how many tensors.
        update_lost: share of the updates of bases, by magnitude, that rounding to the output's
            dtype undid: elements that should have changed and did not; None where nothing says what
            is a base.
    """

    path: Path | None
    seconds: float
    threads: int
    tensors_copied: int
    tensors_computed: int
    tensors_resumed: int
    compiled: bool
    notes: tuple[str, ...]
    update_lost: float | None = None
    address: str | None = None


def run_plan(
    plan: Plan,
    final: Path,
    *,
    threads: int,
    overwrite: bool = False,
    resume: bool = True,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    disk: Disk | None = None,
    open_reader: OpenReader | None = None,
) -> Result:
    """Write what a plan describes, going on where an interrupted run of the same work stopped.

    Args:
        plan: the plan.
        final: the folder to make (see `check_destination`).
        threads: how many tensors are worked on at a time.
        overwrite: whether to replace what is there.
        resume: whether to go on from what an interrupted run has left.
        progress: told how far it is.
        notice: told what was found of an interrupted run.
        disk: what to write to.
        open_reader: opens what the tensors are read from, given the plan and a folder for temporary
            files; by default the files themselves, which must all be here.

    Raises:
        BusyError: another run is writing there.
        CheckpointError: a source cannot be read any more, or has changed.
        OutputError: writing failed, or a value does not fit the output's dtype.
        KeyboardInterrupt: after the threads have stopped.
    """
    run = Run(plan, Workplace.of(final), disk or Disk(), notice, open_reader)
    with run.guarded():
        return run.carry_out(threads, progress or silent, overwrite=overwrite, resume=resume)


def is_finished(plan: Plan, final: Path) -> bool:
    """Whether an interrupted run of the same work had put the result into its place already."""
    place = Workplace.of(final)
    return place.root.is_dir() and place.is_published(read_journal(place.journal), binding_of(plan))


def is_made(plan: Plan, final: Path) -> bool:
    """Whether the result of the same work is in its place, as far as its manifest tells."""
    manifest = manifest_of(final)
    return manifest is not None and manifest.created.get("binding") == binding_of(plan)


class Run:
    """One run in its workplace."""

    kept = "kept in"
    """What becomes of tensors that were made."""

    def __init__(
        self,
        plan: Plan,
        place: Workplace,
        disk: Disk,
        notice: Callable[[str], None] | None,
        open_reader: OpenReader | None,
    ) -> None:
        self.plan = plan
        self.place = place
        self.disk = disk
        self.notice = notice or silent
        self.open_reader = open_reader
        self.binding = binding_of(plan)
        self.surveys: dict[tuple[int, str], Any] = {}
        self.began = time.monotonic()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """While the run is at work: its lock is held, and what fails is told and tidied up."""
        final = self.place.final
        with (
            output_explained(final),
            parents_made(final.parent, self.disk),
            locked(self.place, self.disk),
            self._kept_or_removed(),
        ):
            yield

    @contextmanager
    def _kept_or_removed(self) -> Iterator[None]:
        """On failure, keep what another run can go on from, and say so; else remove it."""
        try:
            yield
        except BaseException as error:
            with suppress(OSError, OutputError):  # the error that led here says more
                self._keep_or_remove(error)
            raise

    def _keep_or_remove(self, error: BaseException) -> None:
        record = read_journal(self.place.journal)
        if record is None or not record.digests:
            self.place.put_back(self.disk)
            self.place.remove(self.disk)
        elif record.binding == self.binding:
            error.add_note(
                f"{len(record.digests)} tensors are {self.kept} {self.place.root}: the same "
                "command goes on from there, 'tensorsurgeon clean --remove' removes them"
            )

    def carry_out(
        self, threads: int, progress: Progress, *, overwrite: bool, resume: bool
    ) -> Result:
        """All the steps, or those an earlier run has left."""
        place, tensors = self.place, len(self.plan.tensors)
        record = read_journal(place.journal)
        if place.is_published(record, self.binding) and (record is not None or not overwrite):
            self.notice("an earlier run had finished it already")
            self.disk.flush_folder(place.final.parent)  # it may have ended before it did
            place.remove(self.disk)
            return self.result(threads, resumed=tensors)
        if place.put_back(self.disk):
            self.notice(f"put the old checkpoint back at {place.final}")
        if place.final.exists() and not overwrite:
            raise PlanError("is already there", where=str(place.final))
        record = self.to_go_on_with(record, resume=resume)
        if record is not None and record.complete:
            self.notice("an interrupted run had made all of it")
            return self._publish(threads, overwrite=overwrite, resumed=tensors)
        return self._make(record, threads, progress, overwrite=overwrite)

    def to_go_on_with(self, record: Record | None, *, resume: bool) -> Record | None:
        """The record, if a run can go on from what it says; else None, and why is told."""
        why = ""
        if record is None:
            why = "its journal is damaged" if self.place.journal.exists() else ""
        elif not resume:
            why = "as asked"
        elif record.binding != self.binding:
            why = "recipe or inputs have changed"
        elif record.complete and not self.holds_all_of(record):
            why = SENT if record.delivered else CHANGED
        else:
            return record
        if why:
            self.notice(AFRESH + why)
        return None

    def holds_all_of(self, record: Record) -> bool:
        """Whether everything is here that a complete journal speaks of."""
        return self.place.holds_all_of(record)

    def _make(
        self, record: Record | None, threads: int, progress: Progress, *, overwrite: bool
    ) -> Result:
        plan = self.plan
        with ExitStack() as stack:
            reader = stack.enter_context(closing(self.reader()))
            shards = ShardFiles(self.disk, self.place.checkpoint)
            stack.callback(shards.close)
            journal = self._journal(record, shards)
            stack.callback(journal.close)
            resumed = len(journal.digests)
            if resumed:
                self.notice(f"going on: {resumed} of {len(plan.tensors)} tensors are made")
            workers = Workers(plan, plan.tensors, reader, shards, journal, self.surveys)
            workers.run(min(threads, max(len(plan.tensors), 1)), progress)
            journal.flush()
            reader.check_unchanged()
            self.write_others(journal)
            return self._publish(threads, overwrite=overwrite, resumed=resumed, workers=workers)

    def reader(self) -> Reader:
        """What the tensors are read from."""
        if self.open_reader is not None:
            return self.open_reader(self.plan, self.place.root)
        identities = self.plan.identities
        return ShardReader({path: _here(path, identities[path]) for path in self.plan.paths()})

    def _journal(self, record: Record | None, shards: ShardFiles) -> Journal:
        """The journal to go on with, its shards open; or a new one and new shards."""
        disk, place, plan = self.disk, self.place, self.plan
        if record is not None:
            if shards.take_up(plan.shards):
                self.flush_folders()  # the run that made them may have ended before it did
                return Journal(disk, place.journal, record, shards.flush)
            self.notice(AFRESH + (SENT if record.delivered else CHANGED))
        shards.close()
        self.discard_all()
        disk.make_folder(place.checkpoint)
        shards.lay_down(plan.shards)
        journal = Journal(disk, place.journal, self.new_record(), shards.flush)
        self.flush_folders()
        return journal

    def discard_all(self) -> None:
        """Remove what an earlier run has left."""
        place, disk = self.place, self.disk
        if place.journal.exists() or place.journal.is_symlink():
            # It goes first, for sure: what it says must never be of other shards.
            disk.remove_tree(place.journal)
            disk.flush_folder(place.root)
        for path in (place.checkpoint, place.old):
            place.discard(disk, path)

    def new_record(self) -> Record:
        """What the first line of a new journal says."""
        return Record(binding=self.binding, run=os.urandom(16).hex())

    def flush_folders(self) -> None:
        """Have the names of shards and journal on the disk."""
        for folder in (self.place.checkpoint, self.place.root, self.place.final.parent):
            self.disk.flush_folder(folder)

    def write_others(self, journal: Journal) -> None:
        """Everything but the shards: the files that go along, index, config, manifest."""
        plan, files = self.plan, {}

        def write(name: str, data: bytes) -> None:
            self.disk.write_file(self.place.checkpoint / name, data)
            files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        for sidecar in plan.sidecars:
            write(sidecar.name, content_of(sidecar))
        for own in plan.own_files:
            write(own.name, own.data)
            if not own.recorded:
                del files[own.name]
        if len(plan.shards) > 1:
            write(INDEX_NAME, json_bytes(index_of(plan.shards)))
        write("config.json", json_bytes(plan.config))
        manifest = make_manifest(
            plan, journal.digests, files, binding=self.binding, run=journal.run
        )
        for path, identity in plan.inputs().items():
            if isinstance(identity, FileIdentity):
                check_unchanged(path, identity, path)
        self.disk.write_file(self.place.checkpoint / MANIFEST_NAME, encode_manifest(manifest))
        self.disk.flush_folder(self.place.checkpoint)
        journal.complete()

    def _publish(
        self, threads: int, *, overwrite: bool, resumed: int, workers: Workers | None = None
    ) -> Result:
        if self.place.final.exists():  # and may have been made or filled only now
            check_replaceable(self.place.final, overwrite=overwrite)
        self.place.publish(self.disk, overwrite=overwrite)
        self.place.remove(self.disk)
        return self.result(threads, resumed=resumed, workers=[workers] if workers else [])

    def result(self, threads: int, *, resumed: int, workers: Iterable[Workers] = ()) -> Result:
        """What the run did, now that it is over."""
        tensors, crews = self.plan.tensors, list(workers)
        counted = Counter(note for crew in crews for note in crew.notes)
        updates = [update for crew in crews for update in crew.updates]
        every, undone = (math.fsum(update[i] for update in updates) for i in (0, 1))
        return Result(
            path=self.place.final,
            seconds=time.monotonic() - self.began,
            threads=threads,
            tensors_copied=sum(tensor.is_copied for tensor in tensors),
            tensors_computed=sum(not tensor.is_copied for tensor in tensors),
            tensors_resumed=resumed,
            compiled=all(crew.compiled for crew in crews),
            update_lost=undone / every if every else None,
            notes=tuple(f"{note} ({count} tensors)" for note, count in sorted(counted.items())),
        )


def silent(*_: object) -> None:
    """For those who do not want to be told."""


def _here(path: Path, identity: Identity) -> FileIdentity:
    if isinstance(identity, FileIdentity):
        return identity
    raise CheckpointError("is not fetched", where=str(path), fix="fetch the plan's files first")
