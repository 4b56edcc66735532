"""The card of a result: what README.md says, and that nobody's name says anything of its own."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tensorsurgeon import __version__, api
from tensorsurgeon.card import card_files
from tensorsurgeon.checkpoint import License, Repo
from tensorsurgeon.documents.scalars import quoted_scalar
from tensorsurgeon.operators import OPERATORS
from tensorsurgeon.plan import Plan
from tensorsurgeon.recipe import parse_recipe
from tensorsurgeon.specs import LayerOrigin, SourceLayer
from tests.card.conftest import card_of, give_license, own_files
from tests.card.names import evil_names
from tests.card.test_escaping import rendered
from tests.cli.checkpoints import file_bytes
from tests.cli.conftest import Command, WriteRecipe

COMMITS = ("0123456789abcdef0123456789abcdef01234567", "f" * 40)


def front_matter_of(card: str) -> dict[str, Any]:
    """The front matter as a YAML library reads it."""
    begin, inside, _ = card.split("---\n", 2)
    assert begin == ""
    return dict(YAML(typ="safe", pure=True).load(io.StringIO(inside)))


def of_the_hub(
    plan: Plan, names: Mapping[str, str], licenses: Mapping[str, License | None], text: str
) -> Plan:
    """The plan as if its sources were repositories, with its card made anew."""
    folders = {name: Path("/cache") / str(index) for index, name in enumerate(names)}
    repos = {
        folder: Repo(name=names[name], revision="main", commit=COMMITS[i % 2], files={})
        for i, (name, folder) in enumerate(folders.items())
    }
    made = replace(
        plan,
        sources=folders,
        repos=repos,
        depths=dict.fromkeys(names, 2),
        layer_map=tuple(
            LayerOrigin(sources=tuple(SourceLayer(source=name, layer=i) for name in names))
            for i in range(2)
        ),
        shown_recipe=text,
    )
    recipe = parse_recipe(text.encode(), "recipe.yaml", OPERATORS)
    return replace(made, own_files=card_files(made, recipe, licenses))


HUB = """\
models:
  a: org/one
  b: org/two@ffffffffffffffffffffffffffffffffffffffff
  c: {slerp: {models: [a, b], t: 0.5}}
