"""What a card tells, gathered from a plan and its recipe: sources, operators, title."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tensorsurgeon.checkpoint import License
from tensorsurgeon.documents.markdown import is_repo_name
from tensorsurgeon.operators import Lora
from tensorsurgeon.plan import Plan
from tensorsurgeon.plan.adapters import adapter_label
from tensorsurgeon.recipe import Operator, Recipe, Reference, Source


@dataclass(frozen=True, kw_only=True)
class CardSource:
    """A source as a card names it.

    Attributes:
        name: its name in the recipe.
        key: what `-s` calls it: the name, or that of the model that an adapter makes.
        repo: the repository it was read from; empty for a folder.
        commit: the commit of that.
        folder: the last component of the folder's path, where it was one.
        license: what its own card names.
        given: what to write behind `-s` so that the recipe reads the same again; empty where it
            does without.
    """

    name: str
    key: str
    repo: str = ""
    commit: str = ""
    folder: str = ""
    license: License | None = None
    given: str = ""


def card_sources(
    plan: Plan, recipe: Recipe, licenses: Mapping[str, License | None]
) -> tuple[CardSource, ...]:
    """The sources of a plan in the order of the recipe.

    Args:
        plan: the plan.
        recipe: the recipe as it was read, without replacements from the command line.
        licenses: what each source's card names, by the source's name.
    """
    names = [name for name in recipe.models if name in plan.sources]
    names += [name for name in plan.sources if name not in recipe.models]
    return tuple(_source(plan, recipe, name, licenses.get(name)) for name in names)


def base_models(sources: tuple[CardSource, ...]) -> tuple[str, ...]:
    """The repositories, each once."""
    repos = (source.repo for source in sources if is_repo_name(source.repo))
    return tuple(dict.fromkeys(repos))


def operators_of(recipe: Recipe) -> tuple[str, ...]:
    """The operators of a recipe in their order, each once."""
    found = (name for model in (*recipe.models.values(), recipe.result) for name in _within(model))
    return tuple(dict.fromkeys(found))


def title_of(plan: Plan, recipe: Recipe) -> str:
    """What to call the result: as its repository, its folder in the recipe, or its model there.

    Not as a folder named on the command line, so that the same recipe gives the same card.
    """
    for place in (plan.push or "", recipe.output.path or ""):
        last = place.partition("@")[0].rstrip("/").rpartition("/")[2]
        if last not in ("", ".", "..") and not last.startswith("~"):
            return last
    return recipe.result.name if isinstance(recipe.result, Reference) else "Merged model"


def _source(plan: Plan, recipe: Recipe, name: str, named: License | None) -> CardSource:
    folder = plan.sources[name]
    key = next((m for m in recipe.models if adapter_label(m) == name), name)
    written = recipe.models.get(key)
    path = written.path if isinstance(written, Source) else ""
    path = written.adapter if isinstance(written, Lora) else path
    if repo := plan.repos.get(folder):
        pinned = f"{repo.name}@{repo.commit}"
        needless = not path or path.removeprefix("hf://") == pinned
        return CardSource(
            name=name,
            key=key,
            repo=repo.name,
            commit=repo.commit,
            license=named,
            given="" if needless else f"hf://{pinned}",
        )
    return CardSource(name=name, key=key, folder=folder.name, license=named)


def _within(expression: Operator | Reference) -> Iterator[str]:
    if isinstance(expression, Operator):
        if not isinstance(expression, Source):
            yield expression.operator
        for operand in expression.operands():
            yield from _within(operand)
