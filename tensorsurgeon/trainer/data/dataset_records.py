"""Records of a dataset: of the Hub, streamed, or of a folder, through the library `datasets`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorsurgeon.errors import DataError, shortened
from tensorsurgeon.trainer.data.texts import Record

_SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in a folder."""


@dataclass(frozen=True, kw_only=True)
class DatasetName:
    """Which dataset, and what of it.

    Attributes:
        name: org/name, or org/name@revision, of the Hub; or a folder.
        subset: its configuration, where it has several.
        split: as `train`.
    """

    name: str
    subset: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        return " ".join(filter(None, (f"dataset {self.name}", self.subset, self.split)))


def read_dataset(dataset: DatasetName) -> Iterator[Record]:
    """Every record, in order.

    Raises:
        DataError: it is not there, has no such split, or cannot be read.
    """
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(
            "reading a dataset needs datasets, which is not installed",
            where=str(dataset),
            fix="pip install 'tensorsurgeon[train]'",
        ) from None
    try:
        for number, row in enumerate(_open(datasets, dataset)):
            yield Record(where=f"{dataset}, row {number}", fields=row)
    except DataError:
        raise
    except Exception as error:  # of any kind: a library over network, archives and a dozen formats
        said = shortened(" ".join(str(error).split()) or type(error).__name__, 300)
        fix = _fix_for(error, datasets)
        raise DataError(f"cannot be read: {said}", where=str(dataset), fix=fix) from error


def _fix_for(error: Exception, datasets: Any) -> str:
    """What a user can do about a dataset that cannot be read; empty where that is unknown."""
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        return "check the name; a private or gated one needs HF_TOKEN, or hf auth login"
    if not isinstance(error, ConnectionError):
        return ""
    check = "unset HF_HUB_OFFLINE" if datasets.config.HF_HUB_OFFLINE else "check the network"
    return f"{check}, or give the dataset's files as INPUT"


def _open(datasets: Any, dataset: DatasetName) -> Any:
    folder = Path(dataset.name)
    if any((folder / name).is_file() for name in _SAVED):
        saved = datasets.load_from_disk(str(folder))
        if not isinstance(saved, dict):
            return saved
        if dataset.split not in saved:
            known = ", ".join(map(str, saved))
            what = f"has no split '{dataset.split}'"
            raise DataError(what, where=dataset.name, fix=f"known: {known}")
        return saved[dataset.split]
    name, revision = dataset.name, None
    if not folder.exists() and (found := re.fullmatch(r"([^@]+)@([^@]+)", name)):
        name, revision = found.groups()
    return datasets.load_dataset(
        name, dataset.subset, split=dataset.split, revision=revision, streaming=True
    )
