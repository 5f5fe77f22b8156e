import numpy as np
import pytest
import torch

from genie.core.actions import NO_ACTION
from genie.core.frames import FRAME_SHAPE, psnr
from genie.data.windows import read_windows, spread_starts, window_starts
from genie.evaluation.controllability import action_nmi, action_table, evaluate_lam
from genie.evaluation.metrics import frame_mse
from genie.models.measured_size import MEASURED_SIZE, at_measured_size
from genie.models.pixel_lam import build_pixel_lam
from genie.models.surprise_lam import build_surprise_lam, information
from genie.training.costs import A_SPRITE


def test_action_table_counts_each_transition_once(store, latent_actions):
    counts = action_table(latent_actions, store.actions(), num_actions=8, num_effects=6)
    assert counts.shape == (8, 6)
    assert counts.sum() == np.sum(store.actions() != NO_ACTION)
    assert np.all(counts[:6] == np.diag(np.diag(counts)))
    assert not counts[6:].any()


def test_action_nmi_does_not_depend_on_the_numbering():
    actions = np.tile(np.arange(6, dtype=np.uint8), 4)
    assert action_nmi(np.array([3, 1, 0, 2, 5, 4])[actions], actions) == pytest.approx(1)
    assert action_nmi(np.arange(24) % 15, actions) < 1


def test_a_lam_that_knows_the_physics(store, lam):
    metrics = evaluate_lam(lam, store, window=4, num_windows=10_000, seed=0, batch_size=7)
    assert metrics["psnr"] == metrics["psnr_moving"] == pytest.approx(100)
    assert metrics["psnr_random_action"] < 20
    assert metrics["psnr_copy_last_moving"] < metrics["psnr_copy_last"] < 20
    assert metrics["action_nmi"] == pytest.approx(1)
    assert metrics["codebook_usage"] == 1
    assert 0 < metrics["min_code_share"] <= 1 / 6


def test_only_transitions_with_a_whole_history_are_measured(store, lam, monkeypatch):
    """Inferred actions and drawn frames of earlier transitions do not matter."""
    expected = evaluate_lam(lam, store, window=4, num_windows=10_000, seed=0)
    infer_actions, predict_next = lam.infer_actions, lam.predict_next

    def infer_junk(frames_BTHWC):
        actions_BS = infer_actions(frames_BTHWC)
        actions_BS[:, 0] = 5
        return actions_BS

    def draw_junk(frames_BTHWC, actions_BS):
        drawn_BSHWC = predict_next(frames_BTHWC, actions_BS)
        drawn_BSHWC[:, 0] = 255
        return drawn_BSHWC

    monkeypatch.setattr(lam, "infer_actions", infer_junk)
    monkeypatch.setattr(lam, "predict_next", draw_junk)
    assert evaluate_lam(lam, store, window=4, num_windows=10_000, seed=0) == expected
    with pytest.raises(ValueError, match="no frames to measure"):
        evaluate_lam(lam, store, window=2, num_windows=10, seed=0)


def test_a_lam_that_hears_no_action_gains_nothing_over_a_random_one(store, lam, monkeypatch):
    monkeypatch.setattr(lam, "predict_next", lambda frames_BTHWC, actions_BS: frames_BTHWC[:, :-1])
    metrics = evaluate_lam(lam, store, window=4, num_windows=10, seed=0)
    assert metrics["psnr"] == metrics["psnr_random_action"] == metrics["psnr_copy_last"]


def test_of_kind_surprise_the_information_is_that_of_transitions_with_a_whole_history(coinrun, tiny_params, scrambled):
    params = tiny_params.lam.model_copy(update={"kind": "surprise"}).of_kind()
    lam, store = scrambled(build_surprise_lam(params, A_SPRITE, FRAME_SHAPE[:2])), coinrun["val"]
    length = lam.history + 1
    metrics = evaluate_lam(lam, store, window=length, num_windows=10_000, seed=0, batch_size=7)
    judged = [
        [part[0, -1] for part in lam.judge(torch.from_numpy(store.read(start, start + length))[None])]
        for episode in store.episode_slices()
        for start in range(episode.start, episode.stop - length + 1)
    ]
    actions_M, likelihood_MA = (torch.stack(parts) for parts in zip(*judged, strict=True))
    assert metrics["information"] == pytest.approx(float(information(likelihood_MA, actions_M)), abs=1e-3)
    assert metrics.keys() == {"information", "action_nmi", "min_code_share", "codebook_usage", "codebook_perplexity"}


@pytest.mark.parametrize("kind", ["surprise", "pixels"])
def test_larger_frames_are_measured_at_the_measured_size(kind, larger_store, tiny_params, scrambled):
    params = tiny_params.lam.model_copy(update={"kind": kind}).of_kind()
    is_surprise = kind == "surprise"
    lam = build_surprise_lam(params, A_SPRITE, MEASURED_SIZE) if is_surprise else build_pixel_lam(params)
    metrics = evaluate_lam(scrambled(lam), larger_store, window=lam.history + 2, num_windows=20, seed=0)
    if kind == "pixels":
        starts = spread_starts(window_starts(larger_store.episode_starts, larger_store.num_frames, lam.history + 2), 20)
        frames_BTHWC = torch.from_numpy(read_windows(larger_store, starts, lam.history + 2))
        frames_BTHWC = at_measured_size(frames_BTHWC)[:, lam.history - 1 :]
        assert metrics["psnr_copy_last"] == pytest.approx(psnr(frame_mse(frames_BTHWC[:, :-1], frames_BTHWC[:, 1:])))
    assert metrics["codebook_perplexity"] >= 1
