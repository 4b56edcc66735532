"""One merge that is measured: the recipes of both engines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench.shapes import Shape

Recipe = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One merge.

    Attributes:
        name: what `--jobs` calls it.
        title: what the tables call it.
        models: the checkpoints it reads, by name.
        merged: our expression for the result.
        peer: mergekit's configuration, given the models' paths by name; None if it cannot.
        grown: from the models' shape to the result's.
        exact: whether both engines must write the same bits.
        arguments: our command line; {recipe} and {out} are filled in.
        peer_runs: most counted runs of mergekit, where each takes minutes.
    """

    name: str
    title: str
    models: tuple[str, ...]
    merged: Callable[[Shape], Recipe]
    peer: Callable[[Shape, Mapping[str, str]], Recipe] | None = None
    grown: Callable[[Shape], Shape] = lambda shape: shape
    exact: bool = False
    arguments: tuple[str, ...] = ("apply", "{recipe}", "-o", "{out}", "-q")
    peer_runs: int = 3
