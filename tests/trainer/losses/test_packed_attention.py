"""Documents in one sample see nothing of each other: asked of real models, and their gradients."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tensorsurgeon.errors import TrainingError
from tensorsurgeon.trainer import attention
from tensorsurgeon.trainer.attention import (
    VARLEN,
    check_isolation,
    choose_attention,
    packed_inputs,
    varlen_attention,
)
from tests.trainer.losses import models

CPU = torch.device("cpu")

LENGTHS = [[20, 3, 1, 16], [9, 31]]
"""Of the documents of two samples; some are longer than the sliding windows, one is a token."""

BEYOND = 2**-19
"""How far packed logits may be from those of the document alone, in shares of the largest logit:
sums of other lengths are added in another order. The most seen was 2^-20."""


@pytest.fixture(
    params=[
        (family, implementation)
        for family in ("llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3")
        for implementation in (VARLEN, "sdpa")
    ]
    + [("gemma2", "eager")],
    ids="-".join,
)
def model(request: pytest.FixtureRequest) -> Any:
    family, implementation = request.param
    config = models.config(family)
    asked = "varlen" if implementation == VARLEN else implementation
    assert choose_attention(config, CPU, asked) == implementation
    return models.model(config, implementation)


def documents() -> list[tuple[int, slice]]:
    found = []
    for sample, lengths in enumerate(LENGTHS):
        start = 0
        for length in lengths:
            found.append((sample, slice(start, start + length)))
            start += length
    return found


def random_tokens(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, models.VOCABULARY, (2, 40), generator=generator)


def test_logits_of_a_packed_document_are_those_of_it_alone(model: Any) -> None:
    tokens = random_tokens(0)
    with torch.no_grad():
        packed = models.logits(model, tokens, models.positions(LENGTHS))
        for sample, document in documents():
            alone = models.logits(
                model,
                tokens[sample, document][None],
                models.positions([[document.stop - document.start]]),
            )
            off = (packed[sample, document] - alone[0]).abs().max()
            assert off <= BEYOND * packed.abs().max()


def test_another_document_changes_not_one_bit(model: Any) -> None:
    positions = models.positions(LENGTHS)
    with torch.no_grad():
        before = models.logits(model, random_tokens(0), positions)
        for sample, document in documents():
            tokens = random_tokens(1)
            tokens[sample, document] = random_tokens(0)[sample, document]
            after = models.logits(model, tokens, positions)
            assert torch.equal(before[sample, document], after[sample, document])
            assert not torch.equal(before, after)


def test_no_gradient_reaches_another_document(model: Any) -> None:
    embedded = model.get_input_embeddings()(random_tokens(0)).detach().requires_grad_()
    inputs = packed_inputs(models.positions(LENGTHS), model.config._attn_implementation)
    logits = model(inputs_embeds=embedded, **inputs, use_cache=False).logits
    for sample, document in documents():
        (gradient,) = torch.autograd.grad(
            logits[sample, document].sin().sum(), embedded, retain_graph=True
        )
        reached = gradient.abs().sum(2) > 0
        expected = torch.zeros_like(reached)
        expected[sample, document] = True
        assert torch.equal(reached, expected)


def test_gradients_of_a_packed_sample_are_the_sum_of_its_documents(model: Any) -> None:
    tokens, parameters = random_tokens(0), list(model.parameters())
    packed = models.logits(model, tokens, models.positions(LENGTHS)).sin().sum()
    alone = sum(
        models.logits(model, tokens[i, d][None], models.positions([[d.stop - d.start]])).sin().sum()
        for i, d in documents()
    )
    assert isinstance(alone, Tensor)
    for a, b in zip(*(torch.autograd.grad(x, parameters) for x in (packed, alone)), strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3"])
def test_varlen_gives_the_logits_of_transformers_own_masks(family: str) -> None:
    positions = models.positions(LENGTHS)
    with torch.no_grad():
        ours, theirs = (
            models.logits(models.model(models.config(family), name), random_tokens(0), positions)
            for name in (choose_attention(models.config(family), CPU, "varlen"), "sdpa")
        )
    assert (ours - theirs).abs().max() <= BEYOND * theirs.abs().max()


def test_the_model_passes_the_check_that_asks_it(model: Any) -> None:
    check_isolation(
        lambda tokens, positions: models.logits(model, tokens, positions),
        vocabulary=models.VOCABULARY,
        device=CPU,
    )


@pytest.mark.parametrize("family", ["gpt_oss", "llama"])
def test_a_model_that_does_not_heed_positions_is_found_out(family: str) -> None:
    """GPT-OSS does not, as transformers has it; any other does not if it is given none."""
    model = models.model(models.config(family), "eager")

    def forward(tokens: Tensor, positions: Tensor) -> Tensor:
        if family == "llama":
            positions = torch.arange(tokens.shape[1]).expand_as(positions)
        return models.logits(model, tokens, positions)

    with pytest.raises(TrainingError, match="lets packed documents see each other") as raised:
        check_isolation(forward, vocabulary=models.VOCABULARY, device=CPU)
    assert "fix: try another 'attention'" in str(raised.value)


def test_a_model_that_gives_no_numbers_does_not_pass() -> None:
    with pytest.raises(TrainingError, match="see each other"):
        check_isolation(
            lambda tokens, _: torch.full((*tokens.shape, 1), float("nan")), vocabulary=9, device=CPU
        )


def direct(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], window: int | None) -> Tensor:
    """(1, T, heads, d): softmax over the tokens of the same document, not after, in the window."""
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    at = torch.arange(len(document))
    seen = (document[:, None] == document) & (at[:, None] >= at)
    if window is not None:
        seen &= at[:, None] - at < window
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.mT * 0.3).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    window=st.none() | st.integers(1, 12),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]),
    seed=st.integers(0, 2**31),
)
def test_varlen_is_attention_within_documents_and_windows(
    lengths: list[int], window: int | None, heads: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(1, h, sum(lengths), 5, generator=generator, dtype=torch.float64)
        for h in (heads[0], heads[1], heads[1])
    )
    inputs = packed_inputs(models.positions([lengths]), VARLEN)
    out, _ = varlen_attention(
        nn.Module(), q, k, v, None, scaling=0.3, sliding_window=window, **inputs
    )
    torch.testing.assert_close(out, direct(q, k, v, lengths, window), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", [None, models.WINDOW])
def test_the_gpu_kernel_takes_what_it_is_given(window: int | None) -> None:
    """Of shapes alone, so that it is known without a GPU: one whose signature changed would not."""
    with FakeTensorMode():
        q, k, v = (
            torch.empty(40, heads, 64, dtype=torch.bfloat16, requires_grad=True)
            for heads in (9, 3, 3)
        )
        bounds = torch.empty(4, dtype=torch.int32)
        out = attention._by_kernel(q, k, v, bounds, 20, scale=0.1, window=window)
        assert out.shape == q.shape
        for gradient, x in zip(torch.autograd.grad(out.sum(), (q, k, v)), (q, k, v), strict=True):
            assert gradient.shape == x.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("window", [None, 100])
def test_the_gpu_kernel_gives_what_one_document_at_a_time_gives(window: int | None) -> None:
    lengths = [1, 300, 70, 129]
    inputs = packed_inputs(models.positions([lengths]), VARLEN, device=torch.device("cuda"))
    torch.manual_seed(0)
    exact = [torch.randn(1, h, sum(lengths), 64, device="cuda") for h in (9, 3, 3)]
    given = [x.bfloat16().requires_grad_() for x in exact]
    alone = [x.detach().float().requires_grad_() for x in given]
    outs = [
        varlen_attention(nn.Module(), *x, None, sliding_window=window, **inputs)[0].float()
        for x in (given, alone)
    ]
    torch.testing.assert_close(*outs, rtol=2**-6, atol=2**-6)
    pairs = zip(outs, (given, alone), strict=True)
    found = [torch.autograd.grad(out.sin().sum(), inputs) for out, inputs in pairs]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=2**-4, atol=2**-5)


def test_the_bounds_of_documents_are_those_of_the_batch_laid_end_to_end() -> None:
    positions = models.positions(LENGTHS)
    positions[1] += 5  # a document that began in an earlier sample begins here all the same
    inputs = packed_inputs(positions, "flash_attention_2")
    assert inputs["cu_seq_lens_q"].tolist() == [0, 20, 23, 24, 40, 80]
    assert inputs["cu_seq_lens_q"].dtype == torch.int32
    assert inputs["cu_seq_lens_k"] is inputs["cu_seq_lens_q"]
    assert (inputs["max_length_q"], inputs["max_length_k"]) == (40, 40)


def test_implementations_that_make_masks_are_told_positions_only() -> None:
    positions = models.positions(LENGTHS)
    for name in ("sdpa", "eager", "flex_attention"):
        assert list(packed_inputs(positions, name)) == ["position_ids"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"softcap": 50.0}, "softcap"),
        ({"s_aux": torch.zeros(2)}, "s_aux"),
        ({"dropout": 0.1}, "dropout"),
        ({"is_causal": False}, "is_causal=False"),
        ({"attention_mask": torch.ones(1, 1, 4, 4)}, "attention_mask"),
        ({"cu_seq_lens_q": None}, "not told by its model where documents begin"),
    ],
)
def test_varlen_refuses_what_it_does_not_do(options: dict[str, Any], named: str) -> None:
    x = torch.zeros(1, 2, 4, 8)
    given = {"attention_mask": None} | packed_inputs(models.positions([[4]]), VARLEN) | options
    with pytest.raises(TrainingError, match=named) as raised:
        varlen_attention(nn.Identity(), x, x, x, **given)
    assert "Identity" in str(raised.value)
    assert "fix: attention: sdpa" in str(raised.value)


def test_varlen_refuses_a_padding_mask() -> None:
    model = models.model(models.config("llama"), VARLEN)
    with pytest.raises(TrainingError, match="makes no masks"):
        model(random_tokens(0), attention_mask=torch.ones(2, 40), use_cache=False)


def test_varlen_refuses_a_model_that_is_called_without_bounds() -> None:
    model = models.model(models.config("llama"), VARLEN)
    with pytest.raises(TrainingError, match="where documents begin"):
        model(random_tokens(0), use_cache=False)
