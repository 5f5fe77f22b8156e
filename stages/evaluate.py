"""Dreams held-out levels, measures the dreams beside their baselines, and draws the report."""

from pathlib import Path

import numpy as np
from PIL import Image

from genie.data.episodes import EpisodeStore
from genie.data.tokens import read_latent_actions, read_tokens
from genie.evaluation.controllability import action_nmi
from genie.evaluation.report import write_report
from genie.evaluation.rollouts import measure_rollouts, rollout_metrics
from genie.params import Params
from genie.runtime import make_accelerator
from genie.stage import run_stage, write_metrics
from genie.training.tracking import Tracker
from genie.world import WorldModel

REPORT = Path("data/report")


def main(params: Params, tracker: Tracker) -> None:
    accelerator = make_accelerator(params.runtime)
    store = EpisodeStore("data/frames/test.h5")
    world = WorldModel.load("data/models", params.sampling, accelerator.device)
    learnt_from = world.dynamics.config
    tokens = read_tokens("data/tokens/test.h5", learnt_from.tokenizer_fingerprint)
    latent_actions = read_latent_actions("data/actions/test.h5", learnt_from.lam_fingerprint)

    with accelerator.autocast():
        rollouts = measure_rollouts(
            world,
            store,
            latent_actions,
            horizon=params.evaluate.horizon,
            num_clips=params.evaluate.num_clips,
            seed=params.evaluate.seed,
        )
        metrics = rollout_metrics(rollouts) | {"action_nmi": action_nmi(latent_actions, store.actions())}
        write_report(
            REPORT,
            world,
            store,
            tokens,
            latent_actions,
            rollouts,
            num_gifs=params.evaluate.num_gifs,
            seed=params.evaluate.seed,
        )
    write_metrics("evaluate", metrics)

    tracker.log_final(metrics)
    tracker.log_artifact(REPORT)
    for picture in sorted(REPORT.glob("*.png")):
        tracker.log_image(picture.stem, np.asarray(Image.open(picture).convert("RGB")), step=0)


if __name__ == "__main__":
    run_stage("evaluate", main)
