"""Which tensors of a model have a row for each token of its vocabulary.

That is told by the names that transformers has for them, and by their number of rows. What has as
many rows and no known name is refused: left as it is, it would go with other tokens.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tensorsurgeon.arch.architecture import Architecture
from tensorsurgeon.errors import ArchitectureError, shortened

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by name."""

_EMBEDDINGS = (
    "embed_tokens.weight",
    "embed_in.weight",
    "wte.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "shared.weight",
    "backbone.embeddings.weight",
    "backbone.embedding.weight",
)
_HEADS = (
    "lm_head.weight",
    "lm_head.decoder.weight",
    "embed_out.weight",
    "cls.predictions.decoder.weight",
    "vocab_projector.weight",
)
_BIASES = (
    "lm_head.bias",
    "lm_head.decoder.bias",
    "cls.predictions.bias",
    "cls.predictions.decoder.bias",
    "vocab_projector.bias",
    "final_logits_bias",
)
"""Ends of names; what stands before ends with a dot."""

_SIZES = ("vocab_size", "padded_vocab_size")
"""What configs call the number of rows."""


@dataclass(frozen=True, kw_only=True)
class VocabularyTensors:
    """The tensors of a model that have a row for each token.

    Attributes:
        rows: how many.
        embeddings: what a token becomes, the one that others lend from first.
        heads: what tells tokens in the end, where that is stored.
        biases: a number for each token; their last axis has the rows.
        tied: whether the config says that the head is the embedding; None where it does not say.
    """

    rows: int
    embeddings: tuple[str, ...]
    heads: tuple[str, ...]
    biases: tuple[str, ...]
    tied: bool | None

    def __iter__(self) -> Iterator[str]:
        return iter((*self.embeddings, *self.heads, *self.biases))


def vocabulary_tensors(
    architecture: Architecture, config: Mapping[str, Any], shapes: Shapes, *, where: str
) -> VocabularyTensors:
    """Find them.

    Args:
        architecture: how names speak of layers.
        config: config.json.
        shapes: of all tensors.
        where: what to call the model in errors.

    Raises:
        ArchitectureError: there is no embedding, or they differ in their number of rows, or have
            fewer than the config says.
    """
    outside = [name for name in shapes if architecture.split(name) is None]
    embeddings, heads, biases = (
        tuple(name for name in outside if _ends(name, endings) and len(shapes[name]) in axes)
        for endings, axes in ((_EMBEDDINGS, (2,)), (_HEADS, (2,)), (_BIASES, (1, 2)))
    )
    if not embeddings:
        raise ArchitectureError(
            "has no tensor that is known to be its embedding",
            where=where,
            fix=f"those known end with {', '.join(_EMBEDDINGS)}",
        )
    counts = {name: shapes[name][0] for name in (*embeddings, *heads)}
    counts |= {name: shapes[name][-1] for name in biases}
    rows = counts[embeddings[0]]
    for name, count in counts.items():
        if count != rows:
            what = f"'{embeddings[0]}' has {rows} rows and '{name}' {count}: one vocabulary has one"
            raise ArchitectureError(f"{what} number of them", where=where)
    text = architecture.text_of(config)
    said = [part.get("vocab_size") for part in (text, config)]
    if any(type(count) is int and count > rows for count in said):
        what = f"config.json: vocab_size is {said[0]}, and '{embeddings[0]}' has {rows} rows"
        raise ArchitectureError(what, where=where)
    tied = [part.get("tie_word_embeddings") for part in (text, config)]
    return VocabularyTensors(
        rows=rows,
        embeddings=embeddings,
        heads=heads,
        biases=biases,
        tied=next((one for one in tied if isinstance(one, bool)), None),
    )


def check_all_known(
    architecture: Architecture, shapes: Shapes, known: VocabularyTensors, tokens: int, *, where: str
) -> None:
    """See that no other tensor could have a row for each token.

    Args:
        architecture: how names speak of layers.
        shapes: of all tensors.
        known: those that have.
        tokens: the least number of rows that hold all tokens.
        where: what to call the model in errors.

    Raises:
        ArchitectureError: one could.
    """
    width = shapes[known.embeddings[0]][1]
    for name, shape in shapes.items():
        if name in set(known) or architecture.split(name) is not None:
            continue
        if any(tokens <= size <= known.rows and size != width for size in shape[:1] + shape[-1:]):
            raise ArchitectureError(
                f"tensor '{shortened(name)}' is {list(shape)}, which could be a row for each of "
                f"{known.rows} tokens, and it is not known what it is",
                where=where,
                fix="the vocabulary of such a model cannot be changed here",
            )


def config_with_rows(
    architecture: Architecture, config: Mapping[str, Any], rows: int
) -> dict[str, Any]:
    """The config of the same model with another number of rows in its embedding."""
    new = copy.deepcopy(dict(config))
    text = architecture.text_of(new)
    text["vocab_size"] = rows  # written out, since every family has a default
    for part in (new, text):
        part.update((key, rows) for key in _SIZES if key in part)
    return new


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)
