from dataclasses import replace

import numpy as np
import pytest
import torch

from genie.core.actions import game_actions
from genie.evaluation.counterfactual import (
    branch_metrics,
    confusion,
    counterfactual_metrics,
    differing,
    imagine_branches,
    label_metrics,
    regions,
)
from genie.sources.branches import Branches, play_branches
from genie.world.controls import arrows_of

ARROWS = arrows_of(game_actions("coinrun").names)

CONTEXT = 2


class BranchingWorld:
    """The simulator behind the model's interface: looks up its state, and returns the branch that `choose` selects."""

    context_frames, device = CONTEXT, torch.device("cpu")

    def __init__(self, branches: Branches, choose=lambda action: action, num_actions: int = 6):
        self.num_actions = num_actions
        self._branches, self._choose = branches, choose
        self._state_of = {past.tobytes(): m for m, past in enumerate(branches.past_MTHWC[:, -CONTEXT:])}

    def fork(self):
        return self

    def reset(self, frames_BTHWC, *, actions, seed):
        assert frames_BTHWC.shape[1] == CONTEXT
        assert actions.shape[1] == CONTEXT - 1
        self._states = [self._state_of[past_THWC.tobytes()] for past_THWC in frames_BTHWC]

    def imagine(self):
        chosen_BA = [[self._choose(action) for action in range(self.num_actions)] for _ in self._states]
        return self._branches.next_MEHWC[np.array(self._states)[:, None], chosen_BA]


@pytest.fixture(scope="module")
def branches(tiny_params):
    return play_branches(tiny_params.collect, "test", num_states=60, past_frames=CONTEXT)


def found_by(branches, world):
    return imagine_branches(world, branches, branches.taken_MS, seed=0)


def test_the_simulator_itself_scores_one(branches):
    found = found_by(branches, BranchingWorld(branches))
    metrics = counterfactual_metrics(found, ARROWS)
    assert metrics["counterfactual_accuracy"] == 1
    assert metrics["counterfactual_accuracy_ground"] == metrics["counterfactual_accuracy_air"] == 1
    assert 1 / 6 < metrics["counterfactual_chance"] < 0.6
    counts = confusion(found, ARROWS)
    assert counts.sum() == np.trace(counts) == 6 * metrics["counterfactual_states"]


def test_latent_actions_in_any_order_score_one_under_their_names(branches):
    order = [5, 5, 0, 1, 3, 2, 4, 1]
    buttons = [ARROWS[effect] for effect in order]
    world = BranchingWorld(branches, choose=lambda action: order[action], num_actions=8)
    found = found_by(branches, world)
    assert counterfactual_metrics(found, buttons)["counterfactual_accuracy"] == 1
    misnamed = [buttons[-1], *buttons[:-1]]
    assert counterfactual_metrics(found, misnamed)["counterfactual_accuracy"] < 0.7


@pytest.mark.parametrize("effect", range(6))
def test_a_world_that_does_not_listen_scores_exactly_at_chance(effect, branches):
    metrics = counterfactual_metrics(found_by(branches, BranchingWorld(branches, lambda _: effect)), ARROWS)
    assert metrics["counterfactual_accuracy"] == pytest.approx(metrics["counterfactual_chance"])


def test_a_random_dynamics_scores_at_chance(branches):
    rng = np.random.default_rng(0)
    metrics = counterfactual_metrics(found_by(branches, BranchingWorld(branches, lambda _: rng.integers(6))), ARROWS)
    standard_error = 0.5 / np.sqrt(6 * metrics["counterfactual_states"])
    assert abs(metrics["counterfactual_accuracy"] - metrics["counterfactual_chance"]) < 4 * standard_error


def test_states_whose_branches_are_alike_are_counted_and_left_out(branches):
    still = branches.next_MEHWC.copy()
    still[:10] = still[:10, :1]
    found = found_by(branches, BranchingWorld(branches))
    without = type(found)(found.imagined_MAHWC, found.closest_MA, differing(still))
    before, after = (counterfactual_metrics(each, ARROWS) for each in (found, without))
    lost = before["counterfactual_states"] - after["counterfactual_states"]
    assert 0 < lost <= 10
    assert after["counterfactual_same_share"] == pytest.approx(1 - after["counterfactual_states"] / 60)
    none = type(found)(found.imagined_MAHWC, found.closest_MA, np.zeros_like(found.differs_MEE))
    assert counterfactual_metrics(none, ARROWS) == {"counterfactual_states": 0, "counterfactual_same_share": 1.0}


