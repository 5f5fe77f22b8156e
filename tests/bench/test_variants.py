import pytest
import torch

from genie.bench.variants import (
    attention_cases,
    chunked_loss,
    compare,
    loss_case,
    plain_attention,
    side_by_side_attention,
    whole_loss,
)
from genie.models.dynamics import UNMASKED, side_by_side_mask
from genie.models.st_transformer import attend

FRAMES, CONTEXT = 5, 2


@pytest.fixture
def qkv():
    return torch.randn(3, 4, 2, 2 * FRAMES, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_attentions_are_that_of_the_dynamics(qkv):
    mask = side_by_side_mask(FRAMES, CONTEXT)
    expected = attend(*qkv, mask)
    torch.testing.assert_close(plain_attention(*qkv, mask), expected)
    torch.testing.assert_close(side_by_side_attention(*qkv, mask), expected)
    torch.testing.assert_close(plain_attention(*qkv, None), attend(*qkv))


def test_losses_are_equal():
    features_RE, codes_KE = torch.randn(50, 8).double(), torch.randn(11, 8).double()
    targets_R = torch.randint(11, (50,))
    targets_R[::3] = UNMASKED
    losses = [loss(features_RE, codes_KE, targets_R) for loss in (whole_loss, chunked_loss)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_variants_agree_at_the_shapes_of_the_dynamics(tiny_params, tiny_rounds, precision):
    cases = attention_cases(tiny_params, torch.device("cpu")) | {"loss": loss_case(tiny_params, torch.device("cpu"))}
    measured = {name: compare(case, precision) for name, case in cases.items()}
    assert {name: set(variants) for name, variants in measured.items()} == {
        "spatial": {"fused", "plain"},
        "temporal": {"fused", "plain", "side_by_side"},
        "loss": {"whole", "chunked"},
    }


def test_a_variant_that_differs_is_not_measured(tiny_params, tiny_rounds):
    variants, inputs = attention_cases(tiny_params, torch.device("cpu"))["spatial"]
    with pytest.raises(AssertionError, match="wrong differs from fused by"):
        compare((variants | {"wrong": lambda q, k, v: plain_attention(q, 2 * k, v, None)}, inputs), "no")
