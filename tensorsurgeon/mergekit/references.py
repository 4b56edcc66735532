"""How mergekit refers to a model: a path, a revision, an adapter."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from tensorsurgeon.documents import LocatedMap, Mark, kind_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelReference:
    """A model of a mergekit document; two that are written differently can be equal.

    Attributes:
        path: a folder, a repository of the Hub, or the name of another document.
        revision: branch, tag or commit; empty for none.
        adapter: path of a LoRA adapter with its revision; empty for none.
        mark: where it stands.
    """

    path: str
    revision: str = ""
    adapter: str = ""
    mark: Mark = field(default=Mark(), compare=False)

    @property
    def place(self) -> str:
        """The path with its revision."""
        return f"{self.path}@{self.revision}" if self.revision else self.path

    def __str__(self) -> str:
        return f"{self.place}+{self.adapter}" if self.adapter else self.place


def read_reference(raw: Any) -> ModelReference:
    """Read `path@revision+adapter@revision`, or the same as a mapping.

    Raises:
        PydanticCustomError: it is neither.
    """
    mark = getattr(raw, "mark", Mark())
    if isinstance(raw, str):
        model, plus, adapter = raw.partition("+")
        if "+" in adapter or (plus and not adapter):
            raise _refused(f"'{raw}' is not path@revision+adapter")
        path, revision = _split(model)
        return ModelReference(path=path, revision=revision, adapter=adapter, mark=mark)
    if not isinstance(raw, LocatedMap):
        raise _refused(f"a model is path@revision+adapter, or {{model: …}}, not {kind_of(raw)}")
    if "override_architecture" in raw:
        raise _refused(
            "override_architecture is for what mergekit keeps tables of; here names of tensors and "
            "the config tell, so remove it"
        )
    if unknown := raw.keys() - {"model", "lora"}:
        raise _refused(f"a model has no key '{min(unknown)}'; known: model, lora")
    if "model" not in raw:
        raise _refused("a model needs 'model'")
    path, revision = _place(raw["model"])
    lora = _place(raw["lora"]) if raw.get("lora") is not None else ("", "")
    adapter = "@".join(filter(None, lora))
    return ModelReference(path=path, revision=revision, adapter=adapter, mark=mark)


def _place(raw: Any) -> tuple[str, str]:
    """Path and revision, from text or a mapping of the two."""
    if isinstance(raw, str):
        return _split(raw)
    if not isinstance(raw, LocatedMap) or not isinstance(raw.get("path"), str):
        raise _refused("a path is text, or {path: …, revision: …}")
    if unknown := raw.keys() - {"path", "revision"}:
        raise _refused(f"a path has no key '{min(unknown)}'; known: path, revision")
    return str(raw["path"]), str(raw.get("revision") or "")


def _split(text: str) -> tuple[str, str]:
    path, at, revision = text.partition("@")
    if not path or "@" in revision or (at and not revision):
        raise _refused(f"'{text}' is not path@revision")
    return str(path), revision


def _refused(what: str) -> PydanticCustomError:
    return PydanticCustomError("reference", "{what}", {"what": what})


_PLACE: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"path": {"type": "string"}, "revision": {"type": ["string", "null"]}},
            "required": ["path"],
            "additionalProperties": False,
        },
    ]
}

Referred = Annotated[
    ModelReference,
    PlainValidator(read_reference),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "description": "path, or path@revision, or path+adapter"},
                {
                    "type": "object",
                    "properties": {"model": _PLACE, "lora": _PLACE},
                    "required": ["model"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""A field that takes a model."""
