"""What a recipe says of the result's vocabulary: whose tokens it has, and whose rows they get."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

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
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tensorsurgeon.documents import LocatedMap, Mark, kind_of
from tensorsurgeon.recipe.expression import ParseContext, Reference

UNION: Literal["union"] = "union"
BASE: Literal["base"] = "base"
ZERO: Literal["zero"] = "zero"

_NAME: dict[str, Any] = {"type": "string", "description": "the name of a model"}


def _named(raw: Any, info: ValidationInfo) -> Reference:
    """A model by its name; one that is not there is reported at its place."""
    if not isinstance(raw, str):
        raise PydanticCustomError("name", "a model's name, not {kind}", {"kind": kind_of(raw)})
    context, mark = info.context, getattr(raw, "mark", Mark())
    assert isinstance(context, ParseContext)
    context.check_name(raw, mark)
    return Reference(str(raw), mark)


def _read_whose(raw: Any, info: ValidationInfo) -> Reference | Literal["union", "base"]:
    context = info.context
    assert isinstance(context, ParseContext)
    if raw == UNION:
        _check_one_meaning(UNION, "the tokens of all models", context, raw)
        return UNION
    # A model that is called so is what is meant, and nearly always the same.
    return BASE if raw == BASE and BASE not in context.models else _named(raw, info)


def _check_one_meaning(word: str, meaning: str, context: ParseContext, raw: Any) -> None:
    if word in context.models:
        what = f"'{word}' is {meaning}, and a model is called so as well"
        context.report(getattr(raw, "mark", Mark()), what, "give the model another name")


class Located(BaseModel):
    """A mapping of a recipe that knows where it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    subject: ClassVar[str]
    """What to call it in errors."""

    _mark: Mark = PrivateAttr(default=Mark())

    @model_validator(mode="wrap")
    @classmethod
    def _read(
        cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if not isinstance(raw, LocatedMap):
            return handler(raw)
        try:
            made = handler(raw)
        except ValidationError as error:
            assert isinstance(info.context, ParseContext)
            info.context.report_validation(error, raw, cls, cls.subject)
            raise PydanticCustomError("reported", "reported") from None
        made._mark = raw.mark
        return made

    @property
    def mark(self) -> Mark:
        """Where it begins."""
        return self._mark


class ModelToken(Located):
    """A row of a model's embedding."""

    subject: ClassVar[str] = "output: vocabulary: a token's row"

    model: Annotated[Reference, PlainValidator(_named), WithJsonSchema(_NAME)] = Field(
        description="whose embedding"
    )
    token: StrictStr | StrictInt = Field(description="a token of it, or the row's index")


def _read_row(raw: Any, info: ValidationInfo) -> Reference | ModelToken | Literal["zero"] | None:
    if raw is None or isinstance(raw, LocatedMap):
        return None if raw is None else ModelToken.model_validate(raw, context=info.context)
    if raw != ZERO:
        return _named(raw, info)
    assert isinstance(info.context, ParseContext)
    _check_one_meaning(ZERO, "a row of zeros", info.context, raw)
    return ZERO


class Token(Located):
    """A token of the result."""

    subject: ClassVar[str] = "output: vocabulary: a token"

    source: Annotated[
        Reference | ModelToken | Literal["zero"] | None,
        PlainValidator(_read_row),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "description": "zero, or the name of a model"},
                    {
                        "type": "object",
                        "properties": {"model": _NAME, "token": {"type": ["string", "integer"]}},
                        "required": ["model", "token"],
                        "additionalProperties": False,
                    },
                    {"type": "null"},
                ]
            }
        ),
    ] = Field(
        default=None,
        description="whose row the models get that have not the token: a model's for the same "
        "token, a model's for another ({model: …, token: …}), or zero; by default the base's, or "
        "else that of its only owner, or else the mean of its owners'",
    )
    force: StrictBool = Field(
        default=False, description="whether the models that have the token get that row as well"
    )


class Vocabulary(Located):
    """The vocabulary of the result, to which every model is brought before anything is merged."""

    subject: ClassVar[str] = "output: vocabulary"

    source: Annotated[
        Reference | Literal["union", "base"],
        PlainValidator(_read_whose),
        WithJsonSchema({"type": "string"}),
    ] = Field(
        description="whose tokens it has: a model's by its name, those of all (union), or those of "
        "the model that the others are taken relative to, else of the first (base)"
    )
    tokens: Mapping[str, Token] = Field(
        default_factory=dict,
        description="what differs for single tokens; those that the source has not are added",
    )
    pad_to_multiple_of: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=1, description="the number of rows becomes a multiple of it, with rows of zeros"
    )

    _marks: Mapping[str, Mark] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_marks(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(raw)
        tokens = raw.get("tokens") if isinstance(raw, dict) else None
        made._marks = tokens.key_marks if isinstance(tokens, LocatedMap) else {}
        return made

    def mark_of(self, token: str) -> Mark:
        """Where what is said of a token stands."""
        return self._marks.get(token, self.mark)

    def references(self) -> tuple[Reference, ...]:
        """The models that it names."""
        rows = (token.source for token in self.tokens.values())
        named = (row.model if isinstance(row, ModelToken) else row for row in (self.source, *rows))
        return tuple(one for one in named if isinstance(one, Reference))
