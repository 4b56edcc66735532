"""Names in front matter, Markdown and XML are shown and do nothing."""

from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from ruamel.yaml import YAML

from tensorsurgeon.card.escaping import xml_text
from tensorsurgeon.documents.markdown import code, fence, front_matter, heading, repo_link
from tests.card.names import evil_names

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def rendered(text: str) -> list[Token]:
    """The tokens of a Markdown text, those inside of paragraphs and headings too."""
    blocks = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return [token for block in blocks for token in (block, *(block.children or ()))]


@settings(deadline=None)
@given(names=st.lists(evil_names, min_size=1), name=evil_names)
@example(names=["no", "1", "a/b", "0x1f", "2024-01-01", "=", "<<"], name="On")
def test_front_matter_is_read_back_as_it_was(names: list[str], name: str) -> None:
    entries = {"base_model": names, "license_name": name, "tags": ["merge"]}
    text = front_matter(entries)
    assert text.startswith("---\n")
    assert text.endswith("\n---")
    inside = text[4:-4]
    assert "\n---" not in inside
    for version in ("1.1", "1.2"):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = version  # type: ignore[assignment]
        assert yaml.load(inside) == entries


@settings(deadline=None)
@given(evil_names)
def test_name_in_text_is_one_code_span_and_nothing_else(name: str) -> None:
    tokens = rendered(f"before {code(name)} after")
    kinds = [token.type for token in tokens]
    assert kinds == ["paragraph_open", "inline", "text", "code_inline", "text", "paragraph_close"]
    assert tokens[2].content == "before "
    assert tokens[4].content == " after"
    assert tokens[3].content.isprintable()


@settings(deadline=None)
@given(evil_names)
def test_name_in_a_table_is_one_cell(name: str) -> None:
    tokens = rendered(f"| a | b |\n| --- | --- |\n| {code(name)} | x |\n")
    assert [token.type for token in tokens].count("td_open") == 2
    assert [token.type for token in tokens].count("code_inline") == 1
    assert not [t for t in tokens if t.type in ("link_open", "html_inline", "html_block")]


@settings(deadline=None)
@given(evil_names)
def test_name_as_heading_is_one_heading(name: str) -> None:
    tokens = rendered(f"# {heading(name)}\n\nafter")
    kinds = [token.type for token in tokens]
    assert kinds[:2] == ["heading_open", "inline"]
    assert kinds[2] in ("text", "code_inline")
    assert kinds[3:5] == ["heading_close", "paragraph_open"]


@pytest.mark.parametrize("name", ["solar-10.7b", "My_Model-v0.2", "Qwen2.5-7B"])
def test_usual_name_stands_as_it_is_in_a_heading(name: str) -> None:
    assert heading(name) == name


@pytest.mark.parametrize("name", ["evil.com", "www.evil.com", "a b", "_x_", "x\n"])
def test_name_that_may_become_a_link_is_code_in_a_heading(name: str) -> None:
    assert heading(name).startswith("`")


@settings(deadline=None)
@given(evil_names, st.sampled_from(["yaml", "sh"]))
def test_fence_holds_all_of_its_text(text: str, language: str) -> None:
    tokens = rendered(f"before\n\n{fence(text, language)}\n\nafter")
    fences = [token for token in tokens if token.type == "fence"]
    assert [token.info for token in fences] == [language]
    assert [token.type for token in tokens].count("paragraph_open") == 2
    assert all(line.isprintable() for line in fences[0].content.split("\n"))


def test_text_in_a_fence_is_unchanged_where_it_is_visible() -> None:
    text = "models:\n  a: ./a  # é\n  b: |\n    ```\n"
    assert fence(text, "yaml") == f"````yaml\n{text}````"


@settings(deadline=None)
@given(evil_names)
def test_name_in_xml_is_text(name: str) -> None:
    root = ElementTree.fromstring(f'<a b="{xml_text(name)}">{xml_text(name)}</a>')
    assert list(root) == []
    assert (root.text or "") == root.attrib["b"]
    assert root.attrib["b"].isprintable()


def test_repository_is_a_link_to_its_commit() -> None:
    assert repo_link("org/name", COMMIT) == (
        f"[`org/name`](https://huggingface.co/org/name/tree/{COMMIT})"
    )


@settings(deadline=None)
@given(evil_names)
@example("org/name)")
@example("../x")
@example("a/b/c")
def test_odd_repository_or_commit_is_no_link(name: str) -> None:
    for text in (repo_link(name + "(", COMMIT), repo_link("org/name", name)):
        assert not [token for token in rendered(text) if token.type == "link_open"]
