"""Names in Markdown and YAML: they are strangers', and must be shown and do nothing else."""

import re
from collections.abc import Mapping, Sequence

from tensorsurgeon.errors import printable, shortened
from tensorsurgeon.trainer.export.shown import quoted

_SHOWN = 120
"""Most characters of a name that are shown."""

_TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[0-9][A-Za-z0-9_-]*)*")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def code(name: str) -> str:
    r"""A name as a code span, in which nothing but its own end means anything.

    That end, and the bar that ends a cell of a table, are shown as `\x60` and `\x7c`.
    """
    text = printable(shortened(name, _SHOWN)).replace("`", r"\x60").replace("|", r"\x7c")
    return f"`{text}`" if text.strip() else "`''`"


def heading(name: str) -> str:
    """A name as a heading's text: as it is where it looks like a model's, else a code span.

    A dot is let through before a digit only, since `name.com` may be made a link.
    """
    return name if _TITLE.fullmatch(name) and len(name) <= _SHOWN else code(name)


def is_repo(name: object) -> bool:
    """Whether a value is what the Hub allows as a repository's name."""
    return isinstance(name, str) and bool(_REPO.fullmatch(name))


def repo_link(name: str, commit: object) -> str:
    """A repository as a link to a commit of it; a code span where one of them is odd."""
    if is_repo(name) and isinstance(commit, str) and _COMMIT.fullmatch(commit):
        return f"[{code(name)}](https://huggingface.co/{name}/tree/{commit})"
    return code(name)


def fence(text: str, language: str) -> str:
    """A block of code that its content cannot end; invisible characters are shown."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4).rstrip("\n").split("\n")
    body = "\n".join(map(printable, lines))
    ticks = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", body) or [""]))
    return f"{ticks}{language}\n{body}\n{ticks}"


def front_matter(entries: Mapping[str, str | Sequence[str]]) -> str:
    """The lines between the two `---` of a model card, both included."""
    lines = ["---"]
    for key, value in entries.items():
        if isinstance(value, str):
            lines.append(f"{key}: {quoted(value)}")
        else:
            lines += [f"{key}:", *(f"- {quoted(item)}" for item in value)]
    return "\n".join([*lines, "---"])
