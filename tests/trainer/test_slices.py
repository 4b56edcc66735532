"""Weights come from the shards into each rank's slice, and back, without a number changed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, MixtralConfig

from tensorsurgeon.checkpoint import lay_out, open_checkpoint
from tensorsurgeon.errors import CheckpointError, MissingTensorError
from tensorsurgeon.specs import DType, TensorSpec
from tensorsurgeon.trainer.conversion import Followed, Form
from tensorsurgeon.trainer.model import LanguageModel, build_model
from tensorsurgeon.trainer.parallel import Ranks, joined, shard
from tensorsurgeon.trainer.run_file import Engine
from tensorsurgeon.trainer.slices import (
    TensorReader,
    load_weights,
    local_slice,
    squared_distances,
    stored_values,
)
from tests.families.models import DEEPSEEK, LLAMA, MIXTRAL, Family
from tests.trainer.ranks import on_ranks

Told = tuple[dict[str, Tensor], dict[str, Tensor], list[int], int]
"""What is stored, what comes back of it; how much memory each rank took, and all parameters."""

CPU = torch.device("cpu")
MB = 1 << 20
TIED = LLAMA.with_settings(tie_word_embeddings=True)


def loaded(folder: Path) -> LanguageModel:
    checkpoint = open_checkpoint(folder)
    model = build_model(checkpoint, attention="sdpa")
    load_weights(model, checkpoint, CPU)
    return model


def stored_in(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def store(folder: Path, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    every = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(every, folder / "model.safetensors", {"format": "pt"})
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@settings(deadline=None, max_examples=60)
@given(
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float16, torch.float8_e4m3fn]),
    first=st.integers(0, 6),
    count=st.integers(0, 7),
    dim=st.integers(0, 2),
    fused=st.booleans(),
)
def test_any_rows_are_read_as_the_whole_has_them(
    dtype: torch.dtype,
    first: int,
    count: int,
    dim: int,
    fused: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    tensors = {f"t{i}": torch.randn(4, 6).to(dtype) for i in range(6)}
    checkpoint = open_checkpoint(store(folder, tensors))
    followed = [Followed.stored(checkpoint.tensors[name]) for name in tensors]

    def together(parts: list[Tensor]) -> Tensor:
        if not fused:
            return torch.cat(parts[:2], dim % 2)
        return torch.cat([torch.stack(parts[:3], dim=dim), torch.stack(parts[3:], dim=dim)], 1)

    form: Form = together(followed).form
    # Concatenation knows no numbers of 8 bits.
    whole = together([tensor.float() for tensor in tensors.values()])
    rows = whole[first : first + count]
    found = torch.full_like(rows, torch.nan)
    with closing(TensorReader(checkpoint)) as reader:
        reader.read(form, found, min(first, len(whole)))
    assert torch.equal(found, rows)


def test_a_large_tensor_is_read_in_parts(tmp_path: Path) -> None:
    tensor = torch.arange(4 * 2**20, dtype=torch.float32).view(4, -1)
    checkpoint = open_checkpoint(store(tmp_path / "model", {"t": tensor}))
    form = Followed.stored(checkpoint.tensors["t"]).form
    found = torch.empty(3, 2**20)
    with closing(TensorReader(checkpoint)) as reader:
        parts = [len(part) for part, _ in reader.values(form, found, 1)]
        reader.read(form, found, 1)
    assert parts == [2**21, 2**20]
    assert torch.equal(found, tensor[1:])


def test_numbers_that_torch_does_not_have_are_refused(tmp_path: Path) -> None:
    spec = TensorSpec(name="t", dtype=DType.F8_E8M0, shape=(4,))
    (laid,) = lay_out([spec], 10**9)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(laid.header + bytes(4))
    checkpoint = open_checkpoint(tmp_path)
    form = Followed.stored(checkpoint.tensors["t"]).form
    with closing(TensorReader(checkpoint)) as reader, pytest.raises(CheckpointError) as caught:
        reader.read(form, torch.empty(4))
    assert "'t' is F8_E8M0, which cannot be trained" in str(caught.value)


def test_tied_weights_are_one_and_the_head_s_gradient_reaches_the_embedding(
    tmp_path: Path,
) -> None:
    model = loaded(TIED.save(tmp_path / "model"))
    assert model.module.lm_head.weight is model.module.model.embed_tokens.weight
    names = [name for name, _ in model.parameters()]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    tokens = torch.tensor([[3, 4, 5]])
    model.module(tokens).logits.logsumexp(-1).sum().backward()
    gradient = dict(model.parameters())["model.embed_tokens.weight"].grad
    others = [token for token in range(64) if token not in (3, 4, 5)]
    assert gradient is not None
    assert (gradient[others].norm(dim=1) > 0).all()


def test_a_tied_tensor_that_is_stored_as_well_must_be_the_same(tmp_path: Path) -> None:
    folder = TIED.save(tmp_path / "model")
    tensors = stored_in(folder)
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    assert loaded(store(folder, tensors)).parts["lm_head.weight"][0][0].endswith("tokens.weight")
    tensors["lm_head.weight"][-1, -1] += 1e-6
    with pytest.raises(CheckpointError) as caught:
        loaded(store(folder, tensors))
    assert "'lm_head.weight' and 'model.embed_tokens.weight' differ" in str(caught.value)


def test_a_tied_tensor_may_be_stored_by_its_other_name(tmp_path: Path) -> None:
    folder = TIED.save(tmp_path / "model")
    tensors = stored_in(folder)
    embedding = tensors.pop("model.embed_tokens.weight")
    model = loaded(store(folder, tensors | {"lm_head.weight": embedding}))
    assert torch.equal(model.module.model.embed_tokens.weight, embedding)
    assert [name for name, _ in model.parts["lm_head.weight"]] == ["model.embed_tokens.weight"]
    with pytest.raises(MissingTensorError, match=r"lacks model\.embed_tokens\.weight"):
        loaded(store(folder, tensors))


def test_persistent_buffers_are_read(tmp_path: Path) -> None:
    folder = DEEPSEEK.save(tmp_path / "model")
    tensors = stored_in(folder)
    name = "model.layers.2.mlp.gate.e_score_correction_bias"
    tensors[name] = torch.randn(4)
    model = loaded(store(folder, tensors))
    assert torch.equal(dict(model.module.named_buffers())[name], tensors[name])
    assert name not in model.parts  # it is not trained: what is stored is copied


def test_how_far_weights_moved_is_measured_in_what_they_are_made_of(tmp_path: Path) -> None:
    folder = MIXTRAL.save(tmp_path / "model")
    model, checkpoint = loaded(folder), open_checkpoint(folder)
    names = [name for name, _ in model.parameters()]
    still = dict(zip(names, squared_distances(model, checkpoint, names).tolist(), strict=True))
    assert all(moved == 0 for moved, _ in still.values())
    name = "model.layers.1.mlp.experts.gate_up_proj"
    parameter = dict(model.parameters())[name]
    assert still[name][1] == pytest.approx(parameter.detach().double().square().sum().item())
    with torch.no_grad():
        parameter[2, -1] += 0.5  # the last row of expert 2's w3
    moved = squared_distances(model, checkpoint, names)[:, 0].tolist()
    assert moved[names.index(name)] == pytest.approx(0.25 * 32)
    assert [n for n, distance in zip(names, moved, strict=True) if distance] == [name]


def sparse_mixtral(folder: Path) -> tuple[Path, int]:
    """A model whose file takes no room on the disk, and the bytes of its parameters in float32."""
    config = MixtralConfig(
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_local_experts=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=1024,
    )
    config.save_pretrained(folder)
    with init_empty_weights():
        state = AutoModelForCausalLM.from_config(config).state_dict()
    (laid,) = lay_out(list(mixtral_specs(state)), 10**10)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(laid.header)
        file.truncate(laid.nbytes)
    return folder, 4 * sum(tensor.numel() for tensor in state.values())


def mixtral_specs(state: dict[str, Tensor]) -> Iterator[TensorSpec]:
    """What Mixtral stores: each expert by itself."""
    for name, tensor in state.items():
        kinds = {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)}.get(name.split(".")[-1], ())
        shape = tuple(tensor.shape)
        if not kinds:
            yield TensorSpec(name=name, dtype=DType.BF16, shape=shape)
        start = name.rpartition(".")[0].replace(".mlp.", ".block_sparse_moe.")
        for kind in kinds:
            one = (shape[1] // len(kinds), shape[2])
            for expert in range(shape[0]):
                stored = f"{start}.{expert}.{kind}.weight"
                yield TensorSpec(name=stored, dtype=DType.BF16, shape=one)


def resident(key: str) -> int:
    """Bytes of memory this process has (VmRSS), or had at most since it was reset (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(key)]
    return int(line.split()[1]) * 1024


