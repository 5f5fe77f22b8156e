"""Dreams held-out levels, measures the dreams against their baselines, and writes the report."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from genie.core.files import replacing_folder
from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.caches import TRUE_ACTIONS, read_latent_actions, read_tokens
from genie.data.episodes import EpisodeStore
from genie.data.held_out import lively_prompts
from genie.distributed.accelerator import make_accelerator
from genie.evaluation.controllability import action_nmi
from genie.evaluation.counterfactual import counterfactual_metrics, imagine_branches, label_metrics, past_actions_of
from genie.evaluation.frechet import i3d_distance, probe_distance
from genie.evaluation.report import log_report, write_counterfactuals, write_report, write_sprite, write_steering
from genie.evaluation.rollouts import drift_metrics, measure_rollouts, rollout_metrics
from genie.evaluation.steering_accuracy import measure_steering
from genie.models.checkpoint import load_model
from genie.models.lam import LatentActionModel
from genie.models.probe import ActionProbe
from genie.pipeline.outputs import write_fingerprints, write_metrics
from genie.pipeline.stage import run_stage
from genie.sources.branches import play_branches
from genie.world.maskgit import Sampling
from genie.world.world_model import WorldModel

REPORT = Path("data/report")


def main(params: Params, tracker: Tracker) -> None:
    settings = params.evaluate
    accelerator = make_accelerator(params.runtime)
    store = EpisodeStore("data/frames/test")
    world = WorldModel.load("data/models", Sampling(**params.sampling.model_dump()), accelerator.device)
    lam = load_model("data/models/lam", LatentActionModel, accelerator.device)
    probe = load_model("data/models/probe", ActionProbe, accelerator.device)
    learnt_from = world.dynamics.config
    tokens = read_tokens("data/tokens/test", learnt_from.tokenizer_fingerprint)
    actions = read_latent_actions("data/actions/test.h5", learnt_from.lam_fingerprint)
    i3d = [i3d_distance(settings.i3d_weights, settings.horizon, world.device)] if settings.i3d_weights else []
    distances = [probe_distance(probe, settings.horizon), *i3d]
    play = partial(play_branches, params.collect, "test", past_frames=world.context_frames + lam.history - 1)
    branches = play(settings.num_states)
    held = play(settings.steered_states, held_frames=settings.steered_frames)

    with accelerator.autocast():
        measure = partial(measure_rollouts, world, store, actions, seed=settings.seed)
        drift = measure(horizon=settings.drift_horizon, num_clips=settings.drift_clips)
        rollouts = measure(horizon=settings.horizon, num_clips=settings.num_clips, watchers=distances)
        metrics = {"action_nmi": action_nmi(actions, store.actions())}
        metrics |= rollout_metrics(rollouts) | drift_metrics(drift)
        metrics |= {name: value for distance in distances for name, value in distance.metrics().items()}
        if branches and held:
            labels = None if learnt_from.lam_fingerprint == TRUE_ACTIONS else lam
            found = imagine_branches(world, branches, past_actions_of(labels, branches), settings.seed)
            metrics |= counterfactual_metrics(found, world.buttons)
            metrics |= label_metrics(lam, probe, branches, found.differs_MEE)
            steered, steering = measure_steering(world, labels, held, settings.seed)
            metrics |= steering
    with replacing_folder(REPORT) as folder:
        with accelerator.autocast():
            write_report(folder, world, store, tokens, actions, rollouts, drift, settings.num_gifs, settings.seed)
        write_sprite(folder, store, lam)
        if branches and held:
            write_counterfactuals(folder, branches, found, world.buttons)
            write_steering(folder, held, steered, settings.num_gifs)
    write_metrics("evaluate", metrics)
    write_fingerprints(world.tokenizer, world.dynamics, world.steering, lam, probe)
    tracker.log_final(metrics)
    log_report(tracker, REPORT)
    with TemporaryDirectory() as folder:
        world.prompts = lively_prompts(world.context_frames, settings.horizon, learnt_from.lam_fingerprint)
        world.save_pretrained(Path(folder) / "world")
        tracker.log_world(Path(folder) / "world")


if __name__ == "__main__":
    run_stage("evaluate", main)
