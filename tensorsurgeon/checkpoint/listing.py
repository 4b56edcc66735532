"""Which files of a checkpoint's folder matter, and that they are files, and of that folder."""

from collections.abc import Iterable, Iterator
from enum import Enum, auto
from fnmatch import fnmatchcase
from pathlib import Path

from tensorsurgeon.checkpoint.index_file import INDEX_NAME
from tensorsurgeon.checkpoint.links import STAY_INSIDE, leaves
from tensorsurgeon.checkpoint.manifest import MANIFEST_NAME
from tensorsurgeon.errors import CheckpointError, did_you_mean, fix_for

CONFIG_NAME = "config.json"


class Kind(Enum):
    """What a file is to us."""

    CONFIG = auto()
    INDEX = auto()
    MANIFEST = auto()
    WEIGHTS = auto()
    TOKENIZER = auto()
    CODE = auto()
    OTHER = auto()


_BY_NAME = {CONFIG_NAME: Kind.CONFIG, INDEX_NAME: Kind.INDEX, MANIFEST_NAME: Kind.MANIFEST}

_TOKENIZER_PATTERNS = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "*.jinja",
    "*.model",
    "merges.txt",
    "vocab.*",
)
_UNSAFE = (
    *("*.py?", "*.sh", "*.so", "*.dll"),
    *("*.bin", "*.pickle", "*.pkl", "*.pt", "*.pth", "*.joblib", "*.dill", "*.npy", "*.npz"),
)
"""Programs, and pickles, which are programs to whoever loads them."""

_LEFT_BEHIND = ("*.index.json", "adapter_config.json", "trainer_state.json")


def list_files(folder: Path) -> dict[str, Kind]:
    """The files of a folder that matter, in the order of their names.

    Weights and index may be named and yet be no files; whoever reads one says so.

    Raises:
        CheckpointError: there is no such folder; or a file other than a shard is a link that
            leaves it, or a pipe or the like, or its name is no text.
    """
    try:
        if not folder.is_dir():
            _refuse_path(folder)
        entries = sorted(folder.iterdir())
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise CheckpointError(what, where=str(folder), fix=fix_for(error)) from None
    kinds = {}
    for entry in entries:
        kind = kind_of(entry.name)
        if kind is None:
            continue
        if not _is_text(entry.name):
            raise CheckpointError(
                "has a name that is not UTF-8", where=str(entry), fix="rename or remove it"
            )
        # Shards are looked at when it is known which of them are read.
        if kind is not Kind.WEIGHTS and leaves(folder, entry.name):
            raise CheckpointError(
                "is a link that leaves its folder", where=str(entry), fix=STAY_INSIDE
            )
        if kind in (Kind.TOKENIZER, Kind.OTHER, Kind.CODE):
            if entry.is_dir():
                continue
            if not entry.is_file():
                what = "a regular file" if entry.exists() else "there, though a link to it is"
                raise CheckpointError(f"is not {what}", where=str(entry))
        kinds[entry.name] = kind
    return kinds


def kinds_of(names: Iterable[str]) -> dict[str, Kind]:
    """What files of these names are; without those that are neither read nor copied."""
    return {name: kind for name in names if (kind := kind_of(name)) is not None}


def kind_of(name: str) -> Kind | None:
    """What a file of this name is; None for what is neither read nor copied."""
    small = name.casefold()
    if name in _BY_NAME:
        return _BY_NAME[name]
    if small.endswith(".py"):
        return Kind.CODE
    if name.endswith(".safetensors"):
        return Kind.WEIGHTS
    if _matches(small, _UNSAFE) or _matches(name, _LEFT_BEHIND):
        return None
    if _matches(name, _TOKENIZER_PATTERNS):
        return Kind.TOKENIZER
    return Kind.OTHER if name.endswith(".json") else None


def _refuse_path(path: Path) -> None:
    if path.exists():
        fix = f"a source is the folder that holds {CONFIG_NAME}" if path.is_file() else ""
        raise CheckpointError("is not a folder", where=str(path), fix=fix)
    found = [entry for entry in _listing(path.parent) if entry.is_dir()]
    beside = [entry.name for entry in found if (entry / CONFIG_NAME).is_file()]
    fix = did_you_mean(path.name, beside) if beside else ""
    raise CheckpointError("there is no such folder", where=str(path), fix=fix)


def _listing(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from folder.iterdir()


def _is_text(name: str) -> bool:
    """Whether a name can be written into a manifest: Python spells other bytes as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