def test_branches_differ_as_pairs_compared_one_by_one_do(branches):
    differs = differing(branches.next_MEHWC[:4])
    for m, a, b in np.ndindex(4, 6, 6):
        pair = branches.next_MEHWC[m, [a, b]].astype(int)
        assert differs[m, a, b] == ((np.abs(pair[0] - pair[1]) > 8).any(-1).sum() > 40.96)
    assert 0 < regions(differing(branches.next_MEHWC), branches.action_names)["ground"].sum() < 60


class Telling(torch.nn.Module):
    """Labels the last transition with `label` of its effective action and its state."""

    history = CONTEXT

    def __init__(self, branches, label):
        super().__init__()
        self.somewhere = torch.nn.Parameter(torch.zeros(()))
        self._branches, self._label = branches, label
        self._state_of = {past.tobytes(): m for m, past in enumerate(branches.past_MTHWC)}

    def infer_actions(self, frames_BTHWC):
        labels = torch.zeros(frames_BTHWC.shape[0], frames_BTHWC.shape[1] - 1, dtype=torch.long)
        for row, frames_THWC in enumerate(frames_BTHWC.numpy()):
            state = self._state_of[frames_THWC[:-1].tobytes()]
            real = (self._branches.next_MEHWC[state] == frames_THWC[-1]).all((1, 2, 3))
            labels[row, -1] = self._label(int(real.argmax()), state)
        return labels


def labels_of(branches, label):
    return branch_metrics(Telling(branches, label), branches, differing(branches.next_MEHWC))


def test_labels_of_branches(branches):
    telling = labels_of(branches, lambda effect, state: effect)
    assert telling["action_nmi_ground"] > 0.8, "all but branches that look alike are told apart"
    assert telling["action_nmi_air"] > 0.8
    along = labels_of(branches, lambda effect, state: effect % 3)
    assert along["action_nmi_air"] >= telling["action_nmi_air"] - 0.05
    assert along["action_nmi_ground"] < telling["action_nmi_ground"]
    constant = labels_of(branches, lambda effect, state: 0)
    assert list(constant.values()) == pytest.approx([0.0] * 6)


def test_the_bits_of_labels_stand_beside_their_ceiling(branches):
    labels = (lambda effect, state: effect % 3), (lambda effect, state: effect)
    told, ceiling = (labels_of(branches, label) for label in labels)
    lam, probe = (Telling(branches, label) for label in labels)
    shares = {
        f"action_bits_share_{where}": told[f"action_bits_{where}"] / ceiling[f"action_bits_{where}"]
        for where in ("ground", "air")
    }
    ceiling = {f"{name}_ceiling": value for name, value in ceiling.items()}
    assert label_metrics(lam, probe, branches, differing(branches.next_MEHWC)) == told | ceiling | shares


def test_labels_that_mean_another_action_in_each_state_tell_branches_apart_and_no_more(branches):
    """States and branches are marked, since some look alike, so that perfect labels are possible."""
    past_MTHWC, held_MEFHWC = branches.past_MTHWC.copy(), branches.held_MEFHWC.copy()
    past_MTHWC[..., 0, 0, 0] = np.arange(len(past_MTHWC))[:, None]
    held_MEFHWC[..., 0, 0, 0] = np.arange(6)[:, None]
    branches = replace(branches, past_MTHWC=past_MTHWC, held_MEFHWC=held_MEFHWC)
    differs_MEE = differing(branches.next_MEHWC)
    same, other = (
        branch_metrics(Telling(branches, label), branches, differs_MEE)
        for label in (lambda effect, state: effect, lambda effect, state: (effect + state) % 6)
    )
    for metrics in (same, other):
        assert metrics["action_bits_ground_within"] == pytest.approx(np.log2(6))
        assert metrics["action_bits_air_within"] == pytest.approx(np.log2(3))
    assert same["action_bits_ground"] == pytest.approx(np.log2(6))
    assert same["action_bits_air"] == pytest.approx(np.log2(3))
    assert other["action_bits_ground"] < 1
    assert other["action_bits_air"] < 0.5
