"""Trains the motion predictor that the dynamics uses: data/models/motion/."""

from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.caches import cache_attributes, read_latent_actions
from genie.data.episodes import EpisodeStore
from genie.data.transitions import TransitionWindows
from genie.distributed.accelerator import make_accelerator
from genie.evaluation.motion_error import evaluate_motion, validate_motion
from genie.models.checkpoint import save_model
from genie.models.motion_predictor import build_motion_predictor
from genie.pipeline.outputs import write_curve, write_metrics
from genie.pipeline.stage import run_stage
from genie.training.loop import train
from genie.training.resume import ResumeStore

NUM_BATCHES = 8  # of 1024 held-out transitions


def main(params: Params, tracker: Tracker) -> None:
    settings = params.motion
    accelerator = make_accelerator(params.runtime, training=True)
    known = cache_attributes("data/actions/train.h5")
    model = build_motion_predictor(settings, **known).to(accelerator.device)

    def transitions(split: str, batch_size: int = 1024, seed: int = 0, num_batches: int = NUM_BATCHES):
        actions = read_latent_actions(f"data/actions/{split}.h5", known["lam_fingerprint"])
        store = EpisodeStore(f"data/frames/{split}")
        return TransitionWindows(model, store, batch_size, seed, num_batches, {"actions_M": actions})

    train_set = transitions("train", settings.batch_size, settings.seed, settings.steps)
    resume = ResumeStore("train_motion", settings, accelerator, known)
    validate = validate_motion(transitions("val"))
    curve = train(model, train_set, settings, accelerator, tracker, resume, validate, params.runtime.training_data)
    if not accelerator.is_main_process:
        return

    metrics = evaluate_motion(model, transitions("test"))
    write_curve("motion", curve)
    write_metrics("motion", metrics)
    tracker.log_final(metrics)
    save_model("data/models/motion", model)
    resume.clear()


if __name__ == "__main__":
    run_stage("train_motion", main, in_processes=True, trains="motion")
