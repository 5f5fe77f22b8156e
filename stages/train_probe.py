"""Trains the supervised probe used to evaluate the latent action model: data/models/probe/."""

from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.episodes import EpisodeStore
from genie.data.true_actions import LabelledFrameWindows
from genie.distributed.accelerator import make_accelerator
from genie.evaluation.probe_accuracy import evaluate_probe, validate_probe
from genie.models.checkpoint import save_model
from genie.models.probe import ActionProbe, build_probe
from genie.pipeline.outputs import write_curve, write_metrics
from genie.pipeline.stage import run_stage
from genie.pipeline.untrained import leave_untrained
from genie.training.loop import train
from genie.training.resume import ResumeStore

NUM_WINDOWS = 6144


def main(params: Params, tracker: Tracker) -> None:
    settings = params.probe
    stores = {split: EpisodeStore(f"data/frames/{split}") for split in ("train", "val", "test")}
    if not stores["train"].action_names:
        leave_untrained("probe", ActionProbe, without="no ceiling for latent actions")
        return
    accelerator = make_accelerator(params.runtime, training=True)
    model = build_probe(settings, num_classes=len(stores["train"].action_names))
    dataset = LabelledFrameWindows(stores["train"], settings.window, settings.batch_size, settings.seed, settings.steps)
    resume = ResumeStore("train_probe", settings, accelerator, stores["train"].attributes)
    validate = validate_probe(stores["val"], settings.window)
    curve = train(model, dataset, settings, accelerator, tracker, resume, validate, params.runtime.training_data)
    if not accelerator.is_main_process:
        return

    with accelerator.autocast():
        metrics = evaluate_probe(model, stores["test"], window=settings.window, num_windows=NUM_WINDOWS)
    write_curve("probe", curve)
    write_metrics("probe", metrics)
    tracker.log_final(metrics)
    save_model("data/models/probe", model)
    resume.clear()


if __name__ == "__main__":
    run_stage("train_probe", main, in_processes=True, trains="probe")
