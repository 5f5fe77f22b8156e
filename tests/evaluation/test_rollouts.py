from dataclasses import replace

import numpy as np
import pytest
import torch

from genie.data.windows import WindowError
from genie.evaluation.metrics import frame_ssim
from genie.evaluation.rollouts import (
    MEASURES,
    REAL,
    SERIES,
    dream_held,
    drift_metrics,
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
        np.testing.assert_allclose(whole.ssim[series], parts.ssim[series], atol=1e-6)


def test_where_nothing_moves_no_moving_frame_is_told(still_world, store, latent_actions):
    rollouts = measure_rollouts(still_world, store, latent_actions, **SETTINGS)
    told = rollout_metrics(rollouts) | drift_metrics(rollouts)
    at_rest = replace(rollouts, moving_MS=np.zeros_like(rollouts.moving_MS))
    assert rollout_metrics(at_rest) | drift_metrics(at_rest) == {
        name: value for name, value in told.items() if not name.endswith("_moving")
    }
    assert horizon_table(at_rest, moving=True) == []


def test_every_dreamed_frame_has_its_similarity(still_world, store, latent_actions):
    rollouts = measure_rollouts(still_world, store, latent_actions, **SETTINGS)
    for row, start in enumerate(rollouts.starts[:3]):
        last, *truth = torch.from_numpy(store.read(start + 1, start + 7)).split(1)
        expected = [frame_ssim(last, frame).item() for frame in truth]
        for series in ("imagined", "copy_last"):
            np.testing.assert_allclose(rollouts.ssim[series][row], expected, atol=1e-5)


def test_drift_is_what_the_last_frames_score(still_world, store, latent_actions):
    rollouts = measure_rollouts(still_world, store, latent_actions, **SETTINGS)
    metrics = drift_metrics(rollouts)
    names = {f"{measure}{suffix}_5" for measure in MEASURES for suffix in SERIES.values()}
    assert set(metrics) == names | {f"{name}_moving" for name in names}
    moving_M = rollouts.moving_MS[:, -1]
    assert metrics["psnr_random_action_5"] == pytest.approx(_psnr_at(rollouts, "random_action", 5))
    assert metrics["ssim_5_moving"] == pytest.approx(rollouts.ssim["imagined"][moving_M, -1].mean())
    assert metrics["ssim_5_moving"] == metrics["ssim_copy_last_5_moving"] < metrics["ssim_tokenizer_5_moving"]
    headline = rollout_metrics(rollouts)
    for name in headline.keys() & metrics.keys():
        assert headline[name] == metrics[name]


def test_watchers_see_every_frame_once(still_world, store, latent_actions):
    seen = {}

    def watch(series, frames_BTHWC):
        seen.setdefault(series, []).append(frames_BTHWC)

    rollouts = measure_rollouts(still_world, store, latent_actions, **SETTINGS, batch_size=5, watchers=[watch])
    assert [len(batch) for batch in seen[REAL]] == [5, 5, 2]
    clips = {series: torch.cat(batches) for series, batches in seen.items()}
    assert set(clips) == {REAL, *SERIES}
    real, _ = read_clips(store, latent_actions, rollouts.starts, 7)
    assert torch.equal(clips[REAL], real)
    assert torch.equal(clips["tokenizer"], real)
    assert torch.equal(clips["imagined"], real[:, [0, 1, 1, 1, 1, 1, 1]])


def test_horizon_table_has_a_row_a_frame(obedient_world, store, latent_actions):
    rollouts = measure_rollouts(obedient_world, store, latent_actions, **SETTINGS)
    table = horizon_table(rollouts, moving=False)
    assert [row["horizon"] for row in table] == [1, 2, 3, 4, 5]
    assert table[0]["psnr_copy_last"] == rollout_metrics(rollouts)["psnr_copy_last"]
    assert table[-1]["ssim_random_action"] == drift_metrics(rollouts)["ssim_random_action_5"]
    columns = {f"{measure}_{series}" for measure in MEASURES for series in SERIES}
    assert all(set(row) == {"horizon"} | columns for row in table)
    moving = horizon_table(rollouts, moving=True)
    assert moving[-1]["psnr_copy_last"] == drift_metrics(rollouts)["psnr_copy_last_5_moving"]


def test_where_episodes_are_short_fewer_frames_are_dreamed(obedient_world, store, latent_actions, capsys):
    rollouts = measure_rollouts(obedient_world, store, latent_actions, horizon=40, num_clips=1, seed=0)
    assert rollouts.moving_MS.shape == (1, 28)
    assert capsys.readouterr().err.splitlines()[0] == (
        "the longest episode has 30 frames: 28 frames are dreamed in place of 40"
    )
    assert rollout_metrics(rollouts)["psnr_28"] == pytest.approx(100)


def test_a_horizon_of_one_frame_has_its_metrics(obedient_world, store, latent_actions):
    rollouts = measure_rollouts(obedient_world, store, latent_actions, horizon=1, num_clips=1, seed=0)
    assert "delta_psnr_1" in rollout_metrics(rollouts)
    assert "delta_psnr_4" not in rollout_metrics(rollouts)


def test_without_an_episode_longer_than_the_context_nothing_is_dreamed(obedient_world, store, latent_actions):
    obedient_world.context_frames = 30
    with pytest.raises(WindowError, match=r"no episode is longer than 30 frames of context: lower dynamics"):
        measure_rollouts(obedient_world, store, latent_actions, horizon=1, num_clips=1, seed=0)


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
