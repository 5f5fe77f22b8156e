import re
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from genie.world import WorldError
from genie.world.gym_env import MAX_EPISODE_STEPS, EnvError, GenieEnv, GenieVectorEnv
from genie.world.maskgit import Sampling

ENVS, EPISODE = 3, 4


@pytest.fixture
def folder(tiny_world, tmp_path):
    """Folder of a saved world."""
    tiny_world.save_pretrained(tmp_path / "castle")
    return tmp_path / "castle"


@pytest.fixture
def noisy_world(tiny_world):
    """A world that samples at random."""
    tiny_world.sampling = Sampling(maskgit_steps=2, temperature=1.0)
    return tiny_world


def episode(env, actions, **start):
    """Returns all frames of an episode, including the first."""
    frame, _ = env.reset(**start)
    return np.stack([frame] + [env.step(action)[0] for action in actions])


def test_gymnasium_finds_nothing_to_complain_about(folder):
    env = gymnasium.make("genie.world.gym_env:MiniGenie-v0", world=folder)
    assert isinstance(env.unwrapped, GenieEnv)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_actions_without_names_are_directions_or_numbers(moving_world, pictured_world):
    assert GenieEnv(moving_world).reset(seed=0)[1]["actions"] == ("right", "left", "still", "up-right", "right")
    assert GenieEnv(pictured_world).reset(seed=0)[1]["actions"] == ("0", "1", "2", "3", "4")


def test_it_plays_the_world_as_it_is(tiny_world):
    env = GenieEnv(tiny_world)
    _, info = env.reset(seed=5)
    prompt = next(prompt for prompt in tiny_world.prompts if prompt.source == info["prompt"])
    tiny_world.reset(prompt.frames_THWC, actions=prompt.actions)
    names = tuple(button.action.replace("_", " ") for button in tiny_world.buttons)
    assert info["actions"] == names
    for action in (3, 0, 4):
        frame_HWC, reward, terminated, truncated, info = env.step(action)
        assert np.array_equal(frame_HWC, tiny_world.step(action))
        assert (reward, terminated, truncated, info) == (0.0, False, False, {"action": names[action]})


def test_an_episode_is_truncated_at_its_end(folder):
    env = gymnasium.make("MiniGenie-v0", world=folder)
    assert env.spec.max_episode_steps == MAX_EPISODE_STEPS
    env = gymnasium.make("MiniGenie-v0", world=folder, max_episode_steps=3)
    env.reset()
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_the_seed_decides_prompt_and_noise(noisy_world):
    one, other = GenieEnv(noisy_world), GenieEnv(noisy_world)
    assert np.array_equal(episode(one, [0, 1], seed=1), episode(other, [0, 1], seed=1))
    assert {one.reset(seed=seed)[1]["prompt"] for seed in range(20)} == {p.source for p in noisy_world.prompts}
    prompt = {"prompt": noisy_world.prompts[0].frames_THWC}
    again = [episode(one, [0, 1], seed=seed, options=prompt) for seed in (1, 2)]
    assert np.array_equal(again[0][0], again[1][0])
    assert not np.array_equal(again[0], again[1])


def test_a_prompt_may_be_given(tiny_world):
    frames_THWC = tiny_world.prompts[1].frames_THWC[:1]
    frame_HWC, info = GenieEnv(tiny_world).reset(options={"prompt": frames_THWC})
    assert np.array_equal(frame_HWC, tiny_world.reset(frames_THWC))
    assert info["prompt"] == "given"
    with pytest.raises(WorldError, match=r"uint8 \(64, 64, 3\)"):
        GenieEnv(tiny_world).reset(options={"prompt": frames_THWC[0]})
    tiny_world.prompts = ()
    with pytest.raises(EnvError, match="no prompts of its own"):
        GenieEnv(tiny_world).reset()


def test_what_is_rendered(tiny_world, capsys):
    env = GenieEnv(tiny_world, render_mode="rgb_array")
    frame_HWC, _ = env.reset()
    assert np.array_equal(env.render(), frame_HWC)
    assert GenieEnv(tiny_world).render() is None
    env = GenieEnv(tiny_world, render_mode="human")
    env.reset()
    env.step(0)
    assert env.render() is None
    printed = capsys.readouterr().out
    assert printed.count("▀") == 2 * 64 * 32
    assert re.findall(r"\x1b\[(\d+)A", printed) == ["32"]  # the second frame is drawn over the first


