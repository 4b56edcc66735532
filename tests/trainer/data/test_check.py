"""`train check`: token shards are read to the last byte and told apart from damaged ones."""

from pathlib import Path

from tests.conftest import RunCli
from tests.trainer.data.tokens import pairs_of, texts_of, write_shards


def change_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_shards_as_they_were_prepared_pass(tmp_path: Path, run_cli: RunCli) -> None:
    write_shards(tmp_path / "one", texts_of([50, 60, 70]))
    write_shards(tmp_path / "two", texts_of([9, 3]))
    write_shards(tmp_path / "three", texts_of([2]))
    write_shards(tmp_path / "four", pairs_of([2, 2]), kind="preference")
    done = run_cli("train", "check", "one", "two", "three", "four", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "one: as it was prepared, 180 tokens, 3 documents, " in done.stderr
    assert "two: as it was prepared, 12 tokens, 2 documents, " in done.stderr
    assert "three: as it was prepared, 2 tokens, 1 document, " in done.stderr
    assert "four: as it was prepared, 4 tokens, 2 of them learned, 1 pair, " in done.stderr
    assert run_cli("train", "check", "one", "-q", cwd=tmp_path).stderr == ""


def test_a_changed_byte_is_told_by_its_shard_in_every_folder(
    tmp_path: Path, run_cli: RunCli
) -> None:
    for name in ("one", "two", "three"):
        write_shards(tmp_path / name, texts_of([50, 60, 70]), shard_size=100)
    files = sorted(path.name for path in tmp_path.glob("one/*.safetensors"))
    assert len(files) > 1
    change_last_byte(tmp_path / "one" / files[-1])
    change_last_byte(tmp_path / "three" / files[0])
    done = run_cli("train", "check", "one", "two", "three", cwd=tmp_path)
    assert done.returncode == 10
    assert f"one/{files[-1]}: is damaged: its SHA-256 is " in done.stderr
    assert f"three/{files[0]}: is damaged: its SHA-256 is " in done.stderr
    assert "two: as it was prepared" in done.stderr
    assert "fix: prepare the tokens again" in done.stderr


def test_a_shard_of_another_size_and_a_folder_that_is_none_are_told(
    tmp_path: Path, run_cli: RunCli
) -> None:
    write_shards(tmp_path / "one", texts_of([50, 60, 70]))
    shard = tmp_path / "one" / "tokens-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    done = run_cli("train", "check", "none", "one", cwd=tmp_path)
    assert done.returncode == 10
    assert "\n" in done.stderr.strip()
    assert "one/tokens-00001.safetensors: " in done.stderr
    assert "none" in done.stderr
