"""What a training learns from: texts to token shards, and token shards to samples.

What is named here is imported when it is first asked for, so that the command line stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorsurgeon.trainer.data.packing import IGNORED, Sample
    from tensorsurgeon.trainer.data.sampling import Dataset, HeldOut, Source
    from tensorsurgeon.trainer.data.shards import TokenShards, open_tokens, tokenizer_digest

__all__ = [
    "IGNORED",
    "Dataset",
    "HeldOut",
    "Sample",
    "Source",
    "TokenShards",
    "open_tokens",
    "tokenizer_digest",
]

_PLACES = {
    "IGNORED": "packing",
    "Sample": "packing",
    "Dataset": "sampling",
    "HeldOut": "sampling",
    "Source": "sampling",
    "TokenShards": "shards",
    "open_tokens": "shards",
    "tokenizer_digest": "shards",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