def test_a_batch_is_many_environments(tiny_world):
    """Also past the end of an episode, after which each environment draws its next prompt."""
    world = tiny_world
    many = GenieVectorEnv(ENVS, world, max_episode_steps=EPISODE)
    actions_SB = np.random.default_rng(0).integers(world.num_actions, size=(2 * EPISODE, ENVS))
    start_BHWC, infos = many.reset(seed=7)
    steps = [many.step(action_B) for action_B in actions_SB]
    shown_SBHWC = np.stack([start_BHWC, *(step[0] for step in steps)])
    assert [step[3].tolist() for step in steps] == [[time == EPISODE - 1] * ENVS for time in range(2 * EPISODE)]
    assert not any(step[1].any() or step[2].any() for step in steps)
    for index in range(ENVS):
        one, actions_S = GenieEnv(world), actions_SB[:, index]
        first = episode(one, actions_S[:EPISODE], seed=7 + index)
        second = episode(one, actions_S[EPISODE + 1 :])  # the step that resets it ignores its action
        alone_SHWC = np.concatenate([first, second]).astype(int)
        assert np.abs(shown_SBHWC[:, index] - alone_SHWC).max() <= 1
        assert infos["prompt"][index] == one.reset(seed=7 + index)[1]["prompt"]
        assert steps[0][4]["action"][index] == one.step(actions_S[0])[4]["action"]


def test_a_batch_is_made_by_its_name(folder):
    many = gymnasium.make_vec("MiniGenie-v0", ENVS, vectorization_mode="vector_entry_point", world=folder)
    assert isinstance(many, GenieVectorEnv)
    assert many.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert many.spec.kwargs["max_episode_steps"] == MAX_EPISODE_STEPS
    frames_BHWC, _ = many.reset(seed=0)
    assert frames_BHWC in many.observation_space
    frames_BHWC, rewards_B, *_ = many.step(many.action_space.sample())
    assert frames_BHWC in many.observation_space
    assert rewards_B.shape == (ENVS,)


def test_prompts_may_be_given_to_a_batch(tiny_world):
    frames_BTHWC = np.stack([prompt.frames_THWC for prompt in tiny_world.prompts])
    many = GenieVectorEnv(ENVS, tiny_world, render_mode="rgb_array")
    each_BHWC, _ = many.reset(options={"prompt": frames_BTHWC})
    assert np.array_equal(each_BHWC, tiny_world.reset(frames_BTHWC))
    assert np.array_equal(many.render(), each_BHWC)
    same_BHWC, _ = many.reset(options={"prompt": frames_BTHWC[1]})
    assert np.array_equal(same_BHWC, each_BHWC[[1] * ENVS])


def test_episodes_that_begin_by_themselves_keep_the_prompt_given(tiny_world):
    prompt_THWC = tiny_world.prompts[1].frames_THWC
    tiny_world.prompts = ()
    many = GenieVectorEnv(ENVS, tiny_world, max_episode_steps=2)
    start_BHWC, _ = many.reset(options={"prompt": prompt_THWC})
    shown = [many.step([0] * ENVS) for _ in range(6)]
    assert np.array_equal(shown[2][0], start_BHWC)
    assert np.array_equal(shown[5][0], start_BHWC)
    assert shown[5][4]["prompt"].tolist() == ["given"] * ENVS
    with pytest.raises(EnvError, match="no prompts of its own"):
        many.reset()


def test_a_batch_takes_seeds_as_others_do(noisy_world):
    many = GenieVectorEnv(ENVS, noisy_world)
    by_one, by_each = many.reset(seed=4), many.reset(seed=[4, 5, 6])
    assert np.array_equal(by_one[0], by_each[0])
    assert by_one[1]["prompt"].tolist() == by_each[1]["prompt"].tolist()
    draws = [many.reset(seed=[4, None, None])[1]["prompt"].tolist() for _ in range(8)]
    assert {draw[0] for draw in draws} == {by_one[1]["prompt"][0]}
    assert len({tuple(draw) for draw in draws}) > 1  # the others continue their random sequence
    with pytest.raises(EnvError, match="2 seeds for 3 environments"):
        many.reset(seed=[0, 1])


def test_a_closed_batch_says_so(tiny_world):
    many = GenieVectorEnv(ENVS, tiny_world)
    many.reset(seed=0)
    many.close()
    for use in (many.reset, lambda: many.step([0] * ENVS)):
        with pytest.raises(ClosedEnvironmentError, match="closed"):
            use()


def test_larger_frames_are_observed_and_shown_small(larger_world, capsys):
    env = GenieEnv(larger_world, render_mode="human")
    assert env.observation_space.shape == larger_world.frame_shape
    assert env.reset(seed=0)[0] in env.observation_space
    assert env.step(0)[0] in env.observation_space
    assert capsys.readouterr().out.count("▀") == 2 * 64 * 32
    many = GenieVectorEnv(2, larger_world)
    assert many.reset(seed=0)[0] in many.observation_space
    assert many.step(np.array([0, 1]))[0] in many.observation_space
