"""What a grown model must compute: its layers stacked by hand, in transformers' own module list."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.families.models import Family

TOKENS = 20


def load(folder: Path, family: Family) -> Any:
    """The model in float32; fails if a weight is missing, left over or of another shape."""
    with _no_warnings():
        model, report = family.auto.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    assert not any(report.values()), report
    return model.eval()


def stacked_by_hand(folder: Path, family: Family, order: list[int]) -> Any:
    """The model whose layers are copies of those of another, in the order given.

    A layer keeps what it was built with. What the model looks up for each index when it runs,
    the attention mask and the rotary embedding, follows `layer_types`, which is set here.
    """
    model = load(folder, family)
    path, _, name = family.layers.rpartition(".")
    owner = model.get_submodule(path)
    layers = getattr(owner, name)
    setattr(owner, name, torch.nn.ModuleList(copy.deepcopy(layers[source]) for source in order))
    kinds = vars(owner.config).get("layer_types")
    owner.config.num_hidden_layers = len(order)
    if kinds is not None:
        owner.config.layer_types = [kinds[source] for source in order]
    if hasattr(owner, "first_kv_shared_layer_idx"):
        owner.first_kv_shared_layer_idx = len(order)  # none of the tiny models shares any
    return model


def outputs(model: Any) -> torch.Tensor:
    """(1, tokens, vocabulary) logits without a cache, or (1, tokens, hidden) last hidden states."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(3, 60, (1, TOKENS), generator=generator)
    inputs = {"input_ids": text}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = text
    if getattr(model.config.get_text_config(decoder=True), "use_cache", None) is not None:
        inputs["use_cache"] = False
    with torch.inference_mode():
        result = model(**inputs)
    found = result.logits if "logits" in result else result.last_hidden_state
    assert found.isfinite().all()
    assert found.std() > 0
    return found


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Fails on anything that transformers warns of."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not records, [record.getMessage() for record in records]
