"""Several vocabularies as one: the tokens of the result, and the rows each model has for them.

The result has the tokens of one model, or of all: those of the first with their ids, then what the
others have beyond, model by model in the order of their ids. A token is the same where its string
is. That needs tokenizers that spell alike (see `spelling`); what else differs follows the first:
how a text is cut into words, what is put around it.

What holds of a union:

- Every token of every model has an id and, for every model, a row.
- The first model's tokens keep their ids.
- BPE: its merges come first, so that a word is split as it was and then joined further where merges
  of the others apply; every token of the result's split is one or more of the first model's, in
  their order, in a text of characters that the first knows. A text that no such merge applies to
  is split as before. A token of another model comes of a text only where merges make it of the
  first model's tokens; some never do.
- WordLevel: a word has the id that it had; others' words are no longer unknown.
- WordPiece takes the longest token at each place, and Unigram the likeliest split, with each
  model's own probabilities: nothing is known of how a text is split, but that its tokens are those
  of the models.
- Added tokens of every model are looked for in every text, as they were in that model's.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tensorsurgeon.errors import ArchitectureError, Problem, RecipeError, did_you_mean
from tensorsurgeon.vocabulary.rows import RowMap, RowOf, Sources, row_map
from tensorsurgeon.vocabulary.rules import TokenRule, check_rules, sources_of
from tensorsurgeon.vocabulary.spelling import differences
from tensorsurgeon.vocabulary.values import AddedToken, Vocabulary

Vocabularies = Mapping[str, Vocabulary]
"""The vocabulary of each model, by its name; their order counts."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """One vocabulary for several models, and what their embeddings become.

    Attributes:
        vocabulary: the tokens of the result; its `rows` are those of the new embeddings.
        ground: the model whose tokenizer's files the result's are made from.
        is_kept: whether its tokens are those of `ground` and no others, whose files can stay.
        maps: for each model, where each row of its new embedding comes from: one of its own rows, a
            row of another model, the mean of rows, or zeros. Every map has as many rows. A row
            whose id has no token, as the padding, is zero; rows of an embedding beyond its tokens
            are not kept.
        notes: what the user should know about it.
    """

    vocabulary: Vocabulary
    ground: str
    is_kept: bool
    maps: Mapping[str, RowMap]
    notes: tuple[str, ...]


def join(
    vocabularies: Vocabularies,
    *,
    base: str | None = None,
    donor: str | None = None,
    rules: Mapping[str, TokenRule] | None = None,
    pad_to_multiple_of: int = 1,
) -> Joined:
    """Join vocabularies.

    For a token that a model has, its new embedding has its own row. For one that it has not: the
    base's row; or else the row of the only model that has it; or else the mean of the rows of all
    that have it.

    Args:
        vocabularies: of one model or more.
        base: the model the others were tuned from, where there is one.
        donor: the model whose tokens are the result's; without one, all tokens of all models, the
            base's or else the first model's before the others'.
        rules: what differs from that for single tokens. Those that the donor has not are added.
        pad_to_multiple_of: what the number of rows is made a multiple of, with rows of zeros.

    Raises:
        ArchitectureError: tokenizers to which one string is two different things.
        RecipeError: a model that is not there, a rule that cannot be followed, or a multiple of
            less than 1.
    """
    rules = rules or {}
    _check_names(vocabularies, base, donor)
    if pad_to_multiple_of < 1:
        what = f"pad_to_multiple_of is at least 1, not {pad_to_multiple_of}"
        raise RecipeError(what)
    check_rules(rules, vocabularies)
    ground = donor or base or next(iter(vocabularies))
    _check_spelling(vocabularies, ground)
    first = vocabularies[ground]
    if donor is None:
        whole = _union(first, [other for other in vocabularies.values() if other is not first])
    else:
        whole = _with_tokens(first, _missing(rules, vocabularies, ground))
    rows = -(-whole.end // pad_to_multiple_of) * pad_to_multiple_of
    made = _Rows(vocabularies, base, rules)
    tokens: list[str | None] = [None] * rows
    for token, number in whole.ids.items():
        tokens[number] = token
    return Joined(
        vocabulary=replace(whole, rows=rows),
        ground=ground,
        is_kept=(whole.ids, whole.added) == (first.ids, first.added),
        maps={name: row_map(made.of(name, tokens)) for name in vocabularies},
        notes=tuple(_notes(vocabularies, ground)),
    )


def _check_spelling(vocabularies: Vocabularies, ground: str) -> None:
    """See that one string means one thing to all.

    Raises:
        ArchitectureError: it does not; says to whom, and why.
    """
    problems = []
    for name, vocabulary in vocabularies.items():
        found = list(differences(vocabularies[ground].spelling, vocabulary.spelling))
        if found:
            what = f"the vocabularies of '{ground}' and '{name}' cannot be joined: the same string "
            what += f"is another piece of text to each ({'; '.join(found)})"
            problems.append(Problem(what=what, fix="merge models whose tokenizers are of one kind"))
    if problems:
        raise ArchitectureError.of(problems)


class _Rows:
    """The sources of every token's row."""

    def __init__(
        self, vocabularies: Vocabularies, base: str | None, rules: Mapping[str, TokenRule]
    ) -> None:
        self._ids = {name: vocabulary.ids for name, vocabulary in vocabularies.items()}
        self._base, self._rules = base, rules
        self._ruled = {
            token: None if rule.source is None else sources_of(rule.source, token, vocabularies)
            for token, rule in rules.items()
        }

    def of(self, model: str, tokens: Iterable[str | None]) -> Iterator[Sources]:
        """The sources of each row of a model's new embedding."""
        ids, rules = self._ids[model], self._rules
        for token in tokens:
            if token is None:
                yield ()
            elif token in ids and not (token in rules and rules[token].force):
                yield (RowOf(model, ids[token]),)
            else:
                yield self._default(token)

    def _default(self, token: str) -> Sources:
        ruled = self._ruled.get(token)
        if ruled is not None:
            return ruled
        owners = tuple(RowOf(name, ids[token]) for name, ids in self._ids.items() if token in ids)
        of_base = tuple(owner for owner in owners if owner.model == self._base)
        return of_base or owners


