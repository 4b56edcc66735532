"""Block expansion: new layers that change no bit of what a model computes, in every family."""

import pytest
import torch

from tensorsurgeon.errors import ArchitectureError
from tests.families.conftest import Base, Grow
from tests.families.folders import read_config
from tests.families.models import BERT, DECODERS, DEEPSEEK, INFERRED, LLAMA, MINILM, Family
from tests.families.reference import load, outputs


@pytest.mark.parametrize("family", DECODERS, ids=str)
def test_known_decoder_computes_the_same_bit_for_bit(
    family: Family, base: Base, grow: Grow
) -> None:
    folder = base(family)
    model = load(grow({"block_expansion": {"model": "base", "every": 2}}, base=folder), family)
    assert len(model.get_submodule(family.layers)) == family.depth + family.depth // 2
    assert torch.equal(outputs(model), outputs(load(folder, family)))


def test_copies_that_are_not_zeroed_would_show_in_the_outputs(base: Base, grow: Grow) -> None:
    folder = base(LLAMA)
    pairs = [{"model": "base", "layers": [0, 2]}, {"model": "base", "layers": [1, LLAMA.depth]}]
    model = load(grow({"stack": pairs}, base=folder), LLAMA)
    assert not torch.equal(outputs(model), outputs(load(folder, LLAMA)))


@pytest.mark.parametrize("family", INFERRED, ids=str)
def test_unknown_decoder_computes_the_same_once_it_is_said_what_to_zero(
    family: Family, base: Base, grow: Grow
) -> None:
    folder = base(family)
    expansion = {"model": "base", "every": 2, "zero": list(family.zero)}
    model = load(grow({"block_expansion": expansion}, base=folder), family)
    assert len(model.get_submodule(family.layers)) == family.depth + family.depth // 2
    assert torch.equal(outputs(model), outputs(load(folder, family)))


@pytest.mark.parametrize("family", [BERT, MINILM, *INFERRED], ids=str)
def test_family_of_which_it_is_not_known_what_to_zero_is_refused(
    family: Family, base: Base, grow: Grow
) -> None:
    with pytest.raises(ArchitectureError, match=r"not known which tensors of \w+ to zero"):
        grow({"block_expansion": {"model": "base", "every": 2}}, base=base(family))


def test_copy_of_a_dense_layer_is_counted_among_the_dense_ones(base: Base, grow: Grow) -> None:
    folder = base(DEEPSEEK)
    expansion = {"model": "base", "every": 1, "zero": list(DEEPSEEK.zero)}
    grown = grow({"block_expansion": expansion}, base=folder)
    assert read_config(folder)["first_k_dense_replace"] == 1
    assert read_config(grown)["first_k_dense_replace"] == 2
    assert torch.equal(outputs(load(grown, DEEPSEEK)), outputs(load(folder, DEEPSEEK)))
