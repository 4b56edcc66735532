"""Every file of the catalogue: our verdict, the safetensors library's, and where they differ."""

import re
from pathlib import Path

import pytest
import safetensors

from tensorsurgeon.checkpoint.header import read_header
from tensorsurgeon.errors import HeaderError
from tests.cli.checkpoints import tiny_llama
from tests.cli.conftest import Refused
from tests.hostile.cases import Hostile
from tests.hostile.catalogue import HOSTILE, WELL_FORMED
from tests.hostile.test_header import read_by_library, read_by_us

hostile = pytest.mark.parametrize("case", HOSTILE.values(), ids=HOSTILE.keys())
well_formed = pytest.mark.parametrize("content", WELL_FORMED.values(), ids=WELL_FORMED.keys())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@hostile
def test_hostile_file_is_refused_with_the_tensor_the_rule_and_the_offset(
    case: Hostile, path: Path
) -> None:
    path.write_bytes(case.content)
    with pytest.raises(HeaderError) as refused:
        read_header(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: {case.problem}")
    assert re.search(r"(byte|bytes|offset|offsets|end at) \d|\d bytes", message)
    assert len(message) < 1000


@hostile
def test_library_refuses_it_too_unless_the_catalogue_says_why_not(
    case: Hostile, path: Path
) -> None:
    path.write_bytes(case.content)
    for reader in (read_by_library, _opened):
        if case.taken:
            reader(path)
        else:
            with pytest.raises(safetensors.SafetensorError):
                reader(path)


def _opened(path: Path) -> None:
    with safetensors.safe_open(path, framework="numpy"):  # type: ignore[no-untyped-call]
        pass


@pytest.mark.parametrize("name", ["framing: length 2^63", "json: NaN", "shape: rank 65"])
def test_command_line_refuses_it_in_one_message(
    name: str, tmp_path: Path, refused: Refused
) -> None:
    path = tiny_llama(tmp_path / "source") / "model.safetensors"
    path.write_bytes(HOSTILE[name].content)
    message = refused("inspect", path.parent, code=5)
    assert message.startswith(f"{path}: {HOSTILE[name].problem}")


@well_formed
def test_odd_file_that_breaks_no_rule_is_read_as_the_library_reads_it(
    content: bytes, path: Path
) -> None:
    path.write_bytes(content)
    assert read_by_us(path) == read_by_library(path)
