"""Files that break a rule about offsets, shapes or dtypes: one each."""

import json

from tests.cli.checkpoints import entry, shard_bytes
from tests.hostile.cases import HERE, NOT_WHOLE_OFFSETS, NOT_WHOLE_SHAPE, Hostile, tensor, two

OFFSETS = {
    "overlap": Hostile(
        content=two(entry("U8", [2], 0, 2), entry("U8", [2], 1, 3), b"abc"),
        problem="tensor 'b': an overlap in the data at offset 2",
    ),
    "the same bytes": Hostile(
        content=two(entry("U8", [1], 0, 1), entry("U8", [1], 0, 1), b"a"),
        problem="tensor 'b': an overlap in the data at offset 1",
    ),
    "ten tensors of the same bytes": Hostile(
        content=shard_bytes(
            {f"weight_{i}": entry("F32", [2, 2], 0, 16) for i in range(10)}, bytes(16)
        ),
        problem="tensor 'weight_1': an overlap in the data at offset 16",
    ),
    "hole": Hostile(
        content=two(entry("U8", [1], 0, 1), entry("U8", [1], 2, 3), b"abc"),
        problem="tensor 'b': a hole in the data at offset 1",
    ),
    "hole before the first": Hostile(
        content=tensor(offsets="[1, 2]", data=b"ab"),
        problem="tensor 'a': a hole in the data at offset 0",
    ),
    "an empty tensor beyond the others": Hostile(
        content=two(entry("U8", [1], 0, 1), entry("U8", [0], 9, 9), b"a"),
        problem="tensor 'b': a hole in the data at offset 1",
    ),
    "reversed": Hostile(
        content=tensor(offsets="[1, 0]"), problem=f"tensor 'a': offsets 1 to 0 are reversed {HERE}"
    ),
    "negative": Hostile(content=tensor(offsets="[-1, 0]"), problem=NOT_WHOLE_OFFSETS),
    "minus zero": Hostile(content=tensor(offsets="[-0, 1]"), problem=NOT_WHOLE_OFFSETS),
    "float": Hostile(content=tensor(offsets="[0, 1.0]"), problem=NOT_WHOLE_OFFSETS),
    "exponent": Hostile(content=tensor(offsets="[0, 1e0]"), problem=NOT_WHOLE_OFFSETS),
    "bool": Hostile(content=tensor(offsets="[false, true]"), problem=NOT_WHOLE_OFFSETS),
    "string": Hostile(content=tensor(offsets='["0", "1"]'), problem=NOT_WHOLE_OFFSETS),
    "null": Hostile(content=tensor(offsets="null"), problem=NOT_WHOLE_OFFSETS),
    "an object": Hostile(content=tensor(offsets='{"0": 1}'), problem=NOT_WHOLE_OFFSETS),
    "2^64": Hostile(content=tensor(offsets=f"[{2**64}, {2**64 + 1}]"), problem=NOT_WHOLE_OFFSETS),
    "of which the end overflows": Hostile(
        content=tensor(offsets=f"[{2**64 - 1}, {2**64}]"), problem=NOT_WHOLE_OFFSETS
    ),
    "a thousand digits": Hostile(
        content=tensor(offsets="[0, " + "9" * 1000 + "]"), problem=NOT_WHOLE_OFFSETS
    ),
    "2,000 digits": Hostile(
        content=tensor(offsets="[0, " + "9" * 2000 + "]"),
        problem="tensor 'a': a number of 2000 digits, at byte 14",
    ),
    "near 2^64": Hostile(
        content=tensor(offsets=f"[{2**64 - 2}, {2**64 - 1}]"),
        problem="tensor 'a': a hole in the data at offset 0",
    ),
    "one": Hostile(content=tensor(offsets="[0]"), problem=NOT_WHOLE_OFFSETS),
    "three": Hostile(content=tensor(offsets="[0, 1, 1]"), problem=NOT_WHOLE_OFFSETS),
    "none": Hostile(content=tensor(offsets="[]"), problem=NOT_WHOLE_OFFSETS),
    "beyond the file": Hostile(
        content=tensor("[2]", "[0, 2]"),
        problem="is cut short: 69 bytes, but its tensors end at 70 (the last is 'a')",
    ),
}

