"""From a text and the places of its answers to tokens and which of them are learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.trainer.data.shard_writer import Document
from tensorsurgeon.trainer.data.tokenizer import Encoded, Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A text to be learned in part.

    Attributes:
        text: prompt and answer, or a chat as the template renders it.
        answers: where answers begin and end in it, in characters.
        rendered: whether a template made it, which has put control tokens where they belong.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    rendered: bool


def encode_drafts(tokenizer: Tokenizer, drafts: Sequence[Draft]) -> list[Document]:
    """The tokens of each draft; the token that ends the last answer is learned as well.

    A token that reaches over the end of a prompt belongs to the answer.
    """
    made: dict[int, Document] = {}
    for rendered in (False, True):
        numbers = [i for i, draft in enumerate(drafts) if draft.rendered is rendered]
        texts = [drafts[i].text for i in numbers]
        encoded = tokenizer.encode_with_ends(texts, control=rendered)
        finish = _rendered if rendered else _plain
        for i, tokens in zip(numbers, encoded, strict=True):
            made[i] = finish(tokenizer, drafts[i], tokens)
    return [made[i] for i in range(len(drafts))]


def whole(tokenizer: Tokenizer, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """A text's tokens between those that begin and end a text."""
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
    return np.concatenate([np.array(begin, np.int64), tokens, np.array([tokenizer.end], np.int64)])


def _plain(tokenizer: Tokenizer, draft: Draft, encoded: Encoded) -> Document:
    tokens = whole(tokenizer, encoded.tokens)
    learned = np.zeros(len(tokens), bool)
    first = 0 if tokenizer.begin is None else 1
    for begin, end in draft.answers:
        learned[first : first + len(encoded.tokens)] |= (encoded.ends > begin) & (
            encoded.ends <= end
        )
    learned[-1] = True
    return Document(tokens=tokens, answers=learned)


def _rendered(tokenizer: Tokenizer, draft: Draft, encoded: Encoded) -> Document:
    learned = np.zeros(len(encoded.tokens), bool)
    special = np.isin(encoded.tokens, list(tokenizer.specials.values()))
    for begin, end in draft.answers:
        inside = (encoded.ends > begin) & (encoded.ends <= end)
        stops = np.flatnonzero(inside & special)
        # A line end between two turns is the template's, and never asked of the model.
        if len(stops) and not draft.text[encoded.ends[stops[-1]] : end].strip():
            inside[stops[-1] + 1 :] = False
        learned |= inside
    # What comes after the last answer is no context of anything that is learned. Where the template
    # ends an answer with no control token, the model would never learn to stop.
    found = np.flatnonzero(learned)
    last = int(found[-1]) + 1 if len(found) else len(learned)
    tokens, learned = encoded.tokens[:last], learned[:last]
    if not len(found) or not special[last - 1]:
        tokens, learned = np.append(tokens, tokenizer.end), np.append(learned, True)
    return Document(tokens=tokens, answers=learned)
