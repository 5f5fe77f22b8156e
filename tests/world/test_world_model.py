from typing import NamedTuple

import numpy as np
import pytest
import torch

from genie.core.actions import game_actions
from genie.models.checkpoint import CheckpointError, fingerprint, save_model
from genie.models.dynamics import build_dynamics
from genie.models.measured_size import at_measured_size
from genie.models.recent_motion import RecentMotion
from genie.models.steering import build_steering
from genie.models.tokenizer import build_tokenizer
from genie.world import WorldError, WorldModel
from genie.world.controls import Button, ButtonsError, write_buttons
from genie.world.maskgit import Sampling

ACTIONS, CONTEXT, DREAMED, BATCH = 5, 2, 6, 3
SHARES = [(0.1, action / ACTIONS, 0.0, 0.0, 0.0, 0.0) for action in range(ACTIONS)]
BUTTONS = tuple(Button(game_actions("coinrun").names, shares) for shares in SHARES)
FEW_CODES = {"quantizer": "fsq", "fsq_levels": [4, 3, 3]}
SAMPLINGS = [
    Sampling(maskgit_steps=1, temperature=0.0),
    Sampling(maskgit_steps=3, temperature=0.0),
    Sampling(maskgit_steps=3, temperature=1.0),
]


class Tokens(NamedTuple):
    """Memory of the uncached dynamics: frames, the action that led to each, and the action that leads to the next."""

    tokens_BTN: torch.Tensor
    led_to_BT: torch.Tensor
    motion: None = None

    @property
    def last_BN(self):
        return self.tokens_BTN[:, -1]


class Uncached:
    """A dynamics that stores tokens instead of keys and values, and reads all of them again for every prediction."""

    def __init__(self, dynamics):
        self.dynamics = dynamics
        self.config, self.num_tokens = dynamics.config, dynamics.num_tokens
        self.mask_token, self.no_action = dynamics.mask_token, dynamics.no_action
        self.parameters, self.see_through = dynamics.parameters, dynamics.see_through

    def remember(self, tokens_BTN, led_to_BT):
        return Tokens(tokens_BTN, led_to_BT)

    def expect(self, memory, action_B):
        return memory._replace(led_to_BT=torch.cat([memory.led_to_BT, action_B.unsqueeze(1)], dim=1))

    def append(self, tokens_BN, memory):
        return memory._replace(tokens_BTN=torch.cat([memory.tokens_BTN, tokens_BN.unsqueeze(1)], dim=1))

    def predict(self, tokens_BN, memory):
        assert (memory.led_to_BT[:, 0] == self.no_action).all()
        with_it = self.append(tokens_BN, memory)
        mask_BSN = with_it.tokens_BTN[:, 1:] == self.mask_token
        return self.dynamics._logits(mask_BSN, with_it.tokens_BTN, with_it.led_to_BT[:, 1:])[0][:, -1], memory


@pytest.fixture
def models(tiny_params, scrambled):
    tokenizer = scrambled(build_tokenizer(tiny_params.tokenizer.model_copy(update=FEW_CODES), 64))
    dynamics = build_dynamics(
        tiny_params.dynamics.model_copy(update={"context_frames": CONTEXT, "num_layers": 2}),
        num_codes=tokenizer.num_codes,
        grid=tokenizer.grid,
        num_actions=ACTIONS,
        tokenizer_fingerprint=fingerprint(tokenizer),
    )
    steering = build_steering(tiny_params.steering, num_effects=6, num_actions=ACTIONS)
    return tokenizer, scrambled(dynamics), scrambled(steering)


@pytest.fixture
def world(models):
    return WorldModel(*models, SAMPLINGS[1], BUTTONS)


@pytest.fixture
def prompt(coinrun):
    """Four frames of each of some episodes, the three actions between them, and the actions to press afterwards."""
    starts = coinrun["val"].episode_starts[:BATCH]
    frames_BTHWC = torch.stack([torch.from_numpy(coinrun["val"].read(s, s + 4)) for s in starts])
    actions = torch.randint(ACTIONS, (BATCH, 3 + DREAMED), generator=torch.Generator().manual_seed(0))
    return frames_BTHWC, actions[:, :3], actions[:, 3:]


def dream(world, prompt, seed=0, known=True):
    frames_BTHWC, before_BS, actions_BS = prompt
    generator = torch.Generator().manual_seed(seed)
    return world.rollout(frames_BTHWC, actions_BS, generator, before_BS if known else None)


