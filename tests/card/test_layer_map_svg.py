"""The layer map as a picture: sound XML, small, of the known elements, true to the map."""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tensorsurgeon.card.layer_map_svg import LIMIT, Row, layer_map_svg
from tensorsurgeon.specs import LayerOrigin, SourceLayer
from tests.card.names import evil_names

SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = {"svg", "title", "desc", "defs", "pattern", "g", "rect", "path", "text", "tspan"}
ATTRIBUTES = {
    *("width", "height", "viewBox", "role", "aria-labelledby", "font-family", "font-size", "fill"),
    *("id", "x", "y", "rx", "d", "dx", "stroke", "stroke-width", "stroke-dasharray"),
    *("text-anchor", "font-weight", "fill-opacity", "patternUnits", "patternTransform"),
}


def origin(*layers: tuple[str, int], new: bool = False) -> LayerOrigin:
    return LayerOrigin(
        sources=tuple(SourceLayer(source=source, layer=layer) for source, layer in layers), new=new
    )


def drawn(layer_map: Sequence[LayerOrigin], *names: str, depth: int = 32) -> str:
    seams = [i for i in range(1, len(layer_map)) if not layer_map[i].follows(layer_map[i - 1])]
    seams = [layer for layer in seams if not layer_map[layer].new]
    rows = {name: Row(name=name, detail=f"org/{name}", depth=depth) for name in names}
    return layer_map_svg(layer_map, seams, rows)


def checked(picture: str) -> ElementTree.Element:
    """The picture's root, after a look at every element and attribute of it."""
    root = ElementTree.fromstring(picture)
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in ELEMENTS
        assert set(element.attrib) <= ATTRIBUTES
        for name, value in element.attrib.items():
            assert "url(" not in value or value == "url(#new)"
            if name in ("d", "x", "y", "width", "height"):
                assert re.fullmatch(r"[MLHVCZhvz0-9. -]+", value)
    assert root.attrib["font-family"] == "sans-serif"
    return root


def texts(picture: str) -> list[str]:
    root = checked(picture)
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def described(picture: str) -> str:
    found = checked(picture).find(f"{SVG}desc")
    assert found is not None
    return found.text or ""


def test_depth_up_scaling_shows_ranges_indices_and_one_seam() -> None:
    picture = drawn([origin(("base", i)) for i in (*range(24), *range(8, 32))], "base")
    assert texts(picture) == [
        "baseorg/base, 32 layers",
        *("0", "31"),
        *("0-23", "8-31"),
        *("0", "24", "47"),
        "result48 layers",
        "seam",
    ]
    assert described(picture) == "Layers 0 to 23: base 0 to 23; 24 to 47: base 8 to 31 (seam)."
    assert picture.count('<path d="M') >= 2


def test_merge_shows_both_sources_in_every_layer() -> None:
    picture = drawn([origin(("a", i), ("b", i)) for i in range(32)], "a", "b")
    assert "aorg/a, 32 layers" in texts(picture)
    assert "borg/b, 32 layers" in texts(picture)
    assert "seam" not in texts(picture)
    assert described(picture) == "Layers 0 to 31: a 0 to 31 + b 0 to 31."
    bars = [e.attrib for e in checked(picture).iter(f"{SVG}path") if "fill" in e.attrib]
    of_result = [bar["d"] for bar in bars if bar["d"].startswith("M28 2")]
    assert len(of_result) == 2
    assert len({bar["fill"] for bar in bars}) == 2


def test_new_layers_are_hatched_and_told() -> None:
    layers = [origin(("m", 0)), origin(("m", 1)), origin(("m", 1), new=True)]
    picture = drawn(layers, "m", depth=2)
    assert "new, zeroed output" in texts(picture)
    assert described(picture).endswith("2: m 1 (new, zeroed).")
    assert 'fill="url(#new)"' in picture
    assert "url(#new)" not in drawn(layers[:2], "m", depth=2)


def test_layers_that_are_left_out_stay_pale() -> None:
    picture = drawn([origin(("m", layer)) for layer in (0, 1, 2, 5)], "m", depth=8)
    strong = [e.attrib["d"] for e in checked(picture).iter(f"{SVG}path") if "fill" in e.attrib]
    assert strong[0] == "M28 44H130v24H28zM198 44H232v24H198z"


def test_same_map_gives_the_same_picture() -> None:
    layers = [origin(("a", i), ("b", 31 - i)) for i in range(32)]
    assert drawn(layers, "a", "b") == drawn(layers, "a", "b")


@pytest.mark.parametrize("sources", [1, 2, 4])
def test_picture_of_200_layers_without_any_run_is_small(sources: int) -> None:
    names = "abcd"[:sources]
    layers = [origin(*((n, (i * 37 + k) % 200) for k, n in enumerate(names))) for i in range(200)]
    picture = drawn(layers, *names, depth=200)
    checked(picture)
    assert len(picture.encode()) < LIMIT * (1 if sources < 4 else 1.5)


def test_picture_of_200_layers_in_runs_is_small_and_has_bands() -> None:
    layers = [origin(("ab"[i // 10 % 2], i % 97)) for i in range(200)]
    picture = drawn(layers, "a", "b", depth=100)
    assert len(picture.encode()) < LIMIT
    assert len(list(checked(picture).iter(f"{SVG}g"))) == 3


def test_more_sources_than_can_be_told_apart_are_counted() -> None:
    names = [f"m{index}" for index in range(40)]
    picture = drawn([origin(*((name, i) for name in names)) for i in range(4)], *names, depth=4)
    assert "result4 layers, 28 more sources are not drawn" in texts(picture)
    assert len(picture.encode()) < LIMIT


def test_source_that_gives_no_layer_is_not_drawn() -> None:
    assert "x" not in "".join(texts(drawn([origin(("a", 0))], "a", "x", depth=1)))


layer_maps = st.lists(
    st.builds(
        lambda layers, new: origin(*layers, new=new),
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=4, unique=True),
        st.booleans(),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(layer_map=layer_maps, names=st.lists(evil_names, min_size=3, max_size=3, unique=True))
@example(layer_map=[], names=["a", "b", "c"])
def test_any_map_and_any_names_make_a_sound_picture(
    layer_map: list[LayerOrigin], names: list[str]
) -> None:
    named = dict(zip("abc", names, strict=True))
    layers = [
        origin(*((named[s.source], s.layer) for s in each.sources), new=each.new)
        for each in layer_map
    ]
    root = checked(drawn(layers, *names, depth=10))
    assert all(text.isprintable() or text.isspace() for text in root.itertext())
