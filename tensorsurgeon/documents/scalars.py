"""Scalars of YAML written anew, and all that stands around them kept as it is."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ruamel.yaml.nodes import Node

_PLAIN = re.compile(r"\./[A-Za-z0-9_][A-Za-z0-9._-]*")
"""Replacements that need no quotes anywhere in YAML."""

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+|#[^\n]*\n\s*)*")
"""Anchor and tag, which stand before a scalar and count as part of it."""

_TAG = re.compile(r"!\S*\s+")
_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*([ \t]+#[^\r\n]*)?")


def replace_scalars(text: str, written: "Mapping[Node, str | None]") -> str:
    """A document in which some scalars have other texts; comments, order and quotes stay.

    Args:
        text: of the document.
        written: nodes that were composed of it, and what each becomes; None is written as null.
    """
    for node in sorted(written, key=lambda node: -node.start_mark.index):
        begin, end = node.start_mark.index, node.end_mark.index
        text = text[:begin] + _scalar(written[node], text[begin:end]) + text[end:]
    return text


def quoted_scalar(text: str) -> str:
    """Any text as a double-quoted scalar of YAML, on one line and in visible characters."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    if character.isprintable():
        return character
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _scalar(value: str | None, was: str) -> str:
    """A text, or null, written as near as can be to how another was."""
    properties = _PROPERTIES.match(was)
    assert properties is not None
    before, was, after = properties[0], was[properties.end() :], ""
    if block := _BLOCK_HEADER.match(was):
        was, after = '""', (block[1] or "") + was[len(was.rstrip()) :]
    if value is None:
        return _TAG.sub("", before) + "null" + after
    quote = was[0] if was[0] in "'\"" else ""
    written = f"{quote}{value}{quote}" if _PLAIN.fullmatch(value) else quoted_scalar(value)
    return before + written + after
