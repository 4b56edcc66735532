"""tokenizer.json, the form of the `tokenizers` library: its model's tokens and its added tokens.

What is not sound in it is refused, though the library would read it: an id twice, where the last
token would have it, or a token without an id of its own.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import CheckpointError, shortened
from tensorsurgeon.vocabulary.values import AddedToken

TOKENIZER_LIMIT = 100_000_000
"""Largest file of a tokenizer that is read, in bytes; those of 260,000 tokens take 35 MB."""

_VALUES = 5_000_000
"""Most values in such a file: one with 260,000 tokens and 520,000 merges has 2 million."""

_LEVELS = 50
_FLAGS = ("special", "single_word", "lstrip", "rstrip", "normalized")
_KINDS = ("BPE", "Unigram", "WordPiece", "WordLevel")

SAVE_AGAIN = (
    "load the tokenizer with AutoTokenizer of transformers and write it again with save_pretrained"
)
"""How files become sound that say something else than the tokenizer they make."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The tokens of a tokenizer's model.

    Attributes:
        options: the rest of what tokenizer.json says of the model, its type included.
        ids: the id of each token.
        scores: log probabilities, of Unigram.
        merges: pairs in the order of their ranks, of BPE.
    """

    options: Mapping[str, Any]
    ids: Mapping[str, int]
    scores: Mapping[str, float] = field(default_factory=dict)
    merges: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Declared:
    """An added token as a file declares it.

    Attributes:
        content: its string.
        number: its id, as the file says.
        how: how it is found.
        where: the file.
    """

    content: str
    number: int
    how: AddedToken
    where: str


def parse_file(data: bytes, where: str) -> dict[str, Any]:
    """Parse one of a tokenizer's JSON files.

    Raises:
        CheckpointError: it is none, or larger than any.
    """
    if len(data) > TOKENIZER_LIMIT:
        raise CheckpointError(f"is larger than {TOKENIZER_LIMIT // 10**6} MB", where=where)
    try:
        return parse_object(data, levels=_LEVELS, values=_VALUES)
    except StrictJSONError as problem:
        raise CheckpointError(str(problem), where=where) from None


def read_model(raw: Any, where: str) -> Model:
    """Read the model of a tokenizer.json.

    Raises:
        CheckpointError: it is none, or contradicts itself.
    """
    if not isinstance(raw, dict):
        raise CheckpointError("has no object 'model'", where=where)
    options = {key: value for key, value in raw.items() if key not in ("vocab", "merges")}
    kind = options.setdefault("type", _guessed(raw))
    if kind not in _KINDS:
        what = f"a model of type {shortened(repr(kind))}"
        raise CheckpointError(what, where=where, fix=f"known: {', '.join(_KINDS)}")
    if kind == "Unigram":
        scores = dict(_pieces(raw.get("vocab"), where))
        _check_unknown(options.get("unk_id"), len(scores), where)
        ids = {token: index for index, token in enumerate(scores)}
        return Model(options=options, ids=ids, scores=scores)
    ids = read_ids(raw.get("vocab"), where)
    if kind != "BPE":
        return Model(options=options, ids=ids)
    prefix = str(options.get("continuing_subword_prefix") or "")
    merges = tuple(_merges(raw.get("merges"), ids, prefix, where))
    return Model(options=options, ids=ids, merges=merges)


def read_ids(raw: Any, where: str) -> dict[str, int]:
    """Read a mapping of tokens to ids, in the order of the ids.

    Raises:
        CheckpointError: it is none, or two tokens have one id.
    """
    if not isinstance(raw, dict):
        raise CheckpointError("has no vocabulary, an object of tokens and ids", where=where)
    owners: dict[int, str] = {}
    for token, number in raw.items():
        said = shortened(repr(token))
        if type(number) is not int or number < 0:
            raise CheckpointError(f"token {said} has id {shortened(repr(number))}", where=where)
        if number in owners:
            other = shortened(repr(owners[number]))
            raise CheckpointError(f"tokens {other} and {said} have one id, {number}", where=where)
        owners[number] = token
    return {owners[number]: number for number in sorted(owners)}


def read_added(raw: Any, where: str) -> Iterator[Declared]:
    """The added tokens of a tokenizer.json, in its order.

    Raises:
        CheckpointError: they are none.
    """
    if not isinstance(raw, list):
        raise CheckpointError("'added_tokens' is not a list", where=where)
    for entry in raw:
        number = entry.get("id") if isinstance(entry, dict) else None
        yield read_declared(entry, number, where)


def read_declared(raw: Any, number: Any, where: str) -> Declared:
    """Read an added token.

    Args:
        raw: an object with its content, and the flags that tell how it is found.
        number: its id.
        where: the file.

    Raises:
        CheckpointError: it is none.
    """
    content = raw.get("content") if isinstance(raw, dict) else None
    if not isinstance(content, str) or not content:
        what = f"{shortened(repr(raw))} is no added token, an object with 'content'"
        raise CheckpointError(what, where=where)
    said = shortened(repr(content))
    if type(number) is not int or number < 0:
        raise CheckpointError(f"token {said} has id {shortened(repr(number))}", where=where)
    flags = {flag: raw[flag] for flag in _FLAGS if flag in raw}
    for flag, value in flags.items():
        if not isinstance(value, bool):
            what = f"token {said}: '{flag}' is {shortened(repr(value))}, not true or false"
            raise CheckpointError(what, where=where)
    flags.setdefault("normalized", not flags.get("special", False))
    return Declared(content=content, number=number, how=AddedToken(**flags), where=where)


def _guessed(raw: Mapping[str, Any]) -> str | None:
    """The type of a model in a file from before types were written."""
    if "merges" in raw:
        return "BPE"
    if isinstance(raw.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "max_input_chars_per_word" in raw else None


def _pieces(raw: Any, where: str) -> Iterator[tuple[str, float]]:
    if not isinstance(raw, list) or not raw:
        raise CheckpointError("has no vocabulary, a list of tokens and scores", where=where)
    seen: set[str] = set()
    for entry in raw:
        token, score = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if not isinstance(token, str) or isinstance(score, bool):
            token = None
        if token is None or not isinstance(score, int | float) or not math.isfinite(score):
            what = f"{shortened(repr(entry))} at id {len(seen)} is no token with a score"
            raise CheckpointError(what, where=where)
        if token in seen:
            said = shortened(repr(token))
            raise CheckpointError(f"token {said} has a second id, {len(seen)}", where=where)
        seen.add(token)
        yield token, score


def _check_unknown(number: Any, tokens: int, where: str) -> None:
    if number is not None and (type(number) is not int or not 0 <= number < tokens):
        what = f"'unk_id' is {shortened(repr(number))}, and there are {tokens} tokens"
        raise CheckpointError(what, where=where)


def _merges(raw: Any, ids: Mapping[str, int], prefix: str, where: str) -> Iterator[tuple[str, str]]:
    """The pairs, each of two tokens whose strings together are a third."""
    if not isinstance(raw, list):
        raise CheckpointError("has no list of merges", where=where)
    names = {token: token for token in ids}  # each string once, though many merges say it
    for number, entry in enumerate(raw):
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(part, str) for part in pair)
        ):
            what = f"merge {number} is {shortened(repr(entry))}, not two tokens"
            raise CheckpointError(what, where=where)
        left, right = pair
        for token in (left, right, left + right.removeprefix(prefix)):
            if token not in names:
                said = shortened(repr(entry))
                what = f"merge {number}, {said}, needs {shortened(repr(token))}, which is no token"
                raise CheckpointError(what, where=where)
        yield names[left], names[right]
