"""Attention of packed documents: each sees itself alone, as if no other were in the sample.

A model of transformers learns from the positions where documents begin: they restart at 0. Its own
masks follow them where the implementation is "sdpa", "eager" or "flex_attention"; they are dense,
so a sample costs T^2 whatever it is made of. "varlen" is ours: it makes no mask, is told where
documents begin, and computes each by itself, with the kernel of torch.nn.attention.varlen on a GPU.

Not every model of transformers heeds the positions. `check_packable` refuses what is known
beforehand not to, and `check_isolation` asks the model itself.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from tensorsurgeon.errors import TrainingError

VARLEN = "tensorsurgeon_varlen"
"""What transformers calls our implementation."""

_TOLD_LENGTHS = (VARLEN, "flash_attention_2")
"""Implementations that are told where documents begin; the others make masks of the positions."""

_SEEN_ALONE = {"full_attention", "sliding_attention", "attention", "dense", "sparse", "moe", "mlp"}
"""Kinds of layers that mix nothing beyond what attention's mask lets through. Not in it: recurrent
layers, convolutions, and attention in chunks, whose borders transformers counted from the sample's
beginning until lately."""

_UNKNOWN = ("softcap", "s_aux", "position_bias", "cache")
"""Arguments of transformers' attention that change its numbers, and that varlen does not know."""

_OTHERS = "attention: sdpa, or attention: eager"

_HALVES = (torch.float16, torch.bfloat16)

_SUPPORT = {
    "eager": (),
    "sdpa": ("_supports_sdpa",),
    "flash_attention_2": ("_supports_flash_attn",),
    "flex_attention": ("_supports_flex_attn",),
    "varlen": ("_supports_attention_backend", "_supports_flash_attn", "_supports_sdpa"),
}
"""What a class of transformers must say of itself. One made for flash attention gives its sliding
windows as numbers, not by a mask alone; one that sdpa does not do for has scores of its own."""

_GROUPED = {"enable_gqa": True} if torch.__version__ >= "2.12" else {}
"""That heads may share keys, which torch 2.11's kernel does without being told."""

_PROBED = 16
"""Tokens of a document that `check_isolation` tries."""


def check_packable(config: Any) -> None:
    """Whether documents packed into one sample can be kept apart, as far as a config tells.

    Args:
        config: of transformers.

    Raises:
        TrainingError: the model is not causal, or has layers that carry something from one
            document to the next.
    """
    config = config.get_text_config()
    kinds: list[str] = []
    for key in ("layer_types", "layers_block_type"):
        kinds += getattr(config, key, None) or []
    leaking = sorted(set(kinds) - _SEEN_ALONE)
    if leaking or getattr(_model_class(config), "_is_stateful", False):
        what = ", ".join(leaking) or "recurrent"
        raise TrainingError(
            f"a model of type {config.model_type} cannot learn from samples of several documents: "
            f"no mask keeps them apart in its layers ({what})",
            fix="train a model whose layers are all full or sliding attention",
        )
    both_ways = getattr(config, "use_bidirectional_attention", None) in (True, "all")
    if both_ways or not getattr(config, "is_causal", True):
        raise TrainingError(
            "the model sees the tokens that it would have to predict: no causal one"
        )


def choose_attention(
    config: Any, device: torch.device, asked: str = "auto", *, dtype: torch.dtype = torch.bfloat16
) -> str:
    """The implementation of attention, by transformers' name for it.

    "auto" is the first that works of varlen, sdpa and eager: varlen's time grows with the
    documents' lengths rather than the sample's, also on a CPU; eager does everything and holds all
    scores. Varlen is registered with transformers here.

    Args:
        config: of transformers.
        device: where the model will be.
        asked: auto, varlen, sdpa, eager, flash_attention_2 or flex_attention.
        dtype: what is computed in.

    Raises:
        TrainingError: what is asked for does not work with this model, device or dtype.
    """
    config = config.get_text_config()
    if asked == "auto":
        obstacles = {name: _obstacle(name, config, device, dtype) for name in ("varlen", "sdpa")}
        asked = next((name for name, why in obstacles.items() if not why), "eager")
    elif why := _obstacle(asked, config, device, dtype):
        raise TrainingError(f"attention '{asked}' cannot be used: {why}", fix="attention: auto")
    if asked != "varlen":
        return asked
    _register()
    return VARLEN


