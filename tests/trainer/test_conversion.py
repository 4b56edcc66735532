"""What is followed of a conversion says exactly what it does to the values."""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.core_model_loading import Chunk, Concatenate, Transpose, WeightConverter

from tensorsurgeon.checkpoint import open_checkpoint
from tensorsurgeon.errors import ArchitectureError, MissingTensorError
from tensorsurgeon.specs import DType, StoredTensor, TensorSpec
from tensorsurgeon.trainer.conversion import Followed, Form, NotFollowedError
from tensorsurgeon.trainer.model import build_model
from tests.families.models import LLAMA, MIXTRAL, QWEN3_MOE
from tests.trainer.data.tokens import make_tokenizer
from tests.trainer.ranks import on_ranks
from tests.trainer.runs import events_of, losses_of, train_quietly, write_run


def stored(name: str, *shape: int) -> StoredTensor:
    spec = TensorSpec(name=name, dtype=DType.F32, shape=shape)
    return StoredTensor(spec=spec, path=Path("model.safetensors"), offset=0)


def numbered(names: Sequence[str], *shape: int) -> tuple[dict[str, Tensor], dict[str, Followed]]:
    """Tensors in which no two elements are alike, and the same without values."""
    count = math.prod(shape)
    every = torch.arange(1.0, len(names) * count + 1).view(len(names), *shape)
    return dict(zip(names, every, strict=True)), {
        name: Followed.stored(stored(name, *shape)) for name in names
    }


def rebuilt(form: Form, values: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """A tensor out of its pieces; 0 where there is none."""
    whole = torch.zeros(*shape)
    for piece in form:
        box = piece.of_stored(values[piece.stored.spec.name])
        piece.of_model(whole).copy_(box.reshape(piece.shape))
    return whole


def put(step: tuple[str, int, int, int], tensors: list[Tensor]) -> list[Tensor]:
    """Tensors of one shape put together, or of each the same part."""
    kind, dim, count, which = step
    if kind == "stack":
        return [torch.stack(tensors, dim=dim)]
    if kind == "cat":
        return [torch.cat(tensors, dim)]
    if kind == "chunk":
        parts = [torch.chunk(tensor, count, dim=dim) for tensor in tensors]
    else:
        sizes = [min(1, tensors[0].shape[dim]), max(0, tensors[0].shape[dim] - 1)]
        parts = [tensor.split(sizes, dim) for tensor in tensors]
    return [every[which % len(every)].contiguous() for every in parts]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["stack", "cat", "chunk", "split"]),
        st.integers(-2, 1),
        st.integers(1, 3),
        st.integers(0, 2),
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=150)
@given(steps=STEPS, count=st.integers(1, 3), rows=st.integers(1, 4), columns=st.integers(1, 5))
def test_stacking_concatenating_and_dividing_is_followed_element_by_element(
    steps: list[tuple[str, int, int, int]], count: int, rows: int, columns: int
) -> None:
    names = [f"t{index}" for index in range(count)]
    values, followed = numbered(names, rows, columns)
    real, without = list(values.values()), list(followed.values())
    for step in steps:
        real, without = put(step, real), put(step, without)
    for one, other in zip(real, without, strict=True):
        assert other.shape == one.shape
        assert torch.equal(rebuilt(other.form, values, one.shape), one)
        assert sum(piece.elements for piece in other.form) == one.numel()


@settings(deadline=None)
@given(
    shapes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    count=st.integers(1, 4),
    first=st.integers(0, 4),
    dim=st.integers(0, 2),
    length=st.integers(0, 5),
)
def test_what_is_within_some_rows_is_those_rows(
    shapes: tuple[int, int], count: int, first: int, dim: int, length: int
) -> None:
    names = [f"t{index}" for index in range(2 * count)]
    values, followed = numbered(names, *shapes)
    halves = (list(followed.values())[:count], list(followed.values())[count:])
    form = torch.cat([torch.stack(half) for half in halves], 1).form
    whole = rebuilt(form, values, (count, 2 * shapes[0], shapes[1]))
    wanted = whole.narrow(dim, 0, min(first + length, whole.shape[dim]))
    wanted = wanted.narrow(dim, min(first, wanted.shape[dim]), max(0, wanted.shape[dim] - first))
    here = [piece.within(dim, first, first + length) for piece in form]
    assert torch.equal(rebuilt([p for p in here if p], values, wanted.shape), wanted)


def conversions() -> Iterator[WeightConverter]:
    """Every conversion of transformers that is not merely a new name."""
    for kind in sorted(CONFIG_MAPPING):
        for entry in get_checkpoint_conversion_mapping(kind) or ():
            if isinstance(entry, WeightConverter):
                yield entry


