"""Token shards: what is written is read, and nothing that is damaged is."""

import errno
import json
import os
import struct
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.errors import DataError, OutputError, PlanError
from tensorsurgeon.trainer.data import open_tokens, tokenizer_digest
from tensorsurgeon.trainer.data.index import TokenIndex
from tensorsurgeon.trainer.data.shard_writer import ShardWriter, writing_shards
from tensorsurgeon.writing import Disk
from tests.trainer.data.tokens import document, make_tokenizer, open_shards, write_shards

SOME = [([1, 2, 3, 257], None), ([4, 257], None), ([5, 6, 257], None)]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", SOME)


def change_index(folder: Path, **changes: Any) -> None:
    path = folder / "tokens.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def overwriting(folder: Path, disk: Disk | None = None) -> AbstractContextManager[ShardWriter]:
    return writing_shards(
        folder,
        kind="text",
        tokenizer="0" * 64,
        vocabulary=258,
        end_of_document=257,
        shard_size=100,
        overwrite=True,
        disk=disk,
    )


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_shards(folder)
    return str(caught.value)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), wide=st.booleans(), kind=st.sampled_from(["text", "sft", "preference"]))
def test_any_documents_come_back_as_they_were(
    data: st.DataObject, wide: bool, kind: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vocabulary = (1 << 16) + wide
    length = st.integers(1, 40)
    tokens = length.flatmap(
        lambda n: st.lists(st.integers(0, vocabulary - 1), min_size=n, max_size=n)
    )
    lists = data.draw(st.lists(tokens, min_size=2, max_size=12))
    if kind == "preference":
        lists = lists[: len(lists) // 2 * 2]
    lists[0].append(0)
    answers = [
        None
        if kind == "text"
        else data.draw(st.lists(st.booleans(), min_size=len(made), max_size=len(made)))
        for made in lists
    ]
    if answers[0] is not None:
        answers[0][-1] = True
    folder = tmp_path_factory.mktemp("any") / "shards"
    written = list(zip(lists, answers, strict=True))
    write_shards(folder, written, kind=kind, vocabulary=vocabulary, shard_size=64)
    with open_shards(folder) as shards:
        for number, (made, learned) in enumerate(written):
            tokens_read, learned_read = shards.document(number)
            assert tokens_read.tolist() == made
            assert (None if learned_read is None else learned_read.tolist()) == learned
        assert shards.index.tokens == sum(map(len, lists))
        assert shards.index.token_bytes == (4 if wide else 2)
        shards.check_digests()


@pytest.mark.parametrize("gap", [0, 1 << 16])
@pytest.mark.parametrize("stretch", [16, 1 << 26])
@settings(deadline=None, max_examples=40)
@given(data=st.data(), kind=st.sampled_from(["text", "sft"]))
def test_what_is_learned_within_documents_is_what_reading_each_tells(
    data: st.DataObject, kind: Any, gap: int, stretch: int, tmp_path_factory: Any
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=2, max_size=12))
    rare = st.integers(0, 19).map(lambda number: number == 0)
    answers = [data.draw(st.lists(rare, min_size=n, max_size=n)) for n in lengths]
    lengths[0], answers[0] = lengths[0] + 1, [*answers[0], True]
    written = [
        ([1] * n, None if kind == "text" else learned)
        for n, learned in zip(lengths, answers, strict=True)
    ]
    folder = tmp_path_factory.mktemp("within") / "shards"
    write_shards(folder, written, kind=kind, shard_size=200)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1))))
    counts = [data.draw(st.integers(1, lengths[number])) for number in chosen]
    with pytest.MonkeyPatch.context() as patch, open_shards(folder) as shards:
        patch.setattr("tensorsurgeon.trainer.data.shards._GAP", gap)
        patch.setattr("tensorsurgeon.trainer.data.shards._STRETCH", stretch)
        found = shards.learns_within(np.array(chosen, np.int64), np.array(counts, np.int64))
        for number, count, told in zip(chosen, counts, found, strict=True):
            _, learned = shards.read([(number, 0, count)])
            assert told == (count > 1 if learned is None else learned[1:].any())


def test_pieces_of_documents_in_several_shards_are_read_in_the_order_asked_for(
    tmp_path: Path,
) -> None:
    documents = [(list(range(100 * i, 100 * i + 100)), None) for i in range(20)]
    folder = write_shards(tmp_path / "shards", documents, vocabulary=2000, shard_size=500)
    with open_shards(folder) as shards:
        assert len(shards.index.shards) > 3
        tokens, _ = shards.read([(17, 98, 2), (0, 0, 1), (9, 50, 3)])
        assert tokens.tolist() == [1798, 1799, 0, 950, 951, 952]


