import dataclasses

import pytest
import torch
import torch.nn.functional as F

from genie.core.params import TrainingParams
from genie.models.dynamics import Dynamics, side_by_side_mask
from genie.models.motion_predictor import MotionPredictor
from genie.models.recent_motion import REMEMBERED
from genie.models.tokenizer import Tokenizer
from genie.training.step import make_optimizers
from tests.configs import dynamics_config, tokenizer_config

CODES, ACTIONS, PLACES, STEPS, BATCH = 11, 3, 16, 6, 2
CONFIG = dynamics_config(
    num_codes=CODES, grid=(4, 4), num_actions=ACTIONS, context_frames=2, width=16, num_layers=2, num_heads=2
)
INJECTIONS = ("prepend", "adaln", "add")
TRAINING = TrainingParams(batch_size=2, steps=1, lr=0.01, warmup_steps=0, weight_decay=0.1, grad_clip=1.0, seed=0)
TOKENIZER = tokenizer_config(quantizer="fsq", fsq_levels=(4, 3, 3), width=16, num_blocks=1)


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
def compensated(build, scrambled):
    """A dynamics with motion compensation; its tokens encode frames."""
    torch.manual_seed(0)
    tokenizer = scrambled(Tokenizer(TOKENIZER))
    dynamics = build(motion_compensation=True, num_codes=tokenizer.num_codes, grid=tokenizer.grid, patch_size=4)
    dynamics.see_through(tokenizer)
    return dynamics


@pytest.fixture
def seen_batch(compensated, coinrun):
    """Tokens of real frames, and random actions."""
    starts = coinrun["val"].episode_starts[:BATCH]
    frames_BTHWC = torch.stack([torch.from_numpy(coinrun["val"].read(s, s + STEPS + 1)) for s in starts])
    tokens_BTN = compensated.compensation.tokenizer.encode(frames_BTHWC.flatten(0, 1)).unflatten(0, (BATCH, -1))
    return {"tokens_BTN": tokens_BTN, "actions_BS": torch.randint(ACTIONS, (BATCH, STEPS))}


@pytest.fixture
def masked_half():
    return torch.rand(BATCH, STEPS, PLACES, generator=torch.Generator().manual_seed(2)) < 0.5


def led_to(dynamics, actions_BS):
    """Returns the action that led to each frame; none is known for the first."""
    return F.pad(actions_BS, (1, 0), value=dynamics.no_action)


def logits_BSNK(dynamics, tokens_BTN, actions_BS, mask_BSN):
    """Returns the logits of the parallel pass at masked places, 0 elsewhere."""
    return dynamics._logits(mask_BSN, tokens_BTN, actions_BS)[0] * mask_BSN.unsqueeze(-1)


def changed_steps(before_BSNK, after_BSNK):
    """Returns the steps whose logits differ in any bit."""
    return {s for s in range(STEPS) if not torch.equal(before_BSNK[:, s], after_BSNK[:, s])}


@pytest.mark.parametrize("frames_at_once", [1, 2, STEPS])
@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("patch_size", [1, 2])
def test_cached_logits_are_those_of_training(injection, patch_size, frames_at_once, build, batch, masked_half):
    dynamics = build(action_injection=injection, patch_size=patch_size)
    assert_cached_logits_are_those_of_training(dynamics, batch, masked_half, frames_at_once)


@pytest.mark.parametrize("frames_at_once", [1, 2, STEPS])
def test_cached_logits_are_those_of_training_where_motion_is_compensated(frames_at_once, compensated, seen_batch):
    masked_BSN = torch.rand(BATCH, STEPS, compensated.num_tokens, generator=torch.Generator().manual_seed(2)) < 0.5
    assert_cached_logits_are_those_of_training(compensated, seen_batch, masked_BSN, frames_at_once)


