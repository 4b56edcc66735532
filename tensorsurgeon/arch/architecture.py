"""Which tensor belongs to which layer, told from names and the config's depth."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar

from tensorsurgeon.arch.families import (
    BEFORE_LAYERS,
    DECODER_KEYS,
    DEPTH_KEYS,
    ENCODER_KEYS,
    FAMILIES,
    LANGUAGE_PREFIXES,
    TEXT_CONFIGS,
    Family,
)
from tensorsurgeon.errors import ArchitectureError, shortened

_INDEX = re.compile(r"(?:^|\.)(0|[1-9][0-9]{0,8})(?=\.)")
"""A layer's index in a name, in the one way of writing it; more digits are no index."""

_Config = TypeVar("_Config", bound=Mapping[str, Any])


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How the names and the config of one model speak of its layers.

    Attributes:
        model_type: the config's word for the family of its language model; may be empty.
        prefix: what stands before a layer's index, as `model.layers.`.
        depth: number of layers.
        depth_keys: the config's keys for it, all of which say the same.
        text_config: the config's key for the language model's own config, where it is nested.
    """

    model_type: str
    prefix: str
    depth: int
    depth_keys: tuple[str, ...]
    text_config: str | None

    @property
    def family(self) -> Family:
        """What the table knows of it; an empty entry for an unknown family."""
        return FAMILIES.get(self.model_type, Family())

    def text_of(self, config: _Config) -> _Config:
        """The language model's part of a config; the whole where it is not nested."""
        text: _Config = config[self.text_config] if self.text_config else config
        return text

    def split(self, name: str) -> tuple[int, str] | None:
        """A layer tensor's layer and its name inside it; None for a tensor outside the layers."""
        if not name.startswith(self.prefix):
            return None
        found = _INDEX.match(name, len(self.prefix) - 1)
        return (int(found[1]), name[found.end() + 1 :]) if found else None

    def join(self, layer: int, inside: str) -> str:
        """The name of a layer's tensor."""
        return f"{self.prefix}{layer}.{inside}"

    def side(self, name: str) -> Literal["before", "after"]:
        """Whether a tensor outside the layers comes before or after them."""
        before = any(fnmatchcase(name, pattern) for pattern in BEFORE_LAYERS)
        return "before" if before else "after"


def find_architecture(
    config: Mapping[str, Any], names: Iterable[str], *, where: str, layers: str | None = None
) -> Architecture:
    """Tell a model's layers from its config and tensor names.

    Args:
        config: config.json.
        names: its tensors' names.
        where: what to call the model in errors.
        layers: the prefix of its layers, where the recipe names it.

    Raises:
        ArchitectureError: no depth in the config, no prefix with exactly that many layers, or
            several; lists what there is. A tensor numbered like a layer that is none.
    """
    text_config = next((key for key in TEXT_CONFIGS if isinstance(config.get(key), dict)), None)
    text = config[text_config] if text_config else config
    if not any(_depths(text).values()):
        raise ArchitectureError(
            "config.json does not say how many layers the model has",
            where=where,
            fix=f"it is usually called {DEPTH_KEYS[0]}",
        )
    names = list(names)
    prefix, keys = _find_layers(names, text, where, layers)
    architecture = Architecture(
        model_type=str(text.get("model_type") or config.get("model_type", "")),
        prefix=prefix,
        depth=text[keys[0]],
        depth_keys=keys,
        text_config=text_config,
    )
    for name in names:
        index = name[len(prefix) :].partition(".")[0] if name.startswith(prefix) else ""
        if index.isdigit() and architecture.split(name) is None:
            raise ArchitectureError(
                f"tensor '{shortened(name)}' belongs to no layer: there are {architecture.depth}",
                where=where,
            )
    return architecture


def _depths(text: Mapping[str, Any]) -> dict[str, int]:
    """Every number of layers that a config names, by its key."""
    keys = (*DEPTH_KEYS, *ENCODER_KEYS, *DECODER_KEYS)
    return {key: text[key] for key in keys if type(text.get(key)) is int and text[key] > 0}


def _depth_keys(prefix: str, depths: Mapping[str, int]) -> tuple[str, ...]:
    """The keys that say how many layers have this prefix: the side's own in encoder-decoders."""
    side = next((s for s in ("decoder", "encoder") if s in prefix.split(".")), None)
    if side == "decoder" and any(key in depths for key in DECODER_KEYS):
        keys = [key for key in DECODER_KEYS if key in depths]
    elif side == "encoder" and any(key in depths for key in ENCODER_KEYS):
        # Such configs may repeat the encoder's depth under a general key.
        keys = [key for key in (*ENCODER_KEYS, *DEPTH_KEYS) if key in depths]
    else:
        keys = [key for key in DEPTH_KEYS if key in depths]
    return tuple(key for key in keys if depths[key] == depths[keys[0]])


def _find_layers(
    names: Iterable[str], text: Mapping[str, Any], where: str, layers: str | None
) -> tuple[str, tuple[str, ...]]:
    """The prefix whose indices are exactly 0 to depth - 1, and the keys of that depth.

    Only the first index of a name counts: those further in number experts, not layers.
    """
    depths = _depths(text)
    indices: defaultdict[str, set[int]] = defaultdict(set)
    for name in names:
        if found := _INDEX.search(name):
            indices[name[: found.start(1)]].add(int(found[1]))
    keys = {prefix: _depth_keys(prefix, depths) for prefix in indices}
    fitting = [
        prefix
        for prefix, found in indices.items()
        if keys[prefix] and len(found) == max(found) + 1 == depths[keys[prefix][0]]
    ]
    if layers is not None:
        prefix = layers.rstrip(".") + "."
        if prefix in fitting:
            return prefix, keys[prefix]
    elif len(fitting) > 1:
        language = [p for p in fitting if any(word in p for word in LANGUAGE_PREFIXES)]
        fitting = language if len(language) == 1 else fitting
    if layers is None and len(fitting) == 1:
        return fitting[0], keys[fitting[0]]
    seen = ", ".join(f"'{prefix}' {_extent(found)}" for prefix, found in indices.items())
    depth = " or ".join(dict.fromkeys(map(str, depths.values())))
    if layers is not None:
        what = f"'layers: {layers}' does not number exactly the config's {depth} layers"
        fix = f"the names have: {seen or 'no index at all'}"
    elif fitting:
        what = f"several name patterns fit the config's {depth} layers: {', '.join(fitting)}"
        fix = "name the right one: {source: {path: …, layers: " + fitting[0].rstrip(".") + "}}"
    else:
        what = f"config.json says {depth} layers, which no tensor names number"
        fix = f"the names have: {seen or 'no index at all'}"
    raise ArchitectureError(what, where=where, fix=fix)


def _extent(found: set[int]) -> str:
    full = len(found) == max(found) - min(found) + 1
    return f"{min(found)} to {max(found)}" + ("" if full else f" ({len(found)} of them)")
