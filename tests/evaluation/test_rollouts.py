import numpy as np
import pytest
import torch

from genie.data.windows import WindowError
from genie.evaluation.rollouts import (
    SERIES,
    dream_held,
    horizon_table,
    liveliest,
    measure_rollouts,
    read_clips,
    rollout_metrics,
)

SETTINGS = {"horizon": 5, "num_clips": 12, "seed": 0}


def test_a_world_that_stands_still_scores_what_copying_scores(still_world, store, latent_actions):
    rollouts = measure_rollouts(still_world, store, latent_actions, **SETTINGS)
    np.testing.assert_array_equal(rollouts.mse["imagined"], rollouts.mse["copy_last"])
    metrics = rollout_metrics(rollouts)
    for suffix in ("", "_moving"):
        assert metrics[f"psnr{suffix}"] == metrics[f"psnr_copy_last{suffix}"]
        assert metrics[f"ssim{suffix}"] == metrics[f"ssim_copy_last{suffix}"]
        assert metrics[f"delta_psnr_1{suffix}"] == metrics[f"delta_psnr_4{suffix}"] == 0


def test_a_world_that_obeys_is_exact_and_beats_random_actions(obedient_world, store, latent_actions):
    rollouts = measure_rollouts(obedient_world, store, latent_actions, **SETTINGS)
    metrics = rollout_metrics(rollouts)
    assert metrics["psnr"] == metrics["psnr_5"] == metrics["psnr_tokenizer"] == pytest.approx(100)
    assert metrics["ssim"] == pytest.approx(1)
    assert metrics["psnr_random_action"] < 30
    assert metrics["delta_psnr_4"] == pytest.approx(100 - _psnr_at(rollouts, "random_action", 4))
    assert min(metrics["delta_psnr_1"], metrics["delta_psnr_4_moving"]) > 50


def test_moving_is_measured_against_the_last_frame_of_the_prompt(obedient_world, store, latent_actions):
    rollouts = measure_rollouts(obedient_world, store, latent_actions, **SETTINGS)
    first = rollouts.starts[:, None] + obedient_world.context_frames - 1
    shifts_MS = np.cumsum(latent_actions[first + np.arange(5)].astype(int), axis=1)
    np.testing.assert_array_equal(rollouts.moving_MS, shifts_MS % 16 != 0)
    assert 0 < rollouts.moving_MS.mean() < 1


def test_batches_change_nothing(obedient_world, store, latent_actions):
    whole = measure_rollouts(obedient_world, store, latent_actions, **SETTINGS)
    parts = measure_rollouts(obedient_world, store, latent_actions, **SETTINGS, batch_size=5)
    for series in SERIES:
        np.testing.assert_array_equal(whole.mse[series], parts.mse[series])


def test_horizon_table_has_a_row_a_frame(obedient_world, store, latent_actions):
    rollouts = measure_rollouts(obedient_world, store, latent_actions, **SETTINGS)
    table = horizon_table(rollouts, moving=False)
    assert [row["horizon"] for row in table] == [1, 2, 3, 4, 5]
    assert table[0]["copy_last"] == rollout_metrics(rollouts)["psnr_copy_last"]
    assert all(set(row) == {"horizon", *SERIES} for row in table)


def test_an_episode_too_short_is_named(obedient_world, store, latent_actions):
    with pytest.raises(WindowError, match="no episode holds 42 frames"):
        measure_rollouts(obedient_world, store, latent_actions, horizon=40, num_clips=1, seed=0)


def test_held_actions_start_from_the_same_prompt(obedient_world, store, latent_actions):
    frames_BTHWC, actions = read_clips(store, latent_actions, np.array([0]), 6)
    held_ASHWC = dream_held(obedient_world, frames_BTHWC[0], actions[0], seed=0)
    assert held_ASHWC.shape == (6, 4, 64, 64, 3)
    prompt = frames_BTHWC[0, obedient_world.context_frames - 1]
    for action in range(6):
        assert torch.equal(held_ASHWC[action, -1], prompt.roll(4 * 4 * action, dims=1))


def test_liveliest_clips_come_first(obedient_world, store, latent_actions):
    rollouts = measure_rollouts(obedient_world, store, latent_actions, **SETTINGS)
    moves = dict(zip(rollouts.starts, rollouts.moving_MS.sum(axis=1), strict=True))
    chosen = [moves[start] for start in liveliest(rollouts, 4)]
    assert chosen == sorted(moves.values(), reverse=True)[:4]


def _psnr_at(rollouts, series: str, t: int) -> float:
    return -10 * np.log10(rollouts.mse[series][:, t - 1].mean())
