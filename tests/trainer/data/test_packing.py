"""Packing: every token has its place, and no label crosses from one document to another."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data import Dataset, HeldOut, Sample, Source
from tensorsurgeon.trainer.data.packing import IGNORED, next_fit
from tensorsurgeon.trainer.data.shards import TokenShards
from tests.trainer.data.tokens import Written, open_shards, pairs_of, texts_of, write_shards

PADDING = 59_999
lengths = st.lists(st.integers(1, 30), min_size=1, max_size=25)


def shards_of(factory: pytest.TempPathFactory, documents: Written, kind: str) -> TokenShards:
    folder = factory.mktemp("packing") / "shards"
    return open_shards(
        write_shards(folder, documents, kind=kind, vocabulary=60_000, shard_size=100)
    )


def is_padding(sample: Sample) -> np.ndarray:
    return (sample.documents == sample.documents[-1]) & (sample.tokens == PADDING)


def check(sample: Sample, sequence_length: int) -> None:
    """What holds for every sample of documents whose tokens all differ and count up."""
    arrays = sample.tokens, sample.labels, sample.positions, sample.documents
    assert [array.shape for array in arrays] == [(sequence_length,)] * 4
    assert [array.dtype for array in arrays] == [np.int64, np.int64, np.int64, np.int32]
    starts = np.flatnonzero(np.diff(sample.documents, prepend=-1))
    assert (sample.documents[starts] == np.arange(len(starts))).all()
    for begin, end in pairwise([*starts.tolist(), sequence_length]):
        assert (sample.positions[begin:end] == np.arange(end - begin)).all()
    padding = is_padding(sample)
    assert (sample.labels[padding] == IGNORED).all()
    inside = np.append(np.diff(sample.documents) == 0, False) & ~padding
    assert (sample.tokens[1:][inside[:-1]] == sample.tokens[:-1][inside[:-1]] + 1).all()


@settings(deadline=None, max_examples=60)
@given(lengths=lengths, sequence_length=st.integers(2, 40), epoch=st.integers(0, 3))
def test_a_stream_has_every_token_of_an_epoch_once_but_for_the_rest(
    lengths: list[int],
    sequence_length: int,
    epoch: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    total = sum(lengths)
    if total < sequence_length or total == len(lengths):
        return
    with shards_of(tmp_path_factory, texts_of(lengths), "text") as shards:
        dataset = Dataset(
            [Source(name="a", shards=shards)],
            sequence_length=sequence_length,
            seed=3,
            packing="stream",
        )
        count = dataset.samples_per_epoch("a")
        assert total - sequence_length < count * sequence_length <= total
        ends = set((np.cumsum(lengths) - 1).tolist())
        seen: list[int] = []
        for index in range(epoch * count, (epoch + 1) * count):
            sample = dataset.sample(index)
            check(sample, sequence_length)
            seen += sample.tokens.tolist()
            for token, label in zip(sample.tokens.tolist(), sample.labels.tolist(), strict=True):
                assert label == (IGNORED if token in ends else token + 1)
        assert len(set(seen)) == len(seen) == count * sequence_length


@settings(deadline=None, max_examples=60)
@given(
    lengths=lengths,
    sequence_length=st.integers(30, 60),
    packing=st.sampled_from(["stream", "documents"]),
)
def test_held_out_samples_have_every_token_once_and_in_order(
    lengths: list[int],
    sequence_length: int,
    packing: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if sum(lengths) == len(lengths):
        return
    with shards_of(tmp_path_factory, texts_of(lengths), "text") as shards:
        held_out = HeldOut(shards, sequence_length=sequence_length, packing=packing)
        seen: list[int] = []
        labels = 0
        for index in range(len(held_out)):
            sample = held_out.sample(index)
            check(sample, sequence_length)
            seen += sample.tokens[~is_padding(sample)].tolist()
            labels += int((sample.labels != IGNORED).sum())
        assert seen == list(range(sum(lengths)))
        assert labels == sum(lengths) - len(lengths)
        with pytest.raises(IndexError):
            held_out.sample(len(held_out))


@settings(deadline=None, max_examples=60)
@given(lengths=lengths, sequence_length=st.integers(30, 60), epoch=st.integers(0, 3))
def test_packed_documents_are_whole_and_each_is_there_once_an_epoch(
    lengths: list[int],
    sequence_length: int,
    epoch: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    documents = pairs_of(lengths)
    if sum(lengths) == len(lengths):
        return
    with shards_of(tmp_path_factory, documents, "sft") as shards:
        dataset = Dataset(
            [Source(name="a", shards=shards)],
            sequence_length=sequence_length,
            seed=5,
            packing="documents",
        )
        count = dataset.samples_per_epoch("a")
        seen: list[list[int]] = []
        for index in range(epoch * count, (epoch + 1) * count):
            sample = dataset.sample(index)
            check(sample, sequence_length)
            for number in range(int(sample.documents[-1]) + 1):
                tokens = sample.tokens[sample.documents == number].tolist()
                if PADDING not in tokens:
                    seen.append(tokens)
        assert sorted(seen) == sorted(list(tokens) for tokens, _ in documents)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.tuples(st.integers(2, 15), st.integers(2, 15)), min_size=1, max_size=12),
    sequence_length=st.integers(30, 70),
)
def test_pairs_stay_together_and_know_their_numbers(
    lengths: list[tuple[int, int]], sequence_length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    documents = pairs_of([length for pair in lengths for length in pair])
    with shards_of(tmp_path_factory, documents, "preference") as shards:
        dataset = Dataset(
            [Source(name="a", shards=shards)],
            sequence_length=sequence_length,
            seed=5,
            packing="documents",
        )
        seen: list[int] = []
        for index in range(dataset.samples_per_epoch("a")):
            sample = dataset.sample(index)
            check(sample, sequence_length)
            for j, pair in enumerate(sample.pairs.tolist()):
                for half in (0, 1):
                    here = sample.documents == 2 * j + half
                    assert sample.tokens[here].tolist() == documents[2 * pair + half][0]
            seen += sample.pairs.tolist()
        assert sorted(seen) == list(range(len(lengths)))


def test_only_answers_are_learned_and_the_token_before_an_answer_predicts_it(
    tmp_path: Path,
) -> None:
    documents = [
        ([10, 11, 12, 13, 14], [False, False, True, False, True]),
        ([20, 21], [False, True]),
    ]
    with open_shards(write_shards(tmp_path / "sft", documents, kind="sft")) as shards:
        sample = HeldOut(shards, sequence_length=9, packing="documents").sample(0)
    assert sample.tokens.tolist() == [10, 11, 12, 13, 14, 20, 21, 257, 257]
    assert sample.labels.tolist() == [-100, 12, -100, 14, -100, 21, -100, -100, -100]
    assert sample.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1]
    assert sample.documents.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2]


def test_a_document_cut_by_the_stream_learns_the_token_ahead_and_begins_anew(
    tmp_path: Path,
) -> None:
    with open_shards(write_shards(tmp_path / "text", texts_of([6, 3]))) as shards:
        held_out = HeldOut(shards, sequence_length=4, packing="stream")
        first, second, third = map(held_out.sample, range(3))
    assert first.labels.tolist() == [1, 2, 3, 4]
    assert second.tokens.tolist() == [4, 5, 6, 7]
    assert second.labels.tolist() == [5, -100, 7, 8]
    assert second.positions.tolist() == [0, 1, 0, 1]
    assert third.tokens.tolist() == [8, 257, 257, 257]
    assert third.labels.tolist() == [-100] * 4


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 20), max_size=40), capacity=st.integers(20, 50))
def test_next_fit_fills_bins_in_order_and_never_more_than_they_hold(
    lengths: list[int], capacity: int
) -> None:
    bounds = next_fit(np.array(lengths, np.int64), capacity).tolist()
    assert bounds[0] == 0
    assert bounds[-1] == len(lengths)
    for begin, end in pairwise(bounds):
        assert 0 < sum(lengths[begin:end]) <= capacity
        assert end == len(lengths) or sum(lengths[begin : end + 1]) > capacity


TOO_LONG = [([1] * 12, [False] * 9 + [True] * 3), ([2] * 5, [False] + [True] * 4)]


def test_a_document_longer_than_a_sample_is_refused_and_counted(tmp_path: Path) -> None:
    with (
        open_shards(write_shards(tmp_path / "sft", TOO_LONG, kind="sft")) as shards,
        pytest.raises(DataError, match=r"1 of 2 documents is longer.*number 0, has 12"),
    ):
        HeldOut(shards, sequence_length=11, packing="documents")


def test_a_document_longer_than_a_sample_is_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    with open_shards(write_shards(tmp_path / "sft", TOO_LONG, kind="sft")) as shards:
        held_out = HeldOut(shards, sequence_length=11, packing="documents", too_long="truncate")
        assert (held_out.left_out.cut, held_out.left_out.skipped) == (1, 0)
        assert held_out.sample(0).tokens.tolist() == [1] * 11
        assert held_out.sample(0).labels.tolist() == [-100] * 8 + [1, 1, -100]


@pytest.mark.parametrize(("length", "too_long"), [(9, "truncate"), (11, "skip")])
def test_a_document_with_nothing_left_to_learn_is_left_out(
    length: int, too_long: str, tmp_path: Path
) -> None:
    with open_shards(write_shards(tmp_path / "sft", TOO_LONG, kind="sft")) as shards:
        held_out = HeldOut(shards, sequence_length=length, packing="documents", too_long=too_long)
        assert (held_out.left_out.cut, held_out.left_out.skipped) == (0, 1)
        assert len(held_out) == 1
        assert held_out.sample(0).tokens[:5].tolist() == [2] * 5


def test_a_pair_is_cut_to_a_half_each_and_left_out_where_one_half_has_no_answer_left(
    tmp_path: Path,
) -> None:
    answer = [False] * 4 + [True] * 6
    late = [False] * 9 + [True]
    documents = [([1] * 10, answer), ([2] * 10, answer), ([3] * 10, answer), ([4] * 10, late)]
    folder = write_shards(tmp_path / "pairs", documents, kind="preference")
    with open_shards(folder) as shards:
        held_out = HeldOut(shards, sequence_length=13, packing="documents", too_long="truncate")
        assert (held_out.left_out.cut, held_out.left_out.skipped) == (1, 1)
        assert len(held_out) == 1
        assert held_out.sample(0).tokens.tolist() == [1] * 6 + [2] * 6 + [257]


@pytest.mark.parametrize("kind", ["text", "sft"])
def test_cutting_many_documents_reads_texts_not_at_all_and_answers_once(
    kind: Literal["text", "sft"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = None if kind == "text" else [False] * 4 + [True] * 8
    documents = [([1] * 12, answers)] * 500
    folder = write_shards(tmp_path / "many", documents, kind=kind, shard_size=1 << 20)
    offsets, preadv = [], os.preadv

    def noted(descriptor: int, buffers: Any, offset: int) -> int:
        offsets.append(offset)
        return preadv(descriptor, buffers, offset)

    with open_shards(folder) as shards:
        monkeypatch.setattr(os, "preadv", noted)
        held_out = HeldOut(shards, sequence_length=8, packing="documents", too_long="truncate")
    assert held_out.left_out.cut == 500
    assert len(offsets) == (kind == "sft")


def test_nothing_left_at_all_is_refused(tmp_path: Path) -> None:
    with (
        open_shards(write_shards(tmp_path / "sft", TOO_LONG, kind="sft")) as shards,
        pytest.raises(DataError, match="nothing left to learn"),
    ):
        HeldOut(shards, sequence_length=4, packing="documents", too_long="skip")


@pytest.mark.parametrize("too_long", ["skip", "error"])
def test_documents_none_of_which_has_a_label_are_refused(
    too_long: Literal["skip", "error"], tmp_path: Path
) -> None:
    first_alone = ([1, 2, 3], [True, False, False])
    long = [([1] * 9, [False] * 8 + [True])] * (too_long == "skip")
    folder = write_shards(tmp_path / "sft", [first_alone] * 3000 + long, kind="sft")
    with (
        open_shards(folder) as shards,
        pytest.raises(DataError, match="nothing left to learn in samples of 8 tokens"),
    ):
        HeldOut(shards, sequence_length=8, packing="documents", too_long=too_long)


def test_documents_of_which_only_the_last_has_a_label_are_learned(tmp_path: Path) -> None:
    documents = [([1], None)] * 3000 + [([2, 3], None)]
    with open_shards(write_shards(tmp_path / "text", documents)) as shards:
        held_out = HeldOut(shards, sequence_length=8, packing="documents")
        labels = [held_out.sample(i).labels for i in range(len(held_out))]
    assert sum(int((row >= 0).sum()) for row in labels) == 1


def test_a_stream_shorter_than_a_sample_is_refused(tmp_path: Path) -> None:
    with (
        open_shards(write_shards(tmp_path / "text", texts_of([6, 3]))) as shards,
        pytest.raises(DataError, match="has 9 tokens, less than one sample of 10"),
    ):
        Dataset([Source(name="a", shards=shards)], sequence_length=10, seed=0, packing="stream")


def test_answers_cannot_be_cut_as_a_stream(tmp_path: Path) -> None:
    with (
        open_shards(write_shards(tmp_path / "sft", TOO_LONG, kind="sft")) as shards,
        pytest.raises(DataError, match="cannot be cut as a stream"),
    ):
        Dataset([Source(name="a", shards=shards)], sequence_length=10, seed=0, packing="stream")
