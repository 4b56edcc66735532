"""Tensors of the written checkpoint: those of the training, rounded once, and read as any model."""

import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from tensorsurgeon.checkpoint import ShardReader, lay_out, open_checkpoint
from tensorsurgeon.errors import CheckpointError, OutputError, PlanError
from tensorsurgeon.specs import DType, StoredTensor, TensorSpec, size_text
from tensorsurgeon.trainer.export import plan_export, write_checkpoint
from tensorsurgeon.trainer.export.plan import ExportedTensor
from tensorsurgeon.trainer.export.tensors import TensorWriter
from tensorsurgeon.trainer.result import telling
from tensorsurgeon.writing import Disk, ShardFiles
from tests.trainer.export.jobs import Job, trained
from tests.trainer.export.models import (
    DEPTH,
    TRAINING,
    command,
    export_of,
    make_base,
    same,
    tensors_of,
    values_of,
)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

HEAD = "lm_head.weight"
NORM = "model.norm.weight"


@pytest.fixture(params=["tied", "untied"])
def grown(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def test_training_that_changed_nothing_gives_every_tensor_bit_for_bit(
    grown: Path, tmp_path: Path
) -> None:
    export = export_of(grown)
    write_checkpoint(export, tmp_path / "out", same(export.checkpoint))
    before, after = tensors_of(grown), tensors_of(tmp_path / "out")
    assert before.keys() == after.keys()
    assert (HEAD in after) == (grown.parent.name.startswith("untied"))
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert torch.equal(tensor.view(torch.int16), after[name].view(torch.int16)), name


def test_result_loads_in_transformers_with_the_logits_of_the_values(
    grown: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    tensors = tensors_of(grown)
    chance = torch.Generator().manual_seed(1)
    trained = {
        n: t.float() + 0.02 * torch.randn(t.shape, generator=chance) for n, t in tensors.items()
    }
    write_checkpoint(export_of(grown, dtype="float32"), tmp_path / "out", values_of(trained))
    model, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype="auto", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.float32
    assert model.config.tie_word_embeddings == (HEAD not in tensors)
    wanted = AutoModelForCausalLM.from_pretrained(grown, dtype=torch.float32)
    wanted.load_state_dict(trained, strict=False)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, wanted(tokens).logits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_is_that_of_every_tensor_and_all_that_changes_in_the_config(
    dtype: str, tied: Path, tmp_path: Path
) -> None:
    before = tensors_of(tied)
    chance = torch.Generator().manual_seed(2)
    trained = {
        n: t.float() + 0.1 * torch.randn(t.shape, generator=chance) for n, t in before.items()
    }

    def values(name: str) -> Tensor | None:
        return None if name == NORM else trained[name]  # which was not trained

    write_checkpoint(export_of(tied, dtype=dtype), tmp_path / "out", values)
    after = tensors_of(tmp_path / "out")
    for name, tensor in trained.items():
        want = (before[name] if name == NORM else tensor).to(DTYPES[dtype])
        assert after[name].dtype == want.dtype
        assert torch.equal(after[name], want), name
    config = json.loads((tied / "config.json").read_text())
    assert json.loads((tmp_path / "out/config.json").read_text()) == {**config, "dtype": dtype}
    assert "sound" in command("verify", tmp_path / "out")


def test_tensors_without_values_are_copied_byte_for_byte(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tied=True)
    # A buffer of integers, and numbers that no arithmetic would leave as they are.
    odd = {"model.steps": torch.arange(5), "model.odd": torch.tensor([float("nan"), -0.0, 1e-42])}
    one = {**tensors_of(base), **odd}
    for path in base.glob("model*"):
        path.unlink()
    save_file(one, base / "model.safetensors", metadata={"format": "pt"})
    export = export_of(base, depth=4)
    asked = []

    def values(name: str) -> Tensor | None:
        asked.append(name)
        return None if name in odd or name == NORM else one[name].float()

    write_checkpoint(export, tmp_path / "out", values)
    assert asked == [tensor.spec.name for tensor in export.tensors]
    assert sorted(asked) == sorted(one)
    after = tensors_of(tmp_path / "out")
    for name, tensor in one.items():
        assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)), name


def test_shards_are_no_larger_than_asked_and_listed_in_the_index(
    tied: Path, tmp_path: Path
) -> None:
    export = export_of(tied, max_shard_size=20_000)
    write_checkpoint(export, tmp_path / "out", same(export.checkpoint))
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 3
    assert set(index["weight_map"].values()) == {path.name for path in shards}
    assert "sound" in command("verify", tmp_path / "out")
    with pytest.raises(PlanError, match="does not fit a shard of 100 B"):
        export_of(tied, max_shard_size=100)


def test_only_one_tensor_is_held_at_a_time(tied: Path, tmp_path: Path) -> None:
    export = export_of(tied)
    tensors = tensors_of(tied)
    given: list[weakref.ref[Tensor]] = []

    def values(name: str) -> Tensor:
        assert all(reference() is None for reference in given)
        whole = tensors[name].float()
        given.append(weakref.ref(whole))
        return whole

    write_checkpoint(export, tmp_path / "out", values)
    assert len(given) == len(tensors)


