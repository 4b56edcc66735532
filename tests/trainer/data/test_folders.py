"""A folder that is not there is told as such, with those beside it that would do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data import tokenizer_digest
from tests.trainer.data.tokens import make_tokenizer, open_shards, texts_of, write_shards

FIXES = {
    open_shards: "'tensorsurgeon train prepare' makes token shards of texts",
    tokenizer_digest: "name the folder of a checkpoint with its tokenizer",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with one of token shards, one of a tokenizer, and some that are neither."""
    write_shards(tmp_path / "tokens", texts_of([9]))
    make_tokenizer(tmp_path / "model")
    for name in ("token", "modle", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("opened", "name", "meant"),
    [(open_shards, "tokns", "tokens"), (tokenizer_digest, "mdel", "model")],
)
def test_those_beside_it_are_named_that_would_do_and_no_others(
    opened: Callable[[Path], object], name: str, meant: str, place: Path
) -> None:
    with pytest.raises(DataError) as caught:
        opened(place / name)
    fix = f"did you mean '{meant}'? known: {meant}"
    assert str(caught.value) == f"{place / name}: there is no such folder\n  fix: {fix}"


@pytest.mark.parametrize("opened", FIXES)
@pytest.mark.parametrize("path", ["token/absent", "none/absent", "file/absent"])
def test_where_none_would_do_it_is_told_what_to_name(
    opened: Callable[[Path], object], path: str, place: Path
) -> None:
    with pytest.raises(DataError) as caught:
        opened(place / path)
    assert str(caught.value) == f"{place / path}: there is no such folder\n  fix: {FIXES[opened]}"


@pytest.mark.parametrize("opened", FIXES)
def test_a_file_is_told_from_a_folder(opened: Callable[[Path], object], place: Path) -> None:
    with pytest.raises(DataError) as caught:
        opened(place / "file")
    assert str(caught.value) == f"{place / 'file'}: is not a folder\n  fix: {FIXES[opened]}"