result: {linear: {models: [c, a]}}
output: {path: ../x/merged-7B.v2}
"""
MIT = License(ids=("mit",))


@pytest.fixture
def hub_card(merge_plan: Plan) -> str:
    plan = of_the_hub(merge_plan, {"a": "org/one", "b": "org/two"}, {"a": MIT, "b": MIT}, HUB)
    return card_of(plan)


def test_front_matter_says_what_the_hub_filters_by(hub_card: str) -> None:
    assert front_matter_of(hub_card) == {
        "library_name": "transformers",
        "base_model": ["org/one", "org/two"],
        "base_model_relation": "merge",
        "license": "mit",
        "tags": ["merge", "tensorsurgeon", "slerp", "linear"],
    }


def test_card_shows_picture_commits_recipe_and_commands(hub_card: str) -> None:
    tokens = rendered(hub_card.split("---\n", 2)[2])
    links = [t.attrs["href"] for t in tokens if t.type == "link_open"]
    one, two = (
        f"https://huggingface.co/org/{n}/tree/{c}"
        for n, c in zip(("one", "two"), COMMITS, strict=True)
    )
    assert links == [one, two, one, two, "recipe.yaml"]
    assert [t.attrs["src"] for t in tokens if t.type == "image"] == ["layer_map.svg"]
    yaml, python, again, explain = [t for t in tokens if t.type == "fence"]
    assert yaml.content == HUB
    assert "AutoModelForCausalLM.from_pretrained(" in python.content
    compile(python.content, "card", "exec")
    assert again.content == (
        f"pip install tensorsurgeon=={__version__}\n"
        f"tensorsurgeon apply recipe.yaml -o again \\\n    -s a=hf://org/one@{COMMITS[0]}\n"
        "diff tensorsurgeon.json again/tensorsurgeon.json   # its last block, `created`, differs\n"
    )
    assert explain.content == "tensorsurgeon explain . model.embed_tokens.weight\n"
    assert f"with TensorSurgeon {__version__}" in hub_card
    assert "with 2 layers and " in hub_card


def test_folders_are_named_and_are_no_base_model(merge_plan: Plan) -> None:
    card = card_of(merge_plan)
    assert front_matter_of(card) == {
        "library_name": "transformers",
        "tags": ["merge", "tensorsurgeon", "slerp"],
    }
    assert "# merged\n" in card
    assert "| `a` | `a` | a folder | none named |" in card
    known = card.replace("\n| --- | --- | --- | --- |", "").replace("./", "")
    assert "/" not in known.replace("again/tensorsurgeon.json", "")


def test_license_is_named_where_all_sources_name_it(merge_plan: Plan) -> None:
    names = {"a": "org/one", "b": "org/two"}
    custom = License(ids=("other",), name="llama3: x", link="LICENSE.txt")
    found = front_matter_of(
        card_of(of_the_hub(merge_plan, names, dict.fromkeys(names, custom), HUB))
    )
    assert found["license"] == "other"
    assert found["license_name"] == "llama3: x"
    link = f"https://huggingface.co/org/one/blob/{COMMITS[0]}/LICENSE.txt"
    assert found["license_link"] == link
    differ = card_of(of_the_hub(merge_plan, names, {"a": MIT, "b": custom}, HUB))
    assert not {"license", "license_name", "license_link"} & front_matter_of(differ).keys()
    assert "(`a`: `mit`; `b`: `other (llama3: x)`)" in differ
    silent = card_of(of_the_hub(merge_plan, names, {"a": MIT, "b": None}, HUB))
    assert "license" not in front_matter_of(silent)
    assert "(`a`: `mit`; `b`: none named)" in silent


def test_licenses_of_folders_are_read(models: Path, recipe: WriteRecipe) -> None:
    path = recipe("models: {a: ./a, b: ./b}\nresult: {linear: {models: [a, b]}}\n")
    give_license(models / "a", "license: apache-2.0")
    assert "license" not in front_matter_of(card_of(api.plan(path)))
    give_license(models / "b", "license: Apache-2.0")
    assert front_matter_of(card_of(api.plan(path)))["license"] == "apache-2.0"


@pytest.mark.parametrize(
    ("text", "push", "title"),
    [
        ("output: {path: ./solar}", None, "# solar\n"),
        ("output: {path: /home/me/solar/}", None, "# solar\n"),
        ("output: {path: ./solar, push: org/x-7B}", None, "# x-7B\n"),
        ("output: {path: ./solar}", "org/y@v1", "# y\n"),
        ("output: {path: ..}", None, "# made\n"),
        ("", None, "# made\n"),
    ],
)
def test_title_is_what_the_recipe_calls_the_result(
    text: str, push: str | None, title: str, models: Path, recipe: WriteRecipe
) -> None:
    path = recipe(f"models: {{a: ./a, made: {{stack: [{{model: a}}]}}}}\nresult: made\n{text}\n")
    assert title in card_of(api.plan(path, push=push, output=models / "elsewhere"))


def test_encoder_is_loaded_as_what_it_is(models: Path, recipe: WriteRecipe) -> None:
    config = json.loads((models / "a" / "config.json").read_text())
    (models / "a" / "config.json").write_text(
        json.dumps(config | {"architectures": ["LlamaModel"]})
    )
    card = card_of(api.plan(recipe("models: {a: ./a}\nresult: a\n")))
    assert "AutoModel.from_pretrained(" in card
    assert "ForCausalLM" not in card


def test_no_path_of_this_machine_is_in_any_file(
    models: Path, recipe: WriteRecipe, command: Command, tmp_path: Path
) -> None:
    path = recipe(
        f"models: {{a: {models}/a}}\n"
        f"result: {{linear: {{models: [a, {{source: {models}/x/../b}}]}}}}\n"
        f"output: {{path: {tmp_path}/out}}\n"
    )
    assert command("apply", path).code == 0
    for name, data in file_bytes(tmp_path / "out").items():
        assert str(tmp_path).encode() not in data, name
        assert b".." not in data or name.endswith(".safetensors"), name
    text = json.loads((tmp_path / "out" / "tensorsurgeon.json").read_text())["recipe"]["text"]
    assert text == (tmp_path / "out" / "recipe.yaml").read_text()


def test_recipe_beside_the_result_makes_the_same_result(
    models: Path, recipe: WriteRecipe, command: Command, tmp_path: Path
) -> None:
    path = recipe(
        f"# two of them\nmodels: {{a: {models}/a, b: ./b}}\n"
        f"result: {{slerp: {{models: [a, b], t: 0.3}}}}\noutput: {{path: {tmp_path}/out}}\n"
    )
    assert command("apply", path).code == 0
    again = models / "recipe-of-the-card.yaml"
    again.write_bytes((tmp_path / "out" / "recipe.yaml").read_bytes())
    assert command("apply", again, "-o", tmp_path / "again").code == 0
    first, second = file_bytes(tmp_path / "out"), file_bytes(tmp_path / "again")
    assert first.keys() == second.keys()
    differ = {name for name in first if first[name] != second[name]}
    assert differ == {"tensorsurgeon.json"}  # the digest of the recipe as it was read


def test_card_may_be_edited_and_picture_and_recipe_may_not(
    models: Path, recipe: WriteRecipe, command: Command, tmp_path: Path
) -> None:
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out}\n")
    assert command("apply", path).code == 0
    out = tmp_path / "out"
    (out / "README.md").write_text("# Mine\n")
    assert command("verify", out).code == 0
    (out / "README.md").unlink()
    assert command("verify", out).code == 0
    for name in ("layer_map.svg", "recipe.yaml"):
        was = (out / name).read_bytes()
        (out / name).write_bytes(was.replace(b"a", b"b", 1))
        done = command("verify", out)
        assert done.code == 9
        assert f"{name}: its bytes differ" in done.err
        (out / name).write_bytes(was)


def test_source_that_was_made_here_passes_its_card_on_to_nobody(
    models: Path, recipe: WriteRecipe, command: Command, tmp_path: Path
) -> None:
    first = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./first}\n")
    assert command("apply", first).code == 0
    for name in ("README.md", "layer_map.svg", "recipe.yaml"):
        (tmp_path / "first" / name).write_text("of the first\n")
    second = recipe("models: {f: ./first}\nresult: f\noutput: {path: ./second}\n")
    plan = api.plan(second)
    assert not {"README.md", "layer_map.svg", "recipe.yaml"} & {s.name for s in plan.sidecars}
    assert command("apply", second).code == 0
    for name, data in own_files(plan).items():
        assert (tmp_path / "second" / name).read_bytes() == data
        assert b"of the first" not in data


def test_same_recipe_and_sources_give_the_same_files(models: Path, recipe: WriteRecipe) -> None:
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out}\n")
    assert own_files(api.plan(path)) == own_files(api.plan(path, output=models / "other"))


def test_long_recipe_stands_in_its_own_file_alone(models: Path, recipe: WriteRecipe) -> None:
    path = recipe("models: {a: ./a}\nresult: a\n" + "# a comment\n" * 2000)
    files = own_files(api.plan(path))
    assert b"# a comment" not in files["README.md"]
    assert b"It is in [recipe.yaml](recipe.yaml)." in files["README.md"]
    assert files["recipe.yaml"].count(b"# a comment") == 2000


@pytest.fixture(scope="session")
def get_plan(merge_plan: Plan) -> Callable[[], Plan]:
    """The same plan, in a form that is short when a failure prints it."""
    return lambda: merge_plan


@settings(deadline=None)
@given(
    names=st.lists(evil_names.filter(bool), min_size=2, max_size=2, unique=True),
    repos=st.lists(evil_names, min_size=2, max_size=2),
    family=evil_names,
    tensor=evil_names,
    comment=st.text("`~#<>*[]()!-ab\u202e", max_size=30),
    link=evil_names.filter(bool),
    push=evil_names,
)
def test_no_name_adds_anything_to_the_card(
    names: list[str],
    repos: list[str],
    family: str,
    tensor: str,
    comment: str,
    link: str,
    push: str,
    get_plan: Callable[[], Plan],
) -> None:
    merge_plan = get_plan()
    first, second = map(quoted_scalar, names)
    text = (
        f"# {comment}\nmodels: {{{first}: ./a, {second}: ./b}}\n"
        f"result: {{linear: {{models: [{first}, {second}]}}}}\n"
    )
    spec = replace(merge_plan.tensors[0].spec, name=tensor)
    plan = replace(
        merge_plan,
        config={**merge_plan.config, "model_type": family, "architectures": [family]},
        tensors=(replace(merge_plan.tensors[0], spec=spec), *merge_plan.tensors[1:]),
        push=push,
    )
    license_ = License(ids=("other",), name=link, link=link)
    licenses = {names[0]: license_, names[1]: license_}
    sources = dict(zip(names, repos, strict=True))
    card = card_of(of_the_hub(plan, sources, licenses, text))
    found = front_matter_of(card)
    assert found["tags"] == ["merge", "tensorsurgeon", "linear"]
    assert found["license"] == "other"
    assert found["license_name"] == link
    assert set(found) <= {
        *("library_name", "base_model", "base_model_relation", "tags"),
        *("license", "license_name", "license_link"),
    }
    tokens = rendered(card.split("---\n", 2)[2])
    kinds = [token.type for token in tokens]
    assert not {"html_block", "html_inline", "hr", "bullet_list_open", "em_open"} & set(kinds)
    assert kinds.count("heading_open") == 5
    assert kinds.count("fence") == 4
    assert kinds.count("tr_open") == 3
    assert kinds.count("td_open") == 8
    assert [t.attrs["src"] for t in tokens if t.type == "image"] == ["layer_map.svg"]
    for link_token in (token for token in tokens if token.type == "link_open"):
        target = str(link_token.attrs["href"])
        assert target == "recipe.yaml" or target.startswith("https://huggingface.co/")
    visible = card.replace("\n", "")
    assert visible.isprintable()
