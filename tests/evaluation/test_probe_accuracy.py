import numpy as np
import pytest
import torch
from torch import nn

from genie.core.actions import NO_ACTION
from genie.evaluation.controllability import evaluate_lam
from genie.evaluation.metrics import normalised_mutual_information
from genie.evaluation.probe_accuracy import evaluate_probe
from genie.models.probe import build_probe

EVERYTHING = 10_000


class Told(nn.Module):
    """A probe that labels every transition as another model does."""

    def __init__(self, model, history):
        super().__init__()
        self.model, self.history = model, history
        self.somewhere = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        told_BS = self.infer_actions(batch["frames_BTHWC"])[:, self.history - 1 :]
        accuracy = (told_BS == batch["actions_BS"][:, self.history - 1 :]).float().mean()
        return self.somewhere, {"accuracy": accuracy, "cross_entropy": 1 - accuracy}

    def infer_actions(self, frames_BTHWC):
        return self.model.infer_actions(frames_BTHWC)


def test_a_probe_that_knows_the_physics(store, lam):
    metrics = evaluate_probe(Told(lam, 3), store, window=4, num_windows=EVERYTHING, batch_size=7)
    assert metrics == pytest.approx({"accuracy": 1, "cross_entropy": 0, "action_nmi": 1})


def test_the_ceiling_is_of_the_transitions_that_the_lam_is_judged_on(store, lam, monkeypatch):
    """Models with equal labels score the same; both are measured where the whole history is in the window."""
    infer_actions = lam.infer_actions

    def wrong_now_and_then(frames_BTHWC):
        told_BS = infer_actions(frames_BTHWC)
        told_BS[:, : lam.history - 1] = 0  # not measured: no whole history
        return (told_BS + (frames_BTHWC[:, 1:, 0, 0, 0] > 200)) % 6

    monkeypatch.setattr(lam, "infer_actions", wrong_now_and_then)
    probe = Told(lam, lam.history)
    for window, num_windows in [(4, EVERYTHING), (6, 5)]:
        ceiling = evaluate_probe(probe, store, window=window, num_windows=num_windows, batch_size=4)["action_nmi"]
        assert 0.1 < ceiling < 0.9
        judged = evaluate_lam(lam, store, window=window, num_windows=num_windows, seed=0, batch_size=3)["action_nmi"]
        assert ceiling == pytest.approx(judged)


def test_transitions_of_a_longer_history_are_the_last_ones_of_each_window(store, lam, monkeypatch):
    infer_actions = lam.infer_actions

    def wrong_early(frames_BTHWC):
        told_BS = infer_actions(frames_BTHWC)
        told_BS[:, :2] = 0
        return told_BS

    monkeypatch.setattr(lam, "infer_actions", wrong_early)
    nmi = {
        history: evaluate_probe(Told(lam, 2), store, window=5, num_windows=EVERYTHING, history=history)["action_nmi"]
        for history in (None, 2, 3)
    }
    assert nmi[None] == nmi[2] < nmi[3] == pytest.approx(1)


def test_a_real_probe_measured_slowly_and_obviously(store, tiny_params, scrambled):
    probe = scrambled(build_probe(tiny_params.probe, num_classes=6))
    length = probe.history + 1
    told, true, actions = [], [], store.actions()
    for episode in store.episode_slices():
        for start in range(episode.start, episode.stop - length + 1):
            frames_THWC = torch.from_numpy(store.read(start, start + length))
            told.append(probe.infer_actions(frames_THWC[None])[0, -1].item())
            true.append(actions[start + length - 2])
    assert NO_ACTION not in true
    metrics = evaluate_probe(probe, store, window=length, num_windows=EVERYTHING, batch_size=5)
    assert metrics["accuracy"] == pytest.approx(np.equal(told, true).mean())
    assert metrics["action_nmi"] == pytest.approx(normalised_mutual_information(told, true))
    assert metrics["cross_entropy"] > 0
