"""Reads blocks of prose out of pages, plain text and two packages' own formats.

A document is a list of blocks, in order. What leads about (menus, indexes, tables of contents) and
what is hidden (scripts, styles) is no block.
"""

import gzip
import re
import subprocess
import textwrap
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

SKIPPED = frozenset(
    re.findall(
        r"\w+",
        "script style nav footer form button select svg math head template noscript textarea "
        "object aside info comment index media links",
    )
)
NAVIGATION = re.compile(  # classes, ids and roles of elements that are no part of the text
    r"nav(header|footer|igation|bar|links?|setbottom|settop)?|toc(list|set)?|toctree.*|local-toc|"
    r"contents|topics|(sphinx)?sidebar.*|related|breadcrumbs?|footers?|header(link|line)?|menu|"
    r"footnotes?|copyright|searchbox|(gen)?indextable|linenos?|docnav|skip-link|page-source|"
    r"shortdescription|quickview|top|viewcode-link",
    re.IGNORECASE,
)
NAVIGATION_TAGS = {"div", "ul", "ol", "table", "td", "span", "a", "section", "p", "pre"}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6", "title"}
LISTS = {"ul", "ol", "list", "steps"}
ITEMS = {"li", "item"}
LISTINGS = {"pre", "screen"}
BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "p div dt dd td th tr table dl section article blockquote main body center caption "
        "figcaption header note terms",
    )
).union(HEADINGS, LISTS, ITEMS, LISTINGS)
VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"]
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A paragraph, or what takes its place."""

    kind: str  # "text", "item", "term", "heading", "code", "cell"
    text: str
    level: int = 0  # of a heading, 1 to 6


class Page(HTMLParser):
    """Blocks of a page in HTML or Mallard, without navigation and scripts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.text: list[str] = []
        self.kind, self.level = "text", 0
        self.in_link = self.linked = self.in_listing = self.in_table = 0
        self.skipped, self.skipped_depth = "", 0
        self.lists: list[int | None] = []  # the number of the item in hand, None without numbers

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Starts a block, or the leaving out of what is no part of the text."""
        if self.skipped:
            self.skipped_depth += tag == self.skipped
        elif tag in VOID:
            self.text.append("\n" if tag in {"br", "hr"} else "")
        elif tag in SKIPPED or (tag in NAVIGATION_TAGS and is_navigation(attrs)):
            self.skipped, self.skipped_depth = tag, 1
        elif tag in BLOCKS:
            self.flush()
            self.begin(tag)
        elif tag == "a":
            self.in_link += 1

    def begin(self, tag: str) -> None:
        """Notes what kind of block the tag starts."""
        if tag in LISTINGS:
            self.in_listing += 1
        elif tag in HEADINGS:
            self.kind, self.level = "heading", int(tag[1]) if tag[1].isdigit() else 2
        elif tag in LISTS:
            self.lists.append(0 if tag in {"ol", "steps"} else None)
        elif tag in ITEMS:
            self.kind = "item"
            if self.lists and (number := self.lists[-1]) is not None:
                self.lists[-1] = number + 1
        elif tag == "table":
            self.in_table += 1
        elif tag in {"dt", "th"}:
            self.kind = "term"

    def handle_endtag(self, tag: str) -> None:
        """Ends the tag's block."""
        if self.skipped:
            self.skipped_depth -= tag == self.skipped
            self.skipped = self.skipped if self.skipped_depth else ""
        elif tag == "a":
            self.in_link = max(0, self.in_link - 1)
        elif tag in BLOCKS:
            self.flush()
            self.kind = "text"
            if tag in LISTINGS:
                self.in_listing = max(0, self.in_listing - 1)
            elif tag == "table":
                self.in_table = max(0, self.in_table - 1)
            elif tag in LISTS and self.lists:
                self.lists.pop()

    def handle_data(self, data: str) -> None:
        """Adds to the block in hand."""
        if not self.skipped:
            self.text.append(data)
            self.linked += len(data.strip()) if self.in_link else 0

    def flush(self) -> None:
        """Ends the block in hand; one that is mostly a link leads elsewhere and is left out."""
        raw, linked, kind = "".join(self.text), self.linked, self.kind
        self.text, self.linked = [], 0
        if self.in_listing:
            self.blocks.extend([Block(kind="code", text=clean_listing(raw))] if raw.strip() else [])
            return
        if not (text := clean(raw)):
            return  # <li><p>…: the paragraph is the item
        self.kind = "text"
        if linked > 0.7 * len(text) and kind != "heading":
            return
        if kind == "item":
            number = self.lists[-1] if self.lists else None
            text = f"{number}. {text}" if number else f"- {text}"
        elif kind == "text" and self.in_table:
            kind = "cell"
        self.blocks.append(Block(kind=kind, text=text, level=self.level))


def is_navigation(attributes: list[tuple[str, str | None]]) -> bool:
    """Whether an element's class, id or role says that it leads about instead of telling."""
    names = " ".join(value or "" for key, value in attributes if key in {"class", "id", "role"})
    return any(NAVIGATION.fullmatch(name) for name in names.split())


