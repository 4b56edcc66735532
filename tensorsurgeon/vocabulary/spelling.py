"""What the string of a token stands for, and whether two tokenizers mean the same by one string.

The text 'é' is `Ã©` to a tokenizer that spells bytes, and `é` to one that spells characters; the
token `paris` is also Paris where letters are made small first. How a text is cut into words is no
part of this: it decides which tokens come of a text, but not what a token is.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BYTES = "the byte alphabet"
PLAIN = "a space"

_SEQUENCES = ("normalizers", "pretokenizers", "decoders")
_NO_FOLDING = ("ByteLevel", "NFC", "Prepend", "Strip")
"""Normalizers that leave a text's letters what they are."""


class SpellingError(ValueError):
    """Why a part of tokenizer.json is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelling:
    """What tokenizers must have in common for one string to be one piece of text.

    Attributes:
        kind: the type of the model: BPE, Unigram, WordPiece or WordLevel.
        space: how a space is written in a token.
        byte_fallback: whether `<0x0A>` stands for a byte.
        inside: what a token begins with that goes on with a word.
        at_end: what a token ends with that ends a word.
        folding: what is done to letters before, so that one token is several texts.
        splitting: digest of how a text becomes words. It may differ.
    """

    kind: str
    space: str
    byte_fallback: bool
    inside: str
    at_end: str
    folding: tuple[str, ...]
    splitting: str


def spelling_of(frame: Mapping[str, Any]) -> Spelling:
    """What tokens mean to a tokenizer.

    Args:
        frame: tokenizer.json; its vocabulary and merges do not matter.

    Raises:
        SpellingError: its normalizer, pre-tokenizer or decoder is none.
    """
    model = frame["model"]
    normalizer, words, decoder = (
        list(_parts(frame.get(name), name)) for name in ("normalizer", "pre_tokenizer", "decoder")
    )
    space = _space(normalizer, words, decoder)
    folding = [fold for part in normalizer for fold in _folds(part, space)]
    rest = [part for part in normalizer if not any(_folds(part, space))]
    word_piece = model["type"] == "WordPiece"
    return Spelling(
        kind=model["type"],
        space=space,
        byte_fallback=model.get("byte_fallback") is True,
        inside=str(model.get("continuing_subword_prefix") or ("##" if word_piece else "")),
        at_end=str(model.get("end_of_word_suffix") or ""),
        folding=tuple(folding),
        splitting=_digest([rest, words]),
    )


def differences(one: Spelling, other: Spelling) -> Iterator[str]:
    """What keeps two vocabularies from being joined, each as 'what: this, and that'."""
    for name, what in (
        ("kind", "type of model"),
        ("space", "a space is written as"),
        ("inside", "the inside of a word begins with"),
        ("at_end", "a word ends with"),
    ):
        if getattr(one, name) != getattr(other, name):
            yield f"{what}: {_shown(getattr(one, name))}, and {_shown(getattr(other, name))}"
    if one.byte_fallback != other.byte_fallback:
        yield f"byte fallback: {_yes(one.byte_fallback)}, and {_yes(other.byte_fallback)}"
    if one.folding != other.folding:
        yield f"normalizer: {_list(one.folding)}, and {_list(other.folding)}"


def _parts(component: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder, whose sequences may nest."""
    if component is None:
        return
    if not isinstance(component, Mapping) or not isinstance(component.get("type"), str):
        raise SpellingError(f"'{name}' is not an object with a type")
    if component["type"] != "Sequence":
        yield component
        return
    inner = next((component[key] for key in _SEQUENCES if key in component), None)
    if not isinstance(inner, list):
        raise SpellingError(f"'{name}' is a sequence of nothing")
    for part in inner:
        if part is None:
            raise SpellingError(f"'{name}' has a step that is null")
        yield from _parts(part, name)


def _space(
    normalizer: list[Mapping[str, Any]],
    words: list[Mapping[str, Any]],
    decoder: list[Mapping[str, Any]],
) -> str:
    marks = set()
    for part in (*normalizer, *words, *decoder):
        if part["type"] == "ByteLevel":
            return BYTES
        if part["type"] == "Metaspace":
            marks.add(str(part.get("replacement")))
    marks |= {str(part.get("content")) for part in normalizer if _replaced(part) == " "}
    for part in decoder:
        mark = _replaced(part)
        if mark is not None and part.get("content") == " ":
            marks.add(mark)
    return " or ".join(sorted(marks)) or PLAIN


def _replaced(part: Mapping[str, Any]) -> str | None:
    """The string that a step replaces; None where it is no such step."""
    pattern = part.get("pattern")
    if part["type"] != "Replace" or not isinstance(pattern, Mapping):
        return None
    said = pattern.get("String")
    return said if isinstance(said, str) else None


def _folds(part: Mapping[str, Any], space: str) -> Iterator[str]:
    """What a step of a normalizer makes one of several texts by, in a form to be compared."""
    kind = part["type"]
    if kind == "BertNormalizer":
        small = part.get("lowercase") is True
        strips = part.get("strip_accents")
        if small if strips is None else strips:
            yield "StripAccents"
        if small:
            yield "Lowercase"
    elif kind == "Replace" and part.get("content") == space:
        return
    elif kind not in _NO_FOLDING:
        rules = {key: value for key, value in part.items() if key != "type"}
        yield f"{kind} ({_digest(rules)[:8]})" if rules else kind


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _shown(value: str) -> str:
    return f"'{value}'" if value not in (BYTES, PLAIN, "") else value or "nothing"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _list(values: tuple[str, ...]) -> str:
    return " then ".join(values) or "none"
