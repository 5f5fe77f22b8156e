import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from genie.evaluation import pictures, report
from genie.evaluation.rollouts import measure_rollouts

HORIZON, DRIFT_HORIZON = 4, 9


@pytest.fixture(scope="module")
def write(store, latent_actions):
    def write(folder: Path, world) -> Path:
        rollouts = measure_rollouts(world, store, latent_actions, horizon=HORIZON, num_clips=6, seed=0)
        drift = measure_rollouts(world, store, latent_actions, horizon=DRIFT_HORIZON, num_clips=6, seed=0)
        tokens = np.arange(store.num_frames) % world.tokenizer.num_codes
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


def _num_shown(path: Path) -> int:
    """Frames of a GIF as they are seen: Pillow merges equal ones into a longer one."""
    with Image.open(path) as gif:
        duration = sum(frame.info["duration"] for frame in ImageSequence.Iterator(gif))
    return (duration - pictures.LAST_FRAME_MS) // pictures.FRAME_MS + 1
