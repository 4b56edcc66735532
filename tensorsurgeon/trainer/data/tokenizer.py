"""The tokenizer of a checkpoint: texts to tokens, and where in the text each token ends."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.errors import DataError, shortened
from tensorsurgeon.trainer.data.shards import tokenizer_digest


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The tokens of a text.

    Attributes:
        tokens: (n,) int64.
        ends: (n,) int64, where in the text each token ends, in characters.
    """

    tokens: NDArray[np.int64]
    ends: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A tokenizer of the `tokenizers` library, as transformers loads it.

    Attributes:
        folder: the checkpoint it is of.
        digest: SHA-256 of its files (see `tokenizer_digest`).
        transformers: the object of transformers, for its chat template.
        vocabulary: every token is below.
        begin: the token it puts before a text; None where it puts none there.
        end: the token that ends a text.
    """

    folder: Path
    digest: str
    transformers: Any
    vocabulary: int
    begin: int | None
    end: int

    @cached_property
    def specials(self) -> dict[str, int]:
        """The control tokens, by how they are spelled."""
        added = self.transformers.added_tokens_decoder.items()
        return {token.content: number for number, token in added if token.special}

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The tokens of texts; what spells a control token in them is text like any other."""
        backend = self.transformers.backend_tokenizer
        backend.encode_special_tokens = True
        found = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int64) for encoding in found]

    def encode_with_ends(self, texts: Sequence[str], *, control: bool) -> list[Encoded]:
        """The same with the tokens' places.

        Args:
            texts: the texts.
            control: whether what spells a control token is one, as in a rendered chat.
        """
        backend = self.transformers.backend_tokenizer
        backend.encode_special_tokens = not control
        return [
            Encoded(
                tokens=np.array(encoding.ids, np.int64),
                ends=np.array(encoding.offsets, np.int64).reshape(-1, 2)[:, 1],
            )
            for encoding in backend.encode_batch(list(texts), add_special_tokens=False)
        ]


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint's folder; code that may lie there is never run.

    Raises:
        DataError: there is none, it cannot be loaded, or it has no token that ends a text.
    """
    digest = tokenizer_digest(folder)
    loaded = _load(folder)
    backend = loaded.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    if loaded.eos_token_id is None:
        raise DataError(
            "its tokenizer has no token that ends a text (eos_token)",
            where=str(folder),
            fix="name one in tokenizer_config.json",
        )
    bare = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    begins = loaded.bos_token_id is not None and whole[:1] == [loaded.bos_token_id]
    return Tokenizer(
        folder=folder,
        digest=digest,
        transformers=loaded,
        vocabulary=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        begin=loaded.bos_token_id if begins and bare[:1] != whole[:1] else None,
        end=loaded.eos_token_id,
    )


def _load(folder: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise DataError(
            "making tokens needs transformers, which is not installed",
            fix="pip install 'tensorsurgeon[train]'",
        ) from None
    try:
        loaded = AutoTokenizer.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            model_max_length=sys.maxsize,  # a text may be longer than the model's context
        )
    except Exception as error:  # of any kind: files of strangers, read by a library of strangers
        what = f"its tokenizer cannot be loaded: {shortened(str(error).strip(), 200)}"
        raise DataError(what, where=str(folder)) from error
    if not getattr(loaded, "is_fast", False):
        raise DataError(
            "its tokenizer is not of the tokenizers library",
            where=str(folder),
            fix="save it as tokenizer.json, with save_pretrained of transformers",
        )
    return loaded
