"""Headers, indexes and configs made to fill the memory: what their refusal may take is measured.

Each is opened in a process of its own. The seconds are the processor's, and those of a test are
three times what was measured on a slow and busy machine.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.checkpoints import llama_config, shard_bytes, tiny_llama
from tests.conftest import ROOT

FORMAT_LIMIT = 100_000_000
"""What the safetensors library allows a header to be, in bytes."""

HEADER, INDEX, CONFIG = 25_000_000, 50_000_000, 5_000_000
"""What we allow, in bytes."""

EMPTY = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
SMILE = "🤗".encode()
"""A character that makes every other of its string take four bytes."""

Opened = tuple[str, float, int]
"""The number of tensors or the error; seconds; bytes beyond what the interpreter takes."""


def opened(folder: Path) -> Opened:
    """What opening a folder comes to."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "hostile" / "reading.py", folder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    outcome, seconds, peak = json.loads(done.stdout)
    return outcome, seconds, peak


def filled(before: bytes, piece: bytes, after: bytes, size: int) -> bytes:
    """As many pieces between two ends as fit."""
    return before + piece * ((size - len(before) - len(after)) // len(piece)) + after


def members(form: bytes, count: int) -> bytes:
    """So many members of an object, each with another number where the form has `%d`."""
    return b",".join(form % number for number in range(count))


def tensors(count: int) -> Iterator[bytes]:
    """Entries as honest models have them: long names, rank 4."""
    for i in range(count):
        offsets = b"[%d,%d]" % (4 * i, 4 * i + 4)
        yield (
            b'"model.layers.%d.block_sparse_moe.experts.%d.w1.weight":' % (i // 512, i)
            + b'{"dtype":"BF16","shape":[2,1,1,1],"data_offsets":%s}' % offsets
        )


@pytest.fixture
def open_header(tmp_path: Path) -> Callable[[bytes, int], Opened]:
    """Opens a checkpoint whose one file has this header and so many bytes of zeros."""

    def open_header(header: bytes, data: int = 0) -> Opened:
        folder = tiny_llama(tmp_path / "source")
        path = folder / "model.safetensors"
        path.write_bytes(shard_bytes(header))
        os.truncate(path, 8 + len(header) + data)
        return opened(folder)

    return open_header


AT_FORMAT_LIMIT: dict[str, Callable[[], bytes]] = {
    "1.7 million tensors": lambda: b"{" + members(b'"%07d":' + EMPTY, 1_700_000) + b"}",
    "a rank of 50 million": lambda: filled(
        b'{"a":{"dtype":"U8","shape":[', b"1,", b'1],"data_offsets":[0,1]}}', FORMAT_LIMIT
    ),
    "7.8 million metadata keys": lambda: (
        b'{"__metadata__":{' + members(b'"%07d":""', 7_600_000) + b"}}"
    ),
}


@pytest.mark.parametrize("header", AT_FORMAT_LIMIT.values(), ids=AT_FORMAT_LIMIT.keys())
def test_bomb_of_the_format_s_size_is_refused_before_it_is_read(
    header: Callable[[], bytes], open_header: Callable[[bytes], Opened]
) -> None:
    outcome, seconds, peak = open_header(header())
    assert "at offset 8 is over the limit of 25000000" in outcome
    assert seconds < 0.1
    assert peak < 1_000_000


def metadata(form: bytes, count: int) -> bytes:
    return b'{"__metadata__":{' + members(form, count) + b"}}"


AT_OUR_LIMIT: dict[str, tuple[Callable[[], bytes], str]] = {
    "tensors": (
        lambda: b"{" + members(b'"%d":' + EMPTY, 440_000) + b"}",
        "has more than 200000 tensors",
    ),
    "tensors that are hard to count": (
        lambda: b"{" + members(b'"%d":' + EMPTY.replace(b"_", b"\\u005f"), 390_000) + b"}",
        "header: more than 200001 members at byte ",
    ),
    "names of large characters, and a mistake at the end": (
        lambda: b"{" + members(b'"' + SMILE + b'%0190d":' + EMPTY, 95_000) + b',"a":0}',
        "tensor 'a': the entry must have exactly",
    ),
    "a rank": (
        lambda: filled(
            b'{"a":{"dtype":"U8","shape":[', b"1,", b'1],"data_offsets":[0,1]}}', HEADER
        ),
        "tensor 'a': not JSON",
    ),
    "metadata keys": (
        lambda: metadata(b'"%d":""', 2_000_000),
        "__metadata__ more than 200000 members",
    ),
    "one string of metadata": (
        lambda: filled(b'{"__metadata__":{"a":"', b"b", b'"}}', HEADER),
        "__metadata__ a string longer than 5000000 bytes",
    ),
    "strings of large characters and escapes, no object": (
        lambda: metadata(b'"%d":"\\u0041' + SMILE + b"a" * 4_900_000 + b'"', 5)[:-1] + b',"a":[]}',
        "tensor 'a': the entry must have exactly",
    ),
    "a name": (
        lambda: filled(b'{"', b"n", b'":' + EMPTY + b"}", HEADER),
        "header: a string longer than 5000000 bytes",
    ),
    "a name of escapes without an end": (
        lambda: filled(b'{"', b'\\"', b"", HEADER),
        "header: not JSON: a string is expected at byte 9",
    ),
    "empty lists": (lambda: filled(b'{"a":[', b"[],", b"0]}", HEADER), "tensor 'a': not JSON"),
    "small objects": (
        lambda: filled(b'{"a":[', b'{"":0},', b"0]}", HEADER),
        "tensor 'a': not JSON",
    ),
    "depth": (lambda: filled(b'{"a":', b"[", b"", HEADER), "tensor 'a': nested too deeply"),
    "spaces": (lambda: filled(b"{", b" ", b"", HEADER), "header: not JSON: a string is expected"),
    "digits": (lambda: filled(b'{"a":', b"9", b"}", HEADER), "a number of 4096 digits"),
}


@pytest.mark.parametrize(("header", "problem"), AT_OUR_LIMIT.values(), ids=AT_OUR_LIMIT.keys())
def test_bomb_below_our_limit_is_refused_in_about_a_second_and_100_mb(
    header: Callable[[], bytes], problem: str, open_header: Callable[[bytes], Opened]
) -> None:
    data = header()
    assert 0.9 * HEADER < len(data) <= HEADER
    outcome, seconds, peak = open_header(data)
    assert problem in outcome
    assert seconds < 6
    # What holds it back from 100 MB is 200,000 names that nothing was wrong with.
    assert peak < 130_000_000


def test_honest_header_of_100_000_tensors_is_read(open_header: Callable[..., Opened]) -> None:
    header = b"{" + b",".join(tensors(100_000)) + b"}"
    outcome, seconds, peak = open_header(header, 400_000)
    assert outcome == "100000 tensors"
    assert seconds < 5
    assert peak < 80_000_000


SHARD = b"model-00001-of-00100.safetensors"

INDEXES: dict[str, tuple[Callable[[], bytes], str]] = {
    "tensors": (
        lambda: b'{"weight_map":{' + members(b'"%d":"a.safetensors"', 1_700_000) + b"}}",
        "more than 400000 members at byte ",
    ),
    "shards": (
        lambda: (
            b'{"weight_map":{'
            + b",".join(b'"%d":"%d.safetensors"' % (i, i) for i in range(20_000))
            + b"}}"
        ),
        "more than 10000 shards at byte ",
    ),
    "keys": (lambda: b"{" + members(b'"%d":0', 3_000_000) + b"}", "more than 1000 members"),
    "lists": (lambda: filled(b'{"weight_map":[', b"[],", b"0]}", INDEX), "not JSON"),
    "small objects": (lambda: filled(b'{"metadata":[', b'{"":0},', b"0]}", INDEX), "not JSON"),
    "depth": (lambda: filled(b'{"weight_map":', b"[", b"", INDEX), "nested too deeply"),
    "a string": (lambda: filled(b'{"', b"a", b'":0}', INDEX), "a string longer than 5000000"),
    "size": (lambda: filled(b"{", b" ", b"}", INDEX + 1), "is larger than 50000000 bytes"),
}


@pytest.mark.parametrize(("index", "problem"), INDEXES.values(), ids=INDEXES.keys())
def test_index_made_to_fill_the_memory_is_refused(
    index: Callable[[], bytes], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(llama_config()))
    (tmp_path / "model.safetensors.index.json").write_bytes(index())
    outcome, seconds, peak = opened(tmp_path)
    assert problem in outcome
    assert seconds < 6
    assert peak < 130_000_000


def test_honest_index_of_200_000_long_names_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(llama_config()))
    names = members(b'\n    "' + b"n" * 90 + b'%010d": "' + SHARD + b'"', 200_000)
    (tmp_path / "model.safetensors.index.json").write_bytes(
        b'{"metadata": {"total_size": 0}, "weight_map": {' + names + b"}}"
    )
    outcome, seconds, peak = opened(tmp_path)
    assert "1 of 1 shards are missing" in outcome
    assert seconds < 5
    assert peak < 100_000_000


CONFIGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "lists": (lambda: filled(b'{"a":[', b"[],", b"0]}", CONFIG), "more than 200000 values"),
    "numbers": (lambda: filled(b'{"a":[', b"1,", b"0]}", CONFIG), "more than 200000 values"),
    "small objects": (
        lambda: b'{"a":[' + b'{"":0},' * 99_000 + b"0],}",
        "not JSON: Expecting property name",
    ),
    "keys": (
        lambda: b"{" + members(b'"%020d":0', 198_000) + b",}",
        "not JSON: Expecting property name",
    ),
    "a string of large characters and escapes": (
        lambda: filled(b'{"a":"\\u0041' + SMILE, b"b", b'","a":0}', CONFIG),
        "duplicate key 'a'",
    ),
    "digits": (lambda: filled(b'{"a":', b"9", b"}", CONFIG), "a number of 4999994 digits"),
}


@pytest.mark.parametrize(("config", "problem"), CONFIGS.values(), ids=CONFIGS.keys())
def test_config_made_to_fill_the_memory_is_refused(
    config: Callable[[], bytes], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes(config())
    outcome, seconds, peak = opened(tmp_path)
    assert problem in outcome
    assert seconds < 2
    assert peak < 100_000_000