def converted(entry: WeightConverter, values: Mapping[str, list[Tensor]]) -> dict[str, Any]:
    entry = copy.deepcopy(entry)
    target = entry.target_patterns[0]
    for pattern, tensors in values.items():
        for index, tensor in enumerate(tensors):
            entry.add_tensor(target, f"{pattern} {index}", pattern, tensor)
    made = entry.convert(target, model=None, config=CONFIG_MAPPING["mixtral"]())
    return {name: found[0] if isinstance(found, list) else found for name, found in made.items()}


def test_every_conversion_of_transformers_is_followed_as_it_is_done_or_not_at_all() -> None:
    followed, refused = set(), set()
    for entry in conversions():
        operations = tuple(type(operation).__name__ for operation in entry.operations)
        count = 4 if "MergeModulelist" in operations or "Ernie" in operations[0] else 1
        names = [f"{pattern} {i}" for pattern in entry.source_patterns for i in range(count)]
        values, without = numbered(names, 12, 8)

        def of(tensors: Mapping[str, Tensor], entry: Any = entry, count: int = count) -> Any:
            every = list(tensors.values())
            return {
                pattern: every[count * index : count * (index + 1)]
                for index, pattern in enumerate(entry.source_patterns)
            }

        try:
            real = converted(entry, of(values))
        except (AttributeError, IndexError, RuntimeError):
            continue  # it wants a model, or tensors of another shape
        try:
            made = converted(entry, of(without))
        except NotFollowedError:
            refused.add(operations)
            continue
        followed.add(operations)
        assert made.keys() == real.keys()
        for name, tensor in made.items():
            assert torch.equal(rebuilt(tensor.form, values, real[name].shape), real[name])
    assert {("MergeModulelist",), ("MergeModulelist", "Concatenate"), ("Chunk",)} <= followed
    assert {"Transpose", "Interleave", "PermuteForRope"} & {name for one in refused for name in one}
    assert not {("Chunk",), ("Concatenate",), ("MergeModulelist",)} & refused


def test_what_no_boxes_tell_of_is_not_followed() -> None:
    tensor = Followed.stored(stored("t", 4, 6))
    assert tensor.shape == (4, 6)
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.T,
        lambda t: t.view(2, 12),
        lambda t: t + 1,
        lambda t: t[::2],
        lambda t: torch.cat([t, torch.zeros(4, 6, device="meta")]),
    ]
    for change in changes:
        with pytest.raises(NotFollowedError):
            change(tensor)


@pytest.fixture
def llama_stored_otherwise() -> Iterator[Callable[[list[WeightConverter]], None]]:
    """Has transformers convert what Llama stores."""

    def register(conversions: list[WeightConverter]) -> None:
        register_checkpoint_conversion_mapping("LlamaForCausalLM", conversions, overwrite=True)

    yield register
    register([])