def memory_of_loading(folder: Path, ranks: Ranks) -> int:
    """By how many bytes this rank's memory grew at most."""
    checkpoint = open_checkpoint(folder)
    model = build_model(checkpoint, attention="sdpa")
    shard(model.module, model.layers, ranks)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    load_weights(model, checkpoint, ranks.device)
    return resident("VmHWM") - before


def there_and_back(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Every stored tensor out of the slices of the ranks, as the first has it."""
    checkpoint = open_checkpoint(folder)
    model = build_model(checkpoint, attention="sdpa")
    shard(model.module, model.layers, ranks)
    load_weights(model, checkpoint, ranks.device)
    held = [len(local_slice(p)[0]) for n, p in model.parameters() if n.endswith("gate_up_proj")]
    assert held == [2 - ranks.rank] * MIXTRAL.depth  # three experts are shared by two ranks
    back = {name: stored_values(model, name) for name in checkpoint.tensors}
    assert all(tensor.is_meta == (ranks.rank > 0) for tensor in back.values())
    distances = squared_distances(model, checkpoint, [name for name, _ in model.parameters()])
    assert not distances[:, 0].any()
    return {name: tensor.numpy() for name, tensor in back.items()} if ranks.rank == 0 else {}


def work(small: Path, sparse: Path) -> tuple[int, dict[str, Any]]:
    with joined(Engine(device="cpu", threads=1)) as ranks:
        grown = memory_of_loading(sparse, ranks) if Path("/proc/self/clear_refs").exists() else 0
        return grown, there_and_back(small, ranks)


UNEVEN: Family = MIXTRAL.with_settings(num_local_experts=3, num_experts_per_tok=1)


@pytest.fixture(scope="module")
def two_ranks(
    tmp_path_factory: pytest.TempPathFactory,
) -> Told:
    small = UNEVEN.save(tmp_path_factory.mktemp("small"))
    tensors = stored_in(small)
    for tensor in tensors.values():
        tensor.view(-1)[:3] = torch.tensor([-0.0, 0.0, -1e-45])
    sparse, nbytes = sparse_mixtral(tmp_path_factory.mktemp("sparse"))
    (first, back), (second, _) = on_ranks(2, work, store(small, tensors), sparse)
    return tensors, {n: torch.from_numpy(t) for n, t in back.items()}, [first, second], nbytes


def test_what_ranks_hold_unevenly_comes_back_bit_for_bit(
    two_ranks: Told,
) -> None:
    stored, back, _, _ = two_ranks
    assert back.keys() == stored.keys()
    for name, tensor in stored.items():
        assert torch.equal(back[name].view(torch.int32), tensor.view(torch.int32)), name


def test_a_rank_takes_the_memory_of_its_own_slice(
    two_ranks: Told,
) -> None:
    *_, grown, nbytes = two_ranks
    if not any(grown):
        pytest.skip("the system does not tell of its processes' memory")
    assert nbytes > 300 * MB
    for rank in grown:
        assert nbytes / 2 - 8 * MB < rank < nbytes / 2 + 24 * MB
