"""mergekit's recipes as ours: what each says, made into a document of the recipe language."""

from tensorsurgeon.mergekit.schema import mergekit_schema
from tensorsurgeon.mergekit.text import recipe_text
from tensorsurgeon.mergekit.translation import Translation, is_mergekit, translate

__all__ = ["Translation", "is_mergekit", "mergekit_schema", "recipe_text", "translate"]
