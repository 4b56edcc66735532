"""Several ranks write one checkpoint: the same bytes, and one fate."""

import json
import subprocess
import sys
from pathlib import Path

from tensorsurgeon.errors import BusyError, OutputError
from tensorsurgeon.writing import Disk, Workplace, locked
from tests.trainer.export.models import ROOT, command, export_of, files_of
from tests.trainer.export.work import BROKEN, write
from tests.trainer.saving.ranks import outcomes, run


def test_two_ranks_give_the_bytes_of_one(tied: Path, tmp_path: Path) -> None:
    for world in (1, 2):
        (tmp_path / str(world)).mkdir()
        told = run(world, write, tied, tmp_path / str(world) / "out")
        names = [tensor.spec.name for tensor in export_of(tied).tensors]
        assert told == [names] * world
    assert files_of(tmp_path / "1" / "out") == files_of(tmp_path / "2" / "out")
    assert "sound" in command("verify", tmp_path / "2" / "out")


def test_value_that_is_not_finite_ends_all_ranks_with_the_same_error(
    tied: Path, tmp_path: Path
) -> None:
    ends = outcomes(2, write, tied, tmp_path / "out", True)
    assert all(isinstance(end, OutputError) for end in ends)
    assert str(ends[0]) == str(ends[1])
    assert f"'{BROKEN}' has values that are not finite" in str(ends[1])
    assert not list(tmp_path.iterdir())


def test_place_that_is_taken_ends_all_ranks(tied: Path, tmp_path: Path) -> None:
    with locked(Workplace.of(tmp_path / "out"), Disk()):
        ends = outcomes(2, write, tied, tmp_path / "out")
    assert all(isinstance(end, BusyError) for end in ends)
    assert not (tmp_path / "out").exists()


def test_full_disk_ends_all_ranks_and_leaves_nothing(tied: Path, tmp_path: Path) -> None:
    """With room for nothing, for some tensors, for all but what is beside them; and for all."""
    mount = f'mount -t tmpfs -o size=400k none {tmp_path} && exec "$@"'
    wrapper = ("unshare", "--map-root-user", "--mount", "sh", "-ec", mount, "sh")
    rooms = ("12288", "61440", "114688", "204800")
    work = (sys.executable, "-m", "tests.trainer.export.work", str(tied), str(tmp_path), *rooms)
    done = subprocess.run(
        [*wrapper, *work], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    *full, last = json.loads(done.stdout)
    said = f"{tmp_path}/out: writing failed: No space left on device"
    assert len(full) == 3
    for told in full:
        for kind, message in told["ends"]:
            assert kind == "OutputError"
            assert message.startswith(said)
            assert "fix: free space on that disk, or choose another as output: path:" in message
        assert told["there"] == []
    assert [kind for kind, _ in last["ends"]] == ["", ""]
    assert last["there"] == ["out"]
