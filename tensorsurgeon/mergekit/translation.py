"""mergekit's documents as one document of a recipe, in which every part keeps its place.

What mergekit calls by position becomes expressions with names: slices are pieces of a stack, a
slice of several models is a merge of their layers, earlier documents are models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import ValidationError

from tensorsurgeon.documents import Findings, LocatedList, LocatedMap
from tensorsurgeon.errors import RecipeError, did_you_mean
from tensorsurgeon.mergekit.building import mapping
from tensorsurgeon.mergekit.document import Document
from tensorsurgeon.mergekit.merges import Made, Merging, Notes
from tensorsurgeon.mergekit.methods import METHODS
from tensorsurgeon.mergekit.naming import Models
from tensorsurgeon.mergekit.outputs import left_out, output_of


@dataclass(frozen=True, kw_only=True)
class Translation:
    """A recipe made of mergekit's documents.

    Attributes:
        document: the recipe's, with the places of mergekit's.
        notes: what of theirs has no place in it, and why.
    """

    document: LocatedMap
    notes: tuple[str, ...]


def is_mergekit(documents: Sequence[Any]) -> bool:
    """Whether a file's documents are mergekit's: one that names a merge method is enough."""
    return any(isinstance(one, dict) and "merge_method" in one for one in _flat(documents))


def translate(documents: Sequence[Any], name: str) -> Translation:
    """Make a recipe.

    Args:
        documents: what `load_documents` found in a file.
        name: what to call it in errors.

    Raises:
        RecipeError: everything that is wrong with them, or that mergekit would ignore.
    """
    return _Translator(Findings(name=name)).translate(_flat(documents))


def _flat(documents: Sequence[Any]) -> list[Any]:
    """The documents; a list is as many of them."""
    return [
        part
        for document in documents
        for part in (document if isinstance(document, LocatedList) else [document])
    ]


class _Translator:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._notes: Notes = []

    def translate(self, raw: Sequence[Any]) -> Translation:
        documents = self._read(raw)
        *inner, last = self._ordered(documents)
        models = Models(
            [str(document.name) for document in inner],
            [one for document in documents for one in document.references()],
        )
        for document in inner:
            self._refuse_output(document)
            name = models.document(str(document.name))
            made = self._made(document, models, prefix=f"{name}-")
            if made is not None:
                models.finish(str(document.name), made.expression)
        made = self._made(last, models, prefix="")
        if made is None:
            raise self._error()
        output = output_of(last, made.donor, models, self._findings)
        if last.base_model not in (None, made.donor):
            what = f"config.json is of '{made.donor}', the first that is merged, not of base_model"
            self._notes.append((last.key_mark("base_model"), what))
        result = made.expression
        if last.name is not None:
            result = models.define(last.name, result)
        if self._findings.problems:
            raise self._error()
        entries = {"models": models.part(last.mark), "result": result}
        if output:
            entries["output"] = mapping(last.mark, output)
        notes = (f"line {mark.line}: {what}" for mark, what in sorted(self._notes))
        recipe: LocatedMap = mapping(last.mark, entries).value
        return Translation(document=recipe, notes=tuple(dict.fromkeys(notes)))

    def _read(self, raw: Sequence[Any]) -> list[Document]:
        """The documents, each with a method that is known."""
        documents: list[Document] = []
        for one in raw:
            try:
                document = Document.model_validate(one, context=self._findings)
            except ValidationError as error:
                self._findings.report_validation(error, one, Document)
                continue
            documents.append(document)
            if document.merge_method not in METHODS:
                mark = document.value_mark("merge_method")
                what = f"there is no merge_method '{document.merge_method}'"
                self._findings.report(mark, what, did_you_mean(document.merge_method, METHODS))
        if len(documents) < len(raw) or any(d.merge_method not in METHODS for d in documents):
            raise self._error()
        return documents

    def _ordered(self, documents: Sequence[Document]) -> list[Document]:
        """Each document after those that it uses, the one that is written last."""
        names = [document.name for document in documents] if len(documents) > 1 else []
        for index, name in enumerate(names):
            if name is not None and name in names[:index]:
                what = f"two documents have the name '{name}'"
                self._findings.report(documents[index].value_mark("name"), what)
                raise self._error()
        needs = [
            list(
                dict.fromkeys(names.index(one.path) for one in d.references() if one.path in names)
            )
            for d in documents
        ]
        used = {index for found in needs for index in found}
        unused = [document for index, document in enumerate(documents) if index not in used]
        try:
            order = list(TopologicalSorter(dict(enumerate(needs))).static_order())
        except CycleError as error:
            first = documents[min(error.args[1])]
            what = f"document '{first.name}' is made of itself"
            self._findings.report(first.value_mark("name"), what)
            raise self._error() from None
        for document in unused[:-1]:
            what = "no other document uses this one, and only one can be written"
            self._findings.report(document.mark, what, "keep the one, and those that it uses")
        if len(unused) > 1:
            raise self._error()
        return [documents[index] for index in order]

    def _made(self, document: Document, models: Models, *, prefix: str) -> Made | None:
        return Merging(
            document,
            METHODS[document.merge_method],
            models,
            prefix=prefix,
            findings=self._findings,
            notes=self._notes,
        ).made()

    def _refuse_output(self, document: Document) -> None:
        """An earlier document has no output of its own."""
        for key, mark in left_out(document):
            what = f"'{key}' of a document that another uses: nothing of it is written"
            self._findings.report(mark, what, "put it into the last document")
        for key in ("dtype", "out_dtype"):
            if getattr(document, key) is not None:
                what = f"no {key} of '{document.name}': what is in between is not rounded"
                self._notes.append((document.key_mark(key), what))

    def _error(self) -> RecipeError:
        problems = dict.fromkeys(self._findings.sorted_problems())
        error = RecipeError.of(problems)
        assert isinstance(error, RecipeError)
        return error