@pytest.mark.parametrize(
    ("dtype", "change", "message", "fix"),
    [
        ("float16", 70_000.0, "reaches 70000, which float16 cannot hold", "dtype: bfloat16, or"),
        ("float16", 65_520.0, "reaches 65520, which float16 cannot hold", "dtype: bfloat16, or"),
        ("bfloat16", 3.4e38, "reaches 3.4e+38, which bfloat16 cannot hold", "dtype: bfloat16, or"),
        ("float32", float("nan"), "has values that are not finite", "an earlier checkpoint"),
        ("bfloat16", float("-inf"), "has values that are not finite", "an earlier checkpoint"),
    ],
)
def test_value_that_the_dtype_cannot_hold_is_an_error_that_names_the_tensor(
    dtype: str, change: float, message: str, fix: str, tied: Path, tmp_path: Path
) -> None:
    trained = {name: tensor.float() for name, tensor in tensors_of(tied).items()}
    trained[NORM][3] = change
    with pytest.raises(OutputError) as error:
        write_checkpoint(export_of(tied, dtype=dtype), tmp_path / "out", values_of(trained))
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/out: '{NORM}' {message}")
    assert fix in text
    assert not list(tmp_path.iterdir())


def test_largest_finite_values_are_written(tied: Path, tmp_path: Path) -> None:
    trained = {name: tensor.float() for name, tensor in tensors_of(tied).items()}
    trained[NORM][:3] = torch.tensor([65_519.9, -65_504.0, 6e-8])  # rounds to the largest
    write_checkpoint(export_of(tied, dtype="float16"), tmp_path / "out", values_of(trained))
    found = tensors_of(tmp_path / "out")[NORM][:3].tolist()
    assert found == [65_504.0, -65_504.0, 2**-24]


Written = Callable[[Tensor, str, int], Tensor]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Writes a tensor behind some others, and reads it with the safetensors library."""
    folder = tmp_path_factory.mktemp("written")

    def written(values: Tensor, dtype: str, before: int) -> Tensor:
        spec = TensorSpec(name="values", dtype=DType(dtype), shape=tuple(values.shape))
        other = TensorSpec(name="a", dtype=DType(dtype), shape=(before,))
        (shard,) = lay_out([other, spec], 1 << 30)
        files, stored = ShardFiles(Disk(), folder), folder / "none"
        files.lay_down([shard])
        writer = TensorWriter(ShardReader({}), files)
        for at, offset in zip(shard.specs, shard.offsets, strict=True):
            tensor = ExportedTensor(
                spec=at,
                stored=StoredTensor(spec=at, path=stored, offset=0),
                shard=shard.name,
                offset=offset,
            )
            writer.write(tensor, values if at is spec else torch.zeros(before))
        writer.close()
        files.close()
        return tensors_of(folder)["values"]

    return written


@given(
    values=st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=40),
    before=st.integers(0, 3000),
)
def test_bfloat16_is_rounded_to_the_nearest_even(
    values: list[float], before: int, written: Written
) -> None:
    bits = np.array(values, np.float32).view(np.uint32).astype(np.uint64)
    want = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    found = written(torch.tensor(values), "BF16", before)
    assert found.view(torch.int16).numpy().view(np.uint16).tolist() == want.tolist()


@given(
    values=st.lists(st.floats(-65_500, 65_500, width=32), min_size=1, max_size=40),
    before=st.integers(0, 3000),
)
def test_float16_is_rounded_as_numpy_rounds(
    values: list[float], before: int, written: Written
) -> None:
    want = np.array(values, np.float32).astype(np.float16)
    found = written(torch.tensor(values), "F16", before)
    assert found.view(torch.int16).numpy().tolist() == want.view(np.int16).tolist()


def test_eight_bits_are_rounded_as_torch_rounds_and_nothing_becomes_nan(written: Written) -> None:
    values = torch.linspace(-448, 448, 500)
    for name, dtype in (("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)):
        assert torch.equal(written(values, name, 3).float(), values.to(dtype).float())
    with pytest.raises(OutputError, match="'values' reaches 500, which float8_e4m3fn cannot hold"):
        written(torch.tensor([500.0]), "F8_E4M3", 0)


@pytest.mark.parametrize("before", [0, 3, 2048, 5000])
def test_tensor_of_several_pieces_is_written_at_any_offset(before: int, written: Written) -> None:
    values = torch.arange(3 * 2**20 + 7, dtype=torch.float32)
    assert torch.equal(written(values, "F32", before), values)
    assert torch.equal(written(values, "BF16", before), values.bfloat16())


def test_source_that_changes_meanwhile_is_an_error(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tied=True)
    export = export_of(base, depth=4)
    tensors = tensors_of(base)
    path = next(iter(export.checkpoint.tensors.values())).path

    def values(name: str) -> Tensor:
        path.touch()
        return tensors[name].float()

    with pytest.raises(CheckpointError, match="has changed since it was looked at"):
        write_checkpoint(export, tmp_path / "out", values)
    assert [entry.name for entry in tmp_path.iterdir()] == ["base"]


def test_quantized_model_in_another_dtype_is_refused(tied: Path) -> None:
    checkpoint = open_checkpoint(tied)
    config = {**checkpoint.config, "quantization_config": {"quant_method": "fp8"}}
    quantized = replace(checkpoint, config=config)
    with pytest.raises(PlanError, match="quantized model"):
        plan_export(quantized, TRAINING, depth=DEPTH, dtype="float32")
    assert plan_export(quantized, TRAINING, depth=DEPTH).config == config


def test_a_long_write_tells_how_much_is_written(job: Job, tmp_path: Path) -> None:
    told: list[str] = []
    whole = size_text(sum(tensor.spec.nbytes for tensor in job.export.tensors))
    write_checkpoint(job.export, tmp_path / "out", trained, progress=telling(told.append, "./out"))
    assert told == []
    progress = telling(told.append, "./out", every=0)
    write_checkpoint(job.export, tmp_path / "other", trained, progress=progress)
    assert len(told) == len(job.export.tensors)
    assert told[0].startswith("writing ./out: ")
    assert told[-1] == f"writing ./out: {whole} of {whole} (100%)"