def change(folder: Path, changed: Callable[[dict[str, Tensor]], None]) -> Path:
    """A model's folder after its stored tensors were changed."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    changed(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, {"format": "pt"})
    return folder


def problems(folder: Path) -> str:
    with pytest.raises(MissingTensorError) as caught:
        build_model(open_checkpoint(folder), attention="sdpa")
    return str(caught.value)


def test_a_stored_tensor_that_becomes_several_parameters_knows_all_of_them(
    tmp_path: Path, llama_stored_otherwise: Callable[[list[WeightConverter]], None]
) -> None:
    names = [f"self_attn.{kind}_proj.weight" for kind in "qkv"]

    def fuse(tensors: dict[str, Tensor]) -> None:
        for layer in range(LLAMA.depth):
            start = f"model.layers.{layer}."
            parts = [tensors.pop(start + name) for name in names]
            tensors[f"{start}self_attn.qkv.weight"] = torch.cat(parts)

    family = LLAMA.with_settings(num_key_value_heads=4)
    folder = change(family.save(tmp_path / "model"), fuse)
    llama_stored_otherwise([WeightConverter("self_attn.qkv.weight", names, [Chunk(dim=0)])])
    model = build_model(open_checkpoint(folder), attention="sdpa")
    parts = model.parts["model.layers.2.self_attn.qkv.weight"]
    assert [name for name, _ in parts] == [f"model.layers.2.{name}" for name in names]
    assert [piece.start for _, piece in parts] == [(0, 0), (32, 0), (64, 0)]


def test_a_transposed_tensor_is_refused_by_its_name(
    tmp_path: Path, llama_stored_otherwise: Callable[[list[WeightConverter]], None]
) -> None:
    folder = LLAMA.save(tmp_path / "model")
    llama_stored_otherwise(
        [WeightConverter("mlp.down_proj.weight", "mlp.down_proj.weight", [Transpose(0, 1)])]
    )
    with pytest.raises(ArchitectureError) as caught:
        build_model(open_checkpoint(folder), attention="sdpa")
    assert "model.layers.0.mlp.down_proj.weight cannot be trained" in str(caught.value)
    assert "Transpose" in str(caught.value)


class FirstHalf(Chunk):
    """Drops the rest."""

    def convert(self, input_dict: Any, source_patterns: Any, target_patterns: Any, **_: Any) -> Any:
        (tensors,) = input_dict.values()
        return {target_patterns[0]: torch.chunk(tensors[0], 2, dim=0)[0]}


def test_a_tensor_that_could_not_be_written_again_is_refused(
    tmp_path: Path, llama_stored_otherwise: Callable[[list[WeightConverter]], None]
) -> None:
    def double(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("up_proj.weight")]:
            tensors[name] = torch.cat([tensors[name]] * 2)

    folder = change(LLAMA.save(tmp_path / "model"), double)
    llama_stored_otherwise(
        [WeightConverter("mlp.up_proj.weight", "mlp.up_proj.weight", [FirstHalf()])]
    )
    with pytest.raises(ArchitectureError) as caught:
        build_model(open_checkpoint(folder), attention="sdpa")
    assert "of model.layers.0.mlp.up_proj.weight, " in str(caught.value)
    assert "transformers uses only a part" in str(caught.value)


def test_tensors_that_do_not_go_together_are_named(
    tmp_path: Path, llama_stored_otherwise: Callable[[list[WeightConverter]], None]
) -> None:
    def divide(tensors: dict[str, Tensor]) -> None:
        whole = tensors.pop("model.layers.1.self_attn.q_proj.weight")
        tensors["model.layers.1.self_attn.a.weight"] = whole[:8]
        tensors["model.layers.1.self_attn.b.weight"] = whole[8:, 1:]

    folder = change(LLAMA.save(tmp_path / "model"), divide)
    sources = ["self_attn.a.weight", "self_attn.b.weight"]
    llama_stored_otherwise(
        [WeightConverter(sources, "self_attn.q_proj.weight", [Concatenate(dim=0)])]
    )
    told = problems(folder)
    assert "model.layers.1.self_attn.a.weight, model.layers.1.self_attn.b.weight do not" in told
    assert "lacks" not in told


def test_a_lost_expert_is_told_by_the_shape_of_those_that_are_left(tmp_path: Path) -> None:
    def lose(tensors: dict[str, Tensor]) -> None:
        for kind in ("gate", "up", "down"):
            del tensors[f"model.layers.3.mlp.experts.2.{kind}_proj.weight"]

    told = problems(change(QWEN3_MOE.save(tmp_path / "model"), lose))
    assert (
        "'model.layers.3.mlp.experts.gate_up_proj', made of model.layers.3.mlp.experts.0." in told
    )
    assert "is [3, 32, 32], and config.json makes it [4, 32, 32]" in told
    assert "layers.2" not in told


def test_a_parameter_that_is_stored_twice_is_refused(tmp_path: Path) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        down = [tensors[f"model.layers.0.block_sparse_moe.experts.{i}.w2.weight"] for i in range(4)]
        tensors["model.layers.0.mlp.experts.down_proj"] = torch.stack(down)

    told = problems(change(MIXTRAL.save(tmp_path / "model"), add))
    assert "would each be 'model.layers.0.mlp.experts.down_proj'" in told


def test_a_quantized_model_is_said_to_be_one(tmp_path: Path) -> None:
    def quantize(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight_scale_inv"] = torch.ones(1)

    folder = change(LLAMA.save(tmp_path / "model"), quantize)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingTensorError) as caught:
        build_model(open_checkpoint(folder), attention="sdpa")
    assert "model.layers.0.mlp.up_proj.weight_scale_inv" in str(caught.value)
    assert any("quantized" in note for note in caught.value.__notes__)


def test_fused_experts_are_trained_and_written_one_by_one(
    tokens: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    make_tokenizer(folder)
    QWEN3_MOE.with_settings(vocab_size=384, max_position_embeddings=128).save(folder)
    settings = {"steps": 3, "evaluate": {"every": 3}, "batch": {"micro": 1}}
    output = {"path": str(tmp_path / "trained")}
    two = write_run(tmp_path / "two.yaml", folder, tokens, **settings, output=output)
    outcome = on_ranks(2, train_quietly, two)[0]
    _, told = AutoModelForCausalLM.from_pretrained(outcome.path, output_loading_info=True)
    assert not any(told.values()), told
    before = load_file(folder / "model.safetensors")
    after = load_file(outcome.path / "model.safetensors")
    assert after.keys() == before.keys()
    experts = [name for name in before if ".experts." in name]
    assert len(experts) == 5 * 4 * 3
    assert not any(torch.equal(after[name], before[name]) for name in experts)
    assert min(events_of(two, "layers")[-1]["moved"]) > 0
    one = write_run(tmp_path / "one.yaml", folder, tokens, **settings)
    train_quietly(one)
    assert losses_of(two) == pytest.approx(losses_of(one), abs=1e-5)
    again = write_run(tmp_path / "again.yaml", outcome.path, tokens, steps=1)
    train_quietly(again)
    last = events_of(two, "evaluation")[-1]["loss"]
    assert events_of(again, "evaluation")[0]["loss"] == pytest.approx(last, abs=1e-6)
