"""Files that break a rule of the frame, of JSON, or of the metadata: one each."""

import json

from tests.hostile.cases import HERE, LAST_WINS, MEMORY, SPEC, A, Hostile, framed, tensor, text

FRAMING = {
    "empty": Hostile(content=b"", problem="is 0 bytes long; a safetensors file has at least 8"),
    "seven bytes": Hostile(
        content=bytes(7), problem="is 7 bytes long; a safetensors file has at least 8"
    ),
    "a prefix alone": Hostile(
        content=framed(60, b""), problem="header of 60 bytes at offset 8 does not fit the file of 8"
    ),
    "length 0": Hostile(
        content=bytes(8), problem="header of 0 bytes at offset 8 does not begin with '{'"
    ),
    "length past the end": Hostile(
        content=framed(3), problem="header of 3 bytes at offset 8 does not fit the file of 10 bytes"
    ),
    "length over the limit": Hostile(
        content=framed(25_000_001, b"{}" + b" " * 24_999_999),
        problem="header of 25000001 bytes at offset 8 is over the limit of 25000000",
        taken=MEMORY,
    ),
    "length 2^63": Hostile(
        content=framed(2**63),
        problem="header of 9223372036854775808 bytes at offset 8 does not fit the file of 10 bytes",
    ),
    "length 2^64 - 1": Hostile(
        content=framed(2**64 - 1),
        problem="header of 18446744073709551615 bytes at offset 8 does not fit the file",
    ),
    "a length of which the end overflows": Hostile(
        content=framed(2**64 - 8),
        problem="header of 18446744073709551608 bytes at offset 8 does not fit the file",
    ),
    "data cut by one byte": Hostile(
        content=tensor("[2]", "[0, 2]", data=b"a"),
        problem="is cut short: 69 bytes, but its tensors end at 70 (the last is 'a')",
    ),
    "one byte too many": Hostile(
        content=tensor(data=b"ab"), problem="has 1 bytes after its last tensor, at offset 69"
    ),
    "data of no tensor": Hostile(
        content=text("{}"), problem="has 1 bytes after its last tensor, at offset 10"
    ),
    "another file behind": Hostile(
        content=tensor(data=b"aPK\x03\x04"), problem="has 4 bytes after its last tensor"
    ),
}

NO_BRACE = "header of {length} bytes at offset 8 does not begin with '{{'"


def not_begun(header: bytes, taken: str = "") -> Hostile:
    """A header that does not begin as it must."""
    return Hostile(
        content=text(header, b""), problem=NO_BRACE.format(length=len(header)), taken=taken
    )


