import numpy as np
import pytest

from genie.data.controls import (
    ARROWS,
    BACK_OFF,
    TELLING,
    Controls,
    ControlsError,
    learn_controls,
    name_buttons,
    read_controls,
    write_controls,
)
from genie.data.episodes import NO_ACTION
from genie.data.motion import is_moving
from genie.data.simulator import EFFECTIVE_ACTIONS, effective_action

NUM_LATENTS, UNKNOWN = 4, 4


@pytest.fixture(scope="module")
def store(coinrun):
    return coinrun["val"]


def labels_of(store, label):
    """Latent actions of a split: what `label` makes of an episode's effective actions."""
    latents = np.full(store.num_frames, NO_ACTION, np.uint8)
    for episode in store.episode_slices():
        taken = slice(episode.start, episode.stop - 1)
        latents[taken] = label(effective_action(store.actions()[taken]))
    return latents


@pytest.fixture(scope="module")
def latents(store):
    """Latent actions that tell of the present effective action, of the one before, and of nothing at all."""
    rng = np.random.default_rng(0)

    def label(effects):
        before = np.r_[0, effects][: len(effects)]
        return (effects // 2 + before + (rng.random(len(effects)) < 0.2)) % NUM_LATENTS

    return labels_of(store, label)


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


def test_controls_survive_the_disk(store, latents, tmp_path):
    controls = learn_controls(store, latents, NUM_LATENTS)
    write_controls(tmp_path / "models", controls)
    assert read_controls(tmp_path / "models") == controls


def test_true_actions_steer_themselves(store):
    controls = learn_controls(store, labels_of(store, lambda effects: effects), num_actions=6)
    assert controls.buttons == ARROWS
    assert ARROWS[4].caption(3) == "3: jump left 100%"
    assert tuple(button.action for button in ARROWS) == EFFECTIVE_ACTIONS
    assert controls == Controls(ARROWS, tuple((effect,) * 7 for effect in range(6)))


def test_what_an_arrow_presses_is_likely_and_telling_as_counted_one_by_one(store, latents):
    """Against a slow obvious reference: every past counted by itself."""
    pairs = []
    for episode in store.episode_slices():
        frames = store.read(episode.start, episode.stop)
        for t in range(episode.start, episode.stop - 1):
            effect = int(effective_action(store.actions()[[t]])[0])
            moves = is_moving(frames[t - episode.start], frames[t - episode.start + 1])
            past = int(latents[t - 1]) if t > episode.start else UNKNOWN
            if moves or EFFECTIVE_ACTIONS[effect] == "stay":
                pairs.append((effect, past, int(latents[t])))

    def likely(effect, before):
        shares = np.full(NUM_LATENTS, 1 / NUM_LATENTS)
        for alike in [lambda past: True, lambda past: past == before][: 1 + (before != UNKNOWN)]:
            found = [latent for e, past, latent in pairs if e == effect and alike(past)]
            counts = np.bincount(found, minlength=NUM_LATENTS)
            shares = (counts + BACK_OFF * shares) / (counts.sum() + BACK_OFF)
        return shares

    controls = learn_controls(store, latents, NUM_LATENTS)
    differing = 0
    for past in range(NUM_LATENTS + 1):
        likely_EA = np.array([likely(effect, past) for effect in range(6)])
        wanted_E = (likely_EA * (likely_EA / likely_EA.sum(0)) ** TELLING).argmax(1)
        found_E = controls.steer(np.arange(6), np.full(6, past))
        assert found_E.tolist() == wanted_E.tolist(), past
        differing += (found_E != likely_EA.argmax(1)).sum()
    assert differing > 0, "likely alone would do"


def test_an_arrow_asks_for_what_moves_although_it_seldom_does(store):
    """At a wall "right" is most often followed by standing still: that is no reason to stand."""
    standing, running = 0, 1
    latents = np.full(store.num_frames, NO_ACTION, np.uint8)
    moved = 0
    for episode in store.episode_slices():
        frames = store.read(episode.start, episode.stop)
        effects = effective_action(store.actions()[episode.start : episode.stop - 1])
        moves = is_moving(frames[:-1], frames[1:]) & (effects != EFFECTIVE_ACTIONS.index("stay"))
        latents[episode.start : episode.stop - 1] = np.where(moves, running, standing)
        moved += moves.sum()
    assert 0 < moved < store.num_frames - 1
    controls = learn_controls(store, latents, num_actions=2)
    for effect, action in enumerate(EFFECTIVE_ACTIONS):
        pressed = controls.steer_in_turn([effect] * 5)
        assert set(pressed.tolist()) == {standing if action == "stay" else running}, action


def test_steering_in_turn_is_steering_one_by_one(store, latents):
    controls = learn_controls(store, latents, NUM_LATENTS)
    effects = np.random.default_rng(0).integers(6, size=30)
    before = [UNKNOWN]
    for effect in effects:
        before += controls.steer(np.array([effect]), np.array(before[-1:])).tolist()
    assert controls.steer_in_turn(effects).tolist() == before[1:]
    assert controls.steer_in_turn([]).shape == (0,)


@pytest.mark.parametrize("content", [None, "[", "[]", "[1]", "{}", '{"buttons": [], "steering": {}}', '{"buttons": 1}'])
def test_missing_or_damaged(content, tmp_path):
    if content is not None:
        (tmp_path / "controls.json").write_text(content)
    with pytest.raises(ControlsError, match=r"controls\.json: .*`dvc repro`"):
        read_controls(tmp_path)