@torch.no_grad()
def assert_cached_logits_are_those_of_training(dynamics, batch, masked_half, frames_at_once):
    """Includes steps after the context window has slid: there are three times as many steps as context frames."""
    tokens_BTN, actions_BS = batch["tokens_BTN"], batch["actions_BS"]
    parallel = logits_BSNK(dynamics, tokens_BTN, actions_BS, masked_half)
    led_to_BT = led_to(dynamics, actions_BS)
    memory = dynamics.remember(tokens_BTN[:, :1], led_to_BT[:, :1])
    for s in range(STEPS):
        frame_BN = tokens_BTN[:, s + 1].masked_fill(masked_half[:, s], dynamics.mask_token)
        memory = dynamics.expect(memory, actions_BS[:, s])
        cached, read = dynamics.predict(frame_BN, memory)
        cached[~masked_half[:, s]] = 0
        torch.testing.assert_close(cached, parallel[:, s], atol=1e-4, rtol=1e-4)
        again, same = dynamics.predict(frame_BN, read)
        assert same is read, "there is nothing more to read"
        again[~masked_half[:, s]] = 0
        torch.testing.assert_close(again, parallel[:, s], atol=1e-4, rtol=1e-4)
        kept = read if (s + 1) % frames_at_once == 0 else memory
        memory = dynamics.append(tokens_BTN[:, s + 1], kept)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_memory_is_bounded_by_the_context(num_frames, build, batch):
    dynamics = build()
    led_to_BT = led_to(dynamics, batch["actions_BS"])
    memory = dynamics.remember(batch["tokens_BTN"][:, :num_frames], led_to_BT[:, :num_frames])
    assert torch.equal(memory.last_BN, batch["tokens_BTN"][:, num_frames - 1])
    hidden_BN = torch.full((BATCH, PLACES), dynamics.mask_token)
    _, memory = dynamics.predict(hidden_BN, dynamics.expect(memory, batch["actions_BS"][:, 0]))
    assert torch.equal(memory.last_BN, batch["tokens_BTN"][:, num_frames - 1])
    assert memory.num_read_B.tolist() == [num_frames] * BATCH
    assert memory.unread_BTN.shape == (BATCH, 0, PLACES)
    assert len(memory.keys_values) == CONFIG.num_layers
    lengths = {tensor.shape[-2] for layer in memory.keys_values for tensor in layer}
    assert lengths == {min(num_frames, CONFIG.context_frames)}


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("context_frames", [1, 2])
@torch.no_grad()
def test_who_sees_whom(injection, num_layers, context_frames, build, batch):
    dynamics = build(action_injection=injection, num_layers=num_layers, context_frames=context_frames)
    tokens_BTN, actions_BS = batch["tokens_BTN"], batch["actions_BS"]
    everywhere = torch.ones_like(tokens_BTN[:, 1:], dtype=torch.bool)
    before = logits_BSNK(dynamics, tokens_BTN, actions_BS, everywhere)
    for t in range(STEPS):
        # Each layer reads C frames back; the oldest one's input includes the frame before it and the action between.
        felt = set(range(t, min(STEPS, t + 1 + num_layers * context_frames)))
        other_BTN = tokens_BTN.clone()
        other_BTN[:, t] = (tokens_BTN[:, t] + 1) % CODES
        assert changed_steps(before, logits_BSNK(dynamics, other_BTN, actions_BS, everywhere)) == felt
        other_BS = actions_BS.clone()
        other_BS[:, t] = (actions_BS[:, t] + 1) % ACTIONS
        assert changed_steps(before, logits_BSNK(dynamics, tokens_BTN, other_BS, everywhere)) == felt


@torch.no_grad()
def test_motion_is_remembered_for_a_while_and_never_foreseen(compensated, seen_batch):
    """A frame affects no earlier step, and later ones via the context and the R transitions that predict the motion."""
    tokens_BTN, actions_BS = seen_batch["tokens_BTN"], seen_batch["actions_BS"]
    everywhere = torch.ones_like(tokens_BTN[:, 1:], dtype=torch.bool)
    before = logits_BSNK(compensated, tokens_BTN, actions_BS, everywhere)
    for t in range(STEPS):
        other_BTN = tokens_BTN.clone()
        other_BTN[:, t] = torch.randint(compensated.config.num_codes, other_BTN[:, t].shape)
        changed = changed_steps(before, logits_BSNK(compensated, other_BTN, actions_BS, everywhere))
        reach = CONFIG.num_layers * CONFIG.context_frames + REMEMBERED + 1
        assert {t} <= changed <= set(range(t, min(STEPS, t + reach)))


