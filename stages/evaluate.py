"""Dreams held-out levels, measures the dreams against their baselines, and writes the report."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from genie.core.files import replacing_folder
from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.caches import read_latent_actions, read_tokens
from genie.data.episodes import EpisodeStore
from genie.data.held_out import lively_prompts
from genie.distributed.accelerator import make_accelerator
from genie.evaluation.beside_the_game import measure_control
from genie.evaluation.controllability import action_nmi
from genie.evaluation.frechet import distances_of
from genie.evaluation.report import log_report, write_buttons, write_report, write_sprite
from genie.evaluation.rollouts import drift_metrics, measure_rollouts, rollout_metrics
from genie.models.checkpoint import load_if_trained, load_model
from genie.models.lam import LatentActionModel
from genie.models.probe import ActionProbe
from genie.pipeline.outputs import write_fingerprints, write_metrics
from genie.pipeline.stage import run_stage
from genie.world.maskgit import Sampling
from genie.world.world_model import WorldModel

REPORT = Path("data/report")


def main(params: Params, tracker: Tracker) -> None:
    settings = params.evaluate
    accelerator = make_accelerator(params.runtime)
    store = EpisodeStore("data/frames/test")
    world = WorldModel.load("data/models", Sampling(**params.sampling.model_dump()), accelerator.device)
    lam = load_model("data/models/lam", LatentActionModel, accelerator.device)
    probe = load_if_trained("data/models/probe", ActionProbe, accelerator.device)
    learnt_from = world.dynamics.config
    tokens = read_tokens("data/tokens/test", learnt_from.tokenizer_fingerprint)
    actions = read_latent_actions("data/actions/test.h5", learnt_from.lam_fingerprint)
    distances = distances_of(probe, settings.i3d_weights, settings.horizon, world.device)

    with accelerator.autocast():
        measure = partial(measure_rollouts, world, store, actions, seed=settings.seed)
        drift = measure(horizon=settings.drift_horizon, num_clips=settings.drift_clips)
        rollouts = measure(horizon=settings.horizon, num_clips=settings.num_clips, watchers=distances)
        metrics = {"action_nmi": action_nmi(actions, store.actions())} if store.action_names else {}
        metrics |= rollout_metrics(rollouts) | drift_metrics(drift)
        metrics |= {name: value for distance in distances for name, value in distance.metrics().items()}
        control = measure_control(world, lam, probe, params.collect, settings)
        metrics |= control.metrics if control else {}
    with replacing_folder(REPORT) as folder:
        with accelerator.autocast():
            write_report(folder, world, store, tokens, actions, rollouts, drift, settings.num_gifs, settings.seed)
        write_sprite(folder, store, lam)
        write_buttons(folder, store, actions, lam, world.buttons)
        if control:
            control.write(folder, world.buttons, settings.num_gifs)
    write_metrics("evaluate", metrics)
    models = (world.tokenizer, world.dynamics, world.steering, lam, probe)
    write_fingerprints(*(model for model in models if model is not None))
    tracker.log_final(metrics)
    log_report(tracker, REPORT)
    with TemporaryDirectory() as folder:
        world.prompts = lively_prompts(world.context_frames, settings.horizon, learnt_from.lam_fingerprint)
        world.save_pretrained(Path(folder) / "world")
        tracker.log_world(Path(folder) / "world", world.frame_shape)


if __name__ == "__main__":
    run_stage("evaluate", main)
