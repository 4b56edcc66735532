"""What one mergekit document makes, as an expression: of whole models, or slice by slice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorsurgeon.documents import Findings, LocatedMap, Mark
from tensorsurgeon.mergekit.building import Part, listing, mapping
from tensorsurgeon.mergekit.document import Document, Input, Module, Slice, SliceInput
from tensorsurgeon.mergekit.filters import Frame
from tensorsurgeon.mergekit.merging import Merge, Operand, expression_of
from tensorsurgeon.mergekit.methods import Form, Method, Scope
from tensorsurgeon.mergekit.naming import Models
from tensorsurgeon.mergekit.references import ModelReference
from tensorsurgeon.mergekit.schedules import Levels, Resolver, is_set
from tensorsurgeon.mergekit.settings import Level, Settings, read_settings

Notes = list[tuple[Mark, str]]
"""What has no place in a recipe, and why; with where it stands."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a document merges: whole models or slices, not both.

    Attributes:
        models: the models.
        slices: the slices, from the bottom up.
        parameters: of the module they are in, where they are in one.
        mark: where they stand.
    """

    models: tuple[Input, ...]
    slices: tuple[Slice, ...]
    parameters: LocatedMap | None
    mark: Mark


@dataclass(frozen=True, kw_only=True)
class Made:
    """An expression, and the model that gives its config and tokenizer."""

    expression: Part
    donor: ModelReference


def content_of(document: Document, findings: Findings, notes: Notes) -> Content | None:
    """What a document merges; None, and reported, where that cannot be told."""
    given = [key for key in ("models", "slices", "modules") if getattr(document, key)]
    if len(given) != 1:
        what = "one of 'models', 'slices' and 'modules' says what is merged"
        listed = " and ".join(given) or "none"
        findings.report(document.mark, f"{what}; here is {listed}", "keep one of them")
        return None
    section: Document | Module = document
    parameters = None
    if document.modules:
        modules = list(document.modules.values())
        section, parameters = modules[0], modules[0].parameters
        if not _are_one(document, findings):
            return None
        if len(modules) > 1:
            what = "all modules are merged alike, those that are not listed as well"
            notes.append((document.key_mark("modules"), what))
    if bool(section.models) is bool(section.slices):
        findings.report(section.mark, "a module has either 'models' or 'slices'")
        return None
    return Content(
        models=section.models,
        slices=section.slices,
        parameters=parameters,
        mark=section.key_mark("models" if section.models else "slices"),
    )


def _are_one(document: Document, findings: Findings) -> bool:
    """Whether the modules can be merged as one model; each on its own is not known here."""
    raw = [module._raw for module in document.modules.values()]
    if len(raw) == 1 and "default" in document.modules:
        return True
    if len(raw) > 1 and all(one == raw[0] for one in raw) and raw[0].get("models"):
        return True
    findings.report(
        document.key_mark("modules"),
        "modules that are merged each in its own way are not known here",
        "write 'models' in place of 'modules', with filters for what differs",
    )
    return False


class Merging:
    """Makes the expression of one document.

    Args:
        document: the document.
        method: its merge method.
        models: the recipe's models, to which slices are added.
        prefix: what the names of slices begin with.
        findings: what is wrong.
        notes: what has no place in a recipe.
    """

    def __init__(
        self,
        document: Document,
        method: Method,
        models: Models,
        *,
        prefix: str,
        findings: Findings,
        notes: Notes,
    ) -> None:
        self._document = document
        self._method = method
        self._models = models
        self._prefix = prefix
        self._findings = findings
        self._notes = notes
        self._resolver = Resolver(findings)

    def made(self) -> Made | None:
        """The expression; None, and reported, where there is nothing to merge."""
        content = content_of(self._document, self._findings, self._notes)
        if content is None:
            return None
        whole = self._settings(self._document.parameters, Level(of="merge"))
        module = self._settings(content.parameters, Level(of="merge"))
        if content.models:
            merge = self._of_models(content.models, (module, whole))
            expression = expression_of(merge, self._resolver, self._findings)
            return Made(expression=expression, donor=merge.ordered[0].model)
        merges = self._of_slices(content.slices, (module, whole))
        if not merges:
            return None
        expression = self._stacked(merges, content.mark)
        self._resolver.report_idle()
        return Made(expression=expression, donor=merges[0].ordered[0].model)

    def _settings(self, raw: LocatedMap | None, level: Level) -> Settings:
        """One level's parameters; those that are left out are noted."""
        found = read_settings(raw, self._method, level, self._findings)
        for name in found:
            parameter = self._method.parameter(name)
            assert parameter is not None
            assert raw is not None
            if parameter.form is Form.NOTHING:
                self._notes.append((raw.key_marks[name], f"no {name}: {parameter.ours}"))
        return found

    def _operand(self, given: Input, expression: Part, frame: Frame, *, is_base: bool) -> Operand:
        level = Level(of="model", is_base=is_base)
        return Operand(
            model=given.model,
            expression=expression,
            settings=self._settings(given.parameters, level),
            frame=frame,
            mark=given.mark,
        )

    def _of_models(self, models: Sequence[Input], levels: Levels) -> Merge:
        base = self._document.base_model
        if base is not None and self._method.base != "none":
            self._models.reference(base)  # the first to be told of
        operands = [
            self._operand(
                given,
                self._models.reference(given.model),
                Frame(),
                is_base=given.model == base,
            )
            for given in models
        ]
        if base is not None and all(one.model != base for one in operands):
            operands += self._added(base, levels)
        return Merge(
            method=self._method,
            operands=tuple(operands),
            base=base,
            levels=levels,
            frame=Frame(),
            mark=self._document.value_mark("merge_method"),
        )

    def _added(self, base: ModelReference, levels: Levels) -> Iterator[Operand]:
        """The base, which mergekit adds to models that it is not among."""
        if self._method.base == "none":
            weights = [one for one in self._method.parameters if one.scope is Scope.MODEL]
            if any(one.default is None and not is_set(one, levels) for one in weights):
                what = f"mergekit adds base_model '{base}' to the models, and it has no weight"
                fix = "list it below 'models' with a weight, or remove base_model"
                self._findings.report(base.mark, what, fix)
                return
            what = "base_model is merged as one of the models, to which mergekit adds it"
            self._notes.append((base.mark, what))
        yield Operand(
            model=base,
            expression=self._models.reference(base),
            settings={},
            frame=Frame(),
            mark=base.mark,
        )

    def _of_slices(self, slices: Sequence[Slice], levels: Levels) -> list[Merge]:
        """The merges of all slices; none where a slice has no layers."""
        merges: list[Merge] = []
        offset, sound = 0, True
        for piece in slices:
            if not self._has_layers(piece):
                sound = False
                continue
            own = self._settings(piece.parameters, Level(of="merge"))
            count = _count(piece.sources[0])
            base = piece.base_model or self._document.base_model
            operands = [
                self._operand(
                    given,
                    self._layers(given),
                    Frame(start=given.layer_range[0], count=count),
                    is_base=given.model == base,
                )
                for given in piece.sources
            ]
            merges.append(
                Merge(
                    method=self._method,
                    operands=tuple(operands),
                    base=base,
                    levels=(own, *levels),
                    frame=Frame(start=offset, count=count),
                    mark=piece.mark,
                )
            )
            offset += count
        return merges if sound else []

    def _has_layers(self, piece: Slice) -> bool:
        for source in piece.sources:
            start, stop = source.layer_range
            if not 0 <= start < stop:
                what = f"layer_range [{start}, {stop}] has no layers"
                fix = "[first, end): the end is not taken, as in Python"
                self._findings.report(source.value_mark("layer_range"), what, fix)
                return False
        counts = [_count(source) for source in piece.sources]
        if any(count != counts[0] for count in counts):
            listed = ", ".join(map(str, counts))
            what = f"the sources of a slice have as many layers each, not {listed}"
            self._findings.report(piece.mark, what)
            return False
        return True

    def _piece(self, given: SliceInput) -> Part:
        """Some layers of a model, as a piece of a stack."""
        mark = given.value_mark("layer_range")
        layers = Part(given._raw["layer_range"], mark)
        return mapping(mark, {"model": self._models.reference(given.model), "layers": layers})

    def _layers(self, given: SliceInput) -> Part:
        """Some layers of a model, as a model."""
        piece = self._piece(given)
        return _stack(piece.mark, [piece])

    def _stacked(self, merges: Sequence[Merge], mark: Mark) -> Part:
        """All slices, the first at the bottom; one alone as it is."""
        if len(merges) == 1:
            return expression_of(merges[0], self._resolver, self._findings)
        pieces: list[Part] = []
        for number, merge in enumerate(merges, start=1):
            expression = expression_of(merge, self._resolver, self._findings)
            if merge.is_plain and len(merge.operands) == 1:
                pieces.append(Part(expression.value["stack"][0], merge.mark))
            else:
                model = self._models.define(f"{self._prefix}slice-{number}", expression)
                pieces.append(mapping(merge.mark, {"model": model}))
        return _stack(mark, pieces)


def _stack(mark: Mark, pieces: Sequence[Part]) -> Part:
    """Pieces, one upon the other."""
    return mapping(mark, {"stack": listing(mark, pieces)})


def _count(source: SliceInput) -> int:
    start, stop = source.layer_range
    return stop - start
