import copy

import pytest
import torch

from genie.models import chunks
from genie.models.quantizer import FSQ, VectorQuantizer, code_statistics

LEVELS = ([8, 5, 5, 5], [4, 3, 6], [7])


def spread_vectors(num: int, dim: int) -> torch.Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(0))


def fresh_vq(num_codes: int = 8, dim: int = 3, **settings) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(num_codes, dim, **{"commitment_weight": 0.25, "ema_decay": 0.9, **settings})


@pytest.mark.parametrize("levels", LEVELS)
def test_fsq_codes_and_vectors_are_two_names_of_the_same(levels):
    fsq = FSQ(levels)
    vectors, codes, loss = fsq(spread_vectors(60_000, len(levels)))
    assert torch.equal(fsq.lookup(codes), vectors)
    assert vectors.abs().max() <= 1
    assert loss == 0
    all_vectors = fsq.lookup(torch.arange(fsq.num_codes))
    assert len(all_vectors.unique(dim=0)) == fsq.num_codes


@pytest.mark.parametrize("levels", LEVELS)
def test_every_fsq_code_can_be_reached(levels):
    fsq = FSQ(levels)
    codes = fsq(spread_vectors(60_000, len(levels)))[1]
    assert torch.equal(codes.unique(), torch.arange(fsq.num_codes))


def test_fsq_rounds_to_the_nearest_level():
    fsq = FSQ([5])
    z = torch.linspace(-3, 3, 601).unsqueeze(-1)
    nearest = (2.002 * z.tanh()).round() / 2
    assert torch.equal(fsq(z)[0], nearest)


def test_fsq_gradient_passes_the_rounding():
    z = spread_vectors(50, 3).requires_grad_()
    FSQ([5, 3, 7])(z)[0].sum().backward()
    torch.testing.assert_close(z.grad, 1.001 * (1 - z.detach().tanh() ** 2))


@pytest.mark.parametrize("num_codes", [17, 20, 1024])
def test_vq_takes_the_nearest_neighbour(num_codes, monkeypatch):
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", 64 * num_codes)  # the number of vectors is no multiple of 64
    vq = fresh_vq(num_codes=num_codes).eval()
    z = spread_vectors(500, 3).view(5, 100, 3)
    quantized, codes, _ = vq(z)
    distances = (z.double().unsqueeze(-2) - vq.codebook.double()).square().sum(-1)
    assert torch.equal(codes, distances.argmin(-1))
    torch.testing.assert_close(quantized, vq.lookup(codes))


def test_of_codes_alike_vq_takes_the_first():
    vq = fresh_vq(num_codes=64).eval()
    vq.codebook[40:] = vq.codebook[3]
    assert vq(spread_vectors(500, 3))[1].max() < 40


def test_vq_gradient_passes_straight_through_and_commits():
    vq = fresh_vq(commitment_weight=0.7).eval()
    z = spread_vectors(50, 3).requires_grad_()
    quantized, codes, loss = vq(z)
    weights = spread_vectors(50, 3).flip(0)
    (through,) = torch.autograd.grad((quantized * weights).sum(), z, retain_graph=True)
    assert torch.equal(through, weights)
    (pull,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(pull, 0.7 * 2 * (z - vq.lookup(codes)).detach() / z.numel())


def test_vq_codes_are_running_means_of_their_members():
    vq = fresh_vq().train()
    z = spread_vectors(400, 3)
    for _ in range(30):
        vq(z)
    before = copy.deepcopy(vq)
    codes = vq(z + 0.1)[1]
    for k in range(vq.num_codes):
        members = (z + 0.1)[codes == k]
        count = 0.9 * before.running_count[k] + 0.1 * len(members) / len(z)
        total = 0.9 * before.running_sum[k] + 0.1 * members.sum(0) / len(z)
        assert count > vq.revive_share / vq.num_codes, "no code of this test may die"
        torch.testing.assert_close(vq.codebook[k], total / count)


def test_dead_vq_codes_are_drawn_from_encoder_outputs():
    vq = fresh_vq().train()
    z = 100 + spread_vectors(64, 3)
    codes = vq(z)[1]
    assert len(codes.unique()) < 8
    for k in range(vq.num_codes):
        if k not in codes:
            assert (z - vq.codebook[k]).abs().sum(-1).min() < 1e-4


def test_a_collapsed_vq_recovers():
    vq = fresh_vq().train()
    z = 100 + spread_vectors(256, 3)
    before = code_statistics(vq(z)[1], 8)
    for _ in range(20):
        codes = vq(z)[1]
    after = code_statistics(codes, 8)
    assert before["codebook_perplexity"] < 2
    assert after["codebook_usage"] == 1
    assert after["codebook_perplexity"] > 4


def test_vq_in_eval_mode_changes_nothing():
    vq = fresh_vq().eval()
    before = copy.deepcopy(vq.state_dict())
    vq(100 + spread_vectors(64, 3))
    assert all(torch.equal(before[name], value) for name, value in vq.state_dict().items())


@pytest.mark.parametrize(
    ("codes", "usage", "perplexity"),
    [([0, 1, 2, 3], 1.0, 4.0), ([2, 2, 2, 2], 0.25, 1.0), ([0, 3, 3, 0], 0.5, 2.0)],
)
def test_code_statistics(codes, usage, perplexity):
    statistics = code_statistics(torch.tensor(codes).view(2, 2), 4)
    assert statistics["codebook_usage"].item() == usage
    assert statistics["codebook_perplexity"].item() == pytest.approx(perplexity)