JSON = {
    "a byte order mark": not_begun(b"\xef\xbb\xbf{}"),
    "UTF-16": not_begun("{}".encode("utf-16")),
    "an array": not_begun(b"[]"),
    "null": not_begun(b"null"),
    "a string": not_begun(b'"{}"'),
    "a byte that is no UTF-8": not_begun(b"\xff"),
    "a space before": not_begun(b" {}", SPEC),
    "an open brace": Hostile(
        content=text("{", b""), problem="header: not JSON: a string is expected at byte 9"
    ),
    "not UTF-8 in a name": Hostile(
        content=text(b'{"a\xff": 0}'), problem="header: not UTF-8 at byte 11"
    ),
    "not UTF-8 in an entry": Hostile(
        content=text(b'{"a": {"dtype": "\xff"}}'), problem="tensor 'a': not UTF-8 at byte 25"
    ),
    "overlong": Hostile(content=text(b'{"\xc1\xa1": 0}'), problem="header: not UTF-8 at byte 10"),
    "an overlong slash": Hostile(
        content=text(b'{"\xe0\x80\xaf": 0}'), problem="header: not UTF-8 at byte 10"
    ),
    "a surrogate in UTF-8": Hostile(
        content=text(b'{"\xed\xa0\x80": 0}'), problem="header: not UTF-8 at byte 10"
    ),
    "beyond Unicode": Hostile(
        content=text(b'{"\xf4\x90\x80\x80": 0}'), problem="header: not UTF-8 at byte 10"
    ),
    "a lone surrogate": Hostile(
        content=text('{"\\ud800": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'),
        problem="header: a lone surrogate in a string at byte 9",
    ),
    "a surrogate in an entry": Hostile(
        content=tensor(dtype='"\\udc00"'),
        problem="tensor 'a': a lone surrogate in a string",
    ),
    "NaN": Hostile(content=tensor("[NaN]"), problem="tensor 'a': NaN is not JSON, at byte 14"),
    "Infinity": Hostile(
        content=tensor("[-Infinity]"), problem="tensor 'a': -Infinity is not JSON, at byte 14"
    ),
    "a number beyond all": Hostile(
        content=tensor("[1e999]"), problem="tensor 'a': 1e999 is too large a number, at byte 14"
    ),
    "a leading zero": Hostile(
        content=tensor("[01]"), problem="tensor 'a': not JSON: Expecting ',' delimiter"
    ),
    "a comment": Hostile(
        content=text("{/**/}", b""), problem="header: not JSON: a string is expected at byte 9"
    ),
    "a comma at the end": Hostile(
        content=text(f"{{{A},}}"), problem="header: not JSON: a string is expected at byte 68"
    ),
    "no comma": Hostile(
        content=text(f"{{{A} {A}}}"),
        problem="header: not JSON: ',' or '}' is expected at byte 68",
    ),
    "single quotes": Hostile(
        content=text("{'a': 0}"), problem="header: not JSON: a string is expected at byte 9"
    ),
    "a line end in a name": Hostile(
        content=text(b'{"a\nb": 0}'), problem="header: not JSON: Invalid control character"
    ),
    "a name that does not end": Hostile(
        content=text('{"a'), problem="header: not JSON: a string is expected at byte 9"
    ),
    "garbage behind": Hostile(
        content=text(f"{{{A}}} x"), problem="header: not JSON: something follows it at byte 69"
    ),
    "a second object behind": Hostile(
        content=text("{}{}", b""), problem="header: not JSON: something follows it at byte 10"
    ),
    "NUL padding": Hostile(
        content=text(b"{}\0\0", b""), problem="header: not JSON: something follows it at byte 10"
    ),
    "deep nesting": Hostile(
        content=text('{"a": ' + "[" * 100_000), problem="tensor 'a': nested too deeply"
    ),
    "deep nesting in the metadata": Hostile(
        content=text('{"__metadata__": {"a": ' + '{"a":' * 100_000),
        problem="__metadata__ 'a' is not a string at byte 31",
    ),
    "a tensor twice": Hostile(
        content=text(
            f'{{{A}, "a": {{"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}}}', b"ab"
        ),
        problem="header: duplicate key 'a' at byte 69",
    ),
    "a tensor twice, with equal offsets": Hostile(
        content=text(f"{{{A}, {A}}}"),
        problem="header: duplicate key 'a' at byte 69",
        taken=LAST_WINS,
    ),
    "a tensor twice, once spelt with an escape": Hostile(
        content=text(f"{{{A}, {A.replace('a', chr(92) + 'u0061', 1)}}}"),
        problem="header: duplicate key 'a' at byte 69",
        taken=LAST_WINS,
    ),
    "an empty tensor twice": Hostile(
        content=text(
            '{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, '
            '"a": {"dtype": "F32", "shape": [2, 0], "data_offsets": [0, 0]}}',
            b"",
        ),
        problem="header: duplicate key 'a' at byte 69",
        taken=LAST_WINS,
    ),
    "a field twice": Hostile(
        content=text('{"a": {"dtype": "U8", "dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'),
        problem="tensor 'a': duplicate key 'dtype', at byte 14",
    ),
    "a field too many": Hostile(
        content=text(
            '{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1], "strides": [1]}}'
        ),
        problem=f"tensor 'a': the entry must have exactly dtype, shape and data_offsets {HERE}",
        taken=SPEC,
    ),
    "a field too few": Hostile(
        content=text('{"a": {"dtype": "U8", "shape": [1]}}'),
        problem=f"tensor 'a': the entry must have exactly dtype, shape and data_offsets {HERE}",
    ),
    "an entry that is null": Hostile(
        content=text('{"a": null}', b""),
        problem=f"tensor 'a': the entry must have exactly dtype, shape and data_offsets {HERE}",
    ),
    "an entry that is a list": Hostile(
        content=text('{"a": ["U8", [1], [0, 1]]}'),
        problem=f"tensor 'a': the entry must have exactly dtype, shape and data_offsets {HERE}",
        taken="serde reads a list as the fields in their order; the format's text knows objects",
    ),
}

METADATA = {
    "a number": Hostile(
        content=text('{"__metadata__": {"step": 3}}', b""),
        problem="__metadata__ 'step' is not a string at byte 34",
    ),
    "an object": Hostile(
        content=text('{"__metadata__": {"a": {}}}', b""),
        problem="__metadata__ 'a' is not a string at byte 31",
    ),
    "null as a value": Hostile(
        content=text('{"__metadata__": {"a": null}}', b""),
        problem="__metadata__ 'a' is not a string at byte 31",
    ),
    "null": Hostile(
        content=text('{"__metadata__": null}', b""),
        problem="__metadata__ an object is expected at byte 25",
        taken=SPEC,
    ),
    "a list": Hostile(
        content=text('{"__metadata__": []}', b""),
        problem="__metadata__ an object is expected at byte 25",
    ),
    "a key twice": Hostile(
        content=text('{"__metadata__": {"a": "1", "a": "2"}}', b""),
        problem="__metadata__ duplicate key 'a' at byte 36",
        taken=LAST_WINS,
    ),
    "metadata twice": Hostile(
        content=text('{"__metadata__": {}, "__metadata__": {}}', b""),
        problem="header: duplicate key '__metadata__' at byte 29",
    ),
    "a lone surrogate": Hostile(
        content=text('{"__metadata__": {"a": "\\udfff"}}', b""),
        problem="__metadata__ a lone surrogate in a string at byte 31",
    ),
    "a string over the limit": Hostile(
        content=text(json.dumps({"__metadata__": {"a": "b" * 5_000_000}}), b""),
        problem="__metadata__ a string longer than 5000000 bytes at byte 31",
        taken=MEMORY,
    ),
}
