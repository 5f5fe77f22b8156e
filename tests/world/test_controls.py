import json

import numpy as np
import pytest

from genie.core.actions import NO_ACTION, game_actions
from genie.core.params import GAMES
from genie.pipeline.infer_actions import count_buttons
from genie.world.controls import Button, ButtonsError, arrows_of, key_chords, name_buttons, read_buttons, write_buttons

COINRUN = game_actions("coinrun").names
ARROWS = arrows_of(COINRUN)
NAMED = name_buttons(np.random.default_rng(0).integers(100, size=(4, 6)), COINRUN)
MOVING = (Button(motion=(2.0, -2.0)), Button(motion=(0.1, 0.0)), Button())


@pytest.fixture(scope="module")
def store(coinrun):
    return coinrun["val"]


def test_a_latent_action_is_named_after_what_it_follows_from_however_rare_that_is():
    counts = np.zeros((3, 6), int)
    counts[0, 1] = 90  # left
    counts[1, 0] = 9  # all of "stay", which is rare,
    counts[1, 5] = 100  # and a tenth of the most frequent action
    counts[2, 5] = 900
    buttons = name_buttons(counts, COINRUN)
    assert [button.action for button in buttons] == ["left", "stay", "jump_right"]
    assert buttons[0].confidence == 1
    assert buttons[1].confidence == pytest.approx(1 / 1.1, abs=1e-4)
    assert [button.effect for button in buttons] == [1, 0, 5]


def test_a_latent_action_never_met_has_no_confidence():
    counts = np.zeros((2, 6), int)
    counts[0] = 10
    assert name_buttons(counts, COINRUN)[1].confidence == 0


def test_counted_transition_by_transition(store):
    """Compares with a slow reference that counts transitions one by one."""
    effects, latents = store.actions(), np.random.default_rng(0).integers(4, size=store.num_frames)
    latents[effects == NO_ACTION] = NO_ACTION
    met = np.zeros((4, 6), int)
    for episode in store.episode_slices():
        for t in range(episode.start, episode.stop - 1):
            met[latents[t], effects[t]] += 1
    assert count_buttons(store, latents, 4) == name_buttons(met, COINRUN)


def test_true_actions_stand_for_themselves(store):
    assert count_buttons(store, store.actions(), num_actions=6) == ARROWS
    assert ARROWS[4].caption(3) == "3: jump left 100%"
    assert tuple(button.action for button in ARROWS) == COINRUN


@pytest.mark.parametrize("buttons", [NAMED, MOVING, (Button(),) * 3], ids=["named", "moving", "unknown"])
def test_buttons_survive_the_disk(buttons, tmp_path):
    write_buttons(tmp_path / "models", buttons)
    assert read_buttons(tmp_path / "models") == buttons


def test_a_button_without_a_name_is_described_by_its_motion():
    assert [button.title for button in MOVING] == ["up-right 2.8 px", "still", ""]
    assert [button.caption(latent) for latent, button in enumerate(MOVING)] == ["0: up-right 2.8 px", "1: still", "2"]


@pytest.mark.parametrize("content", [None, "[", "[]", "[1]", "{}", '[{"shares": [1.0]}]', '[{"action": "left"}]'])
def test_missing_or_damaged(content, tmp_path):
    (tmp_path / "actions.json").write_text(json.dumps(COINRUN))
    if content is not None:
        (tmp_path / "buttons.json").write_text(content)
    with pytest.raises(ButtonsError, match=r"buttons\.json: .*`dvc repro`"):
        read_buttons(tmp_path)


def pressed_by(names):
    """Returns what keys press, by their names joined: `{"left+up": "jump_left"}`."""
    return {"+".join(sorted(keys)): names[effect] for keys, effect in key_chords(names, ARROWS).items()}


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (COINRUN, ["", "left", "right", "up", "left+up", "right+up"]),
        (("stay", "left", "right", "up", "down", "down_left"), ["", "left", "right", "up", "down", "down+left"]),
        (("up", "down"), ["up", "down"]),
        (("jump", "up", "jump_right"), ["j", "up", "j+right"]),
        (("NOOP", "FIRE", "UP", "UPRIGHTFIRE"), ["", "f", "up", "f+right+up"]),
        (("throw", "throw up", "throw_high"), ["t", "t+up", "h+t"]),
        (("freeze", "fire"), ["f", "i"]),
    ],
)
def test_words_of_a_name_are_keys(names, keys):
    assert pressed_by(names) == dict(zip(keys, names, strict=True))


def test_no_name_takes_the_key_of_a_command_or_that_of_another():
    assert pressed_by(("e", "zero", "or", "o")) == {"o": "zero"}  # of "or" and "o", no letter is left
    for game in GAMES:
        names = game_actions(game).names
        assert sorted(pressed_by(names).values()) == sorted(names)


def test_an_arrow_key_presses_the_button_that_moves_most_that_way():
    def pressed(*motions):
        chords = key_chords((), [Button(motion=motion) for motion in motions])
        return {"".join(keys): latent for keys, latent in chords.items()}

    assert pressed((2, 0), (2.2, -1.5), (0.3, 0)) == {"right": 0}
    assert pressed((2.2, -1.5), (0.3, 0), (0, 0.3)) == {"right": 0, "down": 2}
    assert pressed((-1, 0.9), (-0.9, 1)) == {"left": 0, "down": 1}
    assert pressed((-1, -1)) == {"left": 0, "up": 0}
    assert pressed((0.2, 0), None, (0.1, 0.1)) == {"": 2}
    assert pressed(None, None) == {}


@pytest.mark.parametrize(
    ("motion", "sign"), [((2, 0), "→"), ((-2, -2), "↖"), ((0, 1), "↓"), ((0.1, 0), "·"), (None, "")]
)
def test_a_motion_has_a_sign(motion, sign):
    assert Button(motion=motion).sign == sign
