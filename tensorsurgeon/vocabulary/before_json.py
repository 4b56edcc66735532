"""Tokenizers from before tokenizer.json: vocab.json with merges.txt, or vocab.txt.

These files hold tokens alone; how a text is cut into them was written in a class of transformers.
For the two classes that most of such files belong to, GPT-2's and BERT's, it is spelled out here.
"""

from collections.abc import Mapping
from typing import Any

from tensorsurgeon.errors import CheckpointError, shortened
from tensorsurgeon.vocabulary.settings import Settings
from tensorsurgeon.vocabulary.tokenizer_json import TOKENIZER_LIMIT, parse_file, read_ids

VOCAB, MERGES, WORDS = "vocab.json", "merges.txt", "vocab.txt"

_ANY_CLASS = ("", "PreTrainedTokenizer", "PreTrainedTokenizerFast")
_GPT2 = "GPT2Tokenizer"
_BERT = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")

AS_JSON = (
    "load the tokenizer with AutoTokenizer of transformers and write it with save_pretrained, "
    "which makes a tokenizer.json"
)
"""How a tokenizer of any form gets the one that is read here."""


def document_of(files: Mapping[str, bytes], settings: Settings, folder: str) -> tuple[str, Any]:
    """What tokenizer.json would be, had it been written, and the file that stands for it.

    Raises:
        CheckpointError: the files are of no class that is known here, or there are none.
    """
    said = settings.config.get("tokenizer_class")
    name = said.removesuffix("Fast") if isinstance(said, str) else ""
    if VOCAB in files and MERGES in files and name in (*_ANY_CLASS, _GPT2):
        where = f"{folder}/{VOCAB}"
        vocab = read_ids(parse_file(files[VOCAB], where), where)
        merges = _merges(_lines(files[MERGES], f"{folder}/{MERGES}"))
        return f"{where} with {MERGES}", _gpt2(vocab, merges, settings, where)
    if WORDS in files and name in (*_ANY_CLASS, *_BERT):
        where = f"{folder}/{WORDS}"
        return where, _bert(_numbered(_lines(files[WORDS], where), where), settings)
    there = ", ".join(sorted(files)) or "no file of a tokenizer"
    of_class = f" of class {shortened(name)}" if name else ""
    what = f"has {shortened(there, 200)}{of_class}, and no tokenizer.json"
    raise CheckpointError(what, where=folder, fix=AS_JSON)


def _gpt2(
    vocab: Mapping[str, int], merges: list[list[str]], settings: Settings, where: str
) -> dict[str, Any]:
    missing = [char for char in _byte_alphabet() if char not in vocab]
    if missing and not isinstance(settings.config.get("tokenizer_class"), str):
        what = f"has no token for {len(missing)} of the 256 bytes, so that it is not GPT-2's kind"
        raise CheckpointError(what, where=where, fix=AS_JSON)
    prefix = settings.flag("add_prefix_space", False) is True
    level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": vocab,
        "merges": merges,
    }
    roles = _roles(settings, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    return {
        **_framed(model, {token: vocab[token] for token in roles.values() if token in vocab}),
        "pre_tokenizer": {**level, "use_regex": True},
        "post_processor": {**level, "trim_offsets": False, "use_regex": True},
        "decoder": {**level, "add_prefix_space": True, "use_regex": True},
    }


def _bert(vocab: Mapping[str, int], settings: Settings) -> dict[str, Any]:
    usual = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
    roles = _roles(settings, {f"{role}_token": token for role, token in usual.items()})
    model = {
        "type": "WordPiece",
        "unk_token": roles["unk_token"],
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": vocab,
    }
    first, last = roles["cls_token"], roles["sep_token"]
    return {
        **_framed(model, {token: vocab[token] for token in roles.values() if token in vocab}),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": settings.flag("tokenize_chinese_chars", True) is not False,
            "strip_accents": settings.flag("strip_accents", None),
            "lowercase": settings.flag("do_lower_case", True) is not False,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _between(first, last, vocab) if {first, last} <= vocab.keys() else None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    }


def _between(first: str, last: str, vocab: Mapping[str, int]) -> dict[str, Any]:
    """A processor that puts a text, or two, between these tokens."""

    def token(content: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": content, "type_id": type_id}}

    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    single = [token(first, 0), text("A", 0), token(last, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), token(last, 1)],
        "special_tokens": {
            content: {"id": content, "ids": [vocab[content]], "tokens": [content]}
            for content in (first, last)
        },
    }


def _framed(model: dict[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    added = [
        {"id": number, "content": token, "special": True, "normalized": False}
        for token, number in sorted(special.items(), key=lambda item: item[1])
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }


def _roles(settings: Settings, usual: Mapping[str, str]) -> dict[str, str]:
    """The tokens that have a part to play, as the files say or as is usual."""
    return {**usual, **settings.roles}


def _lines(data: bytes, where: str) -> list[str]:
    if len(data) > TOKENIZER_LIMIT:
        raise CheckpointError(f"is larger than {TOKENIZER_LIMIT // 10**6} MB", where=where)
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"not UTF-8 at byte {error.start}", where=where) from None
    return lines[:-1] if lines[-1] == "" else lines


def _merges(lines: list[str]) -> list[list[str]]:
    begin = 1 if lines and lines[0].startswith("#version") else 0
    return [line.rstrip("\r").split(" ") for line in lines[begin:] if line.strip()]


def _numbered(lines: list[str], where: str) -> dict[str, int]:
    """The token of each line, whose number is its id."""
    ids: dict[str, int] = {}
    for number, line in enumerate(lines):
        token = line.rstrip("\r")
        if token in ids:
            said = shortened(repr(token))
            what = f"token {said} has two ids, {ids[token]} and {number}"
            raise CheckpointError(what, where=where)
        ids[token] = number
    return ids


def _byte_alphabet() -> str:
    """The characters that GPT-2 writes the bytes 0 to 255 as, in no order (Radford et al. 2019)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return "".join(map(chr, [*shown, *range(0x100, 0x100 + 256 - len(shown))]))
