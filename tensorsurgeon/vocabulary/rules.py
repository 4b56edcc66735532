"""What a recipe says of single tokens: whose row they get, and whether in every model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum, auto

from tensorsurgeon.errors import Problem, RecipeError, did_you_mean, shortened
from tensorsurgeon.vocabulary.rows import RowOf, Sources
from tensorsurgeon.vocabulary.values import Vocabulary


class Nothing(Enum):
    """No row of any model."""

    ZERO = auto()


ZERO = Nothing.ZERO
"""Zeros in place of a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenOf:
    """A token of a model.

    Attributes:
        model: whose.
        token: its string or its id there; None for the token that a rule is about. An id need not
            have a token, but it must have a row.
    """

    model: str
    token: str | int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRule:
    """What a recipe says of a token.

    Attributes:
        source: whose row the models get that have not the token; None leaves that as it is.
        force: whether those that have the token get that row as well.
    """

    source: TokenOf | Nothing | None = None
    force: bool = False


def check_rules(rules: Mapping[str, TokenRule], vocabularies: Mapping[str, Vocabulary]) -> None:
    """See that rules can be followed.

    Raises:
        RecipeError: a token that no model has, a model that is not there, or one that has not the
            token; all of them are told.
    """
    problems = [
        Problem(what=f"token {shortened(repr(token))}: {what}", fix=fix)
        for token, rule in rules.items()
        for what, fix in _wrong(token, rule, vocabularies)
    ]
    if problems:
        raise RecipeError.of(problems)


def sources_of(
    source: TokenOf | Nothing, token: str, vocabularies: Mapping[str, Vocabulary]
) -> Sources:
    """The row that the rule of a token names; `check_rules` found that it is there."""
    if isinstance(source, Nothing):
        return ()
    said = token if source.token is None else source.token
    row = said if isinstance(said, int) else vocabularies[source.model].ids[said]
    return (RowOf(source.model, row),)


def _wrong(
    token: str, rule: TokenRule, vocabularies: Mapping[str, Vocabulary]
) -> Iterator[tuple[str, str]]:
    """What is wrong with a rule, each with a fix."""
    owners = [name for name, vocabulary in vocabularies.items() if token in vocabulary.ids]
    if not owners:
        every = {known for vocabulary in vocabularies.values() for known in vocabulary.ids}
        yield "no model has it", _near(token, every)
    if not isinstance(rule.source, TokenOf):
        return
    name, said = rule.source.model, rule.source.token
    if name not in vocabularies:
        yield f"there is no model '{name}'", did_you_mean(name, vocabularies)
        return
    vocabulary = vocabularies[name]
    if isinstance(said, int):
        if not 0 <= said < vocabulary.rows:
            yield f"id {said} has no row in '{name}'", f"its rows are 0 to {vocabulary.rows - 1}"
    elif said is not None and said not in vocabulary.ids:
        yield f"'{name}' has no token {shortened(repr(said))}", _near(said, vocabulary.ids)
    elif said is None and owners and name not in owners:
        yield f"'{name}' has it not", f"models that have it: {', '.join(owners)}"


def _near(token: str, known: Mapping[str, int] | set[str]) -> str:
    """A fix with the tokens that are spelled most alike."""
    alike = [other for other in known if abs(len(other) - len(token)) <= max(2, len(token) // 3)]
    return did_you_mean(token, get_close_matches(token, alike, n=3))
