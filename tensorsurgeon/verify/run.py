"""A verification, from the first look at the folder to the last."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import (
    INDEX_NAME,
    MANIFEST_NAME,
    SINGLE_NAME,
    FileIdentity,
    Manifest,
    identify,
    open_checkpoint,
    read_config,
    read_manifest,
)
from tensorsurgeon.errors import CheckpointError, Problem
from tensorsurgeon.processors import default_threads
from tensorsurgeon.specs import Progress
from tensorsurgeon.verify.agreement import Agreement
from tensorsurgeon.verify.digests import Digests, changed, digest_all
from tensorsurgeon.verify.listing import Listing, list_folder, usable
from tensorsurgeon.verify.outcome import Findings, Report
from tensorsurgeon.verify.recorded import Recorded, extent_of
from tensorsurgeon.verify.weights import (
    Headers,
    check_index,
    read_headers,
    shards_without_manifest,
)


def verify(folder: Path, *, threads: int | None = None, progress: Progress | None = None) -> Report:
    """Compare a checkpoint with its manifest, byte for byte, and with itself.

    With a manifest, every byte of the folder is digested but those of README, licence and Git
    files, which the manifest does not name. Headers are parsed strictly, and again by the
    safetensors library; index, headers and config must agree. Without a manifest only this latter
    part can be done, and the report says so.

    Args:
        folder: the checkpoint.
        threads: how many tensors are read at a time; by default as many as `default_threads` says.
        progress: called a few times a second with bytes done and bytes in all.

    Raises:
        CheckpointError: there is no such folder, or it cannot be listed. All else that is wrong
            is in the report.
        KeyboardInterrupt: after the threads have stopped.
    """
    return _Verification(folder, threads or default_threads(), progress).report()


class _Verification:
    """One folder while it is verified."""

    def __init__(self, folder: Path, threads: int, progress: Progress | None) -> None:
        self._began = time.monotonic()
        self._folder, self._threads, self._progress = folder, threads, progress
        self._findings = Findings()
        self._listing: Listing = list_folder(folder)
        self._read: set[str] = set()
        self._notes: tuple[str, ...] = ()

    def report(self) -> Report:
        """Look at everything; the order is that of the bytes it takes."""
        manifest = self._manifest()
        recorded = (
            Recorded(manifest, self._folder, self._listing, self._findings) if manifest else None
        )
        headers = self._headers(recorded)
        agreement = self._agreement(headers, manifest)
        extents = dict.fromkeys(recorded.expected if recorded else ())
        if agreement is not None and agreement.tied:
            extents |= dict.fromkeys(map(extent_of, agreement.tied))
        digests = digest_all(
            extents, self._identities(), threads=self._threads, progress=self._progress
        )
        if recorded is not None:
            recorded.compare_digests(digests)
        if agreement is not None:
            self._compare_tied(agreement, digests)
        self._read |= {extent.path.name for extent in extents}
        self._look_again()
        return Report(
            path=self._folder,
            manifest=manifest is not None,
            files=len(self._read),
            tensors=sum(map(len, headers.values())),
            nbytes=sum(extent.nbytes for extent in extents),
            seconds=time.monotonic() - self._began,
            problems=self._findings.problems,
            unchecked=self._findings.unchecked,
            notes=self._notes,
        )

    def _manifest(self) -> Manifest | None:
        path = self._folder / MANIFEST_NAME
        why = f"there is no {MANIFEST_NAME}"
        if MANIFEST_NAME in self._listing:
            why = f"{MANIFEST_NAME} cannot be used"
            self._read.add(MANIFEST_NAME)
            if usable(self._listing, path, self._findings):
                try:
                    return read_manifest(path)
                except CheckpointError as error:
                    self._findings.take(error)
        self._findings.not_checked(
            f"the bytes of tensors and other files, and whether all are there: {why}"
        )
        return None

    def _headers(self, recorded: Recorded | None) -> Headers:
        shards = (
            recorded.shards
            if recorded
            else shards_without_manifest(self._folder, self._listing, self._findings)
        )
        headers = read_headers(self._folder, shards, self._listing, self._findings)
        check_index(self._folder, shards, headers, self._listing, self._findings)
        if recorded is not None:
            for shard, tensors in headers.items():
                recorded.compare_header(shard, tensors)
        self._read.update(headers)
        if INDEX_NAME in self._listing and SINGLE_NAME not in shards:
            self._read.add(INDEX_NAME)
        self._are_all = len(headers) == len(shards) and bool(shards)
        return headers

    def _agreement(self, headers: Headers, manifest: Manifest | None) -> Agreement | None:
        """Config and tensors compared; None where one of them could not be read."""
        config = self._config()
        if config is None or not self._are_all:
            self._findings.not_checked("whether config.json and the tensors agree")
            return None
        tensors = {name: t for shard in headers.values() for name, t in shard.items()}
        agreement = Agreement(config, tensors, self._folder, self._findings)
        agreement.check(manifest.layer_map if manifest else None)
        return agreement

    def _config(self) -> Mapping[str, Any] | None:
        path = self._folder / "config.json"
        if usable(self._listing, path, self._findings) is None:
            return None
        self._read.add(path.name)
        try:
            return read_config(path)
        except CheckpointError as error:
            self._findings.take(error)
        return None

    def _identities(self) -> Mapping[Path, FileIdentity]:
        return {
            entry.path: entry.identity
            for entry in self._listing.values()
            if entry.identity is not None
        }

    def _compare_tied(self, agreement: Agreement, digests: Digests) -> None:
        if agreement.tied is None:
            return
        found = [digests[extent_of(tensor)] for tensor in agreement.tied]
        for digest in found:
            if isinstance(digest, Problem):
                self._findings.add(digest)
        if not any(isinstance(digest, Problem) for digest in found) and found[0] != found[1]:
            agreement.note_different_head(*agreement.tied)

    def _look_again(self) -> None:
        """Whether the files are still those that were read, and load as any checkpoint does."""
        for name in sorted(self._read):
            entry = self._listing[name]
            if entry.identity is None:
                continue
            try:
                if identify(entry.path) != entry.identity:
                    self._findings.add(changed(entry.path))
            except CheckpointError:
                self._findings.add(changed(entry.path))
        if not self._findings.problems:
            try:
                self._notes = open_checkpoint(self._folder).notes
            except CheckpointError as error:
                self._findings.take(error)
