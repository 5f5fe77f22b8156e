import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from genie.core.actions import game_actions
from genie.data.caches import Tokens
from genie.evaluation import pictures, report
from genie.evaluation.counterfactual import Counterfactuals
from genie.evaluation.rollouts import measure_rollouts
from genie.sources.branches import Branches
from genie.world.controls import Button, arrows_of

COINRUN = game_actions("coinrun").names
ARROWS = arrows_of(COINRUN)

HORIZON, DRIFT_HORIZON = 4, 9


@pytest.fixture(scope="module")
def write(store, latent_actions):
    def write(folder: Path, world) -> Path:
        rollouts = measure_rollouts(world, store, latent_actions, horizon=HORIZON, num_clips=6, seed=0)
        drift = measure_rollouts(world, store, latent_actions, horizon=DRIFT_HORIZON, num_clips=6, seed=0)
        tokens = Tokens([(np.arange(store.num_frames) % world.tokenizer.num_codes)[:, None]])
        report.write_report(folder, world, store, tokens, latent_actions, rollouts, drift, num_gifs=2, seed=0)
        return folder

    return write


def test_report_is_whole_and_the_same_every_time(write, obedient_world, tmp_path):
    first, second = (write(tmp_path / name, obedient_world) for name in ("first", "second"))
    plots = {"reconstructions.png", "codebook_histogram.png", "action_table.png", "horizon.png"}
    tables = {f"{name}.csv" for name in ("codebook_histogram", "action_table", "horizon_all", "horizon_moving")}
    dreams = {
        f"{name}_{i}.{kind}"
        for name, kind in (("dream", "gif"), ("actions", "gif"), ("actions", "png"))
        for i in (0, 1)
    }
    assert {path.name for path in first.iterdir()} == plots | tables | dreams
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name

    assert _num_shown(first / "actions_0.gif") == HORIZON + 1
    assert _num_shown(first / "dream_0.gif") == HORIZON + obedient_world.context_frames
    horizons = [int(row["horizon"]) for row in csv.DictReader((first / "horizon_all.csv").open())]
    assert horizons == list(range(1, DRIFT_HORIZON + 1))
    shares = [float(row["share"]) for row in csv.DictReader((first / "action_table.csv").open())]
    assert sum(shares) == pytest.approx(obedient_world.num_actions)


def test_without_true_actions_there_is_no_table_of_them(write, store, obedient_world, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "action_names", ())
    monkeypatch.setattr(obedient_world, "buttons", (Button(motion=(4.0, 0.0)),) * 6)
    names = {path.name for path in write(tmp_path / "films", obedient_world).iterdir()}
    assert not {"action_table.csv", "action_table.png"} & names
    assert {"horizon.png", "actions_0.gif", "actions_0.png"} <= names


def test_where_nothing_moves_the_table_of_moving_frames_is_empty(tmp_path):
    report.write_horizon(tmp_path, {"moving": []})
    assert list(csv.DictReader((tmp_path / "horizon_moving.csv").open())) == []
    assert (tmp_path / "horizon_moving.csv").read_text().startswith("horizon,psnr_imagined,")


def test_the_counterfactual_report_is_whole_and_the_same_every_time(tmp_path):
    rng = np.random.default_rng(0)
    next_MEHWC = rng.integers(256, size=(5, 6, 64, 64, 3), dtype=np.uint8)
    past_MTHWC, taken_MS = next_MEHWC[:, :2], np.zeros((5, 1), int)
    asked = [0, 1, 2, 3, 4, 5, 5]  # seven buttons, the last two with the same name
    closest_MA = np.tile([0, 1, 2, 3, 4, 5, 2], (5, 1))  # the last one takes another action
    differs_MEE = np.tile(~np.eye(6, dtype=bool), (5, 1, 1))
    differs_MEE[0] = False
    found = Counterfactuals(next_MEHWC[:, closest_MA[0]], closest_MA, differs_MEE)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        branches = Branches(COINRUN, past_MTHWC, taken_MS, next_MEHWC[:, :, None])
        report.write_counterfactuals(tmp_path / name, branches, found, [ARROWS[action] for action in asked])
    first = tmp_path / "first"
    assert {path.name for path in first.iterdir()} == {
        "counterfactual_confusion.csv",
        "counterfactual_confusion.png",
        "branches.png",
    }
    for path in first.iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name
    rows = csv.DictReader((first / "counterfactual_confusion.csv").open())
    shares = {(row["asked"], row["came"]): float(row["share"]) for row in rows}
    came = {pair: share for pair, share in shares.items() if share}
    assert came == {(action, action): 1 for action in COINRUN[:5]} | {
        ("jump_right", "jump_right"): 0.5,
        ("jump_right", "right"): 0.5,
    }


def test_play_by_arrows_is_shown_and_the_same_every_time(tmp_path):
    rng = np.random.default_rng(0)
    held, dreamed = rng.integers(256, size=(2, 3, 6, 4, 64, 64, 3), dtype=np.uint8)
    held[0] = held[0, :1]  # all arrows do the same, so there is nothing to show
    branches = Branches(COINRUN, held[:, 0, :2], np.zeros((3, 1), int), held)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        report.write_steering(tmp_path / name, branches, dreamed, num_gifs=5)
    first = tmp_path / "first"
    assert {path.name for path in first.iterdir()} == {"steering.png", "steering_0.gif", "steering_1.gif"}
    for path in first.iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name
    assert _num_shown(first / "steering_0.gif") == 1 + 4

    alike = Branches(COINRUN, held[:1, 0, :2], np.zeros((1, 1), int), held[:1])
    report.write_steering(tmp_path, alike, dreamed[:1], num_gifs=1)
    assert (tmp_path / "steering_0.gif").exists()


def _num_shown(path: Path) -> int:
    """Returns the number of frames that a GIF shows: Pillow merges equal ones into a longer one."""
    with Image.open(path) as gif:
        duration = sum(frame.info["duration"] for frame in ImageSequence.Iterator(gif))
    return (duration - pictures.LAST_FRAME_MS) // pictures.FRAME_MS + 1
