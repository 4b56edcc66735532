"""YAML that remembers where each part stands, and mistakes told at their line and column."""

from tensorsurgeon.documents.located import (
    LocatedList,
    LocatedMap,
    LocatedStr,
    Mark,
    kind_of,
    load_document,
    load_documents,
    mark_at,
)
from tensorsurgeon.documents.validation import Findings, fields_of

__all__ = [
    "Findings",
    "LocatedList",
    "LocatedMap",
    "LocatedStr",
    "Mark",
    "fields_of",
    "kind_of",
    "load_document",
    "load_documents",
    "mark_at",
]
