import math

import numpy as np
import pytest
import torch

from genie.data.transitions import TransitionWindows
from genie.evaluation.arrow_accuracy import evaluate_arrows
from genie.models.steering import Steering, SteeringConfig


@pytest.fixture
def transitions(coinrun):
    """Transitions whose latent actions are determined by odd effects, and random for even ones."""
    store = coinrun["val"]
    effects, steering = store.actions(), Steering(SteeringConfig(6, 3))
    latents = np.where(effects % 2, effects // 2, np.random.default_rng(0).integers(3, size=len(effects))) % 3
    labels = {"effects_M": effects, "actions_M": latents, "before_M": np.roll(latents, 1)}
    return TransitionWindows(steering, store, 64, 0, 3, labels)


def test_bits_are_those_counted_one_by_one(transitions):
    batches = [transitions[step] for step in range(3)]
    effects, latents = (torch.cat([batch[name] for batch in batches]).tolist() for name in ("effects_M", "actions_M"))
    pairs = list(zip(effects, latents, strict=True))
    metrics = evaluate_arrows(Steering(SteeringConfig(6, 3)), transitions)
    assert metrics["arrow_bits"] == pytest.approx(math.log2(3)), "it is born knowing nothing"
    given_effect = [pairs.count(pair) / effects.count(pair[0]) for pair in pairs]
    given_nothing = [latents.count(latent) / len(pairs) for latent in latents]
    assert metrics["arrow_bits_effect_alone"] == pytest.approx(-np.log2(given_effect).mean())
    assert metrics["arrow_bits_chance"] == pytest.approx(-np.log2(given_nothing).mean())
    likeliest = sum(max(pairs.count((effect, latent)) for latent in range(3)) for effect in range(6))
    assert metrics["arrow_accuracy_effect_alone"] == pytest.approx(likeliest / len(pairs))
