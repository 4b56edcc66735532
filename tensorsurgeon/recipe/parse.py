"""A recipe's text to a `Recipe`, with every mistake in it reported at once."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictInt,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from tensorsurgeon.documents import LocatedMap, LocatedStr, Mark, kind_of, load_document
from tensorsurgeon.errors import RecipeError, did_you_mean
from tensorsurgeon.recipe.expression import (
    EXPRESSION_SCHEMA,
    Expression,
    Matching,
    Operator,
    ParseContext,
    Reference,
    as_written,
    parse_expression,
)
from tensorsurgeon.recipe.vocabulary import Vocabulary
from tensorsurgeon.specs import parse_repo, parse_size


class Source(Operator):
    """A checkpoint to read. A plain string in `models` is the short form."""

    operator: ClassVar[str] = "source"
    body: ClassVar[str | None] = "path"

    path: str = Field(
        description="a folder, relative to the recipe, or a Hub repo as org/name@revision",
        min_length=1,
    )
    layers: str | None = Field(
        default=None,
        description="what stands before a layer's index in tensor names, as `model.layers`; "
        "only needed where it cannot be told",
    )

    @classmethod
    def at(cls, path: str, mark: Mark | None) -> "Source":
        """A path in the short form, at its place in the recipe."""
        source = cls.model_construct(path=str(path), layers=None)
        source._mark = mark or source._mark
        return source


def _read_size(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        raise PydanticCustomError("size", "a size such as 5GB, not {kind}", {"kind": kind_of(raw)})
    try:
        return parse_size(raw)
    except ValueError as error:
        raise PydanticCustomError("size", "{error}", {"error": str(error)}) from None


def _read_repo(raw: Any) -> str | None:
    if raw is None:
        return None
    if not isinstance(raw, str):
        raise PydanticCustomError("repo", "a repository, not {kind}", {"kind": kind_of(raw)})
    try:
        return parse_repo(raw)
    except ValueError as error:
        raise PydanticCustomError("repo", "{error}", {"error": str(error)}) from None


def _read_template(raw: Any) -> str | None:
    """Text that keeps its place in the recipe."""
    if raw is None or (isinstance(raw, str) and raw):
        return raw
    kind = "an empty one" if raw == "" else kind_of(raw)
    raise PydanticCustomError("template", "a template, not {kind}", {"kind": kind})


class Output(BaseModel):
    """Where the result goes and in which form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = Field(default=None, description="folder to make, relative to the recipe")
    dtype: (
        Literal["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] | None
    ) = Field(
        default=None, description="of every floating-point tensor; each keeps its own by default"
    )
    max_shard_size: Annotated[
        int,
        BeforeValidator(_read_size),
        WithJsonSchema({"type": ["string", "integer"], "examples": ["5GB"]}),
    ] = Field(default=5_000_000_000, description="most bytes a shard file holds, as 5GB")
    rounding: Literal["nearest", "stochastic"] = Field(
        default="nearest",
        description="of what is computed: to the nearest value the dtype has, ties to even, or at "
        "random to one of its two neighbours, the nearer more likely, by the seed",
    )
    tokenizer: str | None = Field(
        default=None,
        description="the model whose tokenizer files go along; by default the result's first",
    )
    vocabulary: Vocabulary | None = Field(
        default=None,
        description="for models whose tokenizers differ: the one that the result has, to which "
        "their embeddings are brought first",
    )
    chat_template: Annotated[
        str | None, PlainValidator(_read_template), WithJsonSchema({"type": ["string", "null"]})
    ] = Field(
        default=None,
        description="of the result's tokenizer: Jinja, or alpaca, chatml, or auto for the one that "
        "most of the models have; by default the tokenizer's own",
    )
    push: Annotated[
        str | None, BeforeValidator(_read_repo), WithJsonSchema({"type": ["string", "null"]})
    ] = Field(default=None, description="repository of the Hub it goes to as well, as org/name")


def _parse_models(raw: Any, info: ValidationInfo) -> dict[str, Operator | Reference]:
    if not isinstance(raw, dict) or not raw:
        given = "an empty one" if raw == {} else kind_of(raw)
        raise PydanticCustomError(
            "models", "a mapping of names to models, not {given}", {"given": given}
        )
    context = info.context
    assert isinstance(context, ParseContext)
    models: dict[str, Operator | Reference] = {}
    context.models = frozenset(raw)
    for name, value in raw.items():
        if isinstance(value, str) and value not in models:
            models[name] = _source(value)
        else:
            try:
                models[name] = parse_expression(value, info)
            except PydanticCustomError as error:
                if error.type != "reported":
                    mark = raw.value_marks[name] if isinstance(raw, LocatedMap) else Mark()
                    context.report(mark, f"model '{name}': {error.message()}")
                # A stand-in, so that the rest of the recipe is looked through as well.
                models[name] = _source("?")
        context.defined.add(name)
    return models


def _source(path: str) -> Source:
    return Source.at(path, path.mark if isinstance(path, LocatedStr) else None)


Models = Annotated[
    Mapping[str, Operator | Reference],
    PlainValidator(_parse_models),
    WithJsonSchema(
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": EXPRESSION_SCHEMA,
        }
    ),
]


