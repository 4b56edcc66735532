"""Models brought to one vocabulary before anything is merged: each embedding made of other rows."""

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tensorsurgeon.arch.vocabulary import (
    VocabularyTensors,
    check_all_known,
    config_with_rows,
    vocabulary_tensors,
)
from tensorsurgeon.errors import ArchitectureError, PlanError
from tensorsurgeon.operators.rows import Rows, Term, Use
from tensorsurgeon.plan.model import Model
from tensorsurgeon.plan.nodes import Node, Streamed, Zeros
from tensorsurgeon.vocabulary import (
    Joined,
    RowMap,
    Vocabulary,
    config_changes,
    read_vocabulary,
)

Files = Mapping[str, bytes]
"""The files of a tokenizer, by name."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model whose vocabulary is joined with others'.

    Attributes:
        model: as it is.
        source: the path of its source in the recipe.
        tensors: those that have a row for each token.
        vocabulary: of its tokenizer.
    """

    model: Model
    source: str
    tensors: VocabularyTensors
    vocabulary: Vocabulary


class Members:
    """Reads them. What has the same tokenizer to the byte as another is parsed once.

    Attributes:
        parsed: tokens and merges that were parsed.
    """

    def __init__(self) -> None:
        self.parsed = 0
        self._vocabularies: dict[tuple[object, ...], Vocabulary] = {}

    def read(self, model: Model, source: str, files: Files, *, folder: str) -> Member:
        """A model as a member.

        Args:
            model: the model.
            source: the path of its source in the recipe.
            files: its tokenizer's.
            folder: where they are of, for errors.

        Raises:
            ArchitectureError: it is not known which of its tensors have a row for each token.
            CheckpointError: the files are not a tokenizer's.
        """
        shapes = {name: node.shape for name, node in model.tensors.items()}
        architecture = model.architecture
        found = vocabulary_tensors(architecture, model.config, shapes, where=folder)
        digests = ((name, hashlib.sha256(files[name]).digest()) for name in sorted(files))
        key = (found.rows, *digests)
        if key not in self._vocabularies:
            made = read_vocabulary(files, folder=folder, rows=found.rows)
            self.parsed += len(made.ids) + len(made.merges)
            self._vocabularies[key] = made
        vocabulary = self._vocabularies[key]
        check_all_known(architecture, shapes, found, vocabulary.end, where=folder)
        return Member(model=model, source=source, tensors=found, vocabulary=vocabulary)


