import dataclasses

import pytest
import torch
import torch.nn.functional as F

from genie.models.dynamics import Dynamics, DynamicsConfig, side_by_side_mask

CODES, ACTIONS, PLACES, STEPS, BATCH = 11, 3, 16, 6, 2
CONFIG = DynamicsConfig(
    num_codes=CODES, grid=(4, 4), num_actions=ACTIONS, context_frames=2, width=16, num_layers=2, num_heads=2
)
INJECTIONS = ("prepend", "adaln", "add")


@pytest.fixture
def build(scrambled):
    def build(**changes) -> Dynamics:
        torch.manual_seed(0)
        return scrambled(Dynamics(dataclasses.replace(CONFIG, **changes)))

    return build


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return {
        "tokens_BTN": torch.randint(CODES, (BATCH, STEPS + 1, PLACES), generator=generator),
        "actions_BS": torch.randint(ACTIONS, (BATCH, STEPS), generator=generator),
    }


@pytest.fixture
def masked_half():
    return torch.rand(BATCH, STEPS, PLACES, generator=torch.Generator().manual_seed(2)) < 0.5


def led_to(dynamics, actions_BS):
    """The action that led to each frame: none is known for the first."""
    return F.pad(actions_BS, (1, 0), value=dynamics.no_action)


def logits_BSNK(dynamics, clean_BSN, targets_BSN, actions_BS, where_BSN):
    """Logits of the parallel pass at masked places, 0 elsewhere."""
    logits = torch.zeros(*where_BSN.shape, CODES)
    logits[where_BSN] = dynamics._logits_at(where_BSN, clean_BSN, targets_BSN, actions_BS)
    return logits


def changed_steps(before_BSNK, after_BSNK):
    """Steps of whose logits so much as a bit differs."""
    return {s for s in range(STEPS) if not torch.equal(before_BSNK[:, s], after_BSNK[:, s])}


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize("frames_at_once", [1, 2, STEPS])
@torch.no_grad()
def test_cached_logits_are_those_of_training(injection, patch_size, frames_at_once, build, batch, masked_half):
    """Also where the window has slid: there are three times as many steps as context frames."""
    dynamics = build(action_injection=injection, patch_size=patch_size)
    tokens_BTN, actions_BS = batch["tokens_BTN"], batch["actions_BS"]
    parallel = logits_BSNK(dynamics, tokens_BTN[:, :-1], tokens_BTN[:, 1:], actions_BS, masked_half)
    led_by_BT = led_to(dynamics, actions_BS)
    past = None
    for s in range(STEPS):
        if s % frames_at_once == 0:
            past_until_s = past
        since = slice(s - s % frames_at_once, s + 1)
        past = dynamics.remember(tokens_BTN[:, since], led_by_BT[:, since], since.start, past_until_s)
        frame_BN = tokens_BTN[:, s + 1].masked_fill(masked_half[:, s], dynamics.mask_token)
        cached = dynamics.predict(frame_BN, actions_BS[:, s], s + 1, past)
        cached[~masked_half[:, s]] = 0
        torch.testing.assert_close(cached, parallel[:, s], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_memory_is_bounded_by_the_context(num_frames, build, batch):
    dynamics = build()
    actions_BT = led_to(dynamics, batch["actions_BS"])
    past = dynamics.remember(batch["tokens_BTN"][:, :num_frames], actions_BT[:, :num_frames])
    assert len(past) == CONFIG.num_layers
    assert {tensor.shape[-2] for layer in past for tensor in layer} == {min(num_frames, CONFIG.context_frames)}


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_who_sees_whom(injection, build, batch, masked_half):
    dynamics = build(action_injection=injection)
    clean, targets, actions = batch["tokens_BTN"][:, :-1], batch["tokens_BTN"][:, 1:], batch["actions_BS"]
    before = logits_BSNK(dynamics, clean, targets, actions, masked_half)
    for t in range(STEPS):
        other_clean, other_targets, other_actions = clean.clone(), targets.clone(), actions.clone()
        other_clean[:, t] = (clean[:, t] + 1) % CODES
        other_targets[:, t] = (targets[:, t] + 1) % CODES
        other_actions[:, t] = (actions[:, t] + 1) % ACTIONS
        # Two layers of two frames each: a clean frame is felt up to four steps on, here to the end or nearly.
        felt = set(range(t, min(STEPS, t + 4)))
        after = logits_BSNK(dynamics, other_clean, targets, actions, masked_half)
        assert changed_steps(before, after) == felt, "a clean frame"
        after = logits_BSNK(dynamics, clean, other_targets, actions, masked_half)
        assert changed_steps(before, after) == {t}, "a masked frame"
        after = logits_BSNK(dynamics, clean, targets, other_actions, masked_half)
        assert changed_steps(before, after) == set(range(t, min(STEPS, t + 5))), "an action"


@torch.no_grad()
def test_masked_places_hide_their_tokens(build, batch, masked_half):
    dynamics = build()
    clean, targets, actions = batch["tokens_BTN"][:, :-1], batch["tokens_BTN"][:, 1:], batch["actions_BS"]
    other_targets = torch.where(masked_half, (targets + 1) % CODES, targets)
    logits = [logits_BSNK(dynamics, clean, x, actions, masked_half) for x in (targets, other_targets)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("context_frames", [1, 2, 3])
@torch.no_grad()
def test_one_layer_sees_context_frames_back(context_frames, build, batch):
    dynamics = build(num_layers=1, context_frames=context_frames)
    clean, targets, actions = batch["tokens_BTN"][:, :-1], batch["tokens_BTN"][:, 1:], batch["actions_BS"]
    everywhere = torch.ones_like(targets, dtype=torch.bool)
    other_clean = clean.clone()
    other_clean[:, 1] = (clean[:, 1] + 1) % CODES
    logits = [logits_BSNK(dynamics, x, targets, actions, everywhere) for x in (clean, other_clean)]
    assert changed_steps(*logits) == set(range(1, 1 + context_frames))


def test_side_by_side_mask_by_hand():
    rows = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 1],
    ]
    assert torch.equal(side_by_side_mask(3, 1), torch.tensor(rows).bool())


