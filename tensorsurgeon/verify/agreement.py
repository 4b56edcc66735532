"""Whether config.json and the tensors speak of the same model: depth, widths, tied head.

What is said here of a sound checkpoint must be true of every family, so a problem is one only
where names and settings leave no doubt; where they do, it is said that it was not checked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorsurgeon.arch import Architecture, find_architecture
from tensorsurgeon.arch.families import DECODER_KEYS, DEPTH_KEYS, ENCODER_KEYS, TEXT_CONFIGS
from tensorsurgeon.errors import ArchitectureError, shortened
from tensorsurgeon.specs import StoredTensor
from tensorsurgeon.verify.outcome import Findings

Config = Mapping[str, Any]
Tensors = Mapping[str, StoredTensor]

_EMBEDDINGS = (
    "embed_tokens.weight",
    "embed_in.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embeddings.word_embeddings.weight",
    "embeddings.tok_embeddings.weight",
    "shared.weight",
)
_FINAL_NORMS = (
    "norm.weight",
    "final_layernorm.weight",
    "final_layer_norm.weight",
    "final_norm.weight",
    "ln_f.weight",
    "norm_f.weight",
)
_HEADS = ("lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight")
_HEAD_WORDS = ("head", "embed_out", "output", "decoder")
"""One of these is in the name of every output head known."""

_WIDTH_KEYS = ("hidden_size", "n_embd", "d_model", "dim")
_EMBEDDING_WIDTH_KEYS = ("embedding_size", "embedding_dim", "word_embed_proj_dim", "emb_dim")
_VOCAB_KEYS = ("vocab_size", "padded_vocab_size")
_WITH_HEAD = ("ForCausalLM", "LMHeadModel")
"""How the names of those classes end that have an output head, and are told to tie it or not."""

_FIRST_INDEX = re.compile(r"(?:^|\.)([0-9]{1,9})\.")


class Agreement:
    """A config and the tensors it goes with.

    Args:
        config: config.json.
        tensors: every tensor of the checkpoint.
        folder: where they are.
        findings: where problems are noted.
    """

    def __init__(self, config: Config, tensors: Tensors, folder: Path, findings: Findings) -> None:
        self._config, self._tensors, self._findings = config, tensors, findings
        self._path = folder / "config.json"
        self.tied: tuple[StoredTensor, StoredTensor] | None = None
        """A stored head and the embedding whose bytes it must have."""

    def check(self, layer_map: Sequence[object] | None) -> None:
        """Compare everything that can be compared without reading a tensor.

        Args:
            layer_map: that of the manifest, where there is one.
        """
        architecture = self._architecture()
        if architecture is None:
            self._findings.not_checked(
                f"{self._path}: widths and tied head, as it is not certain which layers are meant"
            )
            return
        if layer_map is not None and len(layer_map) != architecture.depth:
            self._findings.problem(
                self._path,
                f"says {architecture.depth} layers; the manifest's layer map has {len(layer_map)}",
            )
        text = architecture.text_of(self._config)
        embedding = self._named(architecture, _EMBEDDINGS)
        self._check_widths(architecture, text, embedding)
        self._check_head(architecture, text, embedding)

    def _architecture(self) -> Architecture | None:
        try:
            return find_architecture(self._config, self._tensors, where=str(self._path))
        except ArchitectureError as error:
            problem = error.problems[0]
            if _depth_may_be_right(self._config, self._tensors):
                self._findings.not_checked(f"{self._path}: depth: {shortened(problem.what, 200)}")
            else:
                self._findings.problem(
                    self._path, shortened(problem.what, 200), fix=shortened(problem.fix, 200)
                )
            return None

    def _named(self, architecture: Architecture, endings: tuple[str, ...]) -> StoredTensor | None:
        """The tensor with one of these names that is nearest to the layers, going outwards."""
        for prefix in _outwards(architecture.prefix):
            for ending in endings:
                if prefix + ending in self._tensors:
                    return self._tensors[prefix + ending]
        return None

    def _check_widths(
        self, architecture: Architecture, text: Config, embedding: StoredTensor | None
    ) -> None:
        widths = _numbers(text, _WIDTH_KEYS)
        if embedding is None or not embedding.spec.dtype.computable:
            self._findings.not_checked(f"{self._path}: vocab_size, as no embedding could be told")
        else:
            rows, columns = _numbers(text, _VOCAB_KEYS), _numbers(text, _EMBEDDING_WIDTH_KEYS)
            columns = {**widths, **columns} if widths else {}
            self._check_shape(embedding, (rows, columns))
        norm = self._named(architecture, _FINAL_NORMS)
        if norm is not None and norm.spec.dtype.computable and len(norm.spec.shape) == 1:
            self._check_shape(norm, (widths,))

    def _check_shape(self, tensor: StoredTensor, sizes: Sequence[Mapping[str, int]]) -> None:
        """Whether each dimension is one of the sizes that the config gives for it."""
        shape = tensor.spec.shape
        wrong = len(shape) != len(sizes)
        for count, known in zip(shape, sizes, strict=False):
            wrong = wrong or (bool(known) and count not in known.values())
        said = ", ".join(f"{key} {value}" for known in sizes for key, value in known.items())
        if wrong:
            self._findings.problem(
                self._path, f"says {said}, but '{tensor.spec.name}' is {list(shape)}"
            )
        elif not all(sizes):
            self._findings.not_checked(
                f"{self._path}: the shape of '{tensor.spec.name}', which it does not give"
            )

    def _check_head(
        self, architecture: Architecture, text: Config, embedding: StoredTensor | None
    ) -> None:
        tied = _is_tied(self._config, text)
        if embedding is None or tied is None:
            self._findings.not_checked(f"{self._path}: whether the output head is tied")
            return
        head = self._named(architecture, _HEADS)
        if not tied:
            if head is None and self._lacks_head(architecture, embedding):
                self._findings.problem(
                    self._path,
                    "says that the output head is not the embedding (tie_word_embeddings), "
                    "but there is no head",
                )
        elif head is not None:
            if (head.spec.shape, head.spec.dtype) != (embedding.spec.shape, embedding.spec.dtype):
                self.note_different_head(head, embedding)
            else:
                self.tied = head, embedding

    def note_different_head(self, head: StoredTensor, embedding: StoredTensor) -> None:
        """Note that a head is not the embedding that the config ties it to."""
        self._findings.problem(
            self._path,
            "says that the output head is the embedding (tie_word_embeddings), "
            f"but '{head.spec.name}' differs from '{embedding.spec.name}'",
            fix="set tie_word_embeddings to false, or remove the head",
        )

    def _lacks_head(self, architecture: Architecture, embedding: StoredTensor) -> bool:
        """Whether a model that needs a head has nothing that could be one."""
        classes = self._config.get("architectures")
        if not isinstance(classes, list) or not any(str(c).endswith(_WITH_HEAD) for c in classes):
            return False
        outside = (t for t in self._tensors.values() if architecture.split(t.spec.name) is None)
        return not any(
            any(word in tensor.spec.name for word in _HEAD_WORDS)
            or (tensor != embedding and tensor.spec.shape[:1] == embedding.spec.shape[:1])
            for tensor in outside
        )


def _depth_may_be_right(config: Config, tensors: Tensors) -> bool:
    """Whether a model whose layers could not be told may still be what its config says."""
    text = next((config[key] for key in TEXT_CONFIGS if isinstance(config.get(key), dict)), config)
    depths = _numbers(text, (*DEPTH_KEYS, *ENCODER_KEYS, *DECODER_KEYS)).values()
    # ALBERT has one layer that is passed many times.
    if not any(depth > 0 for depth in depths) or "num_hidden_groups" in text:
        return True
    # Layers that predict further tokens are numbered on, but not counted.
    further = _numbers(text, ("num_nextn_predict_layers",)).values()
    counts = {*depths, *(depth + more for depth in depths for more in further)}
    indices: dict[str, set[int]] = {}
    for name in tensors:
        if found := _FIRST_INDEX.search(name):
            indices.setdefault(name[: found.start(1)], set()).add(int(found[1]))
    return any(len(found) == max(found) + 1 and len(found) in counts for found in indices.values())


def _is_tied(config: Config, text: Config) -> bool | None:
    """Whether the head is the embedding; None where the config does not say, or says both."""
    said = {part.get("tie_word_embeddings") for part in (config, text) if _says(part)}
    return said.pop() if len(said) == 1 else None


def _says(part: Config) -> bool:
    return isinstance(part.get("tie_word_embeddings"), bool)


def _numbers(text: Config, keys: tuple[str, ...]) -> dict[str, int]:
    return {key: text[key] for key in keys if type(text.get(key)) is int}


def _outwards(prefix: str) -> Iterator[str]:
    """A prefix such as `model.layers.`, then what it lies in, to the outermost, which is empty."""
    parts = prefix.split(".")[:-1]
    for count in range(len(parts), -1, -1):
        yield "".join(part + "." for part in parts[:count])
