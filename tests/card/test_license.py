"""The licence that a stranger's README.md names, or none."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tensorsurgeon.checkpoint import License, common_license, license_of
from tensorsurgeon.checkpoint.license import CARD_LIMIT
from tests.card.conftest import give_license
from tests.card.names import evil_names

MIT = License(ids=("mit",))

FRONT_MATTER = {
    "plain": ("license: mit", MIT),
    "quoted": ('license: "mit"  # free', MIT),
    "capitals": ("license: MIT", MIT),
    "list": ("license:\n- mit\n- apache-2.0\ntags: [a]", License(ids=("mit", "apache-2.0"))),
    "flow list": ("tags: [x]\nlicense: [mit]", MIT),
    "among others": ("tags:\n- a\nmodel-index:\n- name: x\n  license: gpl\nlicense: mit", MIT),
    "folded": ("license: >-\n  mit", MIT),
    "other": (
        "license: other\nlicense_name: llama3\nlicense_link: LICENSE",
        License(ids=("other",), name="llama3", link="LICENSE"),
    ),
    "name without need": ("license: mit\nlicense_name: x", MIT),
    "none": ("tags: [a]", None),
    "only inside": ("extra:\n  license: mit", None),
    "number": ("license: 3", None),
    "mapping": ("license: {a: b}", None),
    "nested list": ("license: [[mit]]", None),
    "null": ("license:", None),
    "twice": ("license: mit\nlicense: gpl", None),
    "not YAML": ("license: [mit", None),
    "alias": ("license: *x", None),
    "a tag": ("license: !!python/name:os.system mit", None),
    "a sentence": ("license: do what you want", None),
    "deep": ("license: " + "[" * 3000 + "]" * 3000, None),
    "long": ("license: " + "a" * 5000, None),
}


@pytest.mark.parametrize(("text", "expected"), FRONT_MATTER.values(), ids=FRONT_MATTER.keys())
def test_license_is_what_the_front_matter_names(
    text: str, expected: License | None, tmp_path: Path
) -> None:
    give_license(tmp_path, text)
    assert license_of(tmp_path) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"license: mit\n",
        b"---\nlicense: mit\n",
        b"# x\n---\nlicense: mit\n---\n",
        b"---\nlicense: mit\xff\n---\n",
        b"---\nlicense: mit\n---\n" + b"x" * CARD_LIMIT,
    ],
    ids=["empty", "no front matter", "no end", "not at the top", "not UTF-8", "large"],
)
def test_odd_card_names_no_license(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(data)
    assert license_of(tmp_path) is None


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n", b"---\nlicense: mit\n---"]
)
def test_card_of_another_editor_is_read(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(data)
    assert license_of(tmp_path) == MIT


def test_what_is_no_file_of_the_folder_names_no_license(tmp_path: Path) -> None:
    give_license(tmp_path, "license: mit")
    folder = tmp_path / "model"
    folder.mkdir()
    card = folder / "README.md"
    assert license_of(folder) is None
    card.symlink_to(tmp_path / "README.md")
    assert license_of(folder) is None
    card.unlink()
    os.mkfifo(card)
    assert license_of(folder) is None
    card.unlink()
    card.mkdir()
    assert license_of(folder) is None


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("card")


_IDS = st.sampled_from(["mit", "apache-2.0", "cc-by-4.0", "other"])


@settings(deadline=None)
@given(
    before=st.dictionaries(st.sampled_from("abc"), evil_names),
    ids=st.one_of(_IDS, st.lists(_IDS, min_size=1, max_size=3)),
    name=st.text("abc -:#'\"", min_size=1, max_size=9),
)
def test_license_is_found_as_all_of_the_front_matter_read_would_tell(
    before: dict[str, str], ids: str | list[str], name: str, folder: Path
) -> None:
    entries = {**before, "license": ids, "license_name": name, "z": before}
    with (folder / "README.md").open("wb") as file:
        file.write(b"---\n")
        YAML(typ="safe", pure=True).dump(entries, file)
        file.write(b"---\n")
    listed = (ids,) if isinstance(ids, str) else tuple(ids)
    has_name = "other" in listed
    assert license_of(folder) == License(ids=listed, name=name.strip() if has_name else "")


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.one_of(evil_names, st.just("\nlicense: "), st.just("\n")), max_size=9))
def test_no_front_matter_is_an_error(parts: list[str], folder: Path) -> None:
    text = "---\nlicense: " + "".join(parts) + "\n---\n"
    (folder / "README.md").write_bytes(text.encode(errors="replace"))
    license_of(folder)


def test_license_is_common_where_all_name_the_same() -> None:
    named = License(ids=("other",), name="llama3")
    unnamed = License(ids=("other",))
    assert common_license([MIT, MIT]) == MIT
    assert common_license([named, named]) == named
    assert common_license([unnamed]) == unnamed
    assert common_license([unnamed, unnamed]) is None
    assert common_license([MIT, named]) is None
    assert common_license([MIT, None]) is None
    assert common_license([None]) is None
    assert common_license([]) is None