@pytest.mark.parametrize("injection", INJECTIONS)
def test_the_action_matters(injection, build, batch):
    dynamics = build(action_injection=injection)
    loss, _ = dynamics(batch)
    (gradient,) = torch.autograd.grad(loss, dynamics.action_in.weight)
    assert (gradient.abs().amax(1) > 0).all(), "every action's vector, and that of none, is learned"
    past = dynamics.remember(batch["tokens_BTN"][:, :1], led_to(dynamics, batch["actions_BS"])[:, :1])
    hidden_BN = torch.full((BATCH, PLACES), dynamics.mask_token)
    told = [dynamics.predict(hidden_BN, torch.full((BATCH,), action), 1, past) for action in range(ACTIONS)]
    assert min((told[0] - told[1]).abs().max(), (told[0] - told[2]).abs().max()) > 1e-3


@torch.no_grad()
def test_eval_mode_measures_wholly_masked_frames(build, batch):
    dynamics = build(context_noise=0.9)
    loss, metrics = dynamics(batch)
    assert torch.equal(loss, dynamics(batch)[0])
    led_by_BT, past, losses, hits = led_to(dynamics, batch["actions_BS"]), None, [], []
    for s in range(STEPS):
        past = dynamics.remember(batch["tokens_BTN"][:, s : s + 1], led_by_BT[:, s : s + 1], s, past)
        hidden_BN = torch.full((BATCH, PLACES), dynamics.mask_token)
        logits_BNK = dynamics.predict(hidden_BN, batch["actions_BS"][:, s], s + 1, past)
        target_BN = batch["tokens_BTN"][:, s + 1]
        losses.append(F.cross_entropy(logits_BNK.transpose(1, 2), target_BN))
        hits.append((logits_BNK.argmax(-1) == target_BN).float().mean())
    torch.testing.assert_close(loss, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(metrics["cross_entropy"], loss)
    torch.testing.assert_close(metrics["token_accuracy"], torch.stack(hits).mean())


@pytest.mark.parametrize(("min_rate", "whole", "mean"), [(0.2, 0.0, 0.6), (0.5, 0.5, 0.875), (0.0, 1.0, 1.0)])
def test_masking_rates_in_training(min_rate, whole, mean, build):
    dynamics = build(min_mask_rate=min_rate, full_mask_share=whole).train()
    torch.manual_seed(0)
    mask_BSN = dynamics._draw_mask(torch.zeros(500, 4, 256, dtype=torch.long))
    rate_BS = mask_BSN.float().mean(-1)
    assert rate_BS.min() > min_rate - 0.12
    assert rate_BS.mean().item() == pytest.approx(mean, abs=0.02)
    assert (rate_BS == 1).float().mean().item() == pytest.approx(whole, abs=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_context_noise_has_the_share_asked_for(noise, build):
    dynamics = build(num_codes=1000, context_noise=noise)
    torch.manual_seed(0)
    tokens_BSN = torch.randint(1000, (50, 8, 256))
    assert torch.equal(dynamics._add_noise(tokens_BSN), tokens_BSN), "none when it is measured"
    noisy_BSN = dynamics.train()._add_noise(tokens_BSN)
    assert (noisy_BSN != tokens_BSN).float().mean().item() == pytest.approx(noise * 0.999, abs=0.005)
    assert noisy_BSN.min() >= 0
    assert noisy_BSN.max() < 1000


def test_training_noise_spares_the_targets(build, batch):
    """Wholly masked and all context noise: the loss may not depend on the context, but on the targets it must."""
    dynamics = build(context_noise=1.0, full_mask_share=1.0).train()
    other = {**batch, "tokens_BTN": batch["tokens_BTN"].clone()}
    other["tokens_BTN"][:, 0] = 0
    losses = []
    for changed in (batch, other):
        torch.manual_seed(3)
        losses.append(dynamics(changed)[0])
    assert torch.equal(*losses)
    other["tokens_BTN"][:, -1] = 0
    torch.manual_seed(3)
    assert not torch.equal(losses[0], dynamics(other)[0])
