from itertools import pairwise

import pytest
import torch

from genie.models import chunks
from genie.models.batch_axis import split
from genie.models.dynamics import Dynamics
from genie.world.maskgit import num_masked_after, sample_frame
from tests.configs import dynamics_config

CODES, PLACES, BATCH = 11, 16, 3
ACTION_B = torch.tensor([0, 1, 2])


@pytest.fixture
def dynamics(scrambled):
    torch.manual_seed(0)
    config = dynamics_config(
        num_codes=CODES, grid=(4, 4), num_actions=3, context_frames=2, width=16, num_layers=1, num_heads=2
    )
    return scrambled(Dynamics(config))


@pytest.fixture
def memory(dynamics):
    tokens_BTN = torch.randint(CODES, (BATCH, 1, PLACES), generator=torch.Generator().manual_seed(1))
    return dynamics.remember(tokens_BTN, torch.full((BATCH, 1), dynamics.no_action))


def sample(dynamics, memory, num_steps=4, temperature=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return sample_frame(dynamics, memory, ACTION_B, num_steps, temperature, [generator]).last_BN


class Dice:
    """Stands in for a dynamics whose every token has the same known distribution."""

    mask_token, num_tokens, compensation = 3, 2000, None
    logits_K = torch.tensor([0.0, 1.0, 2.0])
    remember, expect, append = Dynamics.remember, Dynamics.expect, Dynamics.append

    def predict(self, tokens_BN, memory):
        return self.logits_K.expand(*tokens_BN.shape, 3), memory


@pytest.mark.parametrize("num_tokens", [1, 16, 256])
@pytest.mark.parametrize("num_steps", [1, 2, 8, 25, 300])
def test_the_schedule_falls_to_zero(num_tokens, num_steps):
    masked = num_masked_after(num_tokens, num_steps)
    assert len(masked) == num_steps
    assert masked[-1] == 0
    assert masked == sorted(masked, reverse=True)
    assert masked[0] <= num_tokens


def test_the_schedule_is_a_cosine():
    assert num_masked_after(256, 3) == [221, 128, 0]


@pytest.mark.parametrize("num_steps", [1, 2, 5, 40])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
def test_no_mask_token_is_left(num_steps, temperature, dynamics, memory):
    tokens_BN = sample(dynamics, memory, num_steps, temperature)
    assert tokens_BN.shape == (BATCH, PLACES)
    assert tokens_BN.min() >= 0
    assert tokens_BN.max() < CODES


def test_a_seed_decides_the_frame(dynamics, memory):
    assert torch.equal(sample(dynamics, memory, seed=1), sample(dynamics, memory, seed=1))
    assert not torch.equal(sample(dynamics, memory, seed=1), sample(dynamics, memory, seed=2))


def test_each_generator_draws_what_it_draws_alone(dynamics, memory):
    def sampled(memory, rows, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return sample_frame(dynamics, memory, ACTION_B[rows], 4, 1.0, generators).last_BN

    together = sampled(memory, slice(None), (5, 6, 5))
    for row, seed in enumerate((5, 6, 5)):
        alone = split(memory, BATCH)[row]
        assert torch.equal(together[row], sampled(alone, slice(row, row + 1), [seed])[0])


def test_one_step_without_temperature_is_the_argmax(dynamics, memory):
    hidden_BN = torch.full((BATCH, PLACES), dynamics.mask_token)
    most_likely_BN = dynamics.predict(hidden_BN, dynamics.expect(memory, ACTION_B))[0].argmax(-1)
    assert torch.equal(sample(dynamics, memory, num_steps=1, temperature=0), most_likely_BN)


def test_rows_differ_by_their_past_and_action_alone(dynamics):
    tokens_BTN = torch.arange(PLACES).expand(BATCH, 1, PLACES) % CODES
    memory = dynamics.remember(tokens_BTN, torch.full((BATCH, 1), dynamics.no_action))
    same_BN = sample_frame(dynamics, memory, torch.tensor([2, 2, 0]), num_steps=4, temperature=0).last_BN
    assert torch.equal(same_BN[0], same_BN[1])
    assert not torch.equal(same_BN[0], same_BN[2])


def test_what_is_revealed_stays(dynamics, memory, monkeypatch):
    seen, predict = [], dynamics.predict

    def watched(tokens_BN, *args):
        seen.append(tokens_BN)
        return predict(tokens_BN, *args)

    monkeypatch.setattr(dynamics, "predict", watched)
    seen.append(sample(dynamics, memory, num_steps=5))
    masked = [(tokens_BN == dynamics.mask_token).sum(1) for tokens_BN in seen]
    assert [m.tolist() for m in masked] == [[m] * BATCH for m in [PLACES, *num_masked_after(PLACES, 5)]]
    for before, after in pairwise(seen):
        revealed = before != dynamics.mask_token
        assert torch.equal(before[revealed], after[revealed])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_from_the_tempered_softmax(temperature):
    generator = torch.Generator().manual_seed(0)
    dice = Dice()
    memory = dice.remember(torch.zeros(10, 1, dice.num_tokens, dtype=torch.long), torch.zeros(10, 1))
    tokens_BN = sample_frame(dice, memory, torch.zeros(10, dtype=torch.long), 2, temperature, [generator]).last_BN
    share_K = torch.bincount(tokens_BN.flatten(), minlength=3) / tokens_BN.numel()
    torch.testing.assert_close(share_K, (Dice.logits_K / temperature).softmax(0), atol=0.015, rtol=0)


def test_parts_draw_what_the_whole_does(dynamics, memory, monkeypatch):
    whole = sample(dynamics, memory)
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", 5 * CODES)
    assert torch.equal(sample(dynamics, memory), whole)


def test_an_impossible_token_is_never_drawn():
    dice = Dice()
    dice.logits_K = torch.tensor([-torch.inf, 0.0, -torch.inf])
    memory = dice.remember(torch.zeros(10, 1, dice.num_tokens, dtype=torch.long), torch.zeros(10, 1))
    tokens_BN = sample_frame(dice, memory, torch.zeros(10, dtype=torch.long), 2, 0.5, [torch.Generator()]).last_BN
    assert torch.equal(tokens_BN, torch.ones_like(tokens_BN))
