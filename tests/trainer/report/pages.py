"""A report as a browser's parser sees it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr"}


@dataclass(kw_only=True)
class Element:
    """An element: its name, its attributes, and what is in it."""

    name: str
    attributes: dict[str, str]
    children: list["Element"] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def all(self, name: str = "", style: str = "") -> list["Element"]:
        """Elements inside, at any depth, of a name and of a class."""
        found = []
        for child in self.children:
            styles = child.attributes.get("class", "").split()
            if (not name or child.name == name) and (not style or style in styles):
                found.append(child)
            found += child.all(name, style)
        return found

    def one(self, key: str) -> "Element":
        """The element with an id."""
        [found] = [e for e in self.all() if e.attributes.get("id") == key]
        return found

    @property
    def text(self) -> str:
        """All text inside, in order of the elements."""
        return " ".join([*self.texts, *(child.text for child in self.children)])

    @property
    def shape(self) -> tuple[object, ...]:
        """Names of elements and of attributes, at all depths, without any text."""
        return (self.name, tuple(self.attributes), *(child.shape for child in self.children))


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element(name="", attributes={})
        self.open = [self.root]
        self.comments: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} twice"
        element = Element(name=tag, attributes={name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def parsed(page: str) -> Element:
    """The page's root; every element is closed where it should be, and there is no comment."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root]
    assert not parser.comments
    return parser.root
