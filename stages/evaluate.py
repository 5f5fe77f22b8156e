"""Dreams held-out levels, measures the dreams beside their baselines, and draws the report."""

from pathlib import Path

import numpy as np
from PIL import Image

from genie.data.branches import play_branches
from genie.data.episodes import EpisodeStore
from genie.data.tokens import TRUE_ACTIONS, read_latent_actions, read_tokens
from genie.evaluation.controllability import action_nmi
from genie.evaluation.counterfactual import branch_nmi, counterfactual_metrics, imagine_branches, infer_actions
from genie.evaluation.report import write_counterfactuals, write_report
from genie.evaluation.rollouts import measure_rollouts, rollout_metrics
from genie.models.lam import LatentActionModel
from genie.models.probe import ActionProbe
from genie.params import Params
from genie.runtime import make_accelerator
from genie.stage import run_stage, write_metrics
from genie.training.checkpoint import load_model
from genie.training.tracking import Tracker
from genie.world import WorldModel

REPORT = Path("data/report")


def main(params: Params, tracker: Tracker) -> None:
    accelerator, settings = make_accelerator(params.runtime), params.evaluate
    store = EpisodeStore("data/frames/test.h5")
    world = WorldModel.load("data/models", params.sampling, accelerator.device)
    learnt_from = world.dynamics.config
    tokens = read_tokens("data/tokens/test.h5", learnt_from.tokenizer_fingerprint)
    latent_actions = read_latent_actions("data/actions/test.h5", learnt_from.lam_fingerprint)
    lam = load_model("data/models/lam", LatentActionModel, accelerator.device)
    probe = load_model("data/models/probe", ActionProbe, accelerator.device)
    branches = play_branches(params.collect, "test", settings.num_states, world.context_frames + lam.config.history - 1)

    with accelerator.autocast():
        rollouts = measure_rollouts(
            world,
            store,
            latent_actions,
            horizon=settings.horizon,
            num_clips=settings.num_clips,
            seed=settings.seed,
        )
        is_told = learnt_from.lam_fingerprint == TRUE_ACTIONS
        past_actions = branches.taken_MS if is_told else infer_actions(lam, branches.past_MTHWC)
        found = imagine_branches(world, branches, past_actions, settings.seed)
        metrics = rollout_metrics(rollouts) | counterfactual_metrics(found, world.buttons)
        metrics |= {"action_nmi": action_nmi(latent_actions, store.actions())}
        metrics |= {f"action_nmi_{part}": nmi for part, nmi in branch_nmi(lam, branches).items()}
        metrics |= {f"action_nmi_{part}_ceiling": nmi for part, nmi in branch_nmi(probe, branches).items()}
        write_report(
            REPORT,
            world,
            store,
            tokens,
            latent_actions,
            rollouts,
            num_gifs=settings.num_gifs,
            seed=settings.seed,
        )
    write_counterfactuals(REPORT, branches, found, world.buttons)
    write_metrics("evaluate", metrics)

    tracker.log_final(metrics)
    tracker.log_artifact(REPORT)
    for picture in sorted(REPORT.glob("*.png")):
        tracker.log_image(picture.stem, np.asarray(Image.open(picture).convert("RGB")), step=0)


if __name__ == "__main__":
    run_stage("evaluate", main)
