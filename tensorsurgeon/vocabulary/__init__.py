"""Vocabularies of tokenizers: read, joined into one, and written; no tensor is touched."""

from tensorsurgeon.vocabulary.config_ids import config_changes
from tensorsurgeon.vocabulary.joining import Joined, join
from tensorsurgeon.vocabulary.reading import read_vocabulary
from tensorsurgeon.vocabulary.rows import RowMap, RowOf, Run, Sources
from tensorsurgeon.vocabulary.rules import ZERO, TokenOf, TokenRule
from tensorsurgeon.vocabulary.templates import chat_template
from tensorsurgeon.vocabulary.tokenizer_json import TOKENIZER_LIMIT
from tensorsurgeon.vocabulary.values import AddedToken, Vocabulary
from tensorsurgeon.vocabulary.writing import tokenizer_files

__all__ = [
    "TOKENIZER_LIMIT",
    "ZERO",
    "AddedToken",
    "Joined",
    "RowMap",
    "RowOf",
    "Run",
    "Sources",
    "TokenOf",
    "TokenRule",
    "Vocabulary",
    "chat_template",
    "config_changes",
    "join",
    "read_vocabulary",
    "tokenizer_files",
]