def test_no_shard_is_larger_than_asked_by_more_than_a_document(tmp_path: Path) -> None:
    documents = [([1] * 30, None)] * 50
    folder = write_shards(tmp_path / "shards", documents, shard_size=200)
    with open_shards(folder) as shards:
        assert {entry.tokens for entry in shards.index.shards[:-1]} == {120}


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = (write_shards(tmp_path / name, SOME) for name in ("one", "other"))
    files = sorted(path.name for path in one.iterdir())
    assert files == sorted(path.name for path in other.iterdir())
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


def test_shards_of_another_tokenizer_are_refused_with_both_digests(shards: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_tokens(shards, tokenizer_digest="1" * 64, vocabulary=None)
    assert "0" * 64 in str(caught.value)
    assert "1" * 64 in str(caught.value)
    assert "--tokenizer" in str(caught.value)


def test_a_token_that_the_embedding_lacks_is_refused(shards: Path) -> None:
    open_tokens(shards, tokenizer_digest="0" * 64, vocabulary=258).close()
    with pytest.raises(DataError, match="token 257, and the model's embedding only 257 rows"):
        open_tokens(shards, tokenizer_digest="0" * 64, vocabulary=257)


def test_a_tokenizer_larger_than_the_embedding_is_fine_as_long_as_no_token_is(
    tmp_path: Path,
) -> None:
    folder = write_shards(tmp_path / "shards", [([1, 2], None)], vocabulary=1000)
    open_tokens(folder, tokenizer_digest=None, vocabulary=3).close()


def test_a_folder_without_an_index_is_none_of_token_shards(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path}: holds no token shards: there is no tokens.json\n"
        "  fix: 'tensorsurgeon train prepare' makes token shards of texts"
    )


@pytest.mark.parametrize("cut", [1, 100, 4096])
def test_a_shard_cut_short_is_refused(shards: Path, cut: int) -> None:
    path = shards / "tokens-00001.safetensors"
    os.truncate(path, path.stat().st_size - cut)
    assert "tokens-00001.safetensors" in refusal(shards)


def test_a_shard_that_is_missing_is_refused(shards: Path) -> None:
    (shards / "tokens-00001.safetensors").unlink()
    assert "cannot be read" in refusal(shards)


def test_a_shard_cut_while_it_is_read_is_an_error_and_no_crash(shards: Path) -> None:
    with open_shards(shards) as opened:
        os.truncate(shards / "tokens-00001.safetensors", 4096)
        with pytest.raises(DataError, match="cut short since it was opened"):
            opened.document(0)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"tokens": {"dtype": "U16", "shape": [1 << 62], "data_offsets": [0, 1 << 63]}}, "cut"),
        ({"tokens": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, "cut"),
        ({"tokens": {"dtype": "U16", "shape": [-9], "data_offsets": [0, 18]}}, "whole numbers"),
        ({"x": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}, "after its last"),
        ({"x": {"dtype": "U8", "shape": [10], "data_offsets": [0, 10]}}, "other tensors"),
        ({}, "after its last"),
    ],
)
def test_a_hostile_header_is_refused(shards: Path, entries: dict[str, Any], said: str) -> None:
    path = shards / "tokens-00001.safetensors"
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(10))
    assert said in refusal(shards)


def test_a_header_that_claims_to_be_larger_than_the_file_is_refused(shards: Path) -> None:
    path = shards / "tokens-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[:8] = struct.pack("<Q", 1 << 62)
    path.write_bytes(content)
    assert "does not fit" in refusal(shards)


def offsets_at(path: Path) -> int:
    return 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


@pytest.mark.parametrize(
    "offsets", [[0, 4, 4, 9], [0, 6, 4, 9], [1, 4, 6, 9], [0, 4, 6, 8], [0, 4, 1 << 62, 9]]
)
def test_documents_that_do_not_divide_the_tokens_are_refused(
    shards: Path, offsets: list[int]
) -> None:
    path = shards / "tokens-00001.safetensors"
    content, at = bytearray(path.read_bytes()), offsets_at(path)
    content[at : at + 32] = np.array(offsets, "<i8").tobytes()
    path.write_bytes(content)
    assert "do not divide" in refusal(shards)


def test_a_token_beyond_the_largest_said_is_found_when_it_is_read(shards: Path) -> None:
    path = shards / "tokens-00001.safetensors"
    content, at = bytearray(path.read_bytes()), offsets_at(path) + 4 * 8
    content[at : at + 2] = b"\xff\xff"
    path.write_bytes(content)
    with open_shards(shards) as opened:
        with pytest.raises(DataError, match="token 65535 in document 0"):
            opened.document(0)
        opened.document(1)
        with pytest.raises(DataError, match="SHA-256"):
            opened.check_digests()