class Recipe(BaseModel):
    """What a new checkpoint is."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    models: Models = Field(
        description="names for sources, and for expressions over the names before them"
    )
    result: Expression = Field(description="the model to write")
    output: Output = Field(default=Output(), description="where it goes and in which form")
    seed: StrictInt = Field(
        default=0, description="of methods that draw random numbers", ge=0, strict=True
    )


_NEEDS = "a recipe has at least 'models' and 'result'"


def parse_recipe(
    data: bytes,
    name: str,
    operators: Iterable[type[Operator]],
    matching: Matching = as_written,
) -> Recipe:
    """Read a recipe.

    Args:
        data: the file's bytes.
        name: what to call the file in errors.
        operators: the operators it may use.
        matching: gives the folders that a pattern in it matches.

    Raises:
        RecipeError: everything that is wrong with it, each with line, column and a fix.
    """
    return read_recipe(load_document(data, name, needs=_NEEDS), name, operators, matching)


def read_recipe(
    document: LocatedMap,
    name: str,
    operators: Iterable[type[Operator]],
    matching: Matching = as_written,
) -> Recipe:
    """Read a recipe from its document; raises as `parse_recipe`."""
    kinds: tuple[type[Operator], ...] = (Source, *operators)
    known = {kind.operator: kind for kind in kinds}
    context = ParseContext(name=name, operators=known, matching=matching)
    try:
        recipe = Recipe.model_validate(document, context=context)
    except ValidationError as error:
        context.report_validation(error, document, Recipe, "the recipe")
        raise RecipeError.of(context.sorted_problems()) from None
    _check_names(recipe, document, context)
    if context.problems:
        raise RecipeError.of(context.sorted_problems())
    return recipe


def _check_names(recipe: Recipe, document: LocatedMap, context: ParseContext) -> None:
    """Every model is used, and the tokenizer's is there."""
    sound = not context.problems
    used = _reachable(recipe)
    tokenizer = recipe.output.tokenizer
    if tokenizer is not None and recipe.output.vocabulary is not None:
        mark = document["output"].key_marks["tokenizer"]
        what = "output: tokenizer: the files are made from 'vocabulary', which says whose they are"
        context.report(mark, what, "keep one of the two")
    if tokenizer is not None and tokenizer not in recipe.models:
        mark = document["output"].value_marks["tokenizer"]
        fix = did_you_mean(tokenizer, recipe.models)
        context.report(mark, f"output: tokenizer: there is no model '{tokenizer}'", fix)
    for name in recipe.models:
        if sound and name not in used:
            marks = document["models"].key_marks
            context.report(marks[name], f"model '{name}' is never used", "use it or remove it")


def _references(expression: Operator | Reference) -> Iterator[Reference]:
    if isinstance(expression, Reference):
        yield expression
    else:
        for operand in expression.operands():
            yield from _references(operand)


def _reachable(recipe: Recipe) -> set[str]:
    """Every model that the result needs, its tokenizer or its vocabulary."""
    reached: set[str] = set()
    waiting = [recipe.result]
    if recipe.output.tokenizer is not None:
        waiting.append(Reference(recipe.output.tokenizer))
    if recipe.output.vocabulary is not None:
        waiting.extend(recipe.output.vocabulary.references())
    while waiting:
        for reference in _references(waiting.pop()):
            if reference.name in recipe.models and reference.name not in reached:
                reached.add(reference.name)
                waiting.append(recipe.models[reference.name])
    return reached