def _obstacle(name: str, config: Any, device: torch.device, dtype: torch.dtype) -> str:
    """Why an implementation of attention does not work here; empty where it does."""
    model = _model_class(config)
    if not all(getattr(model, attribute, False) for attribute in _SUPPORT[name]):
        return f"a model of type {config.model_type} does not support it"
    # A class that lets sdpa run nevertheless leaves this out (transformers 5.17).
    bent = getattr(config, "attn_logit_softcapping", None) is not None
    if bent and name in ("sdpa", "varlen"):
        return "it cannot bend scores, and the config has 'attn_logit_softcapping'"
    if name == "flex_attention" and device.type != "cuda":
        return "it learns on a GPU only"
    if name == "flash_attention_2":
        return _obstacle_to_flash(device, dtype)
    return _obstacle_to_varlen(config, device, dtype) if name == "varlen" else ""


def _obstacle_to_flash(device: torch.device, dtype: torch.dtype) -> str:
    from transformers.utils.import_utils import is_flash_attn_2_available

    if device.type != "cuda" or dtype not in _HALVES:
        return "it needs a GPU and bfloat16 or float16"
    # transformers would look for a kernel on the Hub instead.
    return "" if is_flash_attn_2_available() else "the package flash-attn is not installed"


def _obstacle_to_varlen(config: Any, device: torch.device, dtype: torch.dtype) -> str:
    if getattr(config, "attention_dropout", 0.0):
        return "it has no dropout, and the config's 'attention_dropout' is not 0"
    if device.type != "cuda":
        return ""
    if dtype not in _HALVES:
        return "on a GPU it needs bfloat16 or float16"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs a GPU of compute capability 8.0"
    if getattr(config, "kv_lora_rank", None) is not None:
        return "on a GPU, queries and values must be of one size"
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size % 8 or size > 256:
        return f"on a GPU, heads must be of a multiple of 8 up to 256, and they are of {size}"
    return ""


