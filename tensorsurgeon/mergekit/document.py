"""A mergekit document as it is written, with every key that mergekit would ignore reported."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainValidator,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tensorsurgeon.documents import Findings, LocatedMap, Mark, fields_of, kind_of
from tensorsurgeon.errors import did_you_mean
from tensorsurgeon.mergekit.methods import METHODS
from tensorsurgeon.mergekit.references import ModelReference, Referred, read_reference

_PARAMETERS = frozenset(one.name for method in METHODS.values() for one in method.parameters)

_INSTEAD = {
    "random_seed": "remove it; a seed is mergekit's command line's, or a recipe's 'seed'",
    "residual_weight": "remove it",
    "<<": "write out what is merged in: merge keys of YAML 1.1 are not known here",
}
"""What to do about some keys that mergekit does not know, or knows and never uses."""


class Section(BaseModel):
    """A mapping of a mergekit document, which knows where its keys stand."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    _raw: LocatedMap = PrivateAttr()

    @model_validator(mode="wrap")
    @classmethod
    def _tell_of_ignored_keys(
        cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if not isinstance(raw, LocatedMap):
            return handler(raw)
        context = info.context
        assert isinstance(context, Findings)
        known = fields_of(cls)
        for key, mark in raw.key_marks.items():
            if key not in known:
                context.report(mark, f"mergekit ignores '{key}' here", _fix_for(key, known))
        # Nothing at all is what mergekit takes for a key that was left out.
        given = {key: value for key, value in raw.items() if value is not None}
        made = handler({key: value for key, value in given.items() if key in known})
        made._raw = raw
        return made

    @property
    def mark(self) -> Mark:
        """Where it begins."""
        return self._raw.mark

    def key_mark(self, key: str) -> Mark:
        """Where one of its keys stands, or where it begins."""
        return self._raw.key_marks.get(key, self._raw.mark)

    def value_mark(self, key: str) -> Mark:
        """Where the value of one of its keys stands, or where it begins."""
        return self._raw.value_marks.get(key, self._raw.mark)


def _fix_for(key: str, known: Mapping[str, Any]) -> str:
    if key in _PARAMETERS and "parameters" in known:
        return "put it below 'parameters'"
    return _INSTEAD.get(key) or did_you_mean(key, known)


def _read_settings(raw: Any) -> LocatedMap | None:
    if raw is None or isinstance(raw, LocatedMap):
        return raw
    raise PydanticCustomError("settings", "takes a mapping, not {kind}", {"kind": kind_of(raw)})


Settings = Annotated[
    LocatedMap | None, PlainValidator(_read_settings), WithJsonSchema({"type": ["object", "null"]})
]
"""Parameters, as they are written."""


class Input(Section):
    """A model of a merge."""

    model: Referred
    parameters: Settings = None


class SliceInput(Input):
    """Some layers of a model."""

    layer_range: tuple[StrictInt, StrictInt]


class Slice(Section):
    """Layers of the output, merged of layers of one or more models."""

    sources: tuple[SliceInput, ...] = Field(min_length=1)
    base_model: Referred | None = None
    parameters: Settings = None


class Module(Section):
    """A part of the output: all of it, with families that have but one."""

    models: tuple[Input, ...] = ()
    slices: tuple[Slice, ...] = ()
    parameters: Settings = None


class TokenOfModel(Section):
    """A row of a model's embedding, by token or by its index."""

    kind: StrictStr
    model: Referred
    token: StrictStr | None = None
    token_id: StrictInt | None = None


def _read_row(raw: Any, info: ValidationInfo) -> ModelReference | TokenOfModel | str | None:
    """Where a token's embedding comes from; `zero` is all zeros."""
    if raw is None or not isinstance(raw, LocatedMap) or "kind" not in raw:
        return None if raw is None else read_reference(raw)
    if raw["kind"] == "zero":
        return "zero"
    if raw["kind"] != "model_token":
        what = f"'{raw['kind']}' is not known; known: zero, model_token"
        raise PydanticCustomError("row", "{what}", {"what": what})
    row = TokenOfModel.model_validate(raw, context=info.context)
    if (row.token is None) == (row.token_id is None):
        raise PydanticCustomError("row", "a model's token is named by 'token' or by 'token_id'")
    return row


class Token(Section):
    """A token of the output."""

    source: Annotated[
        ModelReference | TokenOfModel | str | None, PlainValidator(_read_row), WithJsonSchema({})
    ] = None
    force: StrictBool = False


def _read_vocabulary(raw: Any) -> ModelReference | str | None:
    if raw is None or raw in ("union", "base"):
        return None if raw is None else str(raw)
    if isinstance(raw, str) and raw.startswith("model:"):
        raw = raw.removeprefix("model:")
    return read_reference(raw)


Vocabulary = Annotated[
    ModelReference | str | None,
    PlainValidator(_read_vocabulary),
    WithJsonSchema({"type": "string", "description": "base, union or a model"}),
]
"""Whose vocabulary the output has: `base`, `union`, or a model's."""


class Tokenizer(Section):
    """The vocabulary of the output."""

    source: Vocabulary = "union"
    tokens: Mapping[str, Token] = Field(default_factory=dict)
    pad_to_multiple_of: Annotated[int, Field(ge=1, strict=True)] | None = None


class Document(Section):
    """One merge: what mergekit reads of a file, or of one document in it."""

    merge_method: StrictStr
    name: StrictStr | None = Field(
        default=None, min_length=1, description="what other documents of the file call it"
    )
    base_model: Referred | None = None
    models: tuple[Input, ...] = ()
    slices: tuple[Slice, ...] = ()
    modules: Mapping[str, Module] = Field(default_factory=dict)
    parameters: Settings = None
    dtype: StrictStr | None = None
    out_dtype: StrictStr | None = None
    tokenizer_source: Vocabulary = None
    tokenizer: Tokenizer | None = None
    chat_template: StrictStr | None = None

    def references(self) -> Iterator[ModelReference]:
        """Every model that is merged, as often as it is named."""
        sections: list[Document | Module] = [self, *self.modules.values()]
        slices = [piece for section in sections for piece in section.slices]
        for base in (self.base_model, *(piece.base_model for piece in slices)):
            if base is not None:
                yield base
        for section in sections:
            yield from (one.model for one in section.models)
        for piece in slices:
            yield from (one.model for one in piece.sources)
