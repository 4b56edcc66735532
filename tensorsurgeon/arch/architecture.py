"""Which tensor belongs to which layer, told from names and the config's depth."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from tensorsurgeon.arch.families import (
    BEFORE_LAYERS,
    DEPTH_KEYS,
    FAMILIES,
    LANGUAGE_PREFIXES,
    TEXT_CONFIGS,
    Family,
)
from tensorsurgeon.errors import ArchitectureError

_INDEX = re.compile(r"(?:^|\.)(\d+)(?=\.)")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How the names and the config of one model speak of its layers.

    Attributes:
        model_type: the config's word for the family of its language model; may be empty.
        prefix: what stands before a layer's index, as `model.layers.`.
        depth: number of layers.
        depth_key: the config's key for it.
        text_config: the config's key for the language model's own config, where it is nested.
    """

    model_type: str
    prefix: str
    depth: int
    depth_key: str
    text_config: str | None

    @property
    def family(self) -> Family:
        """What the table knows of it; an empty entry for an unknown family."""
        return FAMILIES.get(self.model_type, Family())

    def split(self, name: str) -> tuple[int, str] | None:
        """A layer tensor's layer and its name inside it; None for a tensor outside the layers."""
        if not name.startswith(self.prefix):
            return None
        index, dot, inside = name[len(self.prefix) :].partition(".")
        return (int(index), inside) if dot and index.isdecimal() else None

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
            several; lists what there is.
    """
    text_config = next((key for key in TEXT_CONFIGS if isinstance(config.get(key), dict)), None)
    text = config[text_config] if text_config else config
    depth_key = next((key for key in DEPTH_KEYS if key in text), None)
    depth = text.get(depth_key) if depth_key else None
    if depth_key is None or type(depth) is not int or depth < 1:
        raise ArchitectureError(
            "config.json does not say how many layers the model has",
            where=where,
            fix=f"it is usually called {DEPTH_KEYS[0]}",
        )
    return Architecture(
        model_type=str(text.get("model_type") or config.get("model_type", "")),
        prefix=_find_prefix(names, depth, where, layers),
        depth=depth,
        depth_key=depth_key,
        text_config=text_config,
    )


def _find_prefix(names: Iterable[str], depth: int, where: str, layers: str | None) -> str:
    """The prefix whose indices are exactly 0 to depth - 1.

    Only the first index of a name counts: those further in number experts, not layers.
    """
    indices: defaultdict[str, set[int]] = defaultdict(set)
    for name in names:
        if found := _INDEX.search(name):
            indices[name[: found.start(1)]].add(int(found[1]))
    wanted = set(range(depth))
    fitting = [prefix for prefix, found in indices.items() if found == wanted]
    if layers is not None:
        prefix = layers.rstrip(".") + "."
        if prefix in fitting:
            return prefix
    elif len(fitting) > 1:
        language = [p for p in fitting if any(word in p for word in LANGUAGE_PREFIXES)]
        fitting = language if len(language) == 1 else fitting
    if layers is None and len(fitting) == 1:
        return fitting[0]
    seen = ", ".join(f"'{prefix}' {_extent(found)}" for prefix, found in indices.items())
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
