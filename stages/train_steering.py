"""Trains the steering on transitions with known true actions: data/models/steering/."""

import numpy as np

from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.caches import cache_attributes, read_latent_actions
from genie.data.episodes import EpisodeStore
from genie.data.transitions import TransitionWindows
from genie.distributed.accelerator import make_accelerator
from genie.evaluation.arrow_accuracy import evaluate_arrows, validate_arrows
from genie.models.checkpoint import save_model
from genie.models.steering import Steering, build_steering
from genie.pipeline.outputs import write_curve, write_metrics
from genie.pipeline.stage import run_stage
from genie.pipeline.untrained import leave_untrained
from genie.training.loop import train
from genie.training.resume import ResumeStore

NUM_BATCHES = 8  # of 1024 held-out transitions


def main(params: Params, tracker: Tracker) -> None:
    settings = params.steering
    names = EpisodeStore("data/frames/train").action_names
    if not names:
        leave_untrained("steering", Steering, without="buttons, but no arrows")
        return
    accelerator = make_accelerator(params.runtime, training=True)
    known = cache_attributes("data/actions/train.h5")
    model = build_steering(settings, num_effects=len(names), **known).to(accelerator.device)

    def transitions(split: str, batch_size: int = 1024, seed: int = 0, num_batches: int = NUM_BATCHES):
        store = EpisodeStore(f"data/frames/{split}")
        latents = read_latent_actions(f"data/actions/{split}.h5", known["lam_fingerprint"])
        # The action before a sampled transition is in the same episode, like all its history.
        labels = {"effects_M": store.actions(), "actions_M": latents, "before_M": np.roll(latents, 1)}
        return TransitionWindows(model, store, batch_size, seed, num_batches, labels)

    train_set = transitions("train", settings.batch_size, settings.seed, settings.steps)
    resume = ResumeStore("train_steering", settings, accelerator, known)
    validate = validate_arrows(transitions("val"))
    curve = train(model, train_set, settings, accelerator, tracker, resume, validate, params.runtime.training_data)
    if not accelerator.is_main_process:
        return

    metrics = evaluate_arrows(model, transitions("test"))
    write_curve("steering", curve)
    write_metrics("steering", metrics)
    tracker.log_final(metrics)
    save_model("data/models/steering", model)
    resume.clear()


if __name__ == "__main__":
    run_stage("train_steering", main, in_processes=True, trains="steering")
