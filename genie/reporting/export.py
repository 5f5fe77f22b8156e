"""`genie export`: the pipeline's world as one folder, with prompts and a card that tells how good it is."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np

from genie.core.motion import changed_share
from genie.core.params import Params, ParamsError
from genie.core.scales import SCALES_FOLDER, load_scale
from genie.data.held_out import lively_prompts
from genie.reporting.results import SEEDS, TRUE_ACTIONS, ResultsError, read_metrics, results_table
from genie.world.maskgit import Sampling
from genie.world.pretrained import CONFIG, HALF, WEIGHTS
from genie.world.world_model import WorldModel


class ExportError(ValueError):
    """A folder holds something else than it must; the message names it and the fix."""


def export(params: Params, *, models: Path, metrics: Path, out: Path, made: str | None = None) -> str:
    """Writes the world of a folder of checkpoints as `WorldModel.save_pretrained` does.

    Args:
        params: those of sampling are kept with it; `evaluate.horizon` counts when prompts are chosen.
        models: folder of the checkpoints.
        metrics: folder of the metrics for its card; the card does without where there are none.
        out: the folder to write; a world that lies there is replaced.
        made: how it was trained, for its card; None: by the command that these params stand for.

    Returns:
        What was written, in words.

    Raises:
        ExportError: `out` holds something else than a world, or the metrics are of other models.
        CheckpointError, ButtonsError: there is no such world.
        EpisodeFileError, CacheFileError, WindowError: there are no held-out frames to start from.
        OSError: it cannot be written.
    """
    if out.is_dir() and any(out.iterdir()) and not ((out / CONFIG).exists() and (out / WEIGHTS).exists()):
        raise ExportError(f"--out {out}: holds something else than a world; name a folder of its own")
    world = WorldModel.load(models, Sampling(**params.sampling.model_dump()))
    lam_fingerprint = world.dynamics.config.lam_fingerprint
    world.prompts = lively_prompts(world.context_frames, params.evaluate.horizon, lam_fingerprint)
    made = made or f"Trained by `{training_command(params)}`."
    details = {"made": made, "halving_cost": halving_cost(world)}
    try:
        # Of this run alone: seeds and the upper bound may have been measured at another scale.
        found = {name: tree for name, tree in read_metrics(metrics).items() if name not in (SEEDS, TRUE_ACTIONS)}
        _check_fingerprints(world, metrics)
        details["metrics"] = results_table(found)
        measured = "with metrics"
    except ResultsError as error:
        measured = f"without metrics ({error})"
    world.save_pretrained(out, model_card_kwargs=details)
    megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    return f"wrote {out}: {megabytes:.1f} MB, {len(world.prompts)} prompts, a card {measured}"


def _check_fingerprints(world: WorldModel, metrics: Path) -> None:
    path = metrics / "fingerprints.json"
    try:
        measured = json.loads(path.read_text())
    except (OSError, ValueError):
        raise ResultsError(f"{path}: missing or damaged; the pipeline writes it: dvc repro evaluate") from None
    for model in (world.tokenizer, world.dynamics, world.steering):
        if measured.get(model.kind) != model.fingerprint:
            raise ExportError(
                f"--metrics {metrics}: they are of the {model.kind} {measured.get(model.kind)}, and this is the "
                f"{model.kind} {model.fingerprint}; measure this one: dvc repro evaluate"
            )


def halving_cost(world: WorldModel) -> float:
    """The share of the pixels that half precision changes visibly, in the first frames dreamed from its prompts.

    At temperature 0: above it, rounding tips a draw now and then, and what differs are two draws of one world.
    """
    world = world.fork()
    world.sampling = replace(world.sampling, temperature=0.0)
    half = deepcopy(world).to(HALF).float()
    shares = []
    for prompt in world.prompts:
        for each in (world, half):
            each.reset(prompt.frames_THWC, actions=prompt.actions)
        shares.append(changed_share(world.imagine(), half.imagine()).mean())
    return float(np.mean(shares))


def training_command(params: Params) -> str:
    """What trains with these parameters: `make repro`, after a scale's name if they are one's."""
    for scale in sorted(path.stem for path in SCALES_FOLDER.glob("*.yaml")):
        try:
            if load_scale(scale)[1] == params:
                return f"genie scale {scale} && make repro"
        except ParamsError:
            continue
    return "make repro"
