"""Trains the tokenizer on frames: data/models/tokenizer/."""

from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.episodes import EpisodeStore
from genie.data.windows import FrameWindows
from genie.distributed.accelerator import make_accelerator
from genie.evaluation.reconstruction import evaluate_tokenizer, validate_tokenizer
from genie.models.checkpoint import save_model
from genie.models.tokenizer import build_tokenizer
from genie.pipeline.outputs import write_curve, write_metrics
from genie.pipeline.stage import run_stage
from genie.training.loop import train
from genie.training.resume import ResumeStore


def main(params: Params, tracker: Tracker) -> None:
    settings = params.tokenizer
    accelerator = make_accelerator(params.runtime, training=True)
    stores = {split: EpisodeStore(f"data/frames/{split}") for split in ("train", "val", "test")}
    model = build_tokenizer(settings, stores["train"].frame_shape[0])
    dataset = FrameWindows(stores["train"], 1, settings.batch_size, settings.seed, settings.steps)
    resume = ResumeStore("train_tokenizer", settings, accelerator, stores["train"].attributes)
    validate = validate_tokenizer(stores["val"], tracker)
    curve = train(model, dataset, settings, accelerator, tracker, resume, validate, params.runtime.training_data)
    if not accelerator.is_main_process:
        return

    with accelerator.autocast():
        metrics = evaluate_tokenizer(model, stores["test"])
    write_curve("tokenizer", curve)
    write_metrics("tokenizer", metrics)
    tracker.log_final(metrics)
    save_model("data/models/tokenizer", model)
    resume.clear()


if __name__ == "__main__":
    run_stage("train_tokenizer", main, in_processes=True, trains="tokenizer")
