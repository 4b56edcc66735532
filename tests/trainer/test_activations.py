"""What layers are said to keep for the backward pass, against what they keep."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from tensorsurgeon.trainer.activations import Activations, layer_activations
from tensorsurgeon.trainer.parallel import KEPT_OPERATORS, recomputed
from tensorsurgeon.trainer.run_file import read_run
from tensorsurgeon.trainer.setup import set_up
from tests.trainer.data.tokens import make_tokenizer
from tests.trainer.runs import write_run

Tokens = tuple[Path, Path]
Layer = Callable[..., Any]

LENGTH = 128

COMMON = {
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


@pytest.fixture(
    params=[
        LlamaConfig(**COMMON, num_key_value_heads=4),
        LlamaConfig(**COMMON, num_key_value_heads=2),
        Qwen3Config(**COMMON, num_key_value_heads=2, head_dim=16),
    ],
    ids=["llama", "llama-gqa", "qwen3"],
)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    config: PretrainedConfig = request.param
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def told(model: Path, tokens: Tokens, folder: Path, **settings: Any) -> tuple[Activations, ...]:
    """What is said of each layer."""
    run = write_run(folder / "run.yaml", model, tokens, data={"sequence_length": LENGTH})
    setup = set_up(read_run(run), device=torch.device("cpu"), ranks=1)
    return layer_activations(setup.model, tokens=LENGTH, **settings)


def test_activations_are_what_is_kept_of_a_layer(
    model: Path, tokens: Tokens, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"precision": torch.float32, "compiled": False}
    *_, plain = told(model, tokens, tmp_path, recomputation="none", **settings)
    assert plain.kept == pytest.approx(kept_by_autograd(model, torch.float32, as_it_is), rel=0.1)
    *_, selective = told(model, tokens, tmp_path, recomputation="selective", **settings)
    assert selective.kept == pytest.approx(kept_by_selection(model), rel=0.1)
    *_, full = told(model, tokens, tmp_path, recomputation="full", **settings)
    assert full.kept == LENGTH * 64 * 4
    assert full.kept + full.again == selective.kept + selective.again == plain.kept


@pytest.mark.parametrize("kind", ["none", "selective", "full"])
def test_activations_of_a_compiled_layer_are_what_it_keeps(
    kind: Any, model: Path, tokens: Tokens, tmp_path: Path
) -> None:
    torch.compiler.reset()  # what other tests compiled counts towards a limit

    def prepared(forward: Layer) -> Layer:
        if kind != "none":
            forward = recomputed(forward, KEPT_OPERATORS if kind == "selective" else ())
        # Inductor's split of forward and backward pass, but no kernels: those take a minute.
        return torch.compile(forward, backend="aot_eager_decomp_partition")

    precision = torch.bfloat16
    first, last = told(
        model, tokens, tmp_path, precision=precision, recomputation=kind, compiled=True
    )
    assert first == last
    assert last.kept == pytest.approx(kept_by_autograd(model, precision, prepared), rel=0.05)


def test_layer_whose_weights_are_frozen_keeps_less(
    random_llama: Path, tokens: Tokens, tmp_path: Path
) -> None:
    groups = [{"match": "layer 1"}, {"match": "layer 3"}, {"match": "*", "frozen": True}]
    run = write_run(tmp_path / "run.yaml", random_llama, tokens, groups=groups)
    setup = set_up(read_run(run), device=torch.device("cpu"), ranks=1)
    for compiled in (False, True):
        layers = layer_activations(
            setup.model,
            tokens=LENGTH,
            precision=torch.float32,
            recomputation="none",
            compiled=compiled,
        )
        assert [layer.kept > 0 for layer in layers] == [False, True, True, True]
        assert layers[2].kept < layers[1].kept <= layers[3].kept


def as_it_is(forward: Layer) -> Layer:
    return forward


def train_on(folder: Path, precision: torch.dtype, watch: Callable[[Any, Layer], Layer]) -> None:
    """A step's forward and backward pass, with the last layer's forward in something around it."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="sdpa", dtype=precision
    )
    layer = model.model.layers[-1]
    layer.forward = watch(model, layer.forward)
    ids = torch.arange(LENGTH)[None] % 256
    model(ids, labels=ids, use_cache=False).loss.backward()


def kept_by_autograd(
    folder: Path, precision: torch.dtype, prepared: Callable[[Layer], Layer]
) -> int:
    """Bytes that the last layer of a model keeps for the backward pass of one sample.

    Weights and positions, which all layers share, are not among them, nor is a generator's state:
    5056 bytes of a processor's, 16 of a GPU's.
    """
    kept: dict[int, int] = {}

    def watch(model: Any, plain: Layer) -> Layer:
        forward = prepared(plain)

        def watched(*args: Any, **kwargs: Any) -> Any:
            others = [*model.parameters(), *kwargs["position_embeddings"], kwargs["position_ids"]]
            shared = {tensor.untyped_storage().data_ptr() for tensor in others}

            def keep(tensor: torch.Tensor) -> torch.Tensor:
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in shared and tensor.dtype != torch.uint8:
                    kept[storage.data_ptr()] = storage.nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                return forward(*args, **kwargs)

        return watched

    train_on(folder, precision, watch)
    return sum(kept.values())


class Made(TorchDispatchMode):
    """Notes all memory that is taken, and what of it is still there.

    Args:
        before: what is there already, nested.
    """

    def __init__(self, before: Any) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}
        leaves = [leaf for leaf in tree_leaves(before) if isinstance(leaf, torch.Tensor)]
        self.before = {leaf.untyped_storage()._cdata for leaf in leaves}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.before:
                self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return out

    @property
    def alive(self) -> int:
        return sum(nbytes for storage, nbytes in self.made.values() if not storage.expired())


def kept_by_selection(folder: Path) -> int:
    """Bytes of a layer that are left after its forward pass where all but some is made again."""
    alive: list[int] = []

    def watch(model: Any, plain: Layer) -> Layer:
        forward = recomputed(plain, KEPT_OPERATORS)

        def watched(*args: Any, **kwargs: Any) -> Any:
            with Made([args, kwargs, list(model.parameters())]) as made:
                out = forward(*args, **kwargs)
            alive.append(made.alive)
            return out

        return watched

    train_on(folder, torch.float32, watch)
    return alive[0]