@pytest.mark.parametrize("known", [True, False], ids=["actions known", "actions unknown"])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_the_cache_changes_no_dream(sampling, known, models, prompt):
    tokenizer, dynamics, steering = models
    cached, slow = (WorldModel(tokenizer, each, steering, sampling, BUTTONS) for each in (dynamics, Uncached(dynamics)))
    dreamed_BSHWC = dream(cached, prompt, known=known)
    assert dreamed_BSHWC.shape == (BATCH, DREAMED, 64, 64, 3)
    assert dreamed_BSHWC.dtype == torch.uint8
    assert torch.equal(dreamed_BSHWC, dream(slow, prompt, known=known))


def test_a_seed_decides_the_dream(models, prompt):
    world = WorldModel(*models, SAMPLINGS[2], BUTTONS)
    assert torch.equal(dream(world, prompt, seed=1), dream(world, prompt, seed=1))
    assert not torch.equal(dream(world, prompt, seed=1), dream(world, prompt, seed=2))


def test_an_action_changes_what_follows_it_and_nothing_before(world, prompt):
    frames_BTHWC, before_BS, actions_BS = prompt
    other_BS = actions_BS.clone()
    other_BS[:, 2] = (other_BS[:, 2] + 1) % ACTIONS
    before, after = dream(world, prompt), dream(world, (frames_BTHWC, before_BS, other_BS))
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])


def test_only_the_context_of_a_prompt_counts(world, prompt):
    frames_BTHWC, before_BS, actions_BS = prompt
    short = (frames_BTHWC[:, -CONTEXT:], before_BS[:, -(CONTEXT - 1) :], actions_BS)
    assert torch.equal(dream(world, prompt), dream(world, short))


def test_one_frame_is_a_prompt(world, prompt):
    frames_BTHWC, _, actions_BS = prompt
    dreamed_BSHWC = world.rollout(frames_BTHWC[:, :1], actions_BS, torch.Generator().manual_seed(0))
    assert dreamed_BSHWC.shape == (BATCH, DREAMED, 64, 64, 3)


def test_frames_are_streamed_as_they_are_dreamed(world, prompt):
    frames_BTHWC, _, actions_BS = prompt
    first_BHWC = next(world.stream(frames_BTHWC, actions_BS, torch.Generator().manual_seed(0)))
    assert torch.equal(first_BHWC, dream(world, prompt, known=False)[:, 0])


def test_a_world_is_loaded_from_its_checkpoints(models, world, prompt, tmp_path):
    for name, model in zip(("tokenizer", "dynamics", "steering"), models, strict=True):
        save_model(tmp_path / name, model)
    with pytest.raises(ButtonsError, match=r"actions\.json: no such file; run `dvc repro`"):
        WorldModel.load(tmp_path, SAMPLINGS[1])
    write_buttons(tmp_path, BUTTONS)
    loaded = WorldModel.load(tmp_path, SAMPLINGS[1])
    assert loaded.buttons == BUTTONS
    assert torch.equal(dream(loaded, prompt), dream(world, prompt))


def test_a_world_of_two_minds_is_refused(models, tiny_params, tmp_path):
    other = build_tokenizer(tiny_params.tokenizer.model_copy(update={**FEW_CODES, "seed": 9}), 64)
    told = save_model(tmp_path / "tokenizer", other)
    save_model(tmp_path / "dynamics", models[1])
    with pytest.raises(CheckpointError, match=f"trained on tokens of tokenizer {fingerprint(models[0])}.*{told}") as it:
        WorldModel.load(tmp_path, SAMPLINGS[0])
    assert "\n" not in str(it.value)


def played(world, prompt, row=0):
    """Plays one row of a prompt with `reset` and `step`; returns the frames."""
    frames_BTHWC, before_BS, actions_BS = prompt
    world.reset(frames_BTHWC[row].numpy(), actions=before_BS[row].numpy(), seed=3)
    return np.stack([world.step(int(action)) for action in actions_BS[row]])


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_playing_is_dreaming_a_step_at_a_time(sampling, models, prompt):
    world = WorldModel(*models, sampling, BUTTONS)
    one = tuple(part[:1] for part in prompt)
    frames_SHWC = played(world, prompt)
    assert frames_SHWC.shape == (DREAMED, 64, 64, 3)
    assert np.array_equal(frames_SHWC, dream(world, one, seed=3)[0].numpy())
    assert np.array_equal(frames_SHWC, played(world, prompt))  # depends on the seed, not on earlier play


