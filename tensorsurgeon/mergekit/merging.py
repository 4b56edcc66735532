"""One merge of mergekit's, of whole models or of a slice, as an expression of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass

from tensorsurgeon.documents import Findings, Mark
from tensorsurgeon.mergekit.building import Part, listing, mapping, operator
from tensorsurgeon.mergekit.filters import Frame
from tensorsurgeon.mergekit.methods import Form, Method, Parameter, Scope
from tensorsurgeon.mergekit.references import ModelReference
from tensorsurgeon.mergekit.schedules import Levels, Resolver, is_set
from tensorsurgeon.mergekit.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Operand:
    """A model of a merge, or some of its layers.

    Attributes:
        model: which.
        expression: how it stands in the recipe.
        settings: its own parameters.
        frame: its layers.
        mark: where it stands.
    """

    model: ModelReference
    expression: Part
    settings: Settings
    frame: Frame
    mark: Mark


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """A merge.

    Attributes:
        method: by which method.
        operands: of what, in mergekit's order.
        base: which of them is the base.
        levels: parameters that are not of one model.
        frame: the layers of the output.
        mark: where it stands.
    """

    method: Method
    operands: tuple[Operand, ...]
    base: ModelReference | None
    levels: Levels
    frame: Frame
    mark: Mark

    @property
    def is_plain(self) -> bool:
        """Whether the layers of one model go through as they are."""
        scales = self.method.parameters
        return self.method.name == "passthrough" and not any(
            is_set(scale, (one.settings, *self.levels)) for scale in scales for one in self.operands
        )

    @property
    def ordered(self) -> tuple[Operand, ...]:
        """The models, a base first: it gives config and tokenizer."""
        return tuple(sorted(self.operands, key=lambda one: one.model != self.base))

    @property
    def tuned(self) -> tuple[Operand, ...]:
        """The models beside the base; all of them where the method knows none."""
        ordered = self.ordered
        if self.method.base == "none":
            return ordered
        return tuple(one for one in ordered if one.model != self.base)


def expression_of(merge: Merge, resolver: Resolver, findings: Findings) -> Part:
    """The operator that merges as mergekit does; what is wrong with the merge is reported."""
    parameters: dict[str, Part] = {}
    for parameter in merge.method.parameters:
        if parameter.form is Form.NOTHING:
            continue
        if (part := _parameter(merge, parameter, resolver, findings)) is not None:
            parameters[parameter.ours] = part
    if not _check_models(merge, findings):
        return merge.operands[0].expression
    return _simplified(merge, _models(merge) | parameters)


def _check_models(merge: Merge, findings: Findings) -> bool:
    """Whether there are as many models as the method takes, each once, and the base among them."""
    method, sound = merge.method, True
    for index, one in enumerate(merge.operands):
        if any(one.model == other.model for other in merge.operands[:index]):
            findings.report(
                one.mark, f"model '{one.model}' is here twice", "give it once, with all its weight"
            )
            sound = False
    if method.base == "required" and merge.base is None:
        what = f"'{method.name}' needs 'base_model'"
        fix = "it is t = 0" if method.base_is == "first" else "the model the others were tuned from"
        findings.report(merge.mark, what, f"base_model: {fix}")
        return False
    if (
        method.base != "none"
        and merge.base is not None
        and all(one.model != merge.base for one in merge.operands)
    ):
        what = f"base_model '{merge.base}' is not among the sources of this slice"
        findings.report(merge.mark, what, "add it, with a layer_range of its own")
        return False
    count = len(merge.tuned)
    if sound and not method.least <= count <= (method.most or count):
        findings.report(merge.mark, *_wrong_count(merge, count))
        sound = False
    return sound


def _wrong_count(merge: Merge, count: int) -> tuple[str, str]:
    method = merge.method
    bound = "exactly" if method.least == method.most else "at least"
    beside = "" if method.base == "none" else " beside the base"
    models = "model" if method.least == 1 else "models"
    what = f"'{method.name}' takes {bound} {method.least} {models}{beside}, not {count}"
    added = method.base == "none" and merge.base is not None
    return what, "mergekit counts base_model as one: remove it" if added else ""


def _models(merge: Merge) -> dict[str, Part]:
    """The operands by the keys that the operator has for them."""
    method, tuned = merge.method, merge.tuned
    found: dict[str, Part] = {}
    if method.base != "none" and merge.base is not None and method.base_is == "base":
        found["base"] = merge.ordered[0].expression
    if method.models == "model":
        found["model"] = tuned[0].expression
        return found
    shown = merge.ordered if method.base_is == "first" else tuned
    found["models"] = listing(merge.mark, [one.expression for one in shown])
    return found


def _parameter(
    merge: Merge, parameter: Parameter, resolver: Resolver, findings: Findings
) -> Part | None:
    """A parameter as the operator takes it; None where it is left to its default."""
    if parameter.form is Form.SWITCH:
        return _switch(merge, parameter, resolver, findings)
    if parameter.form in (Form.NUMBER, Form.COUNT):
        return resolver.constant(parameter, merge.levels)
    if parameter.scope is not Scope.MERGE:
        return _of_each(merge, parameter, resolver, findings)
    if not is_set(parameter, merge.levels) and parameter.default is not None:
        return None
    schedule = resolver.schedule(parameter, merge.levels, merge.frame, merge.mark)
    if schedule is None:
        _report_lack(merge.mark, parameter, f"'{merge.method.name}'", merge.levels, findings)
    return schedule


def _switch(
    merge: Merge, parameter: Parameter, resolver: Resolver, findings: Findings
) -> Part | None:
    """What a switch is set to; None where it is not, or another one leaves it without effect."""
    found = resolver.constant(parameter, merge.levels)
    if found is None:
        return None
    if parameter.only_with is not None:
        name, needed = parameter.only_with
        other = merge.method.parameter(name)
        assert other is not None
        given = resolver.constant(other, merge.levels)
        if (other.default if given is None else given.value) is not needed:
            if found.value is not parameter.default:
                what = f"mergekit ignores {parameter.name} unless {name} is {str(needed).lower()}"
                findings.report(found.mark, what, f"set {name}, or remove it")
            return None
    return Part(parameter.switch[found.value], found.mark)


def _of_each(
    merge: Merge, parameter: Parameter, resolver: Resolver, findings: Findings
) -> Part | None:
    """A parameter that each model has its own value of."""
    tuned = merge.tuned
    levels = [(one.settings, *merge.levels) for one in tuned]
    if parameter.default is not None and not any(is_set(parameter, each) for each in levels):
        return None
    schedules: list[Part] = []
    for one, each in zip(tuned, levels, strict=True):
        schedule = resolver.schedule(parameter, each, one.frame, one.mark)
        if schedule is None:
            _report_lack(one.mark, parameter, f"model '{one.model}'", each, findings)
        else:
            schedules.append(schedule)
    if len(schedules) < len(tuned):
        return None
    if parameter.form is Form.LIST:
        return listing(schedules[0].mark, schedules)
    first = schedules[0]
    if all(schedule.value == first.value for schedule in schedules):
        return first
    return mapping(first.mark, {"each": listing(first.mark, schedules)})


def _report_lack(
    mark: Mark, parameter: Parameter, whose: str, levels: Levels, findings: Findings
) -> None:
    """Tell of tensors without a value, but where the value was refused."""
    name = parameter.name
    if any(level.get(name) == () for level in levels):
        return
    if is_set(parameter, levels):
        what, fix = f"{whose} has no {name} where no filter matches", "end the list with - value: …"
    else:
        example = "1.0" if parameter.form is Form.LIST else "…"
        what, fix = f"{whose} has no {name}", f"parameters: {{{name}: {example}}}"
    findings.report(mark, what, fix)


def _simplified(merge: Merge, parameters: Mapping[str, Part]) -> Part:
    """The expression; one model alone is itself, where an average of it would be."""
    name, alone = merge.method.name, merge.tuned[0].expression
    if len(merge.tuned) == 1:
        if name == "karcher" or merge.is_plain:
            return alone
        if name == "linear" and parameters.get("normalize", Part(True, merge.mark)).value:
            return alone
        if name == "linear" and "weights" in parameters:
            weights = parameters["weights"]
            scale = Part(weights.value[0], weights.value.item_marks[0])
            return operator("passthrough", merge.mark, {"model": alone, "scale": scale})
    return operator(name, merge.mark, parameters)
