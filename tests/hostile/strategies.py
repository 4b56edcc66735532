"""Values and changes at random, enough like the real thing to get past the first check."""

import json

from hypothesis import strategies as st

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, 2**31, 2**32, 2**63, 2**64 - 1, 2**64, -1])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["U8", "F4", "BF16", "dtype", "llama", "../x", "a\x1b[2J", "*", "[", "[0-"])
)
keys = st.text(max_size=6) | st.sampled_from(
    ["dtype", "shape", "data_offsets", "__metadata__", "weight_map", "metadata", "a", "b"]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
)
numbers = st.integers(0, 12) | st.sampled_from([2**32, 2**63, 2**64 - 1, -1, 1.0, True, "1", None])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "F4", "F6_E2M3", "BF16", "u8", "X", 8]),
        "shape": st.lists(numbers, max_size=3) | numbers,
        "data_offsets": st.lists(numbers, max_size=3) | st.tuples(numbers, numbers),
    },
    optional={"more": scalars},
)


def as_json(value: object, *, ascii_only: bool = True) -> bytes:
    """JSON with NaN and lone surrogates in it, where they are in the value."""
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def changed(text: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """A text of which some places were overwritten, widened or cut out."""
    for at, length, piece in changes:
        at %= len(text) + 1
        text = text[:at] + piece + text[at + length :]
    return text


pieces = st.binary(max_size=3) | st.sampled_from(
    [
        *(
            b'"',
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"-",
            b"9" * 30,
            b"1e9",
            b"null",
            b"NaN",
        ),
        *(b"\\ud800", b'"a":', b"[" * 1500, b"\xef\xbb\xbf", b"\xff", b"\0", b"\n"),
        *(b"NaN", b"&a ", b"*a", b"? "),
    ]
)
"""What changes the meaning of JSON or YAML."""

changes = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 8), pieces), min_size=1, max_size=4
)

words = st.sampled_from(
    [
        *("models", "result", "output", "seed", "source", "path", "dtype", "tokenizer", "a", "b"),
        *("stack", "linear", "slerp", "depth_up_scale", "block_expansion", "model", "layers"),
        *("t", "weights", "match", "value", "every", "zero", "remove"),
    ]
)
"""What a recipe is made of."""

recipe_values = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | keys, inner, max_size=4),
)