def test_worlds_are_played_as_a_batch(world, prompt):
    frames_BTHWC, before_BS, actions_BS = (part.numpy() for part in prompt)
    shown_BHWC = world.reset(frames_BTHWC, actions=before_BS, seed=3)
    assert shown_BHWC.shape == (BATCH, 64, 64, 3)
    frames_BSHWC = np.stack([world.step(action_B) for action_B in actions_BS.T], axis=1)
    assert np.array_equal(frames_BSHWC, dream(world, prompt, seed=3).numpy())


def test_a_prompt_is_shown_as_the_tokenizer_keeps_it(world, prompt):
    last_HWC = prompt[0][0, -1]
    shown_HWC = world.reset(prompt[0][0].numpy())
    assert np.array_equal(shown_HWC, world.tokenizer.decode(world.tokenizer.encode(last_HWC[None]))[0].numpy())


def test_imagining_tells_what_each_action_leads_to_and_goes_nowhere(models, prompt):
    world = WorldModel(*models, SAMPLINGS[1], BUTTONS)
    world.reset(prompt[0][0].numpy())
    imagined_AHWC = world.imagine()
    assert imagined_AHWC.shape == (ACTIONS, 64, 64, 3)
    for action in range(ACTIONS):
        assert np.array_equal(world.fork().step(action), imagined_AHWC[action])
    assert np.array_equal(world.imagine(), imagined_AHWC)


def test_of_a_batch_each_world_is_imagined_on(models, prompt):
    world = WorldModel(*models, SAMPLINGS[1], BUTTONS)
    world.reset(prompt[0].numpy(), seed=2)
    imagined_BAHWC = world.imagine()
    assert imagined_BAHWC.shape == (BATCH, ACTIONS, 64, 64, 3)
    for b in range(BATCH):
        world.reset(prompt[0][b].numpy(), seed=2)
        np.testing.assert_array_equal(world.imagine(), imagined_BAHWC[b])


def test_copies_of_a_batch_are_worlds_of_their_own(models, prompt):
    world = WorldModel(*models, SAMPLINGS[1], BUTTONS)
    world.reset(prompt[0].numpy(), actions=prompt[1].numpy(), seed=1)
    alone = [world.fork() for _ in range(2)]
    copies = world.fork(2)
    np.testing.assert_array_equal(copies.steer(np.full(2 * BATCH, 3)), world.steer(np.full(BATCH, 3)).repeat(2))
    for actions in (np.arange(2), np.array([4, 0])):
        frames_MHWC = copies.step(np.tile(actions, BATCH))
        for copy, (fork, action) in enumerate(zip(alone, actions, strict=True)):
            np.testing.assert_array_equal(frames_MHWC[copy::2], fork.step(np.full(BATCH, action)))


def test_a_fork_goes_its_own_way_from_where_the_world_is(models, prompt):
    world = WorldModel(*models, SAMPLINGS[2], BUTTONS)
    world.reset(prompt[0][0].numpy(), seed=1)
    world.step(2)
    fork = world.fork()
    alone = [fork.step(action) for action in (1, 0, 3)]
    assert np.array_equal(alone, [world.step(action) for action in (1, 0, 3)])
    assert fork.dynamics is world.dynamics


@pytest.mark.parametrize(
    ("frames", "cause"),
    [
        (np.zeros((64, 64, 3), np.uint8), r"uint8 \(64, 64, 3\)"),
        (np.zeros((0, 64, 64, 3), np.uint8), r"uint8 \(0, 64, 64, 3\)"),
        (np.zeros((1, 32, 64, 3), np.uint8), r"uint8 \(1, 32, 64, 3\)"),
        (np.zeros((1, 64, 64, 3)), r"float64 \(1, 64, 64, 3\)"),
    ],
)
def test_no_prompt(frames, cause, world):
    with pytest.raises(WorldError, match=cause):
        world.reset(frames)


@pytest.mark.parametrize("action", [-1, ACTIONS, 1.0, [1], "1", None, True])
def test_no_action(action, world, prompt):
    with pytest.raises(WorldError, match="reset"):
        WorldModel(world.tokenizer, world.dynamics, world.steering, world.sampling, BUTTONS).step(0)
    world.reset(prompt[0][0].numpy())
    with pytest.raises(WorldError, match=f"0 to {ACTIONS - 1}, here a single one"):
        world.step(action)
    with pytest.raises(WorldError, match=rf"0 to {ACTIONS - 1}, here of shape \(3,\)"):
        world.reset(prompt[0][0].numpy(), actions=np.array([0, 1]))


