"""Trains the latent action model on frames: data/models/lam/. Fails at the gate if its actions are useless."""

import math

from genie.core.params import Params, SurpriseLamParams
from genie.core.protocols import Tracker
from genie.data.episodes import EpisodeStore
from genie.data.transitions import TransitionWindows
from genie.data.windows import FrameWindows
from genie.distributed.accelerator import make_accelerator
from genie.evaluation.controllability import evaluate_lam, validate_lam
from genie.evaluation.probe_accuracy import evaluate_probe
from genie.models.checkpoint import load_if_trained, save_model
from genie.models.measured_size import MEASURED_SIZE
from genie.models.pixel_lam import build_pixel_lam
from genie.models.probe import ActionProbe
from genie.pipeline.gate import check_gate
from genie.pipeline.outputs import write_curve, write_metrics
from genie.pipeline.stage import run_stage
from genie.training.agent import build_for_agent
from genie.training.loop import train
from genie.training.resume import ResumeStore

NUM_TRANSITIONS = 6144  # measured per split


def main(params: Params, tracker: Tracker) -> None:
    settings = params.lam.of_kind()
    accelerator = make_accelerator(params.runtime, training=True)
    stores = {split: EpisodeStore(f"data/frames/{split}") for split in ("train", "val", "test")}
    probe = load_if_trained("data/models/probe", ActionProbe, accelerator.device)
    drawn = settings.batch_size, settings.seed, settings.steps
    if isinstance(settings, SurpriseLamParams):
        model = build_for_agent(settings, stores["train"], MEASURED_SIZE, accelerator.device)
        dataset = TransitionWindows(model, stores["train"], *drawn)
    else:
        model = build_pixel_lam(settings)
        dataset = FrameWindows(stores["train"], settings.window, *drawn)
    resume = ResumeStore("train_lam", settings, accelerator, stores["train"].attributes)
    validate = validate_lam(stores["val"], settings.window)
    curve = train(model, dataset, settings, accelerator, tracker, resume, validate, params.runtime.training_data)
    if not accelerator.is_main_process:
        return

    num_windows = math.ceil(NUM_TRANSITIONS / (settings.window - model.history))
    measured = {"window": settings.window, "num_windows": num_windows}
    with accelerator.autocast():
        held_out = {split: evaluate_lam(model, stores[split], seed=0, **measured) for split in ("val", "test")}
        metrics = held_out["test"]
        if probe is not None:
            ceiling = evaluate_probe(probe, stores["test"], history=model.history, **measured)
            metrics["action_nmi_ceiling"] = ceiling["action_nmi"]
    check_gate(held_out["val"], settings)
    write_curve("lam", curve)
    write_metrics("lam", metrics)
    tracker.log_final(metrics)
    save_model("data/models/lam", model)
    resume.clear()


if __name__ == "__main__":
    run_stage("train_lam", main, in_processes=True, trains="lam")
