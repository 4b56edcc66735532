"""A recipe's file, ours or mergekit's, read and put into our language."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import matching_folders
from tensorsurgeon.documents import load_documents
from tensorsurgeon.errors import RecipeError, did_you_mean
from tensorsurgeon.operators import OPERATORS
from tensorsurgeon.recipe import Recipe, parse_recipe, read_recipe


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """What a file says.

    Attributes:
        recipe: the recipe.
        text: it in our language: the file's own text, or what a recipe of mergekit's becomes.
        notes: what of mergekit's has no place in our language.
    """

    recipe: Recipe
    text: str
    notes: tuple[str, ...] = ()


def read_recipe_file(path: Path) -> RecipeFile:
    """Read a recipe of ours or of mergekit's.

    Raises:
        RecipeError: it cannot be read, or what is wrong with it.
    """
    data, name = _read(path), str(path)
    documents = _of_mergekit(data, name)
    if documents is None:
        matching = partial(matching_folders, root=path.parent)
        recipe = parse_recipe(data, name, OPERATORS, matching)
        return RecipeFile(recipe=recipe, text=data.decode())
    from tensorsurgeon.mergekit import recipe_text, translate

    made = translate(documents, name)
    return RecipeFile(
        recipe=read_recipe(made.document, name, OPERATORS),
        text=recipe_text(made.document, made.notes),
        notes=made.notes,
    )


def is_ours(path: Path) -> bool:
    """Whether a recipe is written in our language, as far as can be seen without understanding it.

    Raises:
        RecipeError: it cannot be read.
    """
    return _of_mergekit(_read(path), str(path)) is None


def _of_mergekit(data: bytes, name: str) -> list[Any] | None:
    """The documents of a recipe of mergekit's; None for one of ours."""
    if b"merge_method" not in data:
        return None
    from tensorsurgeon.mergekit import is_mergekit

    documents = load_documents(data, name)
    return documents if is_mergekit(documents) else None


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise RecipeError("is not a file", where=str(path))
        return path.read_bytes()
    except FileNotFoundError:
        beside = [e.name for e in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        fix = did_you_mean(path.name, beside) if beside else ""
        raise RecipeError("there is no such file", where=str(path), fix=fix) from None
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=str(path)) from None
