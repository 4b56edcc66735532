"""The models of the recipe that is made, and what each is called there."""

import re
from collections import Counter
from collections.abc import Iterable

from tensorsurgeon.documents import Mark
from tensorsurgeon.mergekit.building import Part, mapping, operator, text
from tensorsurgeon.mergekit.references import ModelReference

_ODD = re.compile(r"[^A-Za-z0-9._-]+")


class Models:
    """Gives names as models are met; the same model has one name.

    Args:
        documents: names of the documents that others use, in their order.
        models: all models that the documents name; of those whose paths end alike, more is told.
    """

    def __init__(self, documents: Iterable[str], models: Iterable[ModelReference]) -> None:
        self.made: dict[str, Part] = {}
        places = {model.place for model in models}
        self._ends = Counter(_ends(place)[-1] for place in places)
        self._names: dict[tuple[str, str], str] = {}
        self._documents: dict[str, str] = {}
        for name in documents:
            self._documents[name] = self._free(_tidy(name))

    def document(self, name: str) -> str:
        """What the result of a document is called."""
        return self._documents[name]

    def reference(self, model: ModelReference, mark: Mark | None = None) -> Part:
        """A model by its name, which it gets here if it has none."""
        here = model.mark if mark is None else mark
        name = self._of(model.place, "", model.mark)
        if model.adapter:
            name = self._of(model.place, model.adapter, model.mark)
        return text(name, here)

    def define(self, name: str, expression: Part) -> Part:
        """Name an expression; returns a reference to it."""
        free = self._free(_tidy(name))
        self.made[free] = expression
        return text(free, expression.mark)

    def finish(self, name: str, expression: Part) -> Part:
        """Say what the result of a document is; returns a reference to it."""
        self.made[self._documents[name]] = expression
        return text(self._documents[name], expression.mark)

    def _of(self, place: str, adapter: str, mark: Mark) -> str:
        if not adapter and place in self._documents:
            return self._documents[place]
        known = (place, adapter)
        if known not in self._names:
            self._names[known] = name = self._free(self._short(place, adapter))
            if adapter:
                model = text(self._of(place, "", mark), mark)
                parameters = {"model": model, "adapter": text(adapter, mark)}
                self.made[name] = operator("lora", mark, parameters)
            else:
                # A source is told from the name of a model by its slash.
                self.made[name] = text(place if "/" in place else f"./{place}", mark)
        return self._names[known]

    def _short(self, place: str, adapter: str) -> str:
        """The end of a model's path, or its last two parts; and the end of its adapter's."""
        ends = _ends(place)
        short = ends[-1] if self._ends[ends[-1]] <= 1 else "-".join(ends)
        return f"{short}+{_ends(adapter)[-1]}" if adapter else short

    def _free(self, wanted: str) -> str:
        """A name, or one with a number behind where that is taken."""
        taken = {*self.made, *self._documents.values()}
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted}-{count}"
        return name

    def part(self, mark: Mark) -> Part:
        """The recipe's `models`."""
        return mapping(mark, self.made)


def _ends(place: str) -> list[str]:
    """The last two parts of a path that say something, or the last."""
    path = place.partition("@")[0].rstrip("/").split("/")
    inner = [part for part in path[-2:-1] if part not in ("", ".", "..", "~")]
    return [_tidy(part) for part in (*inner, path[-1])]


def _tidy(name: str) -> str:
    """A name without what would have to be quoted."""
    return _ODD.sub("-", name).strip("-.") or "model"
