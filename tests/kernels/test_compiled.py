"""The compiled arithmetic against the one in numpy: the same bits for any input."""

import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tensorsurgeon.kernels import Scratch, arithmetic, portable
from tensorsurgeon.kernels.portable import COLUMNS
from tensorsurgeon.specs import DType

compiled = arithmetic._COMPILED
HAS_COMPILER = (
    shutil.which("cc") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()
)
pytestmark = pytest.mark.skipif(
    compiled is None and not HAS_COMPILER, reason="nothing here could compile the extension"
)

CODES = arithmetic._CODES
DTYPES = pytest.mark.parametrize("dtype", CODES, ids=lambda dtype: dtype.value)
WORDS = {DType.BF16: np.uint16, DType.F16: np.uint16, DType.F32: np.uint32, DType.F64: np.uint64}
ODDITIES = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 2.0**-14, 2.0**-24, 2.0**-25, 1.7e308]
ODDITIES += [65504.0, 65519.99, 65520.0, 2.0**-133, 2.0**-134, float.fromhex("0x1.fefp127")]
ODDITIES += [float.fromhex(text) for text in ("0x1.ff0p127", "0x1.ffffffp127", "0x1.01p0")]

doubles = st.one_of(st.sampled_from(ODDITIES), st.floats(width=64), st.floats(width=16))
lengths = st.one_of(st.integers(0, 40), st.integers(COLUMNS - 2, 2 * COLUMNS + 2))


def test_the_extension_is_there_where_it_could_be_built():
    assert compiled is not None


def same_bits(left, right):
    return left.tobytes() == right.tobytes()


def everything_of(dtype):
    """Every word of a dtype of 16 bits; a million of each exponent's for the wider ones."""
    word = WORDS[dtype]
    if word is np.uint16:
        return np.arange(1 << 16, dtype=word)
    return np.random.default_rng(7).integers(0, np.iinfo(word).max, 1 << 18, word, endpoint=True)


def scaled(implementation, raw, dtype, weight, start):
    out = start.copy()
    add = bool(len(start))
    out = out if add else np.empty(len(raw) * 8 // dtype.bits)
    if implementation is portable:
        with np.errstate(all="ignore"):
            portable.scale(raw, dtype, weight, out, add=add, scratch=Scratch(1))
    else:
        implementation.scale(raw, CODES[dtype], weight, add, out)
    out[np.isnan(out)] = np.nan  # which of two NaNs a sum keeps is the processor's choice
    return out


@DTYPES
@pytest.mark.parametrize("weight", [1.0, 0.3, -1e300])
def test_every_word_decodes_alike(dtype, weight):
    raw = everything_of(dtype).view(np.uint8)
    none = np.empty(0)
    assert same_bits(
        scaled(compiled, raw, dtype, weight, none), scaled(portable, raw, dtype, weight, none)
    )
    start = np.linspace(-1, 1, len(raw) * 8 // dtype.bits)
    assert same_bits(
        scaled(compiled, raw, dtype, weight, start), scaled(portable, raw, dtype, weight, start)
    )


def encoded(implementation, values, dtype):
    raw = np.full(len(values) * dtype.bits // 8, 0xAA, np.uint8)
    if implementation is portable:
        with np.errstate(all="ignore"):
            lost = portable.encode(values.copy(), dtype, raw, scratch=Scratch(1))
    else:
        lost = implementation.encode(values, CODES[dtype], raw)
    return raw.tobytes(), lost


@DTYPES
@given(data=st.data())
@settings(deadline=None)
def test_any_values_encode_alike(dtype, data):
    values = data.draw(arrays(np.float64, lengths, elements=doubles))
    assert encoded(compiled, values, dtype) == encoded(portable, values, dtype)


@DTYPES
@pytest.mark.parametrize("narrow", [DType.BF16, DType.F16], ids=lambda dtype: dtype.value)
def test_every_half_and_its_neighbours_encode_alike(dtype, narrow):
    """All ties and what lies just beside them, where a wrong rounding would show."""
    halves = everything_of(narrow).view(np.uint8)
    values = scaled(portable, halves, narrow, 1.0, np.empty(0))
    with np.errstate(all="ignore"):
        ties = (values + np.roll(values, 1)) / 2
        for near in (values, ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)):
            assert encoded(compiled, near, dtype) == encoded(portable, near, dtype)


@given(data=st.data())
@settings(deadline=None)
def test_any_dot_product_is_alike(data):
    left = data.draw(arrays(np.float64, lengths, elements=st.floats(-1e100, 1e100)))
    right = left[::-1].copy()
    assert compiled.dot(left, right) == portable.dot(left, right, scratch=Scratch(1))


def test_a_long_dot_product_is_alike_and_right():
    left, right = np.random.default_rng(3).standard_normal((2, (1 << 18) - 3))
    found = compiled.dot(left, right)
    assert found == portable.dot(left, right, scratch=Scratch(1))
    longer = np.longdouble
    assert found == pytest.approx(float(left.astype(longer) @ right.astype(longer)), rel=1e-13)


def test_what_does_not_fit_together_is_refused():
    three, four = np.zeros(3), np.zeros(4)
    with pytest.raises(ValueError, match="6 bytes are not 4 elements"):
        compiled.scale(three.view(np.uint8)[:6], CODES[DType.BF16], 1.0, False, four)
    with pytest.raises(ValueError, match="are not 4 elements"):
        compiled.encode(four, CODES[DType.F32], bytearray(12))
    with pytest.raises(ValueError, match="are not 3 elements"):
        compiled.dot(four, three)
    with pytest.raises(ValueError, match="no dtype 9"):
        compiled.scale(four.view(np.uint8), 9, 1.0, False, four)
    with pytest.raises(TypeError):
        compiled.encode(four, CODES[DType.F32], bytes(16))