SHAPES = {
    "negative": Hostile(content=tensor("[-1]"), problem=NOT_WHOLE_SHAPE),
    "minus zero": Hostile(content=tensor("[-0]", "[0, 0]", data=b""), problem=NOT_WHOLE_SHAPE),
    "float": Hostile(content=tensor("[1.0]"), problem=NOT_WHOLE_SHAPE),
    "bool": Hostile(content=tensor("[true]"), problem=NOT_WHOLE_SHAPE),
    "string": Hostile(content=tensor('"1"'), problem=NOT_WHOLE_SHAPE),
    "a number": Hostile(content=tensor("1"), problem=NOT_WHOLE_SHAPE),
    "null": Hostile(content=tensor("null"), problem=NOT_WHOLE_SHAPE),
    "nested": Hostile(content=tensor("[[1]]"), problem=NOT_WHOLE_SHAPE),
    "2^64": Hostile(content=tensor(f"[{2**64}]"), problem=NOT_WHOLE_SHAPE),
    "a product over 2^64": Hostile(
        content=tensor(f"[2, {2**64 - 2}]", "[0, 16]", '"I32"', bytes(16)),
        problem=f"tensor 'a': the shape has more elements than 64 bits can count {HERE}",
    ),
    "bits over 2^64": Hostile(
        content=tensor(f"[2, {2**63 - 1}]", "[0, 16]", '"I32"', bytes(16)),
        problem=f"tensor 'a': offsets 0 to 16 hold 16 bytes, the shape needs {(2**64 - 2) * 4} "
        + HERE,
    ),
    "a product of 2^64, which is 0 in 64 bits": Hostile(
        content=tensor(f"[{2**32}, {2**32}]", "[0, 0]", data=b""),
        problem=f"tensor 'a': the shape has more elements than 64 bits can count {HERE}",
    ),
    "a product over 2^64 and a zero behind": Hostile(
        content=tensor(f"[{2**63}, 4, 0]", "[0, 0]", data=b""),
        problem=f"tensor 'a': the shape has more elements than 64 bits can count {HERE}",
    ),
    "a product over 2^64 and a zero before": Hostile(
        content=tensor(f"[0, {2**63}, 4]", "[0, 0]", data=b""),
        problem=f"tensor 'a': the shape has more elements than 64 bits can count {HERE}",
        taken="the library multiplies from the left and stays at zero; no array can be made of it",
    ),
    "more bytes than there are": Hostile(
        content=tensor(f"[{2**40}]", "[0, 4]", '"F32"', b"abcd"),
        problem=f"tensor 'a': offsets 0 to 4 hold 4 bytes, the shape needs {2**42} {HERE}",
    ),
    "fewer bytes than there are": Hostile(
        content=tensor("[2, 2]", "[0, 4]", '"I32"', b"abcd"),
        problem=f"tensor 'a': offsets 0 to 4 hold 4 bytes, the shape needs 16 {HERE}",
    ),
    "a scalar of two": Hostile(
        content=tensor("[]", "[0, 2]", data=b"ab"),
        problem=f"tensor 'a': offsets 0 to 2 hold 2 bytes, the shape needs 1 {HERE}",
    ),
    "rank 65": Hostile(
        content=tensor(json.dumps([1] * 65)),
        problem=f"tensor 'a': rank 65 is over 64 {HERE}",
        taken="numpy and torch stop at a rank of 64",
    ),
    "rank 100,000": Hostile(
        content=tensor(json.dumps([1] * 100_000)),
        problem="tensor 'a': not JSON: Expecting value at line 1 column 4097, within the "
        "4096 bytes that a value may take here, at byte 14",
        taken="numpy and torch stop at a rank of 64",
    ),
}

UNKNOWN = "tensor 'a': unknown dtype {} " + HERE

DTYPES = {
    "unknown": Hostile(content=tensor(dtype='"Q8"'), problem=UNKNOWN.format("'Q8'")),
    "lower case": Hostile(content=tensor(dtype='"u8"'), problem=UNKNOWN.format("'u8'")),
    "with a space": Hostile(content=tensor(dtype='"U8 "'), problem=UNKNOWN.format("'U8 '")),
    "empty": Hostile(content=tensor(dtype='""'), problem=UNKNOWN.format("''")),
    "torch's name": Hostile(content=tensor(dtype='"uint8"'), problem=UNKNOWN.format("'uint8'")),
    "an attribute of ours": Hostile(
        content=tensor(dtype='"bits"'), problem=UNKNOWN.format("'bits'")
    ),
    "a dunder": Hostile(content=tensor(dtype='"__class__"'), problem=UNKNOWN.format("'__class__'")),
    "a list": Hostile(content=tensor(dtype='["U8"]'), problem=UNKNOWN.format("['U8']")),
    "an object": Hostile(
        content=tensor(dtype='{"U8": null}'),
        problem=UNKNOWN.format("{'U8': None}"),
        taken="serde reads an object of one key as the variant it names; the format's text knows "
        "strings",
    ),
    "a number": Hostile(content=tensor(dtype="8"), problem=UNKNOWN.format("8")),
    "null": Hostile(content=tensor(dtype="null"), problem=UNKNOWN.format("None")),
    "half a byte": Hostile(
        content=tensor("[3]", "[0, 2]", '"F4"', b"ab"),
        problem=f"tensor 'a': 3 elements of 4 bits do not fill whole bytes {HERE}",
    ),
    "half a byte, rounded down": Hostile(
        content=tensor("[3]", "[0, 1]", '"F4"', b"a"),
        problem=f"tensor 'a': 3 elements of 4 bits do not fill whole bytes {HERE}",
    ),
    "three quarters of a byte": Hostile(
        content=tensor("[5]", "[0, 4]", '"F6_E2M3"', b"abcd"),
        problem=f"tensor 'a': 5 elements of 6 bits do not fill whole bytes {HERE}",
    ),
}
