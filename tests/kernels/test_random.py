"""Random words: numpy's own generator gives the same ones, from any place on."""

import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon.kernels import random

HAS_COMPILER = (
    shutil.which("cc") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()
)
KEYS = st.tuples(*[st.integers(0, 2**64 - 1)] * 2)


def from_numpy(key: random.Key, count: int) -> bytes:
    drawn = np.random.Philox(key=np.array(key, np.uint64)).random_raw(-(-count // 2))
    return bytes(np.asarray(drawn, "<u8").tobytes()[: 4 * count])


@pytest.mark.skipif(not HAS_COMPILER, reason="nothing here could compile the extension")
def test_the_extension_is_there_where_it_could_be_built():
    assert random._COMPILED is not None


@pytest.mark.parametrize("compiled", [True, False])
@given(key=KEYS, counters=st.integers(0, 300), count=st.integers(0, 200))
def test_any_span_is_a_part_of_numpys_stream(compiled, key, counters, count):
    start = counters * random.PER_COUNTER
    out = np.full(count, 7, np.uint32)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(random, "_COMPILED", None)
        random.fill_words(key, start, out)
    assert out.tobytes() == from_numpy(key, start + count)[4 * start :]


def test_keys_differ_where_any_part_does():
    parts = [(0, "a", "b"), (1, "a", "b"), (0, "ab", ""), (0, "a", "b", ""), (0, "b", "a")]
    assert len({random.key_of(*part) for part in parts}) == len(parts)