def _check_names(vocabularies: Vocabularies, *names: str | None) -> None:
    for name in names:
        if name is not None and name not in vocabularies:
            raise RecipeError(
                f"there is no model '{name}' to take a vocabulary from",
                fix=did_you_mean(name, vocabularies),
            )


def _union(first: Vocabulary, others: Iterable[Vocabulary]) -> Vocabulary:
    ids, scores = dict(first.ids), dict(first.scores)
    inside = first.ids.keys() - first.outside
    added, merges = dict(first.added), dict.fromkeys(first.merges)
    number = first.end
    for other in others:
        for token in other.ids:
            if token not in ids:
                ids[token] = number
                number += 1
        for token, score in other.scores.items():
            scores.setdefault(token, score)
        inside |= other.ids.keys() - other.outside
        for token, how in other.added.items():
            added.setdefault(token, how)
        merges |= dict.fromkeys(other.merges)
    return replace(
        first,
        ids=ids,
        added=_by_id(added, ids),
        outside=frozenset(ids) - inside,
        scores=scores,
        merges=tuple(merges),
    )


def _missing(
    rules: Mapping[str, TokenRule], vocabularies: Vocabularies, ground: str
) -> dict[str, AddedToken]:
    """The tokens that rules speak of and the result would lack, as the first owner finds them."""
    found = {}
    for token in rules:
        if token not in vocabularies[ground].ids:
            ways = (other.added[token] for other in vocabularies.values() if token in other.added)
            found[token] = next(ways, AddedToken())
    return found


def _with_tokens(vocabulary: Vocabulary, tokens: Mapping[str, AddedToken]) -> Vocabulary:
    if not tokens:
        return vocabulary
    ids = dict(vocabulary.ids)
    ids.update((token, number) for number, token in enumerate(tokens, vocabulary.end))
    added = _by_id({**vocabulary.added, **tokens}, ids)
    outside = vocabulary.outside | tokens.keys()
    return replace(vocabulary, ids=ids, added=added, outside=outside)


def _by_id(added: Mapping[str, AddedToken], ids: Mapping[str, int]) -> dict[str, AddedToken]:
    return {token: added[token] for token in sorted(added, key=ids.__getitem__)}


def _notes(vocabularies: Vocabularies, ground: str) -> Iterator[str]:
    for name, other in vocabularies.items():
        if other.spelling.splitting != vocabularies[ground].spelling.splitting:
            yield (
                f"the tokenizer of '{name}' cuts texts into words otherwise than that of "
                f"'{ground}', whose way the result has"
            )
        both = other.added.keys() & vocabularies[ground].added.keys()
        differing = [t for t in both if other.added[t] != vocabularies[ground].added[t]]
        if differing:
            first = min(differing, key=vocabularies[ground].ids.__getitem__)
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            yield (
                f"the tokenizer of '{name}' looks otherwise for {first!r}{more} than that of "
                f"'{ground}', whose way the result has"
            )
