"""Reading records: every kind of file, and what is wrong with it told by file and line."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data.dataset_records import DatasetName, read_dataset
from tensorsurgeon.trainer.data.texts import Record, Split, find_files, read_records, text_of


def read(*paths: Path, split: Split | None = "file", field: str = "text") -> list[Record]:
    return list(read_records(find_files(paths), [field], split=split))


def texts(*paths: Path, split: Split = "file") -> list[str]:
    return [text_of(record, "text") for record in read(*paths, split=split)]


def refusal(*paths: Path, split: Split | None = "file") -> str:
    with pytest.raises(DataError) as caught:
        [text_of(record, "text") for record in read(*paths, split=split)]
    return str(caught.value)


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_read_as_it_is(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    text = text.removeprefix("\ufeff")
    (folder / "a.txt").write_bytes(text.encode())
    (folder / "b.txt.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "c.jsonl").write_bytes(json.dumps({"text": text}).encode())
    assert texts(folder) == [text] * 3


def test_folders_are_walked_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/y/1.rst", "c.TXT", ".hidden/x.txt", ".x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(tmp_path) == ["b.txt", "c.TXT", "a/z.md", "a/y/1.rst"]
    assert texts(tmp_path / "c.TXT", tmp_path / "a") == ["c.TXT", "a/z.md", "a/y/1.rst"]


def test_files_of_other_kinds_in_folders_are_counted(tmp_path: Path) -> None:
    for name in ("a.txt", "b.png", "c.png", "d"):
        (tmp_path / name).touch()
    assert find_files([tmp_path]).left_out == {".png": 2, "": 1}


def test_a_file_that_is_named_is_read_as_text_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("read me")
    assert texts(tmp_path / "README") == ["read me"]


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.csv.gz"])
def test_a_table_that_is_named_is_refused_and_one_in_a_folder_left_out(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("a,b")
    (tmp_path / "a.txt").write_text("a")
    assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: is a table, and would be read")
    assert "lines of JSON (.jsonl) or Parquet" in refusal(tmp_path / name)
    assert texts(tmp_path) == ["a"]


TEXT = b"\xef\xbb\xbfone\r\ntwo\n\n \t\nthree\n\n\nfour"


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        ("file", [("", TEXT[3:].decode())]),
        (
            "lines",
            [
                *((":1", "one"), (":2", "two"), (":3", ""), (":4", " \t")),
                *((":5", "three"), (":6", ""), (":7", ""), (":8", "four")),
            ],
        ),
        ("blank-lines", [(":1", "one\ntwo"), (":5", "three"), (":8", "four")]),
    ],
)
def test_a_text_is_split_as_asked_and_knows_its_lines(
    split: Split, wanted: list[tuple[str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT)
    found = [(record.where, record.fields["text"]) for record in read(path, split=split)]
    assert found == [(f"{path}{line}", text) for line, text in wanted]


def test_progress_ends_at_the_size_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n' * 100)
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(TEXT))
    files = find_files([tmp_path])
    done = [files.done for _ in read_records(files, ["text"], split="lines")]
    assert done == sorted(done)
    assert files.done == files.nbytes == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"txt": "a"}', ": has no field 'text'\n  fix: --field txt"),
        (b'{"text": 1}', ": field 'text' is not a text, but int"),
        (b"hello", ":1: not JSON: Expecting value\n  fix: write one JSON object a line"),
        (b'{"text": "a"', ":13: not JSON: Expecting ',' delimiter\n  fix: write one JSON object a"),
        (b'{"text": "\xff"}', ": is not UTF-8 at byte 10\n  fix: "),
        (
            b'"text"',
            ": a JSON str where an object is expected\n  fix: write one JSON object a line",
        ),
        (b'{"text": "\\ud800"}', ": a lone surrogate"),
        (b'{"text": "a", "text": "b"}', ": duplicate key"),
        (b'{"text": "a", "score": NaN}', ": NaN is not JSON"),
        (b"[" * 100_000, ": nested too deeply"),
    ],
)
def test_a_bad_line_of_json_is_told_with_its_number(line: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    assert f"{path}:3{said}" in refusal(path)


def test_null_is_an_empty_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": null}')
    assert texts(tmp_path) == [""]


@pytest.mark.parametrize(("split", "place"), [("file", ""), ("lines", ":2"), ("blank-lines", ":1")])
def test_a_text_that_is_not_utf8_is_told_with_its_place(
    split: Split, place: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\nna\xefve")
    told = refusal(path, split=split)
    assert f"{path}{place}: is not UTF-8" in told
    assert "iconv -f LATIN1 -t UTF-8" in told


@pytest.mark.parametrize(("name", "order"), [("a.txt", "utf-16-le"), ("a.jsonl", "utf-16-be")])
def test_a_text_in_utf16_is_told_as_such(name: str, order: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes('\ufeff{"text": "naïve"}\n'.encode(order))
    told = refusal(tmp_path / name)
    assert "is not UTF-8 at byte 0" in told
    assert "iconv -f UTF-16 -t UTF-8" in told


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-9], lambda raw: b"x" + raw, lambda raw: raw[:20] + b"\0" * 30]
)
def test_a_damaged_gzip_is_refused(damage: object, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(damage(gzip.compress(b'{"text": "abcdefghijklmnop"}\n' * 50)))
    assert f"{path}: is not packed by gzip, or cut short" in refusal(path)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x.txt") == f"{tmp_path / 'x.txt'}: is not there"
    assert "no file to read" in refusal(tmp_path)


def test_a_file_that_would_be_read_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert refusal(tmp_path, tmp_path / "a.txt").startswith(f"{tmp_path / 'a.txt'}: is given twice")


def test_json_that_is_not_lines_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    assert "one JSON object a line" in refusal(tmp_path / "a.json")


def test_a_text_where_records_are_wanted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert "is neither lines of JSON nor Parquet" in refusal(tmp_path, split=None)


def test_an_absurdly_large_line_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorsurgeon.trainer.data.texts.LINE_LIMIT", 1000)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + b"a" * 1000)
    (tmp_path / "b.txt").write_bytes(b"a" * 1001)
    assert "a.jsonl:1: is longer than 1 kB" in refusal(tmp_path / "a.jsonl")
    assert "--split blank-lines" in refusal(tmp_path / "b.txt")


def parquet(path: Path, columns: dict[str, list[object]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=3)
    return path


def test_parquet_is_read_row_by_row_and_only_what_is_used(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"id": list(range(700)), "text": list("ab" * 350)})
    found = read(path)
    assert [record.fields for record in found] == [{"text": letter} for letter in "ab" * 350]
    assert found[-1].where == f"{path}, row 700"


def test_parquet_without_the_column_is_refused_with_those_it_has(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"id": [1], "texts": ["a"]})
    assert refusal(path) == (
        f"{path}: has no column 'text'\n  fix: --field texts; known: id, texts"
    )


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["abc"] * 100})
    content = bytearray(path.read_bytes())
    content[10:60] = b"\xff" * 50
    for damaged in (bytes(content), path.read_bytes()[:-20], b"PAR1", b""):
        path.write_bytes(damaged)
        assert f"{path}: is no Parquet file, or damaged" in refusal(path)


def rows_of(name: Path, split: str = "train") -> list[str]:
    return [
        text_of(record, "text") for record in read_dataset(DatasetName(name=str(name), split=split))
    ]


def test_a_dataset_that_was_saved_to_a_folder_is_read(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_dict({"text": ["a", "b"]})
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=table, test=table.select([1])).save_to_disk(tmp_path / "two")
    assert rows_of(tmp_path / "one") == ["a", "b"]
    assert rows_of(tmp_path / "two", "test") == ["b"]
    with pytest.raises(DataError, match=r"has no split 'dev'\n  fix: known: train, test"):
        rows_of(tmp_path / "two", "dev")


def test_a_folder_of_data_files_is_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "train.parquet", {"text": ["a", "b"]})
    assert rows_of(tmp_path / "data") == ["a", "b"]


def test_a_dataset_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        rows_of(tmp_path / "absent")
