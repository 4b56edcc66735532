"""The sources of a recipe, opened: folders, and repositories of the Hub."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from tensorsurgeon.checkpoint import Checkpoint, open_checkpoint
from tensorsurgeon.errors import (
    CheckpointError,
    HubError,
    Problem,
    TensorSurgeonError,
    did_you_mean,
    shortened,
)
from tensorsurgeon.recipe import Operator, Recipe, Source

HUB = "hf://"
"""What a name begins with that is a repository's, even where a folder has it too."""


def open_sources(recipe: Recipe, path: Path) -> dict[str, Checkpoint]:
    """Open every source once.

    Args:
        recipe: the recipe.
        path: its file.

    Raises:
        TensorSurgeonError: what is wrong with one of them, or with several.
    """
    sources: dict[str, Source] = {}
    for source in _sources_of(recipe):
        sources.setdefault(source.path, source)
    found: dict[str, Checkpoint | TensorSurgeonError | None] = {}
    for name, source in sources.items():
        try:
            found[name] = _open_folder(source, path)
        except TensorSurgeonError as error:
            found[name] = error
    if repos := [name for name, checkpoint in found.items() if checkpoint is None]:
        from tensorsurgeon.hub import open_repos

        found |= open_repos(repos)
        for name in repos:
            _tell_of_folder(found[name], name, beside(path, name))
    _raise_all([error for error in found.values() if isinstance(error, TensorSurgeonError)])
    return {name: opened for name, opened in found.items() if isinstance(opened, Checkpoint)}


def open_source(name: str) -> Checkpoint:
    """Open a folder, or a repository of the Hub.

    Raises:
        TensorSurgeonError: what is wrong with it.
    """
    folder = Path(name)
    if not is_repo(name) or folder.exists():
        return open_checkpoint(folder)
    from tensorsurgeon.hub import open_repo

    try:
        return open_repo(name)
    except HubError as error:
        _tell_of_folder(error, name, folder)
        raise


def is_repo(name: str) -> bool:
    """Whether a name could be a repository's."""
    is_name = not name.startswith((".", "/", "~")) and name.partition("@")[0].count("/") == 1
    return name.startswith(HUB) or is_name


def beside(recipe: Path, path: str) -> Path:
    """A path as a recipe gives it: relative to the recipe's own folder, `~` for a home."""
    return Path(os.path.normpath(recipe.parent / os.path.expanduser(path)))


def check_usable(path: Path, where: str, kind: type[TensorSurgeonError]) -> None:
    """A path too long, or with a NUL in it, is refused here, not by the first call that uses it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise kind(f"'{shortened(str(path))}' cannot be used: {reason}", where=where) from None


def _sources_of(recipe: Recipe) -> Iterator[Source]:
    waiting = deque([*recipe.models.values(), recipe.result])
    while waiting:
        expression = waiting.popleft()
        if isinstance(expression, Source):
            yield expression
        elif isinstance(expression, Operator):
            waiting.extend(expression.operands())


def _open_folder(source: Source, recipe: Path) -> Checkpoint | None:
    """A folder relative to the recipe's own; None where it is a repository that is meant."""
    where = f"{recipe}:{source.mark.line}:{source.mark.column}"
    folder = beside(recipe, source.path)
    check_usable(folder, where, CheckpointError)
    if folder.exists():
        return open_checkpoint(folder)
    if is_repo(source.path):
        return None
    others = [e.name for e in folder.parent.glob("[!.]*/")] if folder.parent.is_dir() else []
    fix = did_you_mean(folder.name, others) if others else ""
    raise CheckpointError(f"there is no folder {folder}", where=where, fix=fix)


def _tell_of_folder(error: object, name: str, folder: Path) -> None:
    """Where a name may have been meant as a folder's."""
    if isinstance(error, HubError) and not name.startswith(HUB):
        error.add_note(f"there is no folder {folder} either")


def _raise_all(failed: list[TensorSurgeonError]) -> None:
    """What is wrong with several sources is reported together."""
    if len(failed) == 1:
        raise failed[0]
    if failed:
        problems: dict[Problem, None] = dict.fromkeys(p for error in failed for p in error.problems)
        together = CheckpointError.of(problems)
        for note in dict.fromkeys(n for error in failed for n in getattr(error, "__notes__", ())):
            together.add_note(note)
        raise together