SHARD = {"bytes": 1, "sha256": "0" * 64, "tokens": 9, "documents": 3}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "x"}, "no index of token shards"),
        ({"version": 2}, "version 2"),
        ({"kind": "texts"}, "kind"),
        ({"more": 1}, "more"),
        ({"tokens": 10}, "do not add up"),
        ({"tokens": -1}, "greater than or equal to 0"),
        ({"tokens": 9.5}, "integer"),
        ({"documents": 4}, "do not add up"),
        ({"largest_token": 258}, "outside of the vocabulary"),
        ({"vocabulary": 1 << 40}, "vocabulary"),
        ({"kind": "preference"}, "odd number"),
        ({"tokenizer": "abc"}, "tokenizer"),
        ({"shards": [{"file": "../tokens-00001.safetensors", **SHARD}]}, "file"),
        ({"shards": [{"file": "tokens-00001.safetensors\n", **SHARD}]}, "file"),
        ({"shards": [{"file": "tokens-00001.safetensors", **SHARD}] * 2}, "listed twice"),
    ],
)
def test_an_index_that_breaks_a_rule_is_refused(
    shards: Path, changes: dict[str, Any], said: str
) -> None:
    change_index(shards, **changes)
    assert said in refusal(shards)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"format": 1, "format": 1}', b"\xff"])
def test_an_index_that_is_no_json_object_is_refused(shards: Path, text: bytes) -> None:
    (shards / "tokens.json").write_bytes(text)
    assert "tokens.json: is damaged" in refusal(shards)


def test_empty_shards_are_refused(shards: Path) -> None:
    change_index(shards, shards=[], tokens=0, documents=0, learned=0)
    assert "is empty" in refusal(shards)


def test_documents_of_one_token_are_nothing_to_predict(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "one", [([1], None)])
    assert "nothing to predict" in refusal(folder)


def test_answers_none_of_which_is_learned_are_refused(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "none", [([1, 2], [False, False])], kind="sft")
    assert "no answer to learn" in refusal(folder)


def test_the_writer_refuses_a_token_outside_of_the_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="258"):
        write_shards(tmp_path / "shards", [([258], None)])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, shards: Path) -> None:
    before = (shards / "tokens.json").read_bytes()

    def stop_halfway() -> None:
        with overwriting(shards) as writer:
            writer.add([document([1, 2] * 1000)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert (shards / "tokens.json").read_bytes() == before
    assert list(tmp_path.iterdir()) == [shards]


class FullDisk(Disk):
    """A disk with no room for a shard."""

    def write(self, descriptor: int, data: memoryview, offset: int) -> None:
        if offset + len(data) > 4096:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(descriptor, data, offset)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with overwriting(tmp_path / "new" / "shards", FullDisk()) as writer:
            writer.add([document([1, 2] * 1000)])

    with pytest.raises(OutputError, match=r"No space left on device\n  fix: free space"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_token_shards_are_replaced_only_when_asked(shards: Path) -> None:
    with pytest.raises(PlanError, match="--overwrite"):
        write_shards(shards, SOME)


def test_nothing_but_token_shards_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tokens.json").touch()
    (tmp_path / "mine" / "diary.txt").touch()
    with (
        pytest.raises(PlanError, match="something else than token shards"),
        overwriting(tmp_path / "mine"),
    ):
        pytest.fail("it was replaced")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_identity_tells_other_tokens_and_not_other_folders(tmp_path: Path, shards: Path) -> None:
    same = write_shards(tmp_path / "same", SOME)
    other = write_shards(tmp_path / "other", [([1, 2, 4, 257], None), *SOME[1:]])
    with open_shards(shards) as one, open_shards(same) as two, open_shards(other) as three:
        assert one.identity == two.identity != three.identity


def test_the_digest_of_a_tokenizer_is_of_its_file_and_of_nothing_else(tmp_path: Path) -> None:
    plain = make_tokenizer(tmp_path / "plain")
    chatty = make_tokenizer(tmp_path / "chatty", template="{{ messages }}")
    begins = make_tokenizer(tmp_path / "begins", begin=True)
    digests = [tokenizer_digest(folder) for folder in (plain, chatty, begins)]
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_of_a_tokenizer_without_the_one_file_is_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("a b")
    one = tokenizer_digest(tmp_path)
    (tmp_path / "merges.txt").write_text("a c")
    assert tokenizer_digest(tmp_path) != one


def test_a_folder_without_a_tokenizer_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no tokenizer"):
        tokenizer_digest(tmp_path)


def test_the_index_is_read_back_as_it_was_encoded(shards: Path) -> None:
    raw = (shards / "tokens.json").read_bytes()
    assert TokenIndex.model_validate_json(raw).encode() == raw
