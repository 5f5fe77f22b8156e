import numpy as np
import pytest

from genie.data.buttons import TRUE_BUTTONS, ButtonsError, button_for, name_buttons, read_buttons, write_buttons
from genie.data.simulator import EFFECTIVE_ACTIONS


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


def test_buttons_survive_the_disk(tmp_path):
    buttons = name_buttons(np.arange(48).reshape(8, 6))
    write_buttons(tmp_path, buttons)
    assert read_buttons(tmp_path) == buttons


def test_true_buttons_are_the_actions():
    assert tuple(button.action for button in TRUE_BUTTONS) == EFFECTIVE_ACTIONS
    assert TRUE_BUTTONS[4].caption(3) == "3: jump left 100%"
    assert [button_for(TRUE_BUTTONS, effect) for effect in range(6)] == list(range(6))


def test_the_latent_action_to_press_is_the_one_most_probably_meant_even_if_it_is_called_otherwise():
    counts = np.zeros((3, 6), int)
    counts[0, 1] = 90  # left
    counts[1, 1], counts[1, 3] = 10, 8  # more left than jump,
    counts[2, 1], counts[2, 3] = 10, 2  # but no other is more of a jump
    buttons = name_buttons(counts / counts.sum(0).clip(1))
    assert button_for(buttons, 1) == 0
    assert button_for(buttons, 3) == 1


@pytest.mark.parametrize("content", [None, "[", "[]", "[1]", '[{"shares": [1]}]', '[{"name": 1}]'])
def test_missing_or_damaged(content, tmp_path):
    if content is not None:
        (tmp_path / "buttons.json").write_text(content)
    with pytest.raises(ButtonsError, match=r"buttons\.json: .*`dvc repro`"):
        read_buttons(tmp_path)
