"""Fields that a record lacks: what was meant, and the option that says so."""

import shlex
from collections.abc import Collection
from difflib import get_close_matches
from typing import Literal

from tensorsurgeon.errors import did_you_mean

FormatName = Literal["text", "alpaca", "chat", "preference"]

_TOLD_BY: dict[FormatName, frozenset[str]] = {
    "preference": frozenset({"chosen", "rejected"}),
    "alpaca": frozenset({"instruction", "output"}),
    "chat": frozenset({"messages"}),
    "text": frozenset({"text"}),
}
"""The fields that tell of which form a record is; the first that fits is the likeliest."""


def fix_for_missing(
    name: str, form: FormatName, fields: Collection[str], fitting: Collection[str]
) -> str:
    """The option that reads a record as it is, or else the fields it has.

    Args:
        name: the field it lacks.
        form: what records were said to be.
        fields: what it has.
        fitting: those of them that hold what the missing one should.
    """
    for other, telling in _TOLD_BY.items():
        if other != form and telling <= set(fields):
            return f"--format {other}"
    if form not in ("text", "chat") or not fitting:
        return did_you_mean(name, fields)
    known = sorted(fitting)
    near = known if len(known) == 1 else get_close_matches(name, known, n=1)
    if not near:
        return f"name it with --field; {did_you_mean(name, known)}"
    others = f"; {did_you_mean('', known)}" if len(known) > 1 else ""
    return f"--field {shlex.quote(near[0])}{others}"
