"""The models of a recipe that are read, and not made of others: those that have a tokenizer."""

from collections import deque
from collections.abc import Iterable

from tensorsurgeon.documents.portable import is_local, portable_path
from tensorsurgeon.operators import Lora, MergeOperator
from tensorsurgeon.recipe import Operator, Recipe, Reference, Source


class Leaves:
    """Sources, and sources under adapters.

    Args:
        recipe: the recipe they are of.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._labels: dict[str, str] = {}

    def label(self, path: str) -> str:
        """What to call a source that stands in an expression: its path, unless that is local."""
        if path not in self._labels:
            taken = {*self._recipe.models, *self._labels.values()}
            self._labels[path] = portable_path(path, taken) if is_local(path) else path
        return self._labels[path]

    def name_of(self, expression: Operator | Reference) -> str | None:
        """What to call a leaf; None for what is made of several."""
        named, operator = self._resolved(expression)
        if self._bottom(operator) is None:
            return None
        if named:
            return named
        if isinstance(operator, Source):
            return self.label(operator.path)
        return f"{operator.operator} at {operator.mark.line}:{operator.mark.column}"

    def source_of(self, leaf: Operator | Reference) -> Source:
        """The source that a leaf is, or is an adapter over."""
        source = self._bottom(self._resolved(leaf)[1])
        assert source is not None
        return source

    def of(self, *expressions: Operator | Reference) -> dict[str, Operator | Reference]:
        """The leaves that expressions are made of, by name; a base comes before the others."""
        found: dict[str, Operator | Reference] = {}
        seen: set[str] = set()

        def visit(expressions: Iterable[Operator | Reference]) -> None:
            for expression in expressions:
                named, operator = self._resolved(expression)
                if (leaf := self.name_of(expression)) is not None:
                    found.setdefault(leaf, expression)
                elif not named or named not in seen:
                    seen.add(named)
                    visit(operator.operands())

        visit(expressions)
        return found

    def first(self, expression: Operator | Reference) -> str:
        """The leaf that gives an expression its config and tokenizer."""
        return next(iter(self.of(expression)))

    def base(self) -> str | None:
        """That of the base of the outermost operator that has one."""
        waiting: deque[Operator | Reference] = deque([self._recipe.result])
        seen: set[str] = set()
        while waiting:
            named, operator = self._resolved(waiting.popleft())
            if named and named in seen:
                continue
            seen.add(named)
            if isinstance(operator, MergeOperator) and operator.origin is not None:
                return self.first(operator.origin)
            waiting.extend(operator.operands())
        return None

    def _resolved(self, expression: Operator | Reference) -> tuple[str, Operator]:
        """What an expression stands for, and the last name by which it does; empty for none."""
        name = ""
        while isinstance(expression, Reference):
            name = expression.name
            expression = self._recipe.models[name]
        return name, expression

    def _bottom(self, operator: Operator) -> Source | None:
        """What lies under adapters, where that is a source."""
        while isinstance(operator, Lora):
            operator = self._resolved(operator.model)[1]
        return operator if isinstance(operator, Source) else None
