"""Small real tokenizers, trained on a few lines, and their vocabularies."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from tensorsurgeon.vocabulary import Joined, Vocabulary, read_vocabulary, tokenizer_files

END, PAD = "<|end|>", "<|pad|>"

SEA = (
    "The sea was calm and the ship sailed on. The captain counted the sails, the sailors counted "
    "the days, and the sea counted nothing. Salt, sun and sand; sand, sun and salt. "
) * 3
FOREST = (
    "A forest grows slowly. Growing trees are the forester's patience, and the foresters planted "
    "12 trees in 1987, été comme hiver. Trees, ferns, fungi; fungi, ferns, trees. "
) * 3
PROBES = (
    "The sea, the forest and the captain's trees.",
    "  two spaces,\tand a tab\nand lines\n\n",
    "été, 1987: Über 重み 🤗",
    "sailors foresters counting growing",
)


def bpe(text: str, size: int = 300, special: Iterable[str] = (END,)) -> Tokenizer:
    """A byte-level BPE tokenizer, of GPT-2's kind."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([text], trainer)
    return made


def llama(text: str, size: int = 120) -> Tokenizer:
    """A BPE tokenizer of characters, with bytes for those it does not know: Llama 2's kind."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    made.train_from_iterator(text.split(), trainer)
    document = json.loads(made.to_str())
    vocab = document["model"]["vocab"]
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    return Tokenizer.from_str(json.dumps(document))


def word_piece(text: str, size: int = 90, *, lowercase: bool = True) -> Tokenizer:
    """A WordPiece tokenizer, of BERT's kind."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special, show_progress=False
    )
    made.train_from_iterator([text], trainer)
    return made


def unigram(text: str, size: int = 80) -> Tokenizer:
    """A Unigram tokenizer, of T5's kind."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator([text], trainer)
    return made


def word_level(text: str) -> Tokenizer:
    """A tokenizer of whole words."""
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False)
    made.train_from_iterator([text], trainer)
    return made


Make = Callable[[str], Tokenizer]

KINDS: dict[str, Make] = {
    "BPE": bpe,
    "WordPiece": word_piece,
    "Unigram": unigram,
    "WordLevel": word_level,
}


def with_added(tokenizer: Tokenizer, *tokens: str | AddedToken) -> Tokenizer:
    """The same tokenizer with further tokens behind; a string is a control token."""
    for token in tokens:
        if isinstance(token, str):
            tokenizer.add_special_tokens([token])
        else:
            tokenizer.add_tokens([token])
    return tokenizer


def files_of(tokenizer: Tokenizer, **config: Any) -> dict[str, bytes]:
    """The files of a tokenizer as they lie in a folder; `config` is its tokenizer_config.json."""
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


def vocabulary_of(files: Mapping[str, bytes] | Tokenizer, rows: int = 1000) -> Vocabulary:
    """The vocabulary of a tokenizer or of its files."""
    if isinstance(files, Tokenizer):
        files = files_of(files)
    return read_vocabulary(files, folder="model", rows=rows)


def loaded(files: Mapping[str, bytes]) -> Tokenizer:
    """The tokenizer of files, as the library loads it."""
    return Tokenizer.from_str(files["tokenizer.json"].decode())


def written(joined: Joined, files: Mapping[str, bytes]) -> Tokenizer:
    """The tokenizer that is written for a joined vocabulary."""
    return loaded(tokenizer_files(joined, files))


def lay_down(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Writes files to a folder, and returns that."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
