"""Trains the dynamics on cached tokens and latent actions: data/models/dynamics/."""

from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.caches import cache_attributes, read_latent_actions, read_tokens, token_attributes
from genie.data.windows import TokenWindows
from genie.distributed.accelerator import make_accelerator
from genie.evaluation.token_accuracy import evaluate_dynamics, validate_dynamics
from genie.models.checkpoint import load_model, save_model
from genie.models.dynamics import build_dynamics
from genie.models.motion_predictor import MotionPredictor
from genie.models.tokenizer import Tokenizer
from genie.pipeline.outputs import write_curve, write_metrics
from genie.pipeline.stage import run_stage
from genie.training.loop import train
from genie.training.resume import ResumeStore


def main(params: Params, tracker: Tracker) -> None:
    settings = params.dynamics
    accelerator = make_accelerator(params.runtime, training=True)
    known = token_attributes("data/tokens/train") | cache_attributes("data/actions/train.h5")
    known["grid"] = tuple(known["grid"])
    predictor = load_model("data/models/motion", MotionPredictor, accelerator.device)
    caches = {
        split: (
            read_tokens(f"data/tokens/{split}", known["tokenizer_fingerprint"]),
            read_latent_actions(f"data/actions/{split}.h5", predictor.config.lam_fingerprint),
        )
        for split in ("train", "val", "test")
    }
    model = build_dynamics(settings, **known)
    tokenizer = load_model("data/models/tokenizer", Tokenizer, accelerator.device)
    model.draw_embeddings(tokenizer.code_patches())
    model.see_through(tokenizer)
    model.foresee_by(predictor)
    dataset = TokenWindows(*caches["train"], settings.window, settings.batch_size, settings.seed, settings.steps)
    known["motion_fingerprint"] = predictor.fingerprint
    resume = ResumeStore("train_dynamics", settings, accelerator, known)
    validate = validate_dynamics(*caches["val"])
    curve = train(model, dataset, settings, accelerator, tracker, resume, validate, params.runtime.training_data)
    if not accelerator.is_main_process:
        return

    with accelerator.autocast():
        metrics = evaluate_dynamics(model, *caches["test"], num_windows=1024)
    write_curve("dynamics", curve)
    write_metrics("dynamics", metrics)
    tracker.log_final(metrics)
    save_model("data/models/dynamics", model)
    resume.clear()


if __name__ == "__main__":
    run_stage("train_dynamics", main, in_processes=True, trains="dynamics")
