import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from genie.core.actions import NUM_ACTIONS, game_actions
from genie.core.params import GAMES
from genie.sources.simulator import Simulator


def simulator(**changes):
    options = {
        "env_name": "coinrun",
        "distribution_mode": "hard",
        "backgrounds": True,
        "num_envs": 4,
        "start_level": 7,
        "num_levels": 3,
        "action_repeat": 3,
        "seed": 5,
        "num_threads": 1,
    }
    return Simulator(**{**options, **changes})


def effect_by_buttons(action):
    if action >= 9:
        return "stay"
    dx, up = action // 3 - 1, action % 3 == 2
    side = {-1: "left", 0: "", 1: "right"}[dx]
    return {(True, True): f"jump_{side}", (True, False): "jump", (False, True): side, (False, False): "stay"}[
        up, bool(side)
    ]


def test_effective_actions_agree_with_the_buttons():
    coinrun = game_actions("coinrun")
    assert coinrun.names == ("stay", "left", "right", "jump", "jump_left", "jump_right")
    effects = [coinrun.names[i] for i in coinrun.effective(np.arange(NUM_ACTIONS))]
    assert effects == [effect_by_buttons(action) for action in range(NUM_ACTIONS)]


@pytest.mark.parametrize("game", GAMES)
def test_each_effect_has_the_action_named_for_it(game):
    actions = game_actions(game)
    assert actions.effective(np.array(actions.numbers)).tolist() == list(range(len(actions.names)))


# CoinRun, and one game of each way in which they differ.
@pytest.mark.parametrize("game", ["coinrun", "maze", "fruitbot", "ninja", "starpilot"])
def test_only_effective_actions_lead_to_different_frames(game):
    """Plays every action from the same states; "down" in CoinRun, which drops through crates, is not told apart."""
    with closing(simulator(env_name=game, num_envs=32, num_levels=50)) as played:
        pictures = []
        for number in range(NUM_ACTIONS):
            pictures.append(_play_from_many_states(played, number))
    effects = np.array(game_actions(game).effects)
    differ = np.array([[not np.array_equal(first, second) for second in pictures] for first in pictures])
    assert (differ | (effects[:, None] == effects)).all(), "effective actions that never differ"
    if game != "coinrun":
        assert not (differ & (effects[:, None] == effects)).any(), "one effective action, two effects"


def _play_from_many_states(played, number):
    """Frames after an action, from states that do not depend on it."""
    rng, pictures = np.random.default_rng(0), []
    played.observe()
    begin = played.save()
    for _ in range(12):
        for _ in range(2):
            played.act(rng.integers(0, NUM_ACTIONS, played.num_envs))
            played.observe()
        state = played.save()
        for _ in range(2):
            played.act(np.full(played.num_envs, number))
            pictures.append(played.observe()[0].copy())
        played.restore(state)
    played.restore(begin)
    return np.stack(pictures)


def test_action_repeat_holds_the_action():
    slow, fast = simulator(action_repeat=3), simulator(action_repeat=1)
    for played in (slow, fast):
        played.observe()
    rng = np.random.default_rng(0)
    for _ in range(30):
        actions = rng.integers(0, NUM_ACTIONS, 4)
        slow.act(actions)
        frames, is_new = slow.observe()
        expected_new = np.zeros(4, bool)
        for _ in range(3):
            fast.act(actions)
            expected, first = fast.observe()
            expected_new |= first
        np.testing.assert_array_equal(frames, expected)
        np.testing.assert_array_equal(is_new, expected_new)


def test_levels_stay_in_range():
    played = simulator(num_envs=32)
    _, is_new = played.observe()
    assert is_new.all()
    assert set(played.level_seeds().tolist()) <= {7, 8, 9}


def test_a_restored_state_leads_to_the_same_frames():
    played, rng = simulator(), np.random.default_rng(0)
    played.observe()
    state, actions = played.save(), rng.integers(0, NUM_ACTIONS, (2, 20, 4))

    def play(actions_TB):
        for action_B in actions_TB:
            played.act(action_B)
            played.observe()
        return played.observe()[0].copy()

    first, other = play(actions[0]), play(actions[1])
    assert not np.array_equal(first, other)
    played.restore(state)
    np.testing.assert_array_equal(play(actions[0]), first)


def test_import_is_silent():
    command = [sys.executable, "-c", "import genie.sources.simulator"]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, check=True)
    assert result.stderr == ""