def _model_class(config: Any) -> Any:
    """The class of a config's causal language model; None where transformers has none."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def packed_inputs(
    positions: Tensor, implementation: str, *, device: torch.device | None = None
) -> dict[str, Any]:
    """What a model's forward needs beside the tokens, so that documents are kept apart.

    It must be called without attention mask and without cache (`use_cache=False`): with either,
    transformers does not look at the positions.

    Args:
        positions: (B, T) int64, 0 where a document begins. Best on the CPU: where documents begin
            must be known there, and a GPU would have to be waited for.
        implementation: what `choose_attention` gave.
        device: of the model; that of `positions` where None.

    Returns:
        `position_ids`, (B, T); and where the implementation needs them, transformers'
        `cu_seq_lens_q` and `cu_seq_lens_k`, (documents + 1,) int32, in tokens over the whole batch
        laid end to end, and `max_length_q` and `max_length_k`, the longest document.
    """
    device = device or positions.device
    inputs: dict[str, Any] = {"position_ids": positions.to(device, non_blocking=True)}
    if implementation not in _TOLD_LENGTHS:
        return inputs
    begins = positions == 0
    begins[:, 0] = True  # no document goes on in the next sample
    ends = begins.new_ones(1)
    bounds = torch.cat((begins.flatten(), ends)).nonzero().squeeze(1)
    longest = int(bounds.diff().max())
    bounds = bounds.to(torch.int32)
    if device.type == "cuda" and not bounds.is_cuda:
        bounds = bounds.pin_memory()  # else the copy waits for all that the GPU has yet to do
    bounds = bounds.to(device, non_blocking=True)
    return inputs | {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def check_isolation(
    forward: Callable[[Tensor, Tensor], Tensor], *, vocabulary: int, device: torch.device
) -> None:
    """Whether a model computes a packed document as it computes it alone; asked of the model.

    Some classes of transformers never give the positions to what makes their mask, so that no
    config tells. Here a document is computed behind two others and by itself, and what that changes
    is measured against what one other token of its own changes: nothing for a model that keeps
    documents apart, as much or more for one that does not. Attention in half precision and experts
    that are given other batches round differently, hence the tolerance.

    Args:
        forward: takes (4, 32) int64 tokens and positions, gives (4, 32, anything) of each position.
        vocabulary: tokens that may be tried.
        device: where `forward` wants them.

    Raises:
        TrainingError: another document changes what the model computes.
    """
    length = _PROBED
    draw = torch.Generator().manual_seed(0)
    before, other, document = torch.randint(vocabulary, (3, length), generator=draw)
    changed = document.clone()
    changed[0] = (changed[0] + 1) % vocabulary
    tokens = torch.stack(
        [torch.cat(row) for row in ((before, document), (other, document), (before, changed))]
        + [torch.cat((document, other))]
    )
    positions = torch.arange(length).repeat(4, 2)
    with torch.no_grad():
        given = forward(tokens.to(device), positions.to(device)).float()
    behind, behind_other, altered = given[:3, length:]
    own = (altered - behind)[1:].abs().mean()
    moved = max((behind_other - behind).abs().mean(), (given[3, :length] - behind).abs().mean())
    if not moved <= 0.25 * own:  # not a number is no pass either
        raise TrainingError(
            "with this attention the model lets packed documents see each other: another document "
            f"before it changes a document {float(moved / own):.2g} times as much as its own first "
            "token",
            fix="try another 'attention', or a model of another type",
        )


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each document, as transformers' models call it.

    Args:
        module: the layer's attention.
        query: (B, heads, T, d).
        key: (B, heads of keys, T, d); each serves a group of queries' heads.
        value: (B, heads of keys, T, d).
        attention_mask: none.
        dropout: none.
        scaling: of the scores; 1 / sqrt(d) where None.
        sliding_window: how many tokens a token sees, itself among them; all where None.
        cu_seq_lens_q: of `packed_inputs`.
        max_length_q: of `packed_inputs`.
        others: what else the model gives; what would change the numbers is refused.

    Returns:
        (B, T, heads, d).

    Raises:
        TrainingError: the model wants something of attention that this does not do, or keeps the
            documents' bounds to itself.
    """
    asked = [name for name in _UNKNOWN if others.get(name) is not None]
    asked += ["attention_mask"] * (attention_mask is not None) + ["dropout"] * (dropout > 0)
    causal = others.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        asked.append("is_causal=False")
    if asked:
        raise TrainingError(
            f"attention 'varlen' has no {', '.join(asked)}, and {type(module).__name__} wants it",
            fix=_OTHERS,
        )
    if cu_seq_lens_q is None or max_length_q is None:
        raise TrainingError(
            f"{type(module).__name__} is not told by its model where documents begin", fix=_OTHERS
        )
    shape = query.shape[0], query.shape[2]
    # Laid end to end, (B * T, heads, d).
    query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    if query.is_cuda and query.dtype in _HALVES:
        out = _by_kernel(
            query, key, value, cu_seq_lens_q, max_length_q, scale=scaling, window=sliding_window
        )
    else:
        out = _one_by_one(query, key, value, cu_seq_lens_q, scale=scaling, window=sliding_window)
    return out.reshape(*shape, *out.shape[1:]), None


def _by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    *,
    scale: float | None,
    window: int | None,
) -> Tensor:
    kernel: Any = varlen_attn
    # It counts the tokens to the left of the one that looks.
    left = -1 if window is None else window - 1
    out: Tensor = kernel(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        scale=scale,
        window_size=(left, 0),
        **_GROUPED,
    )
    return out


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    *,
    scale: float | None,
    window: int | None,
) -> Tensor:
    """The same for any device and dtype; (N, heads, d) each, as is what comes out."""

    def documents() -> Iterator[Tensor]:
        for start, end in pairwise(bounds.tolist()):
            q, k, v = (x[start:end].transpose(0, 1)[None] for x in (query, key, value))
            band = None
            if window is not None and window < end - start:
                ones = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device)
                band = ones.tril() & ones.triu(1 - window)
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=band, is_causal=band is None, scale=scale, enable_gqa=True
            )
            yield out[0].transpose(0, 1)

    return torch.cat(list(documents()))


def _no_mask(*, attention_mask: Tensor | None = None, use_vmap: bool = False, **_: Any) -> None:
    """Called by transformers for a mask; `varlen_attention` knows the bounds and needs none."""
    if attention_mask is not None or use_vmap:
        raise TrainingError(
            "attention 'varlen' makes no masks, and the model asks for more than a causal one",
            fix=_OTHERS,
        )


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(VARLEN, varlen_attention)
    AttentionMaskInterface.register(VARLEN, _no_mask)
