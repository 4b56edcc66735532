"""What a translated recipe says of a tensor, read from its document alone.

The operators themselves are not asked: what they do with these numbers is for their own tests.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from tensorsurgeon.recipe import Place
from tensorsurgeon.recipe.schedule import AnySchedule, Schedule

SCHEDULE: TypeAdapter[Schedule] = TypeAdapter(AnySchedule)

Leaf = tuple[str, str]
"""A source's path, and a tensor of it."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a tensor is made of.

    Attributes:
        operator: by which operator; `source` where it is copied.
        base: the base's tensor, where there is one.
        models: the other models' tensors.
        parameters: the operator's, at this tensor; of what each model has, a list.
    """

    operator: str
    base: Leaf | None
    models: tuple[Leaf, ...]
    parameters: Mapping[str, Any]


class Resolution:
    """The tensors of a recipe's result.

    Args:
        document: the recipe.
        depths: layers of each source, by its path.
    """

    def __init__(self, document: Mapping[str, Any], depths: Mapping[str, int]) -> None:
        self._models = document["models"]
        self._result = document["result"]
        self._depths = depths

    def names(self) -> Iterator[str]:
        """The names of a Llama of the result's depth."""
        yield from ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
        for layer in range(self._depth(self._result)):
            for inner in (
                "input_layernorm",
                "mlp.down_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "post_attention_layernorm",
                "self_attn.k_proj",
                "self_attn.o_proj",
                "self_attn.q_proj",
                "self_attn.v_proj",
            ):
                yield f"model.layers.{layer}.{inner}.weight"

    def at(self, name: str) -> Merged:
        """What a tensor of the result is made of."""
        found = self._at(self._result, place_of(name, self._depth(self._result)))
        if isinstance(found, Merged):
            return found
        return Merged(operator="source", base=None, models=(found,), parameters={})

    def _depth(self, expression: Any) -> int:
        if isinstance(expression, str):
            return self._depth_of_name(expression)
        ((operator, body),) = expression.items()
        if operator == "stack":
            return sum(map(self._layers, body))
        if operator == "lora":
            return self._depth(body["model"])
        return self._depth(body["model"] if "model" in body else body["models"][0])

    def _depth_of_name(self, name: str) -> int:
        model = self._models[name]
        is_source = isinstance(model, str) and model not in self._models
        return self._depths[model] if is_source else self._depth(model)

    def _layers(self, piece: Mapping[str, Any]) -> int:
        if "layers" not in piece:
            return self._depth(piece["model"])
        start, stop = piece["layers"]
        return int(stop - start)

    def _at(self, expression: Any, place: Place) -> Merged | Leaf:
        if isinstance(expression, str):
            model = self._models[expression]
            if isinstance(model, str) and model not in self._models:
                return (model, place.name)
            return self._at(model, place)
        ((operator, body),) = expression.items()
        if operator == "stack":
            return self._in_stack(body, place)
        inputs = [self._leaf(one, place) for one in body.get("models", [body.get("model")])]
        based = "base" in body
        return Merged(
            operator=operator,
            base=self._leaf(body["base"], place) if based else None,
            models=tuple(inputs),
            parameters={
                key: _value(key, value, place)
                for key, value in body.items()
                if key not in ("base", "models", "model")
            },
        )

    def _leaf(self, expression: Any, place: Place) -> Leaf:
        found = self._at(expression, place)
        assert isinstance(found, tuple), "a merge of a merge is looked at from outside"
        return found

    def _in_stack(self, pieces: Any, place: Place) -> Merged | Leaf:
        if not isinstance(place.layer, int):
            piece = pieces[0 if place.layer == "before" else -1]
            return self._at(piece["model"], place_of(place.name, self._depth(piece["model"])))
        layer = place.layer
        for piece in pieces:
            count = self._layers(piece)
            if layer < count:
                inner = layer + (piece["layers"][0] if "layers" in piece else 0)
                depth = self._depth(piece["model"])
                name = place.name.replace(f"layers.{place.layer}.", f"layers.{inner}.")
                return self._at(piece["model"], place_of(name, depth))
            layer -= count
        raise AssertionError(f"there is no layer {place.layer}")


def place_of(name: str, depth: int) -> Place:
    """Where a tensor of a Llama stands."""
    if name.startswith("model.layers."):
        return Place(name=name, layer=int(name.split(".")[2]), depth=depth)
    return Place(name=name, layer="before" if "embed" in name else "after", depth=depth)


def _value(key: str, raw: Any, place: Place) -> Any:
    """A parameter's value at a tensor: a switch as it is, of a list of schedules a list."""
    if isinstance(raw, bool | str):
        return raw
    if key == "weights" or isinstance(raw, dict):
        each = raw["each"] if isinstance(raw, dict) else raw
        return [SCHEDULE.validate_python(one).at(place) for one in each]
    return SCHEDULE.validate_python(raw).at(place)
