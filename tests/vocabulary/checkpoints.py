"""Tiny Llamas with tokenizers of their own, recipes over them, and what becomes of their rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tensorsurgeon import api
from tensorsurgeon.plan import Plan
from tests.cli.checkpoints import (
    Tensors,
    llama_config,
    llama_tensors,
    read_tensors,
    write_checkpoint,
)
from tests.methods.references import Float64
from tests.vocabulary.makers import END, FOREST, PAD, SEA, bpe, files_of, lay_down, with_added

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A Llama of two layers.

    Attributes:
        tokenizer: its tokenizer.
        seed: of its weights.
        tied: whether its head is its embedding.
        beyond: rows of its embedding that no token has.
        hidden: width.
        dtype: as the format calls it.
        template: chat template; none by default.
        config: further settings.
    """

    tokenizer: Tokenizer
    seed: int = 0
    tied: bool = False
    beyond: int = 0
    hidden: int = 16
    dtype: str = "F32"
    template: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return self.tokenizer.get_vocab_size() + self.beyond

    def write(self, folder: Path) -> Path:
        """Writes it as transformers would."""
        config = llama_config(2, hidden=self.hidden, vocab=self.rows, dtype=self.dtype)
        config["tie_word_embeddings"] = self.tied
        roles = {} if self.template is None else {"chat_template": self.template}
        files: dict[str, bytes] = {}
        end = self.tokenizer.token_to_id(END)
        if end is not None:
            config["eos_token_id"] = end
            roles["eos_token"] = END
            files["generation_config.json"] = json.dumps({"eos_token_id": end}).encode()
        write_checkpoint(folder, self.tensors(), config | dict(self.config))
        return lay_down(folder, {**files, **files_of(self.tokenizer, **roles)})

    def tensors(self) -> Tensors:
        """Its weights."""
        made = llama_tensors(
            2, hidden=self.hidden, vocab=self.rows, dtype=self.dtype, seed=self.seed
        )
        if self.tied:
            del made[HEAD]
        return made


def three(**settings: Any) -> dict[str, Tiny]:
    """Models whose vocabularies overlap: one with rows to spare, two with tokens of their own."""
    return {
        "sea": Tiny(tokenizer=bpe(SEA), seed=1, **{"beyond": 5, **settings}),
        "forest": Tiny(tokenizer=with_added(bpe(FOREST), PAD), seed=2, **settings),
        "both": Tiny(
            tokenizer=with_added(bpe(FOREST + SEA, 340), "<a>", "ship", PAD), seed=3, **settings
        ),
    }


class Bench:
    """Models and recipes below a folder.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "recipe.yaml"

    def recipe(self, result: Any, output: Mapping[str, Any], models: Mapping[str, Any]) -> Path:
        """Writes models, and a recipe; what is no model is written as an expression."""
        named = {}
        for name, model in models.items():
            named[name] = f"./{name}" if isinstance(model, Tiny) else model
            if isinstance(model, Tiny) and not (self.folder / name).exists():
                model.write(self.folder / name)
        recipe = {"models": named, "result": result, "output": {"path": "./out", **output}}
        self.path.write_text(json.dumps(recipe, indent=1))  # which every YAML 1.2 parser reads
        return self.path

    def plan(self, result: Any, output: Mapping[str, Any], models: Mapping[str, Any]) -> Plan:
        """What such a recipe comes to."""
        return api.plan(self.recipe(result, output, models))

    def made(
        self, result: Any, output: Mapping[str, Any], models: Mapping[str, Any], **options: Any
    ) -> Path:
        """The folder that it makes."""
        plan = self.plan(result, output, models)
        made = api.apply(plan, overwrite=True, **{"threads": 1, **options}).path
        assert made is not None
        return made

    def folders(self, models: Mapping[str, Any]) -> list[Path]:
        """Where the models are."""
        return [self.folder / name for name, model in models.items() if isinstance(model, Tiny)]


def linear(*models: str) -> dict[str, Any]:
    """The mean of models."""
    return {"linear": {"models": list(models)}}


def vocab_of(folder: Path) -> dict[str, int]:
    """The tokens of a folder's tokenizer, as the library reads it."""
    ids: dict[str, int] = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return ids


def config_of(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A JSON file."""
    return dict(json.loads((folder / name).read_text()))


def rows_of(folder: Path, tensor: str = EMBEDDING) -> Float64:
    """A tensor's values."""
    return read_tensors(folder)[tensor].astype(np.float64)


def reindexed(
    folders: Sequence[Path],
    model: int,
    tokens: Mapping[str, int],
    *,
    base: int | None = None,
    tensor: str = EMBEDDING,
) -> Float64:
    """A model's embedding or head in a vocabulary: the rule in ten lines, without anything of ours.

    Args:
        folders: all the models.
        model: whose.
        tokens: the vocabulary.
        base: which of them is the base.
        tensor: which tensor; of a tied model, the embedding.
    """
    stored = [read_tensors(folder) for folder in folders]
    ids = [vocab_of(folder) for folder in folders]
    rows = [made.get(tensor, made[EMBEDDING]).astype(np.float64) for made in stored]
    result = np.zeros((max(tokens.values()) + 1, rows[model].shape[1]))
    for token, number in tokens.items():
        owners = [i for i in range(len(folders)) if token in ids[i]]
        first = [i for i in (model, base) if i in owners]
        made_of = first[:1] or owners
        result[number] = np.mean([rows[i][ids[i][token]] for i in made_of], axis=0)
    return result
