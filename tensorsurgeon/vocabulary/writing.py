"""The tokenizer's files of a joined vocabulary.

tokenizer.json is the whole of it. Its added tokens get the ids they are said to have only where the
library, which numbers them itself, comes to the same. Where it would not, they are put among the
model's own tokens as well; texts are split as before, since added tokens are looked for first.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tensorsurgeon.vocabulary.joining import Joined
from tensorsurgeon.vocabulary.reading import TOKENIZER
from tensorsurgeon.vocabulary.settings import CONFIG, SPECIAL
from tensorsurgeon.vocabulary.templates import indented, with_template
from tensorsurgeon.vocabulary.values import Vocabulary


def tokenizer_files(
    joined: Joined, files: Mapping[str, bytes], template: str | None = None
) -> dict[str, bytes]:
    """The files that make up the tokenizer of a result.

    Args:
        joined: its vocabulary.
        files: the tokenizer's files of `joined.ground`, chat templates included.
        template: a chat template in place of its own.

    Returns:
        The files' bytes by name: those of the model as they are where its vocabulary is kept, and
        otherwise tokenizer.json, tokenizer_config.json, and what of the others still holds.
    """
    made = dict(files)
    if not joined.is_kept:
        kept = (SPECIAL, "chat_template.json")
        made = {name: files[name] for name in files if name in kept or name.endswith(".jinja")}
        made[TOKENIZER] = _line(as_document(joined.vocabulary))
        made[CONFIG] = indented(_config(joined.vocabulary))
    return made if template is None else with_template(made, template)


def _line(value: object) -> bytes:
    """A JSON file of millions of values, which indentation would double."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def as_document(vocabulary: Vocabulary) -> dict[str, Any]:
    """What tokenizer.json says of a vocabulary."""
    frame = dict(vocabulary.frame)
    model = {**frame.pop("model"), **_tokens(vocabulary)}
    added = [
        {"id": vocabulary.ids[token], "content": token, **asdict(how)}
        for token, how in vocabulary.added.items()
    ]
    return {**frame, "added_tokens": added, "model": model}


def _tokens(vocabulary: Vocabulary) -> dict[str, Any]:
    """What the model of tokenizer.json says of its tokens."""
    own = _own_tokens(vocabulary)
    if vocabulary.spelling.kind == "Unigram":
        lowest = min(vocabulary.scores.values())
        # The lowest, and none below: it is what an unknown character is weighed by.
        pieces = [[token, vocabulary.scores.get(token, lowest)] for token in own]
        return {"vocab": pieces}
    if vocabulary.spelling.kind != "BPE":
        return {"vocab": own}
    merges: list[Any] = [list(pair) for pair in vocabulary.merges]
    if not any(" " in part for pair in vocabulary.merges for part in pair):
        merges = [" ".join(pair) for pair in merges]  # which older libraries read as well
    return {"vocab": own, "merges": merges}


def _own_tokens(vocabulary: Vocabulary) -> dict[str, int]:
    """The model's tokens: all but added ones that follow them without a gap."""
    ids, outside = vocabulary.ids, vocabulary.outside
    last = max((number for token, number in ids.items() if token not in outside), default=-1)
    own = {token: number for token, number in ids.items() if number <= last}
    is_dense = len(own) == last + 1 and len(ids) == vocabulary.end
    return own if is_dense else dict(ids)


def _config(vocabulary: Vocabulary) -> dict[str, Any]:
    """tokenizer_config.json."""
    added = {
        str(vocabulary.ids[token]): {"content": token, **asdict(how)}
        for token, how in vocabulary.added.items()
    }
    usual = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {**usual, **vocabulary.settings, "added_tokens_decoder": added}
