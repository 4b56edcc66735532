"""Putting a checkpoint onto a disk: in a place beside, under a lock, flushed, moved there whole."""

from tensorsurgeon.writing.destination import (
    check_destination,
    check_replaceable,
    check_workplace,
    output_error,
    output_explained,
    parents_made,
)
from tensorsurgeon.writing.disk import Disk
from tensorsurgeon.writing.journal import Journal, Record, read_journal
from tensorsurgeon.writing.json_files import index_of, json_bytes
from tensorsurgeon.writing.lock import holder_of, locked
from tensorsurgeon.writing.shards import ShardFiles
from tensorsurgeon.writing.workplace import Workplace, manifest_of

__all__ = [
    "Disk",
    "Journal",
    "Record",
    "ShardFiles",
    "Workplace",
    "check_destination",
    "check_replaceable",
    "check_workplace",
    "holder_of",
    "index_of",
    "json_bytes",
    "locked",
    "manifest_of",
    "output_error",
    "output_explained",
    "parents_made",
    "read_journal",
]
