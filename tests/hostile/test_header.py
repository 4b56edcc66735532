"""The header parser and writer against the safetensors library, the format's own reader.

`read_header` may refuse what the library takes (it is stricter on purpose), never the reverse;
and what both take they read alike.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tensorsurgeon.checkpoint.header import encode_header, read_header
from tensorsurgeon.errors import HeaderError
from tensorsurgeon.specs import DType, TensorSpec
from tests.cli.checkpoints import entry, shard_bytes

Listed = dict[str, tuple[str, tuple[int, ...], bytes]]
"""What a reader found: dtype, shape and bytes of each tensor."""

one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
"""Every example writes the same file anew."""


def read_by_library(path: Path) -> Listed:
    """A whole file as safetensors reads it."""
    tensors = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    return {
        name: (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
        for name, tensor in tensors
    }


def read_by_us(path: Path) -> Listed:
    """A whole file as our offsets give it."""
    data = path.read_bytes()
    return {
        name: (
            tensor.spec.dtype.value,
            tensor.spec.shape,
            data[tensor.offset : tensor.offset + tensor.spec.nbytes],
        )
        for name, tensor in read_header(path).items()
    }


def filled(specs: list[TensorSpec]) -> bytes:
    """Bytes for the data of these tensors, every one another than its neighbours."""
    return bytes(index % 251 for index in range(sum(spec.nbytes for spec in specs)))


# Shapes of few elements, scalars and empty tensors among them; eight elements fill whole bytes.
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
names = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda n: n != "__metadata__")


@st.composite
def tensor_lists(draw: st.DrawFn) -> list[TensorSpec]:
    """Tensors of any dtype, each with whole bytes."""
    made = []
    for name in draw(st.lists(names, unique=True, max_size=8)):
        dtype, shape = draw(st.sampled_from(DType)), draw(shapes)
        if math.prod(shape) * dtype.bits % 8:
            shape = (*shape, 8)
        made.append(TensorSpec(name=name, dtype=dtype, shape=shape))
    return made


@one_file
@given(specs=tensor_lists())
def test_what_we_write_the_library_reads_back(specs: list[TensorSpec], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    data = filled(specs)
    path.write_bytes(encode_header(specs) + data)
    found, begin = read_by_library(path), 0
    assert list(found) == [] or set(found) == {spec.name for spec in specs}
    for spec in specs:
        expected = data[begin : begin + spec.nbytes]
        assert found[spec.name] == (spec.dtype.value, spec.shape, expected)
        begin += spec.nbytes
    assert read_by_us(path) == found


@one_file
@given(specs=tensor_lists(), padding=st.sampled_from(["", " ", " " * 9, "\n\t "]), data=st.data())
def test_what_the_library_reads_we_read_alike(
    specs: list[TensorSpec], padding: str, data: st.DataObject, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    header: dict[str, Any] = {}
    end = 0
    for spec in specs:
        begin, end = end, end + spec.nbytes
        header[spec.name] = entry(spec.dtype.value, list(spec.shape), begin, end)
    if data.draw(st.booleans(), "metadata"):
        header["__metadata__"] = data.draw(st.dictionaries(names, names, max_size=3))
    shuffled = dict(data.draw(st.permutations(list(header.items()))))
    text = json.dumps(shuffled, ensure_ascii=data.draw(st.booleans(), "ascii")) + padding
    path.write_bytes(shard_bytes(text.encode(), filled(specs)))
    assert read_by_us(path) == read_by_library(path)


def test_files_of_the_library_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dtypes: list[Any] = [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32]
    dtypes += [np.int64, np.uint64, np.float16, np.float32, np.float64, np.complex64]
    dtypes += [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
    tensors = {np.dtype(dtype).name: np.ones((2, 3), dtype) for dtype in dtypes}
    save_file(tensors | {"scalar": np.full((), 7, np.float32), "empty": np.zeros((0, 5))}, path)
    found = read_by_us(path)
    assert found == read_by_library(path)
    for name, tensor in tensors.items():
        assert found[name][1:] == (tensor.shape, tensor.tobytes())
    assert found["scalar"] == ("F32", (), np.float32(7).tobytes())
    assert found["empty"] == ("F64", (0, 5), b"")


def test_tensors_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {"z": entry("U8", [1], 2, 3), "a": entry("U8", [0], 2, 2), "m": entry("U8", [2], 0, 2)}
    path.write_bytes(shard_bytes(header, b"abc"))
    assert list(read_header(path)) == ["m", "a", "z"]


VALID = shard_bytes(
    {
        "__metadata__": {"format": "pt"},
        "model.embed.weight": entry("BF16", [3, 4], 0, 24),
        "scalar": entry("F64", [], 24, 32),
        "empty": entry("F4", [0, 7], 32, 32),
        "half": entry("F6_E2M3", [4], 32, 35),
    },
    bytes(range(35)),
)

positions = st.integers(0, len(VALID) - 1)
mutations = st.one_of(
    st.tuples(st.just("replace"), positions, st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("insert"), positions, st.sampled_from([b"0", b"-", b'"', b"{", b"]", b" "])),
    st.tuples(st.just("delete"), positions, st.just(b"x")),
    st.tuples(st.just("number"), positions, st.integers(0, 10**20).map(lambda n: b"%d" % n)),
    st.tuples(st.just("cut"), positions, st.just(b"")),
)


def mutated(data: bytes, kind: str, at: int, piece: bytes) -> bytes:
    """A copy of a file with one place changed."""
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + piece + data[at:]
    if kind == "number":
        # The next number of the header becomes another one.
        start = next((i for i in range(at, len(data)) if data[i : i + 1].isdigit()), at)
        stop = next((i for i in range(start, len(data)) if not data[i : i + 1].isdigit()), start)
        return data[:start] + piece + data[stop:]
    return data[:at] + (piece if kind == "replace" else b"") + data[at + len(piece) :]


@settings(one_file, max_examples=400)
@given(changes=st.lists(mutations, min_size=1, max_size=3), keep_length=st.booleans())
def test_mutated_file_is_read_as_the_library_reads_it_or_refused(
    changes: list[tuple[str, int, bytes]], keep_length: bool, tmp_path: Path
) -> None:
    data = VALID
    for change in changes:
        data = mutated(data, *change)
    if keep_length and len(data) > 8 + 35:  # so that the change is met in the JSON, not before
        data = struct.pack("<Q", len(data) - 8 - 35) + data[8:]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    try:
        found = read_by_us(path)
    except HeaderError:
        return
    assert found == read_by_library(path)
