"""The samples of a run: each is found by its number alone, whoever reads it and in any order."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data import Dataset, HeldOut, Sample, Source
from tests.trainer.data.tokens import open_shards, pairs_of, texts_of, write_shards

T = 16


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Source]]:
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    opened = []
    for name, count, weight in (("new", 60, 0.75), ("old", 25, 0.25)):
        documents = texts_of(rng.integers(2, 40, count).tolist())
        path = write_shards(folder / name, documents, vocabulary=60_000, shard_size=700)
        opened.append(Source(name=name, shards=open_shards(path), weight=weight))
    yield opened
    for source in opened:
        source.shards.close()


def dataset_of(sources: list[Source], *, seed: int = 0, packing: str = "stream") -> Dataset:
    return Dataset(sources, sequence_length=T, seed=seed, packing=packing, too_long="truncate")


def content(sample: Sample) -> tuple[object, ...]:
    return (
        sample.source,
        sample.tokens.tobytes(),
        sample.labels.tobytes(),
        sample.positions.tobytes(),
        sample.documents.tobytes(),
    )


@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_samples_asked_for_in_any_order_are_those_asked_for_in_turn(
    sources: list[Source], packing: str
) -> None:
    dataset = dataset_of(sources, packing=packing)
    in_turn = [content(dataset.sample(i)) for i in range(400)]
    other = dataset_of(sources, packing=packing)
    for i in np.random.default_rng(1).permutation(400).tolist():
        assert content(other.sample(i)) == in_turn[i]


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_together_read_what_one_would(sources: list[Source], ranks: int) -> None:
    alone = dataset_of(sources)
    shared = [dataset_of(sources) for _ in range(ranks)]
    for i in range(2000, 2240):
        assert content(shared[i % ranks].sample(i)) == content(alone.sample(i))


def test_threads_read_what_one_would(sources: list[Source]) -> None:
    alone, shared = dataset_of(sources), dataset_of(sources)
    numbers = np.random.default_rng(2).integers(0, 5000, 300).tolist()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: content(shared.sample(i)), numbers))
    assert found == [content(alone.sample(i)) for i in numbers]


def test_another_seed_gives_other_samples_of_the_same_documents(sources: list[Source]) -> None:
    one, other = dataset_of(sources, seed=0), dataset_of(sources, seed=1)
    assert [content(one.sample(i)) for i in range(20)] != [
        content(other.sample(i)) for i in range(20)
    ]
    assert one.samples_per_epoch("new") == other.samples_per_epoch("new")


def test_epochs_have_the_same_tokens_in_another_order(sources: list[Source]) -> None:
    dataset = dataset_of(sources[:1], packing="documents")
    count = dataset.samples_per_epoch("new")
    epochs = [
        [content(dataset.sample(i)) for i in range(e * count, (e + 1) * count)] for e in range(3)
    ]
    assert epochs[0] != epochs[1] != epochs[2]
    assert Counter(epochs[0]) == Counter(epochs[1]) == Counter(epochs[2])


def test_a_source_is_read_in_the_same_order_alone_or_in_a_mixture(sources: list[Source]) -> None:
    mixed, alone = dataset_of(sources), dataset_of(sources[1:])
    of_old = [sample for sample in map(mixed.sample, range(400)) if sample.source == 1]
    assert [content(sample)[1:] for sample in of_old] == [
        content(alone.sample(i))[1:] for i in range(len(of_old))
    ]


def test_epochs_tell_how_often_a_run_shows_each_source(sources: list[Source]) -> None:
    dataset = dataset_of(sources)
    expected = {
        "new": 3072 / dataset.samples_per_epoch("new"),
        "old": 1024 / dataset.samples_per_epoch("old"),
    }
    assert dataset.epochs(4096) == pytest.approx(expected)
    assert dataset.epochs(0) == {"new": 0, "old": 0}


def test_a_run_that_goes_on_with_wider_ranks_sees_no_sample_twice_and_misses_none(
    sources: list[Source],
) -> None:
    """Four steps of eight samples by one rank, then four by two."""
    whole = [content(dataset_of(sources).sample(i)) for i in range(64)]
    first, rest = dataset_of(sources), [dataset_of(sources), dataset_of(sources)]
    seen = [content(first.sample(i)) for i in range(32)]
    for step in range(4):
        for rank in range(2):
            seen += [content(rest[rank].sample(32 + 8 * step + 4 * rank + i)) for i in range(4)]
    assert seen == whole


def test_held_out_samples_are_limited_to_the_first(sources: list[Source]) -> None:
    shards = sources[0].shards
    every = HeldOut(shards, sequence_length=T, packing="stream")
    some = HeldOut(shards, sequence_length=T, packing="stream", limit=3)
    assert len(some) == 3
    assert [content(some.sample(i)) for i in range(3)] == [
        content(every.sample(i)) for i in range(3)
    ]
    assert len(HeldOut(shards, sequence_length=T, packing="stream", limit=10**9)) == len(every)


def test_two_sources_of_one_name_are_refused(sources: list[Source]) -> None:
    with pytest.raises(DataError, match="same name"):
        dataset_of([sources[0], sources[0]])


def test_preferences_are_not_mixed_with_texts(tmp_path: Path, sources: list[Source]) -> None:
    folder = write_shards(tmp_path / "pairs", pairs_of([4, 5]), kind="preference")
    with (
        open_shards(folder) as shards,
        pytest.raises(DataError, match="'new' holds text"),
    ):
        dataset_of([sources[0], Source(name="pairs", shards=shards)], packing="documents")


def test_texts_can_be_replayed_among_answers(tmp_path: Path, sources: list[Source]) -> None:
    folder = write_shards(tmp_path / "sft", pairs_of([4, 5]), kind="sft")
    with open_shards(folder) as shards:
        dataset = dataset_of([sources[0], Source(name="sft", shards=shards)], packing="documents")
        assert {dataset.sample(i).source for i in range(40)} == {0, 1}
