"""Names in Markdown and YAML: they are strangers', and must be shown and do nothing else."""

import re
from collections.abc import Mapping, Sequence

from tensorsurgeon.documents.scalars import quoted_scalar
from tensorsurgeon.errors import printable, shortened

SHOWN = 120
"""Most characters of a name that are shown."""

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[0-9][A-Za-z0-9_-]*)*")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def code(name: str) -> str:
    r"""A name as a code span of Markdown, in which nothing but its own end means anything.

    That end, line ends, and the bar that ends a cell of a table are shown as control characters
    are: as `\x60` and so on. No autolink, emphasis or HTML is looked for inside.
    """
    text = printable(shortened(name, SHOWN)).replace("`", r"\x60").replace("|", r"\x7c")
    return f"`{text}`" if text.strip() else "`''`"


def heading(name: str) -> str:
    """A name as a heading's text: as it is where it looks like a model's, else a code span.

    A dot is let through before a digit only, since `name.com` may be made a link.
    """
    return name if _TITLE.fullmatch(name) and len(name) <= SHOWN else code(name)


def is_repo_name(name: object) -> bool:
    """Whether a value is what the Hub allows as a repository's name."""
    return isinstance(name, str) and bool(_REPO.fullmatch(name))


def repo_link(name: str, commit: object) -> str:
    """A repository as a link to a commit of it; a code span where one of them is odd."""
    if is_repo_name(name) and isinstance(commit, str) and _COMMIT.fullmatch(commit):
        return f"[{code(name)}](https://huggingface.co/{name}/tree/{commit})"
    return code(name)


def fence(text: str, language: str) -> str:
    """A block of code that its content cannot end; invisible characters are shown."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4).rstrip("\n").split("\n")
    shown = "\n".join(map(printable, lines))
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{shown}\n{ticks}"


def front_matter(entries: Mapping[str, str | Sequence[str]]) -> str:
    """The lines between the two `---` of a model card, both included."""
    lines = ["---"]
    for key, value in entries.items():
        if isinstance(value, str):
            lines.append(f"{key}: {_scalar(value)}")
        else:
            lines.append(f"{key}:")
            lines += [f"- {_scalar(item)}" for item in value]
    return "\n".join([*lines, "---"])


def _scalar(text: str) -> str:
    """A text of YAML that every version of it reads as that text."""
    plain = _WORD.fullmatch(text) and text.lower() not in _RESERVED
    return text if plain else quoted_scalar(text)