class Joining:
    """Models with the vocabulary they are brought to.

    Args:
        members: the models by name.
        joined: their vocabularies as one.
        parsed: tokens and merges that were parsed for it.
    """

    def __init__(self, members: Mapping[str, Member], joined: Joined, parsed: int) -> None:
        self.members = members
        self.joined = joined
        self.parsed = parsed
        self._models: dict[str, Model] = {}
        self._rows: dict[str, tuple[tuple[str, ...], Rows]] = {}

    def model(self, name: str) -> Model:
        """A member with the joined vocabulary; its tensors as they are where nothing changes.

        Raises:
            ArchitectureError: it would need rows of a model whose rows are longer or shorter.
            PlanError: its embedding cannot be computed on.
        """
        if name not in self._models:
            member, rows = self.members[name], self.joined.vocabulary.rows
            model = member.model
            tensors = dict(model.tensors)
            if not self.joined.maps[name].keeps(name, member.tensors.rows):
                tensors |= {tensor: self._changed(name, tensor) for tensor in member.tensors}
            config = config_with_rows(model.architecture, model.config, rows)
            self._models[name] = replace(model, tensors=tensors, config=config)
        return self._models[name]

    def config(self, model: Model, owner: str) -> dict[str, Any]:
        """The config of a model that is made of members, with the token ids of the result.

        Args:
            model: the model.
            owner: the member whose config it is made from.

        Raises:
            CheckpointError: an id in it has no token in the result.
        """
        config = config_with_rows(model.architecture, model.config, self.joined.vocabulary.rows)
        text = model.architecture.text_of(config)
        for part in (config,) if text is config else (config, text):
            part |= self.ids(part, owner)
        return config

    def ids(self, config: Mapping[str, Any], owner: str) -> dict[str, Any]:
        """What changes in any file of a member that has token ids; raises as `config`."""
        vocabularies = {name: member.vocabulary for name, member in self.members.items()}
        return config_changes(config, owner, vocabularies, self.joined)

    def _changed(self, name: str, tensor: str) -> Node:
        """What becomes of a tensor that has a row for each token."""
        lenders, rows = self._rows_for(name)
        member = self.members[name]
        own = member.model.tensors[tensor]
        inputs = (own, *(self._lent(lender, name, tensor) for lender in lenders))
        for node in inputs:
            if not node.dtype.computable:
                raise PlanError(
                    f"the vocabulary of '{name}' cannot be changed: tensor '{tensor}' is made of "
                    f"{node.dtype.value} numbers, which mean nothing without their scales",
                    fix="use the unquantized model, and quantize the result",
                )
        shape = _with_rows(own.shape, rows.rows, is_bias=tensor in member.tensors.biases)
        return Streamed(
            operator=rows,
            parameters=(("rows", tuple(use.taken for use in rows.uses)),),
            inputs=inputs,
            name=tensor,
            seed=0,
            made=shape,
        )

    def _rows_for(self, name: str) -> tuple[tuple[str, ...], Rows]:
        """Which other members lend to one, and what each of its rows is made of."""
        if name not in self._rows:
            row_map = self.joined.maps[name]
            lenders = tuple(lender for lender in row_map.models if lender != name)
            counts = {one: self.members[one].tensors.rows for one in (name, *lenders)}
            self._rows[name] = lenders, as_operator(row_map, counts)
        return self._rows[name]

    def _lent(self, lender: str, name: str, tensor: str) -> Node:
        """The tensor of one member whose rows stand in another's tensor."""
        ours, theirs = self.members[name], self.members[lender]
        own = ours.model.tensors[tensor]
        if tensor in ours.tensors.biases:
            biases = theirs.tensors.biases
            found = _same_or_first(tensor, biases)
            if found is None:  # none is added there
                return Zeros(dtype=own.dtype, shape=(theirs.tensors.rows,))
            return theirs.model.tensors[found]
        heads = theirs.tensors.heads
        if tensor in ours.tensors.embeddings or ours.tensors.tied is True or not heads:
            heads = theirs.tensors.embeddings
        found = _same_or_first(tensor, heads)
        assert found is not None
        node = theirs.model.tensors[found]
        if node.shape[1] != own.shape[1]:
            raise ArchitectureError(
                f"'{name}' lacks tokens that '{lender}' has, and cannot take their rows: "
                f"'{tensor}' has {own.shape[1]} columns, and '{found}' of '{lender}' "
                f"{node.shape[1]}",
                fix="name another row for them below 'tokens', or take the vocabulary of a model "
                "of the same width",
            )
        return node


def _same_or_first(name: str, names: Sequence[str]) -> str | None:
    return name if name in names else next(iter(names), None)


def _with_rows(shape: tuple[int, ...], rows: int, *, is_bias: bool) -> tuple[int, ...]:
    return (*shape[:-1], rows) if is_bias else (rows, *shape[1:])


def as_operator(row_map: RowMap, counts: Mapping[str, int]) -> Rows:
    """A map of rows as what gathers them.

    Args:
        row_map: the map.
        counts: the number of rows of each input, by the model it is of, in the inputs' order.
    """
    numbers = {name: index for index, name in enumerate(counts)}
    terms: list[tuple[array[int], array[int], array[int]]] = []
    taken, jumps, behind = ([0] * len(counts) for _ in range(3))
    for run in row_map.runs:
        length = run.stop - run.start
        for order, source in enumerate(run.sources):
            if order == len(terms):
                terms.append((array("i"), array("h"), array("i")))
            rows, inputs, places = terms[order]
            index = numbers[source.model]
            rows.extend(range(run.start, run.stop))
            inputs.extend([index] * length)
            places.extend(range(source.row, source.row + length))
            taken[index] += length
            jumps[index] += source.row != behind[index]
            behind[index] = source.row + length
    return Rows(
        rows=row_map.rows,
        terms=tuple(
            Term(rows=rows.tobytes(), inputs=inputs.tobytes(), places=places.tobytes())
            for rows, inputs, places in terms
        ),
        uses=tuple(
            Use(rows=rows, taken=taken[index], jumps=jumps[index])
            for index, rows in enumerate(counts.values())
        ),
    )


def notes_of(joining: Joining) -> Iterator[str]:
    """What the user should know of a joined vocabulary."""
    joined = joining.joined
    tokens, rows = len(joined.vocabulary.ids), joined.vocabulary.rows
    others = tokens - len(joining.members[joined.ground].vocabulary.ids)
    more = f" and {others} more" if others else ""
    yield f"vocabulary: {tokens} tokens in {rows} rows, those of '{joined.ground}'{more}"
    yield from (f"vocabulary: {note}" for note in joined.notes)