def clean(text: str) -> str:
    """One line, without characters that print nothing."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(
        r"[\u00ad\u200b-\u200f\u2060\ufeff\ue000-\uf8ff\ufffd¶\x00-\x08\x0e-\x1f]", "", text
    )
    return " ".join(text.split())


def clean_listing(text: str) -> str:
    """A listing without the blank lines around it and the indent that all its lines share."""
    lines = [line.rstrip() for line in text.expandtabs(4).replace("\u00a0", " ").splitlines()]
    return textwrap.dedent("\n".join(lines)).strip("\n")


def blocks_of_page(text: str) -> list[Block]:
    """Blocks of an HTML page, of its main part alone where it says which that is."""
    page = Page()
    main = re.search(
        r'<(main|article)\b|<div[^>]*\b(role="main"|class="(body|document|sect1)")', text
    )
    page.feed(text[main.start() :] if main else text)
    page.close()
    page.flush()
    return page.blocks


def blocks_of_text(text: str) -> list[Block]:
    """Blocks of plain text: paragraphs on one line again, indented ones kept as listings."""
    blocks = []
    for paragraph in re.split(r"\n[ \t]*\n+", text.replace("\r", "").expandtabs(8)):
        lines = [line for line in paragraph.split("\n") if line.strip()]
        if lines and all(line.startswith("     ") for line in lines):
            blocks.append(Block(kind="code", text=clean_listing(paragraph)))
        elif lines:
            blocks.append(Block(kind="text", text=clean(paragraph)))
    return blocks


def blocks_of_pod(text: str) -> list[Block]:
    """Blocks of Perl's plain old documentation."""
    blocks = []
    text = re.sub(r"(?ms)^=(begin|for)\b.*?(^=end.*?$|\n\n)", "", text)
    code = re.compile(
        r"(?s)[BCFIS]<<+ (.*?) >>+|L<(?:[^|<>]*\|)?([^<>]*)>|[BCFIS]<([^<>]*)>|[XZ]<[^<>]*>"
    )
    for _ in range(3):  # codes nest: B<I<…>>
        text = code.sub(lambda found: found[1] or found[2] or found[3] or "", text)
    for name, character in (("lt", "<"), ("gt", ">"), ("sol", "/"), ("verbar", "|")):
        text = text.replace(f"E<{name}>", character)
    for paragraph in re.split(r"\n[ \t]*\n+", text):
        if command := re.match(r"=(head([1-4])|item|\w+)\s*(.*)", paragraph, re.DOTALL):
            if command[2]:
                blocks.append(Block(kind="heading", text=clean(command[3]), level=int(command[2])))
            elif command[1] == "item" and command[3] not in {"*", "-"}:
                blocks.append(Block(kind="term", text=clean(command[3])))
        elif paragraph[:1] in {" ", "\t"}:
            blocks.append(Block(kind="code", text=clean_listing(paragraph)))
        elif paragraph.strip():
            blocks.append(Block(kind="text", text=clean(paragraph)))
    return blocks


def bible(data: bytes) -> Iterator[tuple[str, list[Block]]]:
    """Chapters of bible-kjv-text's file: a header, then what Unix `compress` wrote."""
    start = data.index(b"\x1f\x9d")
    text = subprocess.run(
        ["gzip", "-dc"], input=data[start:], capture_output=True, check=False
    ).stdout.decode()
    chapters: dict[str, list[str]] = {}
    for chapter, verse in re.findall(r"(?m)^(\w+?\d+):\d+ (.*)$", text):
        chapters.setdefault(chapter, []).append(verse)
    for chapter, verses in chapters.items():
        yield chapter, [Block(kind="text", text=clean(" ".join(verses)))]


def novels(data: bytes) -> Iterator[tuple[str, list[Block]]]:
    """Chapters of the novels in an R database: zlib streams of one vector of lines each."""
    while data:
        stream = zlib.decompressobj()
        vector = stream.decompress(data[4:])
        data = stream.unused_data
        at = vector.index(b"\0\0\0\x10") + 8  # STRSXP, its length
        lines = []
        while at + 8 <= len(vector):
            size = int.from_bytes(vector[at + 4 : at + 8], "big", signed=True)
            lines.append(vector[at + 8 : at + 8 + max(size, 0)].decode())
            at += 8 + max(size, 0)
        title, *chapters = re.split(r"(?m)^(?=(?:CHAPTER|Chapter) \w+\.?$)", "\n".join(lines))
        for number, chapter in enumerate(chapters, 1):
            yield f"{clean(title.split(chr(10))[0]).title()} {number}", blocks_of_text(chapter)


def documents_of(path: Path, name: str) -> list[tuple[str, list[Block]]]:
    """(name, blocks) of each document in a file."""
    data = path.read_bytes()
    if name.endswith(".rdb"):
        return list(novels(data))
    if name.endswith("bible.data"):
        return list(bible(data))
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind == "txt":  # one file is a whole book
        blocks = blocks_of_text(text)
        return [(f"{name} {at}", blocks[at : at + 100]) for at in range(0, len(blocks), 100)]
    return [(name, blocks_of_pod(text) if kind == "pod" else blocks_of_page(text))]
