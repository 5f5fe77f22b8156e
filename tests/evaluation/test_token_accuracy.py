import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genie.core.actions import NO_ACTION
from genie.evaluation.token_accuracy import evaluate_dynamics
from genie.models.dynamics import Dynamics
from tests.configs import dynamics_config

CODES, PLACES, CONTEXT = 9, 16, 2
EPISODES = (7, 2, 12, 3)  # frames; one episode is too short for a window of three


@pytest.fixture
def dynamics(scrambled):
    torch.manual_seed(0)
    config = dynamics_config(
        num_codes=CODES, grid=(4, 4), num_actions=3, context_frames=CONTEXT, width=16, num_layers=1, num_heads=2
    )
    return scrambled(Dynamics(config))


@pytest.fixture
def caches():
    rng = np.random.default_rng(0)
    num_frames = sum(EPISODES)
    latent_actions = rng.integers(3, size=num_frames).astype(np.uint8)
    latent_actions[np.cumsum(EPISODES) - 1] = NO_ACTION
    return rng.integers(CODES, size=(num_frames, PLACES)).astype(np.uint16), latent_actions


def slowly(dynamics, tokens, latent_actions):
    """Slow reference: computes the same metrics window by window and frame by frame."""
    tokens = torch.from_numpy(tokens.astype(np.int64))
    actions = torch.from_numpy(latent_actions.astype(np.int64))
    losses, hits = [], []
    for start in range(len(tokens) - CONTEXT):
        if NO_ACTION in latent_actions[start : start + CONTEXT]:
            continue
        for t in range(start + 1, start + CONTEXT + 1):
            led_to = torch.cat([torch.tensor([dynamics.no_action]), actions[start : t - 1]])
            memory = dynamics.expect(dynamics.remember(tokens[None, start:t], led_to[None]), actions[t - 1 : t])
            hidden = torch.full((1, PLACES), dynamics.mask_token)
            logits_NK = dynamics.predict(hidden, memory)[0][0]
            losses.append(F.cross_entropy(logits_NK, tokens[t]).item())
            hits.append((logits_NK.argmax(-1) == tokens[t]).float().mean().item())
    return {"cross_entropy": np.mean(losses), "token_accuracy": np.mean(hits)}


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_it_is_the_mean_over_all_windows(batch_size, dynamics, caches):
    found = evaluate_dynamics(dynamics, *caches, num_windows=1000, batch_size=batch_size)
    assert found == pytest.approx(slowly(dynamics, *caches), rel=1e-5)


def test_fewer_windows_are_spread_over_the_split(dynamics, caches):
    tokens, latent_actions = caches
    later = tokens.copy()
    later[-3:] = 0
    few = [evaluate_dynamics(dynamics, t, latent_actions, num_windows=17) for t in (tokens, later)]
    assert few[0] != few[1]


def test_a_dynamics_that_knows_is_right(dynamics, caches):
    tokens, latent_actions = caches
    with torch.no_grad():  # the same features everywhere, and one token that matches them
        dynamics.token_norm.weight.zero_()
        dynamics.token_norm.bias.fill_(100)
        dynamics.token_in.weight.zero_()
        dynamics.token_in.weight[4] = 1
    assert evaluate_dynamics(dynamics, np.full_like(tokens, 4), latent_actions, 10) == {
        "cross_entropy": 0,
        "token_accuracy": 1,
    }
