"""`genie export`: writes the pipeline's world as one folder, with prompts and a model card with its metrics."""

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
    """A folder does not hold what is expected; the message names it and the fix."""


def export(params: Params, *, models: Path, metrics: Path, out: Path, made: str | None = None) -> str:
    """Writes the world of a folder of checkpoints, with `WorldModel.save_pretrained`.

    Args:
        params: `sampling` is stored with the world; `evaluate.horizon` is used to choose prompts.
        models: folder of the checkpoints.
        metrics: folder of the metrics for the model card, which omits them if there are none.
        out: folder to write; a world already there is replaced.
        made: how the world was trained, for the model card; None: by the command that corresponds to the params.

    Returns:
        Message that says what was written.

    Raises:
        ExportError: `out` holds something other than a world, or the metrics are those of other models.
        CheckpointError, ButtonsError: there is no such world.
        EpisodeFileError, CacheFileError, WindowError: there are no held-out frames for prompts.
        OSError: the world cannot be written.
    """
    if out.is_dir() and any(out.iterdir()) and not ((out / CONFIG).exists() and (out / WEIGHTS).exists()):
        raise ExportError(f"--out {out}: holds something else than a world; name a folder of its own")
    world = WorldModel.load(models, Sampling(**params.sampling.model_dump()))
    lam_fingerprint = world.dynamics.config.lam_fingerprint
    world.prompts = lively_prompts(world.context_frames, params.evaluate.horizon, lam_fingerprint)
    frames = "films" if params.collect.source == "films" else f"Procgen's {params.collect.env_name}"
    made = made or f"Trained on frames of {frames} by `{training_command(params)}`."
    details = {"made": made, "halving_cost": halving_cost(world)}
    try:
        # Only metrics of this run: seeds and the upper bound may have been measured at another scale.
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
    for model in filter(None, (world.tokenizer, world.dynamics, world.steering)):
        if measured.get(model.kind) != model.fingerprint:
            raise ExportError(
                f"--metrics {metrics}: they are of the {model.kind} {measured.get(model.kind)}, and this is the "
                f"{model.kind} {model.fingerprint}; measure this one: dvc repro evaluate"
            )


def halving_cost(world: WorldModel) -> float:
    """Share of the pixels that half precision visibly changes in the first frames dreamed from the world's prompts.

    Measured at temperature 0: above it, rounding can change a random draw, and the difference between two draws would
    be measured instead.
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
    """Command that trains with these params: `make repro`, preceded by `genie scale` if they equal a scale."""
    for scale in sorted(path.stem for path in SCALES_FOLDER.glob("*.yaml")):
        try:
            if load_scale(scale)[1] == params:
                return f"genie scale {scale} && make repro"
        except ParamsError:
            continue
    return "make repro"
