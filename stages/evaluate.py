"""Dreams held-out levels, measures the dreams beside their baselines, and draws the report."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from genie.data.episodes import EpisodeStore
from genie.data.tokens import read_latent_actions, read_tokens
from genie.evaluation.controllability import action_nmi
from genie.evaluation.frechet import i3d_distance
from genie.evaluation.report import write_report
from genie.evaluation.rollouts import drift_metrics, measure_rollouts, rollout_metrics
from genie.params import Params
from genie.runtime import make_accelerator
from genie.stage import run_stage, write_metrics
from genie.training.tracking import Tracker
from genie.world import WorldModel

REPORT = Path("data/report")


def main(params: Params, tracker: Tracker) -> None:
    settings = params.evaluate
    accelerator = make_accelerator(params.runtime)
    store = EpisodeStore("data/frames/test.h5")
    world = WorldModel.load("data/models", params.sampling, accelerator.device)
    learnt_from = world.dynamics.config
    tokens = read_tokens("data/tokens/test.h5", learnt_from.tokenizer_fingerprint)
    latent_actions = read_latent_actions("data/actions/test.h5", learnt_from.lam_fingerprint)
    distances = [i3d_distance(settings.i3d_weights, settings.horizon, world.device)] if settings.i3d_weights else []

    with accelerator.autocast():
        measure = partial(measure_rollouts, world, store, latent_actions, seed=settings.seed)
        drift = measure(horizon=settings.drift_horizon, num_clips=settings.drift_clips)
        rollouts = measure(horizon=settings.horizon, num_clips=settings.num_clips, watchers=distances)
        metrics = rollout_metrics(rollouts) | drift_metrics(drift)
        metrics["action_nmi"] = action_nmi(latent_actions, store.actions())
        for distance in distances:
            metrics |= distance.metrics()
        write_report(
            REPORT,
            world,
            store,
            tokens,
            latent_actions,
            rollouts,
            drift,
            num_gifs=settings.num_gifs,
            seed=settings.seed,
        )
    write_metrics("evaluate", metrics)

    tracker.log_final(metrics)
    tracker.log_artifact(REPORT)
    for picture in sorted(REPORT.glob("*.png")):
        tracker.log_image(picture.stem, np.asarray(Image.open(picture).convert("RGB")), step=0)


if __name__ == "__main__":
    run_stage("evaluate", main)
