"""The sources of a recipe, opened: folders, and repositories of the Hub."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tensorsurgeon.checkpoint import Checkpoint, Identity, identify, open_adapter, open_checkpoint
from tensorsurgeon.errors import (
    CheckpointError,
    HubError,
    Problem,
    RecipeError,
    TensorSurgeonError,
    did_you_mean,
    fix_for,
    shortened,
)
from tensorsurgeon.operators import Lora
from tensorsurgeon.recipe import Operator, Recipe, Source
from tensorsurgeon.vocabulary import TOKENIZER_LIMIT
from tensorsurgeon.vocabulary.settings import CONFIG as TOKENIZER_CONFIG
from tensorsurgeon.vocabulary.templates import OF_PROCESSOR as PROCESSOR_TEMPLATE

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
    sources = [each for each in _operators_of(recipe) if isinstance(each, Source)]
    return _opened(((each.path, each) for each in sources), path, open_checkpoint, "models")


def open_adapters(recipe: Recipe, path: Path) -> dict[str, Checkpoint]:
    """Open every adapter once; as `open_sources`."""
    adapted = [each for each in _operators_of(recipe) if isinstance(each, Lora)]
    return _opened(((each.adapter, each) for each in adapted), path, open_adapter, "adapters")


def _opened(
    named: Iterable[tuple[str, Operator]],
    recipe: Path,
    open_folder: Callable[[Path], Checkpoint],
    kind: Literal["models", "adapters"],
) -> dict[str, Checkpoint]:
    """Open what operators name, each name once."""
    operators: dict[str, Operator] = {}
    for name, operator in named:
        operators.setdefault(name, operator)
    found: dict[str, Checkpoint | TensorSurgeonError | None] = {}
    for name, operator in operators.items():
        try:
            folder = _folder(name, operator, recipe)
            found[name] = None if folder is None else open_folder(folder)
        except TensorSurgeonError as error:
            found[name] = error
    if repos := [name for name, checkpoint in found.items() if checkpoint is None]:
        from tensorsurgeon.hub import open_repos

        found |= open_repos(repos, kind)
        for name in repos:
            _tell_of_folder(found[name], name, beside(recipe, name))
    _raise_all([error for error in found.values() if isinstance(error, TensorSurgeonError)])
    return {name: opened for name, opened in found.items() if isinstance(opened, Checkpoint)}


def read_tokenizers(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> tuple[dict[str, Checkpoint], dict[str, dict[str, bytes]]]:
    """Read what a recipe's vocabulary and chat template are made from; nothing without those.

    Args:
        recipe: the recipe.
        checkpoints: its sources.

    Returns:
        The same sources, which know the files that were read as they know their shards; and the
        files by name, of each source.

    Raises:
        CheckpointError: a file cannot be read, or be fetched, or is larger than any.
    """
    output = recipe.output
    read, files = {}, {}
    failed: list[TensorSurgeonError] = []
    for name, checkpoint in checkpoints.items():
        wanted = () if output.chat_template is None else tuple(_with_template(checkpoint))
        if output.vocabulary is not None:
            wanted = checkpoint.tokenizer_files
        try:
            read[name], files[name] = _with_files(checkpoint, wanted)
        except TensorSurgeonError as error:
            failed.append(error)
    _raise_all(failed)
    return read, files


def _with_template(checkpoint: Checkpoint) -> Iterator[str]:
    """The files that can have a chat template."""
    for name in checkpoint.tokenizer_files:
        if name in (TOKENIZER_CONFIG, PROCESSOR_TEMPLATE) or name.endswith(".jinja"):
            yield name


def _with_files(
    checkpoint: Checkpoint, names: Sequence[str]
) -> tuple[Checkpoint, dict[str, bytes]]:
    """Files of a checkpoint, and the checkpoint that tells as what they were read."""
    paths = [checkpoint.path / name for name in names]
    for path in paths:
        _check_size(path, checkpoint.identities.get(path))
    if checkpoint.repo is not None and names:
        from tensorsurgeon.hub import fetch_small

        fetch_small(checkpoint.repo, checkpoint.path, names)
    # Before they are read: what changes meanwhile then differs from what is noted here.
    identities = {path: identify(path) for path in paths}
    read = replace(checkpoint, identities={**checkpoint.identities, **identities})
    return read, {path.name: _bytes_of(path, identities[path]) for path in paths}


def _bytes_of(path: Path, identity: Identity) -> bytes:
    _check_size(path, identity)
    try:
        return path.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise CheckpointError(what, where=str(path), fix=fix_for(error)) from None


def _check_size(path: Path, identity: Identity | None) -> None:
    if identity is not None and identity.nbytes > TOKENIZER_LIMIT:
        raise CheckpointError(f"is larger than {TOKENIZER_LIMIT // 10**6} MB", where=str(path))


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


def _operators_of(recipe: Recipe) -> Iterator[Operator]:
    waiting = deque([*recipe.models.values(), recipe.result])
    while waiting:
        expression = waiting.popleft()
        if isinstance(expression, Operator):
            yield expression
            waiting.extend(expression.operands())


def _folder(name: str, operator: Operator, recipe: Path) -> Path | None:
    """A folder relative to the recipe's own; None where it is a repository that is meant."""
    where = f"{recipe}:{operator.mark.line}:{operator.mark.column}"
    folder = beside(recipe, name)
    check_usable(folder, where, CheckpointError)
    if folder.exists():
        return folder
    if is_repo(name):
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


def with_replaced(recipe: Recipe, path: Path, sources: Mapping[str, str | Path]) -> Recipe:
    """The recipe with other places for some of its sources.

    Args:
        recipe: the recipe.
        path: its file.
        sources: folders, or `hf://…`, by the names of sources, or of models that an adapter makes.

    Raises:
        RecipeError: there is no such source.
    """
    models = dict(recipe.models)
    known = [name for name, model in models.items() if isinstance(model, Source | Lora)]
    for name, folder in sources.items():
        source = models.get(name)
        if not isinstance(source, Source | Lora):
            raise RecipeError(
                f"there is no source '{name}' to replace",
                where=str(path),
                fix=did_you_mean(name, known),
            )
        place = str(folder)
        place = place if place.startswith(HUB) else os.path.abspath(place)
        key = "path" if isinstance(source, Source) else "adapter"
        models[name] = source.model_copy(update={key: place})
    return recipe.model_copy(update={"models": models})
