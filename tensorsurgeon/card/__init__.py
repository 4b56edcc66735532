"""The model card: what people are told about a result, in files that go along with it. Pure."""

from tensorsurgeon.card.files import LAYER_MAP_NAME, RECIPE_NAME, card_files, with_card

__all__ = ["LAYER_MAP_NAME", "RECIPE_NAME", "card_files", "with_card"]
