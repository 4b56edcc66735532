"""A saved training that a stranger has changed runs none of the stranger's code."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from tensorsurgeon.trainer.saved_index import SavedReader


class Evil:
    """Makes a folder when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def write_index(folder: Path, value: object) -> None:
    buffer = io.BytesIO()
    pickle.dump(value, buffer)
    (folder / ".metadata").write_bytes(buffer.getvalue())


def test_code_in_an_index_is_not_run(tmp_path: Path) -> None:
    write_index(tmp_path, Evil(tmp_path / "made"))
    with pytest.raises(pickle.UnpicklingError, match="mkdir has no place in an index"):
        SavedReader(tmp_path).read_metadata()
    assert not (tmp_path / "made").exists()


def test_pickled_values_beside_the_tensors_are_refused(tmp_path: Path) -> None:
    write_index(tmp_path, Metadata(state_dict_metadata={"a": BytesStorageMetadata()}))
    with pytest.raises(pickle.UnpicklingError, match="BytesStorageMetadata"):
        SavedReader(tmp_path).read_metadata()


def test_something_else_than_an_index_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path, {"a": 1})
    with pytest.raises(pickle.UnpicklingError, match="no index"):
        SavedReader(tmp_path).read_metadata()
