"""The tokenizer of a result, as a recipe asks for it: its vocabulary, its files."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.documents import Mark
from tensorsurgeon.errors import Problem, RecipeError
from tensorsurgeon.plan.leaves import Leaves
from tensorsurgeon.plan.sidecars import OwnFile, data_without_code
from tensorsurgeon.plan.vocabularies import Files, Member
from tensorsurgeon.recipe import Reference
from tensorsurgeon.recipe.vocabulary import UNION, ZERO, ModelToken, Token
from tensorsurgeon.recipe.vocabulary import Vocabulary as Wanted
from tensorsurgeon.vocabulary import ZERO as ZEROS
from tensorsurgeon.vocabulary import Joined, TokenOf, TokenRule, Vocabulary, join
from tensorsurgeon.vocabulary.rules import Nothing, check_rules

Place = Callable[[Mark], str]
"""A place in the recipe, for errors."""


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """The files of a result's tokenizer.

    Attributes:
        donor: the checkpoint whose files go along.
        replaced: those of its files that do not.
        made: what is made in their place, and beside.
    """

    donor: Checkpoint
    replaced: frozenset[str] = frozenset()
    made: tuple[OwnFile, ...] = ()


def tokenizer_of(donor: Checkpoint, files: Files, made: Files, *, code: bool) -> Tokenizer:
    """A tokenizer that is a checkpoint's but for some files.

    Args:
        donor: the checkpoint.
        files: of its tokenizer's files, those that were looked at.
        made: what becomes of these; those that are lacking do not go along.
        code: whether a config may name Python classes.
    """
    changed = {name: data for name, data in made.items() if files.get(name) != data}
    if not code:
        configs = [name for name in changed if name.endswith("config.json")]
        changed |= {name: data_without_code(changed[name]) for name in configs}
    return Tokenizer(
        donor=donor,
        replaced=frozenset(changed) | (files.keys() - made.keys()),
        made=tuple(OwnFile(name=name, data=data) for name, data in changed.items()),
    )


def joined_as_asked(
    wanted: Wanted, members: Mapping[str, Member], leaves: Leaves, place: Place
) -> Joined:
    """Join the vocabularies of a recipe's models.

    Args:
        wanted: what the recipe says.
        members: the models.
        leaves: which of them a name in it means.
        place: gives places in it.

    Raises:
        ArchitectureError: tokenizers that cannot be joined.
        RecipeError: what is said of a token cannot be done.
    """
    vocabularies = {name: member.vocabulary for name, member in members.items()}
    base = leaves.base()
    donor: str | None = base or next(iter(members))
    if isinstance(wanted.source, Reference):
        donor = leaves.first(wanted.source)
    elif wanted.source == UNION:
        donor = None
    return join(
        vocabularies,
        base=base,
        donor=donor,
        rules=_rules(wanted, vocabularies, leaves, place),
        pad_to_multiple_of=wanted.pad_to_multiple_of,
    )


def _rules(
    wanted: Wanted, vocabularies: Mapping[str, Vocabulary], leaves: Leaves, place: Place
) -> dict[str, TokenRule]:
    """What is said of single tokens; all that cannot be done is told, each at its place."""
    rules: dict[str, TokenRule] = {}
    problems: list[Problem] = []
    for token, said in wanted.tokens.items():
        try:
            rule = TokenRule(source=_source(said, vocabularies, leaves, place), force=said.force)
            check_rules({token: rule}, vocabularies)
            rules[token] = rule
        except RecipeError as error:
            where = place(wanted.mark_of(token))
            problems += [replace(one, where=one.where or where) for one in error.problems]
    if problems:
        raise RecipeError.of(problems)
    return rules


def _source(
    said: Token, vocabularies: Iterable[str], leaves: Leaves, place: Place
) -> TokenOf | Nothing | None:
    if said.source is None or said.source == ZERO:
        return ZEROS if said.source == ZERO else None
    row = said.source
    assert isinstance(row, Reference | ModelToken)
    reference = row.model if isinstance(row, ModelToken) else row
    name = leaves.name_of(reference)
    if name is None:
        raise RecipeError(
            f"'{reference.name}' is made of other models, and a row is one of a model that is read",
            where=place(reference.mark),
            fix=f"name one of {', '.join(vocabularies)}",
        )
    return TokenOf(model=name, token=row.token if isinstance(row, ModelToken) else None)