def test_the_predictor_is_taken_over_and_kept_as_it_is(compensated, seen_batch, scrambled):
    torch.manual_seed(2)
    learnt = scrambled(MotionPredictor(compensated.compensation.predictor.config))
    compensated.foresee_by(learnt)
    loss, metrics = compensated.train()(seen_batch)
    loss.backward()
    make_optimizers(compensated, TRAINING)["muon"].step()
    assert metrics["motion_error"] > 0
    kept = compensated.compensation.predictor.state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in learnt.state_dict().items())
    assert {name for name, weight in compensated.named_parameters() if weight.grad is None} == {
        f"compensation.predictor.{name}" for name, _ in learnt.named_parameters()
    }


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_no_masked_frame_sees_another(injection, build, batch, masked_half):
    dynamics = build(action_injection=injection)
    before = logits_BSNK(dynamics, batch["tokens_BTN"], batch["actions_BS"], masked_half)
    for s in range(STEPS):
        other_half = masked_half.clone()
        other_half[:, s] = True
        after = logits_BSNK(dynamics, batch["tokens_BTN"], batch["actions_BS"], other_half)
        assert changed_steps(before, after) == {s}


@torch.no_grad()
def test_unmasked_places_show_their_tokens_and_masked_ones_hide_them(build, batch, masked_half):
    dynamics = build()
    tokens_BTN, actions_BS = batch["tokens_BTN"], batch["actions_BS"]
    before = logits_BSNK(dynamics, tokens_BTN, actions_BS, masked_half)
    for masked, changed in ((True, set()), (False, {STEPS - 1})):
        other_BTN = tokens_BTN.clone()  # in the last frame, which is in no step's past
        where_BN = masked_half[:, -1] == masked
        other_BTN[:, -1] = torch.where(where_BN, (tokens_BTN[:, -1] + 1) % CODES, tokens_BTN[:, -1])
        assert changed_steps(before, logits_BSNK(dynamics, other_BTN, actions_BS, masked_half)) == changed


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
    memory = dynamics.remember(batch["tokens_BTN"][:, :1], led_to(dynamics, batch["actions_BS"])[:, :1])
    hidden_BN = torch.full((BATCH, PLACES), dynamics.mask_token)
    awaiting = [dynamics.expect(memory, torch.full((BATCH,), action)) for action in range(ACTIONS)]
    told = [dynamics.predict(hidden_BN, memory)[0] for memory in awaiting]
    assert min((told[0] - told[1]).abs().max(), (told[0] - told[2]).abs().max()) > 1e-3


@torch.no_grad()
def test_eval_mode_measures_wholly_masked_frames(build, batch):
    dynamics = build(context_noise=0.9)
    loss, metrics = dynamics(batch)
    assert torch.equal(loss, dynamics(batch)[0])
    led_to_BT, losses, hits = led_to(dynamics, batch["actions_BS"]), [], []
    memory = dynamics.remember(batch["tokens_BTN"][:, :1], led_to_BT[:, :1])
    hidden_BN = torch.full((BATCH, PLACES), dynamics.mask_token)
    for s in range(STEPS):
        target_BN, action_B = batch["tokens_BTN"][:, s + 1], batch["actions_BS"][:, s]
        logits_BNK, memory = dynamics.predict(hidden_BN, dynamics.expect(memory, action_B))
        memory = dynamics.append(target_BN, memory)
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
    """With full masking and full context noise, the loss must depend on the targets but not on the context."""
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


def test_tokens_that_paint_alike_begin_alike(build):
    dynamics = build(num_codes=40, width=64)
    mask_D = dynamics.token_in.weight[40].clone()
    torch.manual_seed(0)
    kinds_KP = torch.rand(4, 48).repeat_interleave(10, dim=0)  # four appearances, ten codes each
    dynamics.draw_embeddings(kinds_KP + 0.01 * torch.randn(40, 48))
    weight_KD = dynamics.token_in.weight[:40].detach()
    alike_KK = torch.arange(40).unsqueeze(1) // 10 == torch.arange(40) // 10
    distance_KK = torch.cdist(weight_KD, weight_KD)
    different_codes = ~torch.eye(40, dtype=torch.bool)
    assert distance_KK[alike_KK & different_codes].mean() < 0.7 * distance_KK[~alike_KK].mean()
    assert torch.equal(dynamics.token_in.weight[40], mask_D)
