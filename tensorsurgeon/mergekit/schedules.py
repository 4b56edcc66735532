"""What a parameter is at each tensor of a merge: settings of several levels as one schedule."""

from collections.abc import Iterator, Sequence

from tensorsurgeon.documents import Findings, LocatedList, Mark
from tensorsurgeon.mergekit.building import Part, listing, mapping, text
from tensorsurgeon.mergekit.filters import Frame, UnclearFilter, globs_of
from tensorsurgeon.mergekit.methods import Parameter
from tensorsurgeon.mergekit.settings import Condition, Settings

Levels = Sequence[Settings]
"""Settings, the one that wins first: a model's, a slice's, a module's, the document's."""


class Resolver:
    """Puts the levels of one document together, and notes the filters that decide nowhere."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._idle: dict[Mark, str] = {}
        self._used: set[Mark] = set()

    def schedule(
        self, parameter: Parameter, levels: Levels, frame: Frame, mark: Mark
    ) -> Part | None:
        """A parameter as a schedule; None where tensors are left without a value.

        Args:
            parameter: which.
            levels: where it may be set.
            frame: the layers.
            mark: where to report what its default leads to.
        """
        rules: list[Part] = []
        filters: list[str] = []
        for condition in _conditions(parameter, levels):
            if condition.filter is None:
                return _schedule(rules, _value(condition.value, frame), mark)
            # What a level above has decided is no mistake on this one.
            shadowed = any(above in condition.filter for above in filters)
            filters.append(condition.filter)
            for glob in self._globs(parameter, condition, frame):
                if not shadowed:
                    match = text(glob, condition.mark)
                    entries = {"match": match} | _value(condition.value, frame)
                    rules.append(mapping(condition.mark, entries))
        if parameter.default is None:
            return None
        return _schedule(rules, {"value": Part(parameter.default, mark)}, mark)

    def constant(self, parameter: Parameter, levels: Levels) -> Part | None:
        """A parameter that is one for all tensors; None where it is not set.

        One that is not the same for all of them is reported.
        """
        found: list[Part] = []
        covers_all = False
        for condition in _conditions(parameter, levels):
            value = condition.value
            found += (
                [Part(*both) for both in zip(value.value, value.value.item_marks, strict=True)]
                if isinstance(value.value, LocatedList)
                else [value]
            )
            if covers_all := condition.filter is None:
                break
        if not found:
            return None
        others = [one.value for one in found] + ([] if covers_all else [parameter.default])
        if any(other != found[0].value for other in others):
            what = f"{parameter.name} is one for all tensors here"
            fix = "give it one value, or use slices, each with its own"
            self._findings.report(found[0].mark, what, fix)
        return found[0]

    def report_idle(self) -> None:
        """Report the filters that name layers which no merge has."""
        for mark, filter_ in self._idle.items():
            if mark not in self._used:
                what = f"filter '{filter_}' names no layer of these slices, and mergekit ignores it"
                self._findings.report(mark, what, "layers count from 0, as they do in the source")

    def _globs(self, parameter: Parameter, condition: Condition, frame: Frame) -> tuple[str, ...]:
        filter_, mark = condition.filter or "", condition.mark
        try:
            globs = globs_of(filter_, frame)
        except UnclearFilter:
            if mark not in self._used:
                what = f"{parameter.name}: filter '{filter_}' may name a layer or not, and the "
                what += "slice begins at another"
                self._findings.report(mark, what, "write it as layers.3.")
            self._used.add(mark)
            return ()
        if globs:
            self._used.add(mark)
        self._idle[mark] = filter_
        return globs


def is_set(parameter: Parameter, levels: Levels) -> bool:
    """Whether a level has it."""
    return any(level.get(parameter.name) for level in levels)


def _conditions(parameter: Parameter, levels: Levels) -> Iterator[Condition]:
    for level in levels:
        yield from level.get(parameter.name, ())


def _value(given: Part, frame: Frame) -> dict[str, Part]:
    """A value over the layers, and that of tensors outside of them where it is another.

    mergekit gives those the first of a list, and so does one that is spread over a single layer
    the last.
    """
    if not isinstance(given.value, LocatedList):
        return {"value": given}
    values = [Part(*both) for both in zip(given.value, given.value.item_marks, strict=True)]
    first, last = values[0], values[-1]
    spread = {"value": last if frame.count == 1 else given}
    return spread if first.value == last.value else spread | {"outside": first}


def _schedule(rules: Sequence[Part], default: dict[str, Part], mark: Mark) -> Part:
    """Rules and a default, in the shortest way to write them."""
    if "outside" in default:
        return listing(mark, [*rules, mapping(default["value"].mark, default)])
    return listing(mark, [*rules, default["value"]]) if rules else default["value"]
