import numpy as np
import pytest

from genie.core.actions import EFFECTIVE_ACTIONS, NO_ACTION
from genie.data.true_actions import true_actions_of
from genie.pipeline.infer_actions import count_buttons
from genie.world.controls import ARROWS, ButtonsError, name_buttons, read_buttons, write_buttons


@pytest.fixture(scope="module")
def store(coinrun):
    return coinrun["val"]


def test_a_latent_action_is_named_after_what_it_follows_from_however_rare_that_is():
    counts = np.zeros((3, 6), int)
    counts[0, 1] = 90  # left
    counts[1, 0] = 9  # all of "stay", which is rare,
    counts[1, 5] = 100  # and a tenth of the most frequent action
    counts[2, 5] = 900
    buttons = name_buttons(counts)
    assert [button.action for button in buttons] == ["left", "stay", "jump_right"]
    assert buttons[0].confidence == 1
    assert buttons[1].confidence == pytest.approx(1 / 1.1, abs=1e-4)
    assert [button.effect for button in buttons] == [1, 0, 5]


def test_a_latent_action_never_met_has_no_confidence():
    counts = np.zeros((2, 6), int)
    counts[0] = 10
    assert name_buttons(counts)[1].confidence == 0


def test_counted_transition_by_transition(store):
    """Compares with a slow reference that counts transitions one by one."""
    effects, latents = true_actions_of(store), np.random.default_rng(0).integers(4, size=store.num_frames)
    latents[effects == NO_ACTION] = NO_ACTION
    met = np.zeros((4, 6), int)
    for episode in store.episode_slices():
        for t in range(episode.start, episode.stop - 1):
            met[latents[t], effects[t]] += 1
    assert count_buttons(store, latents, 4) == name_buttons(met)


def test_true_actions_stand_for_themselves(store):
    assert count_buttons(store, true_actions_of(store), num_actions=6) == ARROWS
    assert ARROWS[4].caption(3) == "3: jump left 100%"
    assert tuple(button.action for button in ARROWS) == EFFECTIVE_ACTIONS


def test_buttons_survive_the_disk(store, tmp_path):
    buttons = name_buttons(np.random.default_rng(0).integers(100, size=(4, 6)))
    write_buttons(tmp_path / "models", buttons)
    assert read_buttons(tmp_path / "models") == buttons


@pytest.mark.parametrize("content", [None, "[", "[]", "[1]", "{}", '[{"shares": [1.0]}]', '[{"action": "left"}]'])
def test_missing_or_damaged(content, tmp_path):
    if content is not None:
        (tmp_path / "buttons.json").write_text(content)
    with pytest.raises(ButtonsError, match=r"buttons\.json: .*`dvc repro`"):
        read_buttons(tmp_path)
