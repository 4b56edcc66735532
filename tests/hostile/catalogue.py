"""Safetensors files that break a rule, one each, and odd ones that break none.

The first list goes through what a header says from its first byte to its last offset; the second
source of both is the safetensors library's own tests (`tensor.rs`) and its `attacks` folder.
"""

import json

from tests.cli.checkpoints import entry, shard_bytes
from tests.hostile.bad_tensors import DTYPES, OFFSETS, SHAPES
from tests.hostile.bad_text import FRAMING, JSON, METADATA
from tests.hostile.cases import A, tensor, text, two

HOSTILE = {
    f"{group}: {name}": case
    for group, cases in (
        ("framing", FRAMING),
        ("json", JSON),
        ("metadata", METADATA),
        ("offsets", OFFSETS),
        ("shape", SHAPES),
        ("dtype", DTYPES),
    )
    for name, case in cases.items()
}

WELL_FORMED = {
    "no tensor": text("{}", b""),
    "no tensor, but metadata": text('{"__metadata__": {"format": "pt"}}', b""),
    "padded with spaces": text("{}" + " " * 62, b""),
    "padded with other white space": text("{}\r \t\n", b""),
    "indented": text(json.dumps({"a": entry("U8", [1, 1], 0, 1)}, indent=8)),
    "unpadded, misaligned": two(entry("U8", [1], 0, 1), entry("F64", [1], 1, 9), b"abcdefghi"),
    "a scalar": tensor("[]"),
    "a scalar of four bytes": tensor("[]", "[0, 4]", '"I32"', bytes(4)),
    "an empty tensor": tensor("[2, 0]", "[0, 0]", '"I32"', b""),
    "empty tensors around": shard_bytes(
        {
            "a": entry("U8", [0], 0, 0),
            "b": entry("F64", [1], 0, 8),
            "c": entry("F4", [0, 7], 8, 8),
        },
        b"abcdefgh",
    ),
    "half bytes": tensor("[2, 3]", "[0, 3]", '"F4"', b"abc"),
    "entries in another order than the data": two(
        entry("U8", [2], 1, 3), entry("U8", [1], 0, 1), b"abc"
    ),
    "fields in another order": text('{"a": {"data_offsets": [0, 1], "shape": [1], "dtype": "U8"}}'),
    "escapes in fields": text(
        '{"a": {"\\u0064type": "\\u00558", "shape": [1], "data_offsets": [0, 1]}}'
    ),
    "metadata at the end": text(f'{{{A}, "__metadata__": {{"format": "pt"}}}}'),
    "an empty name": text(A.replace('"a"', '""').join("{}")),
    "a name with control characters": text(A.replace('"a"', '"\\u001b[2J\\n\\u0000"').join("{}")),
    "a name with a character beyond the BMP": text(A.replace('"a"', '"\\ud83d\\ude00"').join("{}")),
    "a name beyond ASCII": text(A.replace('"a"', '"Größe/重み.🤗"').join("{}")),
    "a name of 100,000 characters": text(A.replace('"a"', '"' + "n" * 100_000 + '"').join("{}")),
    "a name that looks like metadata": text(A.replace('"a"', '"__metadata"').join("{}")),
    "a name that looks like a path": text(A.replace('"a"', '"../../etc/passwd"').join("{}")),
    "names that differ in their composition": shard_bytes(
        {"\u00e9": entry("U8", [1], 0, 1), "e\u0301": entry("U8", [1], 1, 2)}, b"ab"
    ),
    "rank 64": tensor(json.dumps([1] * 64)),
    "rank 64, of long zeros": tensor(json.dumps([0] + [2**64 - 1] + [1] * 62), "[0, 0]", data=b""),
}
"""Files that are accepted, and read as the library reads them."""