@pytest.mark.parametrize("compensation", [True, False])
def test_what_arrows_press_follows_from_what_was_shown_and_pressed(
    compensation, models, tiny_params, scrambled, prompt
):
    """Holds with and without motion compensation, which provides the recent motion."""
    tokenizer, dynamics, steering = models
    if not compensation:
        params = tiny_params.dynamics.model_copy(update={"context_frames": CONTEXT, "motion_compensation": False})
        dynamics = scrambled(build_dynamics(params, num_codes=36, grid=tokenizer.grid, num_actions=ACTIONS))
    world = WorldModel(tokenizer, dynamics, steering, SAMPLINGS[2], BUTTONS)
    shown, before = [world.reset(prompt[0][0, :1].numpy(), seed=1)], steering.unknown
    pressed = []
    for action in (3, 1, 0, 4, 2, 2):
        motion = RecentMotion.of(torch.tensor(np.stack(shown))[None])
        wanted_E = steering.press(motion, torch.tensor([before]))[0]
        fork = world.fork()
        fork.step((action + 1) % ACTIONS)
        assert world.arrows().tolist() == wanted_E.tolist() == [world.steer(effect) for effect in range(6)]
        pressed.append(tuple(wanted_E.tolist()))
        shown.append(world.step(action))
        before = action
    assert len(set(pressed)) > 1


def test_worlds_of_a_batch_are_steered_each_by_its_own_past(world, prompt):
    frames_BTHWC, actions_BS = prompt[0].numpy(), prompt[1].numpy()
    world.reset(frames_BTHWC, actions=actions_BS)
    effects_B = np.array([5, 0, 2])
    steered_B = world.steer(effects_B)
    for b, effect in enumerate(effects_B):
        alone = world.fork()
        alone.reset(frames_BTHWC[b], actions=actions_BS[b])
        assert alone.steer(effect) == steered_B[b]
    with pytest.raises(WorldError, match=r"effective actions are whole numbers from 0 to 5, here of shape \(3,\)"):
        world.steer(0)


@pytest.mark.parametrize("effect", [-1, 6, 1.0, [1], "left", None])
def test_no_effect(effect, world, prompt):
    with pytest.raises(WorldError, match="reset"):
        WorldModel(world.tokenizer, world.dynamics, world.steering, world.sampling, BUTTONS).steer(0)
    world.reset(prompt[0][0].numpy())
    with pytest.raises(WorldError, match="effective actions are whole numbers from 0 to 5, here a single one"):
        world.steer(effect)


def test_larger_frames_are_played(larger_world, shared_world):
    world, shape = larger_world.fork(), larger_world.frame_shape
    prompt_THWC = world.prompts[0].frames_THWC
    shown_HWC = world.reset(prompt_THWC, actions=world.prompts[0].actions)
    last_1HWC = torch.from_numpy(prompt_THWC[-1:])
    assert np.array_equal(shown_HWC, world.tokenizer.decode(world.tokenizer.encode(last_1HWC))[0].numpy())
    imagined_AHWC = world.imagine()
    assert imagined_AHWC.shape == (world.num_actions, *shape)
    assert np.array_equal(imagined_AHWC[2], world.step(2))
    assert world.step(world.steer(1)).shape == shape
    rolled_BSHWC = world.rollout(torch.from_numpy(prompt_THWC[None]), torch.tensor([[2, 0]]))
    assert rolled_BSHWC.shape == (1, 2, *shape)
    with pytest.raises(WorldError, match=f"of this world is uint8 .T, {shape[0]}, {shape[0]}, 3.*got uint8 .2, 64, 64"):
        world.reset(shared_world.prompts[0].frames_THWC)
    with pytest.raises(WorldError, match=rf"of this world is .*{shape[0]}.* got uint8 \(1, 2, 64, 64, 3\)"):
        world.rollout(torch.from_numpy(shared_world.prompts[0].frames_THWC[None]), torch.tensor([[2]]))


def test_motion_of_larger_frames_is_measured_at_the_measured_size(larger_world):
    world = larger_world.fork()
    frames = [world.reset(world.prompts[0].frames_THWC[-1:])] + [world.step(action) for action in (3, 1, 0)]
    seen_THWC = at_measured_size(torch.from_numpy(np.stack(frames)))
    memory = world._played()._memory
    torch.testing.assert_close(memory.motion.moved_BRd, RecentMotion.of(seen_THWC[None]).moved_BRd)
