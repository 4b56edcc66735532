"""A vocabulary as a value: the id of each token, and what else a tokenizer's files say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensorsurgeon.vocabulary.spelling import Spelling


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedToken:
    """How a token is found that is looked for in a text before the text is split.

    The names are those of the `tokenizers` library.

    Attributes:
        special: whether it is a control token, left out where tokens become text again.
        single_word: whether it is found only where it is no part of a word.
        lstrip: whether it takes the spaces to its left.
        rstrip: whether it takes the spaces to its right.
        normalized: whether it is looked for in the normalized text.
    """

    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The tokens of a tokenizer, by their content.

    Every token has one id and every id at most one token. An id without a token is a hole.

    Attributes:
        rows: rows of the embedding that it indexes; every id is below.
        ids: the id of each token, in the order of the ids.
        added: how those tokens are found that are looked for before a text is split.
        outside: those of `added` that the tokenizer's model has not among its own tokens.
        scores: the logarithm of each token's probability, of a Unigram model; else empty.
        merges: the pairs that are joined, of a BPE model, those first that are joined first; else
            empty.
        frame: tokenizer.json without added tokens, and without vocabulary and merges of its model.
        settings: tokenizer_config.json.
        roles: the tokens that have a part to play, as `eos_token`.
        spelling: what the string of a token stands for.
    """

    rows: int
    ids: Mapping[str, int]
    added: Mapping[str, AddedToken]
    outside: frozenset[str]
    scores: Mapping[str, float]
    merges: tuple[tuple[str, str], ...]
    frame: Mapping[str, Any]
    settings: Mapping[str, Any]
    roles: Mapping[str, str]
    spelling: Spelling

    @property
    def end(self) -> int:
        """The first id above all; as many rows hold every token."""
        return max(self.ids.values(), default=-1) + 1
