"""From files to token shards: what is held out, what is left out, what an interruption leaves."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon.errors import BusyError, DataError, PlanError
from tensorsurgeon.trainer.data import open_tokens, tokenizer_digest
from tensorsurgeon.trainer.data.fields import FormatName
from tensorsurgeon.trainer.data.prepare import HeldOutPart, Prepared, Skipped, prepare
from tensorsurgeon.trainer.data.shard_writer import writing_shards
from tests.conftest import ROOT
from tests.trainer.data.tokens import make_tokenizer, open_shards, texts_in, write_lines


def words(count: int) -> list[str]:
    return [f"text {number} " + "word " * (number % 7) for number in range(count)]


def split_in(folder: Path, inputs: list[Path], tokenizer: Path, **options: Any) -> Prepared:
    held_out = HeldOutPart(fraction=options.pop("fraction", 0.2), output=folder / "held-out")
    return prepare(
        inputs, tokenizer=tokenizer, output=folder / "train", held_out=held_out, **options
    )


def test_every_text_is_in_the_shards_once_and_in_order(
    tmp_path: Path, byte_tokenizer: Path
) -> None:
    texts = [*words(3000), "äöü 😀 \x00\n\n"]
    path = write_lines(tmp_path / "a.jsonl", texts)
    made = prepare([path], tokenizer=byte_tokenizer, output=tmp_path / "made", shard_size=5000)
    assert texts_in(tmp_path / "made", byte_tokenizer) == texts
    assert made.index.tokens == sum(len(text.encode()) + 1 for text in texts)
    assert len(made.index.shards) > 10


def test_shards_are_for_the_tokenizer_that_made_them(tmp_path: Path, byte_tokenizer: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["a"])
    prepare([path], tokenizer=byte_tokenizer, output=tmp_path / "made")
    digest = tokenizer_digest(byte_tokenizer)
    open_tokens(tmp_path / "made", tokenizer_digest=digest, vocabulary=258).close()


def test_a_tokenizer_that_begins_texts_does_so_in_shards(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer", begin=True)
    path = write_lines(tmp_path / "a.jsonl", ["a", "b"])
    prepare([path], tokenizer=tokenizer, output=tmp_path / "made")
    with open_shards(tmp_path / "made") as shards:
        first = [shards.document(i)[0].tolist() for i in range(2)]
    assert [(tokens[0], len(tokens), tokens[-1]) for tokens in first] == [(256, 3, 257)] * 2


def test_all_texts_are_either_trained_on_or_held_out(tmp_path: Path, byte_tokenizer: Path) -> None:
    texts = words(1000)
    split_in(tmp_path, [write_lines(tmp_path / "a.jsonl", texts)], byte_tokenizer)
    parts = [texts_in(tmp_path / name, byte_tokenizer) for name in ("train", "held-out")]
    assert Counter(parts[0] + parts[1]) == Counter(texts)
    assert 150 < len(parts[1]) < 250


def test_what_is_held_out_stays_so_when_files_are_added(
    tmp_path: Path, byte_tokenizer: Path
) -> None:
    old = write_lines(tmp_path / "old.jsonl", words(300))
    new = write_lines(tmp_path / "new.jsonl", [f"new {text}" for text in words(300)])
    for name, inputs in (("one", [old]), ("two", [new, old])):
        (tmp_path / name).mkdir()
        split_in(tmp_path / name, inputs, byte_tokenizer)
    before = texts_in(tmp_path / "one" / "held-out", byte_tokenizer)
    after = texts_in(tmp_path / "two" / "held-out", byte_tokenizer)
    assert [text for text in after if not text.startswith("new")] == before


def test_a_text_that_occurs_twice_is_never_on_both_sides(
    tmp_path: Path, byte_tokenizer: Path
) -> None:
    split_in(tmp_path, [write_lines(tmp_path / "a.jsonl", words(200) * 2)], byte_tokenizer)
    train, held_out = (set(texts_in(tmp_path / n, byte_tokenizer)) for n in ("train", "held-out"))
    assert not train & held_out


def test_another_seed_holds_out_other_texts(tmp_path: Path, byte_tokenizer: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", words(300))
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        split_in(tmp_path / str(seed), [path], byte_tokenizer, seed=seed)
    one, other = (texts_in(tmp_path / n / "held-out", byte_tokenizer) for n in "01")
    assert one != other


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, byte_tokenizer: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", words(500))
    for name in ("one", "two"):
        prepare([path], tokenizer=byte_tokenizer, output=tmp_path / name, shard_size=3000)
    one, two = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two


def test_records_with_nothing_to_learn_are_counted(tmp_path: Path, byte_tokenizer: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["a", "", " ", "b"])
    made = prepare([path], tokenizer=byte_tokenizer, output=tmp_path / "made")
    assert made.skipped == (Skipped(reason="empty text", count=2, first=f"{path}:2"),)
    assert made.index.documents == 2


USER = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "<s>"}

NOTHING_LEARNED: dict[str, tuple[FormatName, list[dict[str, Any]], str, str]] = {
    "no-answer": (
        "chat",
        [{"messages": [USER]}, {"messages": [USER, USER]}],
        "left out 2 records: no message of the assistant, first at {path}:1",
        'give chats with an answer, a message whose role is "assistant"',
    ),
    "control-token": (
        "chat",
        [{"messages": [USER, ANSWER]}],
        "left out 1 record: a control token spelled out in a message, at {path}:1",
        "take what spells a control token of the tokenizer out of the messages",
    ),
    "empty-answer": (
        "alpaca",
        [{"instruction": "a", "output": ""}],
        "left out 1 record: empty answer, at {path}:1",
        "give records that have an answer",
    ),
    "same-answers": (
        "preference",
        [
            {"prompt": "a", "chosen": "", "rejected": "b"},
            *[{"prompt": "a", "chosen": "b", "rejected": "b"}] * 2,
        ],
        "left out 2 records: chosen and rejected are the same, first at {path}:2; "
        "left out 1 record: empty answer, at {path}:1",
        "give pairs whose answers differ",
    ),
    "empty-text": (
        "text",
        [{"text": " "}],
        "left out 1 record: empty text, at {path}:1",
        "give records that have a text",
    ),
    "no-record": ("text", [], "there is no record in what was read", "give texts"),
}


@pytest.mark.parametrize("name", NOTHING_LEARNED)
def test_where_nothing_is_learned_the_first_record_and_what_it_lacks_are_told(
    name: str, tmp_path: Path
) -> None:
    form, records, what, fix = NOTHING_LEARNED[name]
    tokenizer = make_tokenizer(tmp_path / "tokenizer", template="{{ messages }}")
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(DataError) as caught:
        prepare([path], tokenizer=tokenizer, output=tmp_path / "made", form=form)
    assert str(caught.value) == (
        f"{tmp_path / 'made'}: would be empty: {what.format(path=path)}\n  fix: {fix}"
    )


def test_a_pair_lies_in_one_shard(tmp_path: Path, byte_tokenizer: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [{"prompt": "p", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(50)]
    path.write_text("\n".join(map(json.dumps, records)))
    made = prepare(
        [path], tokenizer=byte_tokenizer, output=tmp_path / "made", form="preference", shard_size=40
    )
    assert made.index.kind == "preference"
    assert made.index.documents == 100
    assert len(made.index.shards) > 10
    assert all(shard.documents % 2 == 0 for shard in made.index.shards)


@pytest.mark.parametrize("texts", [[], [""], ["", " "]])
def test_nothing_to_learn_is_refused_and_leaves_nothing(
    texts: list[str], tmp_path: Path, byte_tokenizer: Path
) -> None:
    path = write_lines(tmp_path / "a.jsonl", texts)
    with pytest.raises(DataError, match="would be empty"):
        prepare([path], tokenizer=byte_tokenizer, output=tmp_path / "made")
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_held_out_is_refused_and_leaves_nothing(
    tmp_path: Path, byte_tokenizer: Path
) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["a", ""])
    for fraction, name in ((1e-9, "held-out"), (1 - 1e-9, "train")):
        with pytest.raises(DataError) as caught:
            split_in(tmp_path, [path], byte_tokenizer, fraction=fraction)
        assert str(caught.value) == (
            f"{tmp_path / name}: would be empty: all that was read is on the other side of "
            "--held-out\n  fix: give more texts, or --held-out another fraction"
        )
        assert list(tmp_path.iterdir()) == [path]


def test_a_document_too_large_for_the_tokenizer_is_refused(
    tmp_path: Path, byte_tokenizer: Path
) -> None:
    (tmp_path / "a.txt").write_text("a" * ((8 << 20) + 1))
    with pytest.raises(DataError, match=r"a.txt: has 8388609 characters.*\n.*--split blank-lines"):
        prepare([tmp_path], tokenizer=byte_tokenizer, output=tmp_path.parent / "large")


def test_a_text_is_no_record_of_another_form(tmp_path: Path, byte_tokenizer: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match=r"a.txt: is neither lines of JSON nor Parquet"):
        prepare(
            [tmp_path / "a.txt"], tokenizer=byte_tokenizer, output=tmp_path / "made", form="alpaca"
        )


def test_a_mistake_late_in_the_input_leaves_nothing(tmp_path: Path, byte_tokenizer: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", words(3000))
    path.write_text(path.read_text() + "{}")
    with pytest.raises(DataError, match=r"a.jsonl:3001: has no field 'text'"):
        split_in(tmp_path, [path], byte_tokenizer, shard_size=1000)
    assert list(tmp_path.iterdir()) == [path]


def test_the_output_cannot_lie_in_an_input(tmp_path: Path, byte_tokenizer: Path) -> None:
    write_lines(tmp_path / "a.jsonl", ["a"])
    with pytest.raises(PlanError, match="lies in, around or at"):
        prepare([tmp_path], tokenizer=byte_tokenizer, output=tmp_path / "made")


def test_an_output_that_is_being_written_is_busy(tmp_path: Path, byte_tokenizer: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["a"])
    other = writing_shards(
        tmp_path / "made", kind="text", tokenizer="0" * 64, vocabulary=2, end_of_document=1
    )
    with (
        pytest.raises(DataError, match="would be empty"),  # of the one that is stopped
        other,
        pytest.raises(BusyError),
    ):
        prepare([path], tokenizer=byte_tokenizer, output=tmp_path / "made")


def test_an_interruption_leaves_what_was_there(tmp_path: Path, byte_tokenizer: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", words(3000))
    prepare([path], tokenizer=byte_tokenizer, output=tmp_path / "made")
    before = (tmp_path / "made" / "tokens.json").read_bytes()

    def interrupt(*_: int) -> None:
        assert (tmp_path / ".made.part").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(
            [path],
            tokenizer=byte_tokenizer,
            output=tmp_path / "made",
            overwrite=True,
            shard_size=1000,
            told=interrupt,
        )
    assert (tmp_path / "made" / "tokens.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "made"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tensorsurgeon.trainer.data.command import prepare as command
from tensorsurgeon.trainer.data.dataset_records import DatasetName
from tensorsurgeon.trainer.data.fields import FormatName
from tensorsurgeon.trainer.data.prepare import prepare

here, tokenizer = map(Path, sys.argv[1:])
prepare([here / "a.jsonl"], tokenizer=tokenizer, output=here / "made", shard_size=1000,
        told=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_what_a_killed_run_has_left_is_no_output_and_does_not_hinder_the_next(
    tmp_path: Path, byte_tokenizer: Path
) -> None:
    path = write_lines(tmp_path / "a.jsonl", words(3000))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, byte_tokenizer], cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / ".made.part" / "checkpoint").iterdir())
    assert not (tmp_path / "made").exists()
    prepare([path], tokenizer=byte_tokenizer, output=tmp_path / "made")
    assert texts_in(tmp_path / "made", byte_tokenizer) == words(3000)
    assert not (tmp_path / ".made.part").exists()
