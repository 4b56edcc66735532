"""Texts, token shards and tokenizers made for a test."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tensorsurgeon.trainer.data.index import Kind
from tensorsurgeon.trainer.data.shard_writer import Document, writing_shards
from tensorsurgeon.trainer.data.shards import TokenShards, open_tokens

BEGIN, END = 256, 257
VOCABULARY = 258

Written = Sequence[tuple[Sequence[int], Sequence[bool] | None]]
"""Documents: tokens, and which of them are answers."""


def document(tokens: Sequence[int], answers: Sequence[bool] | None = None) -> Document:
    return Document(
        tokens=np.array(tokens, np.int64),
        answers=None if answers is None else np.array(answers, bool),
    )


def write_shards(
    folder: Path,
    documents: Written,
    *,
    kind: Kind = "text",
    vocabulary: int = VOCABULARY,
    shard_size: int = 256,
) -> Path:
    """Writes shards small enough that a few documents need several."""
    together = 2 if kind == "preference" else 1
    with writing_shards(
        folder,
        kind=kind,
        tokenizer="0" * 64,
        vocabulary=vocabulary,
        end_of_document=vocabulary - 1,
        shard_size=shard_size,
    ) as writer:
        made = [document(tokens, answers) for tokens, answers in documents]
        for first in range(0, len(made), together):
            writer.add(made[first : first + together])
    return folder


def open_shards(folder: Path) -> TokenShards:
    return open_tokens(folder, tokenizer_digest=None, vocabulary=None)


def texts_of(lengths: Sequence[int]) -> Written:
    """Documents of these lengths; every token of all of them differs, as far as 60,000 go."""
    starts = np.cumsum([0, *lengths])
    return [
        (np.arange(starts[i], starts[i] + length).tolist(), None)
        for i, length in enumerate(lengths)
    ]


def pairs_of(lengths: Sequence[int]) -> Written:
    """The same with all tokens but each document's first as answers."""
    return [(tokens, [False] + [True] * (len(tokens) - 1)) for tokens, _ in texts_of(lengths)]


def make_tokenizer(folder: Path, *, begin: bool = False, template: str | None = None) -> Path:
    """A tokenizer whose tokens are bytes, and two control tokens, <s> and </s>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    assert backend.token_to_id("<s>") == BEGIN
    if begin:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BEGIN)]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    if template is not None:
        made.chat_template = template
    made.save_pretrained(folder)
    return folder


def write_lines(path: Path, texts: Sequence[str]) -> Path:
    """Texts as lines of JSON."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def texts_in(folder: Path, tokenizer: Path) -> list[str]:
    """The documents of token shards, spelled."""
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tokenizer)
    with open_shards(folder) as shards:
        documents = [shards.document(i)[0].tolist() for i in range(shards.index.documents)]
    assert all(tokens[-1] == END for tokens in documents)
    return [made.decode(tokens[:-1]) for tokens in documents]
