import pytest
import torch

from genie.models.recent_motion import REMEMBERED, RecentMotion, look, observe_motion
from genie.models.steering import FORGOTTEN, TELLING, Steering, SteeringConfig

EFFECTS, ACTIONS, BATCH, FRAMES = 3, 4, 2, 7


@pytest.fixture
def steering():
    torch.manual_seed(0)
    return Steering(SteeringConfig(EFFECTS, ACTIONS))


@pytest.fixture
def frames_BTHWC(coinrun):
    starts = coinrun["val"].episode_starts[:BATCH]
    return torch.stack([torch.from_numpy(coinrun["val"].read(start, start + FRAMES)) for start in starts])


@pytest.fixture
def batch(frames_BTHWC):
    """Each transition, combined with each effect and each previous latent action."""
    observed = {name: part.flatten(0, 1) for name, part in observe_motion(frames_BTHWC).items()}
    times = EFFECTS * ACTIONS
    batch = {name: part.repeat(times, *[1] * (part.ndim - 1)) for name, part in observed.items()}
    num_transitions = BATCH * (FRAMES - 1)
    batch["effects_M"] = torch.arange(EFFECTS).repeat_interleave(ACTIONS * num_transitions)
    batch["before_M"] = torch.arange(ACTIONS).repeat_interleave(num_transitions).repeat(EFFECTS)
    return batch


def learn(steering, batch, steps=80):
    optimizer = torch.optim.AdamW(steering.parameters(), lr=3e-3)
    for _ in range(steps):
        steering(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()


def test_what_follows_from_arrow_and_past_is_learnt_and_pressed(steering, batch, frames_BTHWC):
    """The latent action follows from the effect and the previous latent action."""
    rule = (batch["effects_M"] + batch["before_M"]) % ACTIONS
    learn(steering, batch | {"actions_M": rule})
    assert steering.eval()(batch | {"actions_M": rule})[1]["accuracy"] > 0.99
    motion = RecentMotion.of(frames_BTHWC[:, :3])
    for before in range(ACTIONS):
        pressed_BE = steering.press(motion, torch.full((BATCH,), before))
        assert pressed_BE.tolist() == [[(effect + before) % ACTIONS for effect in range(EFFECTS)]] * BATCH


def test_frames_and_motion_count(steering, batch):
    """The latent action follows from whether the picture has just moved, whatever is pressed."""
    moved_M = (batch["past_MRd"][:, 0].norm(dim=-1) > 1).long()
    assert 0.1 < moved_M.float().mean() < 0.9
    learn(steering, batch | {"actions_M": moved_M})
    assert steering.eval()(batch | {"actions_M": moved_M})[1]["accuracy"] > 0.95


def test_what_is_pressed_is_likely_and_telling_as_weighed_one_by_one(steering, frames_BTHWC, scrambled):
    """Compares with a slow reference: world by world, arrow by arrow."""
    scrambled(steering)
    motion, before_B = RecentMotion.of(frames_BTHWC), torch.tensor([2, steering.unknown])
    pressed_BE, differing = steering.press(motion, before_B), 0
    for b in range(BATCH):
        coarse_1HW, past_1Rd = look(motion.frame_BHWC[b : b + 1]), motion.moved_BRd[b : b + 1].flip(1)
        likely_EA = torch.cat(
            [
                steering.logits(coarse_1HW, past_1Rd, before_B[b : b + 1], torch.tensor([effect])).softmax(-1)
                for effect in range(EFFECTS)
            ]
        )
        telling_EA = likely_EA / likely_EA.sum(0)
        assert pressed_BE[b].tolist() == (likely_EA * telling_EA**TELLING).argmax(1).tolist()
        differing += (pressed_BE[b] != likely_EA.argmax(1)).sum()
    assert differing > 0, "likely alone would do"


def test_a_film_is_steered_as_its_frames_come(steering, frames_BTHWC, scrambled):
    """Compares with arrows pressed one by one, each given what was known at that time."""
    scrambled(steering)
    film_THWC, effects = frames_BTHWC.flatten(0, 1)[:6], [2, 0, 1, 2, 0]
    latents = steering.press_in_turn(film_THWC, effects)
    for step, effect in enumerate(effects):
        before = torch.tensor([latents[step - 1] if step else steering.unknown])
        assert steering.press(RecentMotion.of(film_THWC[None, : step + 1]), before)[0, effect] == latents[step]
    assert steering.press_in_turn(film_THWC[:1], []) == []


def test_little_is_known_now_and_then_in_training_alone(steering, batch, scrambled):
    """As at the start of a dream, where neither the previous latent action nor the recent motion is known."""
    scrambled(steering)
    told = batch | {"actions_M": torch.zeros_like(batch["before_M"])}
    unlike = batch | {"before_M": torch.full_like(batch["before_M"], steering.unknown)}
    assert steering(told)[0] == steering(told)[0] != steering(unlike | {"actions_M": told["actions_M"]})[0]
    steering.train()
    assert steering(told)[0] != steering(told)[0]
    assert 0 < FORGOTTEN < 1
    assert batch["past_MRd"].shape[1] == REMEMBERED == steering.history - 1
