"""README.md: what a result is, from what, by which recipe, and how to make it again."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tensorsurgeon import __version__
from tensorsurgeon.card.facts import CardSource, base_models
from tensorsurgeon.checkpoint import License, common_license
from tensorsurgeon.documents.markdown import code, fence, front_matter, heading, repo_link
from tensorsurgeon.plan import Plan, Zeros
from tensorsurgeon.specs import TORCH_NAMES

RECIPE_LIMIT = 20_000
"""Most characters of a recipe that stands in the card as well as beside it."""


def card_text(
    plan: Plan,
    sources: Sequence[CardSource],
    *,
    title: str,
    operators: Sequence[str],
    recipe_name: str,
    layer_map_name: str,
) -> str:
    """The card's Markdown, front matter first.

    Args:
        plan: the finished plan.
        sources: its sources, in the order of the recipe.
        title: what to call the result.
        operators: the operators used.
        recipe_name: the file with the recipe.
        layer_map_name: the file with the picture.
    """
    found = common_license({_place(source): source.license for source in sources}.values())
    parts = [
        front_matter(_entries(sources, operators, found)),
        f"# {heading(title)}",
        _summary(plan, sources, operators),
        f"![Where each layer came from]({layer_map_name})",
        "## Sources",
        _source_table(sources),
        *_license_text(sources, found),
        "## Recipe",
        *_recipe(plan, recipe_name),
        "## Use",
        fence(_loading(plan), "python"),
        "## Make it again",
        *_again(plan, sources, recipe_name),
    ]
    return "\n\n".join(parts) + "\n"


def _entries(
    sources: Sequence[CardSource], operators: Sequence[str], found: License | None
) -> Mapping[str, str | Sequence[str]]:
    entries: dict[str, str | Sequence[str]] = {"library_name": "transformers"}
    if bases := base_models(tuple(sources)):
        entries |= {"base_model": bases, "base_model_relation": "merge"}
    if found is not None:
        entries["license"] = found.ids[0] if len(found.ids) == 1 else found.ids
        link = _license_link(found, next(iter(sources)))
        entries |= {"license_name": found.name} if found.name else {}
        entries |= {"license_link": link} if link else {}
    return entries | {"tags": ("merge", "tensorsurgeon", *operators)}


def _license_link(found: License, source: CardSource) -> str:
    """The link to a licence's text; where it is a file, the one in the source's repository."""
    if found.link.startswith(("https://", "http://")) or not found.link:
        return found.link
    plain = all(c.isalnum() or c in "._-/" for c in found.link) and ".." not in found.link
    if not source.repo or not plain or found.link.startswith("/"):
        return ""
    return f"https://huggingface.co/{source.repo}/blob/{source.commit}/{found.link}"


def _summary(plan: Plan, sources: Sequence[CardSource], operators: Sequence[str]) -> str:
    """What it is and what was done, in a paragraph."""
    family = plan.config.get("model_type")
    kind = f"{code(family)} model" if isinstance(family, str) and family else "model"
    depth = len(plan.layer_map)
    listed = _listed([_linked(source) for source in sources])
    how = f" by {_listed([code(name) for name in operators])}" if operators else ""
    copied = sum(tensor.is_copied for tensor in plan.tensors)
    computed = len(plan.tensors) - copied
    lines = [
        f"A {kind} with {depth} layer{'s' * (depth != 1)} and {plan.parameters:,} parameters in "
        f"{_dtypes(plan)}, made from {listed}{how}, with TensorSurgeon {__version__}."
    ]
    if computed and not copied:
        lines.append("Every tensor was computed.")
    elif computed:
        lines.append(f"Of its tensors {copied:,} are copies and {computed:,} were computed.")
    else:
        zero = ", or zero" * any(isinstance(tensor.node, Zeros) for tensor in plan.tensors)
        lines.append(f"Every tensor is a copy of one of a source{zero}.")
    if plan.seams:
        some = ", ".join(map(str, plan.seams[:8])) + (", …" if len(plan.seams) > 8 else "")
        word = "layer" if len(plan.seams) == 1 else "layers"
        lines.append(f"At {word} {some} there is a seam: another input than in the source.")
    if new := sum(origin.new for origin in plan.layer_map):
        lines.append(
            f"{new} layer{'s are' if new > 1 else ' is'} new, with zeros for output, "
            "and without effect until trained."
        )
    return "\n".join([*lines, "Nothing was trained."])


def _dtypes(plan: Plan) -> str:
    """The dtypes of its parameters, by torch's names, most of them first."""
    names = {dtype: name for name, dtype in TORCH_NAMES.items()}
    counts: Counter[str] = Counter()
    for tensor in plan.tensors:
        dtype = tensor.spec.dtype
        counts[names.get(dtype, dtype.value)] += tensor.spec.elements
    return _listed([name for name, _ in counts.most_common(3)]) if counts else "no dtype"


