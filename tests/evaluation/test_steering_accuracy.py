from dataclasses import replace

import numpy as np
import pytest
import torch

from genie.evaluation.counterfactual import differing
from genie.evaluation.steering_accuracy import dream_branches, inferred_actions, measure_steering, steering_metrics
from genie.sources.branches import play_branches

pytestmark = pytest.mark.slow

CONTEXT, HELD = 2, 3


@pytest.fixture(scope="module")
def branches(tiny_params):
    """Branches with one more past frame than the world sees, as a LAM may need."""
    return play_branches(tiny_params.collect, "test", num_states=40, past_frames=CONTEXT + 1, held_frames=HELD)


@pytest.fixture
def steered_by_hand(shared_world, branches):
    """Returns a function that steers one world at a time, whereas `dream_branches` steers a batch."""

    def steered(state, effect):
        world = shared_world.fork()
        known = branches.taken_MS[state, -1:] % world.num_actions
        world.reset(branches.past_MTHWC[state, -CONTEXT:], actions=known)
        return np.stack([world.step(world.steer(effect)) for _ in range(HELD)])

    return steered


def test_holding_an_action_is_taking_it_again_and_again(branches, tiny_params):
    """Branches of longer holds begin like those of shorter ones."""
    shorter = play_branches(tiny_params.collect, "test", num_states=60, past_frames=CONTEXT + 1, held_frames=1)
    state_of = {past.tobytes(): m for m, past in enumerate(shorter.past_MTHWC)}
    both = [(m, state_of[past.tobytes()]) for m, past in enumerate(branches.past_MTHWC) if past.tobytes() in state_of]
    assert len(both) > 20
    for m, k in both:
        assert np.array_equal(branches.next_MEHWC[m], shorter.next_MEHWC[k])
    assert branches.held_MEFHWC.shape == (40, 6, HELD, 64, 64, 3)
    assert (branches.held_MEFHWC[:, :, 0] != branches.held_MEFHWC[:, :, -1]).any((-1, -2, -3)).mean() > 0.3


def test_dreams_of_a_batch_are_those_of_worlds_steered_one_by_one(shared_world, branches, steered_by_hand):
    known = branches.taken_MS % shared_world.num_actions
    dreamed = dream_branches(shared_world, branches, known, seed=0, batch_size=7)
    agree = [
        (dreamed[state, effect] == steered_by_hand(state, effect)).mean() for state in (0, 8, 39) for effect in range(6)
    ]
    assert np.mean(agree) > 0.99, "but for rounding, which tips a token now and then"


def test_where_all_arrows_do_the_same_no_accuracy_is_told(branches):
    alike = replace(branches, held_MEFHWC=np.broadcast_to(branches.held_MEFHWC[:, :1], branches.held_MEFHWC.shape))
    told = steering_metrics(branches.held_MEFHWC, branches).keys()
    found = steering_metrics(branches.held_MEFHWC, alike).keys()
    assert told - found == {"steering_accuracy", "steering_accuracy_1", "steering_chance", "steering_chance_1"}


def test_the_simulator_itself_scores_one(branches):
    metrics = steering_metrics(branches.held_MEFHWC, branches)
    assert metrics["steering_accuracy"] == metrics["steering_accuracy_1"] == 1
    assert metrics["psnr_steered"] == metrics["psnr_steered_1"] == pytest.approx(100)
    assert 1 / 6 < metrics["steering_chance"] < 0.6
    assert metrics["psnr_steered_copy_last"] < metrics["psnr_steered_copy_last_1"] < 30
    assert steering_metrics(branches.held_MEFHWC, branches, "_inferred").keys() == {
        f"{name}_inferred{frame}" for name in ("steering_accuracy", "psnr_steered") for frame in ("", "_1")
    }


def test_what_listens_to_no_arrow_scores_exactly_at_chance(branches):
    deaf = np.broadcast_to(branches.held_MEFHWC[:, 2:3], branches.held_MEFHWC.shape)
    metrics = steering_metrics(deaf, branches)
    assert metrics["steering_accuracy"] == pytest.approx(metrics["steering_chance"])
    assert metrics["steering_accuracy_1"] == pytest.approx(metrics["steering_chance_1"])


def test_what_is_steered_late_scores_late(branches):
    """A world that responds to an arrow only after the first frame."""
    late = branches.held_MEFHWC.copy()
    late[:, :, 0] = late[:, :1, 0]
    metrics = steering_metrics(late, branches)
    assert metrics["steering_accuracy_1"] == pytest.approx(metrics["steering_chance_1"])
    assert metrics["steering_accuracy"] == 1
    assert metrics["psnr_steered_1"] < metrics["psnr_steered"]
    assert differing(branches.held_MEFHWC[:, :, -1]).any()


class Remembering(torch.nn.Module):
    """Labels a transition by its two frames and the frame before them."""

    history = 2

    def __init__(self):
        super().__init__()
        self.somewhere = torch.nn.Parameter(torch.zeros(()))

    def infer_actions(self, frames_BTHWC):
        sums_BT = frames_BTHWC.long().sum((-1, -2, -3))
        before_BT = torch.cat([sums_BT[:, :1] * 0, sums_BT[:, :-1]], dim=1)
        return ((before_BT[:, :-1] + 3 * sums_BT[:, :-1] + 7 * sums_BT[:, 1:]) % 5).cpu()


def test_actions_are_inferred_with_all_the_past_that_counts(branches):
    found = inferred_actions(Remembering(), branches)
    assert found.shape == (40, 6, HELD)
    sums = lambda frames: frames.astype(int).sum((-1, -2, -3))  # noqa: E731
    past, held = sums(branches.past_MTHWC), sums(branches.held_MEFHWC)
    for m, effect in ((0, 0), (11, 3), (39, 5)):
        row = [*past[m, -2:], *held[m, effect]]
        assert found[m, effect].tolist() == [(row[t] + 3 * row[t + 1] + 7 * row[t + 2]) % 5 for t in range(HELD)]


def test_the_inferred_is_measured_where_actions_are_inferred(shared_world, branches):
    steered, metrics = measure_steering(shared_world, Remembering(), branches, seed=0)
    assert steered.shape == branches.held_MEFHWC.shape
    assert {"steering_accuracy", "steering_chance", "steering_accuracy_inferred", "psnr_steered_inferred"} <= set(
        metrics
    )
