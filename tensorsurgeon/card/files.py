"""The files of a card: README.md to be edited, the recipe, and the layer map as a picture."""

from collections.abc import Mapping
from dataclasses import replace

from tensorsurgeon.card.facts import card_sources, operators_of, title_of
from tensorsurgeon.card.layer_map_svg import Row, layer_map_svg
from tensorsurgeon.card.text import card_text
from tensorsurgeon.checkpoint import CARD_NAME, License
from tensorsurgeon.plan import OwnFile, Plan
from tensorsurgeon.recipe import Recipe

RECIPE_NAME = "recipe.yaml"
LAYER_MAP_NAME = "layer_map.svg"


def with_card(plan: Plan, recipe: Recipe, licenses: Mapping[str, License | None]) -> Plan:
    """The same plan with the files of its card; see `card_files`."""
    return replace(plan, own_files=(*plan.own_files, *card_files(plan, recipe, licenses)))


def card_files(
    plan: Plan, recipe: Recipe, licenses: Mapping[str, License | None]
) -> tuple[OwnFile, ...]:
    """What goes along to tell people of a result; the same for the same recipe and inputs.

    Args:
        plan: the finished plan.
        recipe: the recipe as it was read, without replacements from the command line.
        licenses: what each source's card names, by the source's name.
    """
    sources = card_sources(plan, recipe, licenses)
    text = card_text(
        plan,
        sources,
        title=title_of(plan, recipe),
        operators=operators_of(recipe),
        recipe_name=RECIPE_NAME,
        layer_map_name=LAYER_MAP_NAME,
    )
    rows = {
        source.name: Row(
            name=source.name, detail=source.repo or source.folder, depth=plan.depths[source.name]
        )
        for source in sources
        if source.name in plan.depths
    }
    picture = layer_map_svg(plan.layer_map, plan.seams, rows)
    return (
        OwnFile(name=CARD_NAME, data=text.encode(), recorded=False),
        OwnFile(name=LAYER_MAP_NAME, data=picture.encode()),
        OwnFile(name=RECIPE_NAME, data=plan.shown_recipe.encode()),
    )
