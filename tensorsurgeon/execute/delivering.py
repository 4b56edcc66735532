"""A plan carried out shard by shard, each sent elsewhere and removed before the next is made.

Of the result, the disk holds one shard at a time. The journal notes which shards have arrived, so
that a run that was interrupted makes none of these again. What was sent is shown to nobody until
the last step commits all of it; nothing appears at the output's own place.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tensorsurgeon.checkpoint import Reader, RemoteFile, Shard
from tensorsurgeon.execute.run import AFRESH, CHANGED, OpenReader, Result, Run, silent
from tensorsurgeon.execute.workers import Workers
from tensorsurgeon.plan import Plan
from tensorsurgeon.specs import Progress
from tensorsurgeon.writing import Disk, Journal, Record, ShardFiles, Workplace, read_journal

GONE = "the repository lacks shards that were sent"


class Delivered(Protocol):
    """What came of it."""

    @property
    def address(self) -> str:
        """Where people can look at it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What they should know."""


class Delivery(Protocol):
    """Where shards go."""

    def lacking(self, shards: Mapping[str, RemoteFile]) -> Sequence[str]:
        """Which of these shards, sent before, are not there any more."""

    def send(self, shard: Path, progress: Progress) -> str:
        """Send a shard; returns its SHA-256, hexadecimal."""

    def publish(self, folder: Path, shards: Mapping[str, RemoteFile]) -> Delivered:
        """Show what was sent, with the files of a folder."""


def deliver_plan(
    plan: Plan,
    place: Path,
    delivery: Delivery,
    *,
    threads: int,
    resume: bool = True,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    disk: Disk | None = None,
    open_reader: OpenReader | None = None,
) -> Result:
    """Make what a plan describes, and keep none of it.

    Args:
        plan: the plan.
        place: beside which the work is done; what is there, if anything, stays as it is.
        delivery: where the shards go.
        threads: how many tensors are worked on at a time.
        resume: whether to go on from what an interrupted run has left.
        progress: told how far it is: bytes read, and bytes sent.
        notice: told what was found of an interrupted run.
        disk: what to write to.
        open_reader: as `run_plan` takes it.

    Raises:
        BusyError, CheckpointError, OutputError, KeyboardInterrupt: as `run_plan`; what was sent
            is not sent again by the next run.
    """
    run = _DeliveringRun(plan, Workplace.of(place), disk or Disk(), notice, open_reader)
    run.delivery = delivery
    with run.guarded():
        return run.deliver(threads, progress or silent, resume=resume)


class _DeliveringRun(Run):
    """One run that keeps nothing."""

    kept = "sent, or kept in"

    delivery: Delivery

    def deliver(self, threads: int, progress: Progress, *, resume: bool) -> Result:
        """All the steps, or those an earlier run has left."""
        place, plan = self.place, self.plan
        record = self.to_go_on_with(read_journal(place.journal), resume=resume)
        if record is not None and (lost := self._lost(record)):
            self.notice(AFRESH + lost)
            record = None
        steps = _Steps(plan, progress)
        crews: list[Workers] = []
        with ExitStack() as stack:
            reader = stack.enter_context(closing(self.reader()))
            shards = ShardFiles(self.disk, place.checkpoint)
            stack.callback(shards.close)
            journal = self._journal_of(record, shards)
            stack.callback(journal.close)
            resumed = len(journal.digests)
            if resumed:
                self.notice(f"going on: {resumed} of {len(plan.tensors)} tensors are made")
            for shard in plan.shards:
                if shard.name not in journal.delivered:
                    crews.append(self._make_shard(shard, reader, shards, journal, threads, steps))
                self.disk.remove_tree(place.checkpoint / shard.name)
                steps.end(shard)
            reader.check_unchanged()
            if record is None or not record.complete:
                self.write_others(journal)
            delivered = self._contents(journal.delivered)
        shown = self.delivery.publish(place.checkpoint, delivered)
        place.remove(self.disk)
        result = self.result(threads, resumed=resumed, workers=crews)
        return replace(
            result, path=None, address=shown.address, notes=(*result.notes, *shown.notes)
        )

    def holds_all_of(self, record: Record) -> bool:
        """As `Run`; shards that have arrived are not missed."""
        return self.place.holds_all_of(record, shards=False)

    def _lost(self, record: Record) -> str:
        """Why a record is nothing to go on from; empty if it is."""
        begun = {t.shard for t in self.plan.tensors if t.spec.name in record.digests}
        for shard in self.plan.shards:
            if shard.name in begun - record.delivered.keys():
                path = self.place.checkpoint / shard.name
                if not path.is_file() or path.stat().st_size != shard.nbytes:
                    return CHANGED
        if record.delivered and self.delivery.lacking(self._contents(record.delivered)):
            return GONE
        return ""

    def _contents(self, delivered: Mapping[str, str]) -> dict[str, RemoteFile]:
        return {
            shard.name: RemoteFile(nbytes=shard.nbytes, sha256=delivered[shard.name])
            for shard in self.plan.shards
            if shard.name in delivered
        }

    def _journal_of(self, record: Record | None, shards: ShardFiles) -> Journal:
        if record is None:
            self.discard_all()
            self.disk.make_folder(self.place.checkpoint)
            record = self.new_record()
        journal = Journal(self.disk, self.place.journal, record, shards.flush)
        self.flush_folders()
        return journal

    def _make_shard(
        self,
        shard: Shard,
        reader: Reader,
        shards: ShardFiles,
        journal: Journal,
        threads: int,
        steps: "_Steps",
    ) -> Workers:
        """Make a shard and send it."""
        if not shards.take_up([shard]):
            shards.close()
            self.disk.remove_tree(self.place.checkpoint / shard.name)
            shards.lay_down([shard])
            self.flush_folders()
        tensors = [tensor for tensor in self.plan.tensors if tensor.shard == shard.name]
        workers = Workers(self.plan, tensors, reader, shards, journal, self.surveys)
        workers.run(min(threads, max(len(tensors), 1)), steps.made)
        journal.flush()
        shards.close()
        digest = self.delivery.send(self.place.checkpoint / shard.name, steps.sent)
        journal.deliver(shard.name, digest)
        return workers


class _Steps:
    """How far the run is, in bytes: each shard is read for, and then sent."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._progress = progress
        self._reads = {shard.name: plan.bytes_read_for(shard) for shard in plan.shards}
        self._total = sum(self._reads.values()) + plan.bytes_written
        self._before = self._of_shard = 0

    def made(self, done: int, total: int) -> None:
        """So much of what the shard at hand is made of was read."""
        self._of_shard = total
        self._tell(done)

    def sent(self, done: int, _total: int) -> None:
        """So much of the shard at hand was sent."""
        self._tell(self._of_shard + done)

    def end(self, shard: Shard) -> None:
        """The shard at hand was sent, or had been before."""
        self._before += self._reads[shard.name] + shard.nbytes
        self._of_shard = 0
        self._tell(0)

    def _tell(self, done: int) -> None:
        self._progress(min(self._before + done, self._total), self._total)
