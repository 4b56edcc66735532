"""Building HTML and SVG so that a text can never become markup."""

from html import escape

from tensorsurgeon.errors import printable, shortened

_VOID = frozenset({"meta", "br", "hr"})


class Markup(str):
    """A text that is markup already; every other text is escaped where it is put into some."""

    __slots__ = ()


def tag(name: str, *children: str | None, **attributes: str | float | bool | None) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: markup, texts that are escaped, or None for nothing.
        attributes: `class_` for `class`, `data_x` for `data-x`; a number in at most two decimals,
            True for the bare name, None or False for nothing.
    """
    written = "".join(
        _attribute(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    start = f"<{name}{written}>"
    return Markup(start if name in _VOID else f"{start}{joined(*children)}</{name}>")


def joined(*parts: str | None) -> Markup:
    """One after the other; texts are escaped."""
    return Markup("".join(_safe(part) for part in parts if part is not None))


def shown(text: str) -> str:
    """A stranger's text as people see it: nothing invisible in it, and not endless."""
    return printable(shortened(text, 120))


def short(value: float) -> str:
    """A number in at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _attribute(key: str, value: str | float | bool) -> str:
    if value is True:
        return f" {key}"
    return f' {key}="{_safe(value if isinstance(value, str) else short(value))}"'


def _safe(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)