def _source_table(sources: Sequence[CardSource]) -> str:
    lines = ["| in the recipe | model | commit | license |", "| --- | --- | --- | --- |"]
    for source in sources:
        commit = code(source.commit) if source.repo else "a folder"
        named = code(str(source.license)) if source.license else "none named"
        lines.append(f"| {code(source.name)} | {_linked(source)} | {commit} | {named} |")
    return "\n".join(lines)


def _linked(source: CardSource) -> str:
    return repo_link(source.repo, source.commit) if source.repo else code(source.folder)


def _license_text(sources: Sequence[CardSource], found: License | None) -> Iterator[str]:
    """Why there is no licence above, where the sources name several."""
    if found is None and any(source.license for source in sources):
        each = "; ".join(
            f"{code(source.name)}: {code(str(source.license)) if source.license else 'none named'}"
            for source in sources
        )
        yield f"The sources do not all name the same license, so none is named here ({each})."


def _recipe(plan: Plan, name: str) -> Iterator[str]:
    if len(plan.shown_recipe) > RECIPE_LIMIT:
        yield f"It is in [{name}]({name})."
    else:
        yield f"The same as in [{name}]({name}):"
        yield fence(plan.shown_recipe, "yaml")


def _loading(plan: Plan) -> str:
    """Lines of Python that load the result."""
    architectures = plan.config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    speaks = isinstance(first, str) and first.endswith(("ForCausalLM", "LMHeadModel"))
    kind = "AutoModelForCausalLM" if speaks else "AutoModel"
    files = [*(file.name for file in plan.sidecars), *(own.name for own in plan.own_files)]
    has_tokenizer = any(name.startswith("tokenizer") for name in files)
    names = f"{kind}, AutoTokenizer" if has_tokenizer else kind
    lines = [
        f"from transformers import {names}",
        "",
        _name_line(plan),
        f'model = {kind}.from_pretrained(name, dtype="auto")',
    ]
    if has_tokenizer:
        lines.append("tokenizer = AutoTokenizer.from_pretrained(name)")
    return "\n".join(lines)


def _name_line(plan: Plan) -> str:
    if plan.push is None:
        return 'name = "."  # this folder, or the repository it lies in'
    repo, _, branch = plan.push.removeprefix("hf://").partition("@")
    return f'name = "{repo}"' + (f"  # revision {branch}" if branch else "")


def _again(plan: Plan, sources: Sequence[CardSource], recipe_name: str) -> Iterator[str]:
    given = [
        f"-s {shlex.quote(f'{source.key}={source.given}')}"
        for source in sources
        if source.given and source.key.isprintable()
    ]
    apply = " \\\n    ".join([f"tensorsurgeon apply {recipe_name} -o again", *given])
    yield fence(
        f"pip install tensorsurgeon=={__version__}\n{apply}\n"
        "diff tensorsurgeon.json again/tensorsurgeon.json   # its last block, `created`, differs",
        "sh",
    )
    folders = [source for source in sources if not source.repo]
    if folders:
        listed = _listed([code(source.name) for source in folders])
        yield (
            f"{listed} {'is' if len(folders) == 1 else 'are'} looked for beside the recipe; "
            "`-s NAME=DIR` names another folder."
        )
    tensor = next((t.spec.name for t in plan.tensors if not t.is_copied), "")
    tensor = tensor or (plan.tensors[0].spec.name if plan.tensors else "")
    name = shlex.quote(tensor) if tensor.isprintable() and len(tensor) < 200 else "TENSOR"
    yield (
        "The same recipe, sources and version make the same bytes. `tensorsurgeon.json` has a "
        "SHA-256\nof every tensor and of every other file but this one. `tensorsurgeon verify .` "
        "holds the files\nagainst it, and this tells what one tensor was made of:"
    )
    yield fence(f"tensorsurgeon explain . {name}", "sh")


def _place(source: CardSource) -> tuple[str, ...]:
    return source.repo, source.commit, source.folder, "" if source.repo else source.name


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" and {items[-1]}"
