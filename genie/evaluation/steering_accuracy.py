"""Test of steering by arrows, as people play: does a dream under an arrow match the real game under that arrow?

The real game is branched as in the counterfactual test, with each of its effective actions held for some frames.
The world is steered from the same past by the arrow of each action. A reference uses the latent actions inferred from
the real branches instead, which are unavailable to an arrow.

Axes: `M` states, `B` states of a batch, `T` frames of their past, `S` transitions between those, `E` effective true
actions, `F` frames that each is held for, `H W C` pixels (uint8).
"""

import numpy as np
import torch

from genie.core.frames import psnr
from genie.evaluation.counterfactual import (
    STATES,
    Counterfactuals,
    at_states,
    closest_branches,
    counterfactual_metrics,
    differing,
    infer_actions,
    past_actions_of,
    say_alike,
)
from genie.evaluation.metrics import frame_mse
from genie.models.chunks import rows_at_once
from genie.models.lam import LatentActionModel
from genie.sources.branches import Branches
from genie.world.controls import arrows_of
from genie.world.world_model import WorldModel


def measure_steering(
    world: WorldModel, lam: LatentActionModel | None, branches: Branches, seed: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Steers a world by arrows and compares its dreams with the real game.

    Args:
        world: the world model.
        lam: the LAM whose actions the world was trained on; None if it was trained on the true actions, in which case
            nothing is inferred.
        branches: the states and their real branches.
        seed: seed of sampling.

    Returns:
        The dreams `(M, E, F, H, W, C)`, and the metrics: those of `steering_metrics`, also as `..._inferred` for dreams
        under inferred actions.
    """
    past_actions = past_actions_of(lam, branches)
    steered_MEFHWC = dream_branches(world, branches, past_actions, seed)
    metrics = steering_metrics(steered_MEFHWC, branches)
    if "steering_accuracy" not in metrics:
        say_alike("whether arrows are obeyed")
    if lam is not None:
        inferred_MEFHWC = dream_branches(world, branches, past_actions, seed, inferred_actions(lam, branches))
        metrics |= steering_metrics(inferred_MEFHWC, branches, suffix="_inferred")
    return steered_MEFHWC, metrics


def dream_branches(
    world: WorldModel,
    branches: Branches,
    past_actions_MS: np.ndarray,
    seed: int,
    actions_MEF: np.ndarray | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Dreams `(M, E, F, H, W, C)` the frames after each state while each arrow is held.

    Args:
        world: the world model.
        branches: the states and their real branches.
        past_actions_MS: the latent actions between the past's frames.
        seed: seed of sampling.
        actions_MEF: latent actions to press instead of those chosen by the arrows.
        batch_size: states per batch; None: as many as suit the device.
    """
    num_arrows, dreamed_MEFHWC = len(branches.action_names), np.empty_like(branches.held_MEFHWC)
    batch_size = batch_size or rows_at_once(world.device, STATES, frames=num_arrows * world.context_frames)
    for rows, stood in at_states(world, branches, past_actions_MS, seed, batch_size, name="steer"):
        held = stood.fork(num_arrows)
        arrows_B = np.tile(np.arange(num_arrows), len(dreamed_MEFHWC[rows]))
        for frame in range(dreamed_MEFHWC.shape[2]):
            pressed_B = held.steer(arrows_B) if actions_MEF is None else actions_MEF[rows, :, frame].reshape(-1)
            frames_BEHWC = dreamed_MEFHWC[rows, :, frame]
            frames_BEHWC[:] = held.step(pressed_B).reshape(frames_BEHWC.shape)
    return dreamed_MEFHWC


def inferred_actions(lam: LatentActionModel, branches: Branches) -> np.ndarray:
    """Infers the latent actions `(M, E, F)` of the real branches."""
    before_MTHWC, num_frames = branches.past_MTHWC[:, -lam.history :], branches.held_MEFHWC.shape[2]
    led_EMF = [
        infer_actions(lam, np.concatenate([before_MTHWC, held_MFHWC], axis=1))[:, -num_frames:]
        for held_MFHWC in branches.held_MEFHWC.swapaxes(0, 1)
    ]
    return np.stack(led_EMF, axis=1)


def steering_metrics(dreamed_MEFHWC: np.ndarray, branches: Branches, suffix: str = "") -> dict[str, float]:
    """Compares dreams with the real game under the same arrow, at the first frame and at the last.

    Args:
        dreamed_MEFHWC: dreams as returned by `dream_branches`.
        branches: the states and their real branches.
        suffix: suffix of the metrics' names.

    Returns:
        `steering_accuracy`, the share of dreams whose last frame is closest to the real branch of their arrow, or to
        one that does not differ from it. It covers states in which some branches differ, and is absent if there are
        none. `psnr_steered`, in dB, of the last frames. Both also as `..._1`, of the first frames. Without a suffix
        also `steering_chance`, the chance level under random assignment of the same frames to arrows, and
        `psnr_steered_copy_last`, the PSNR of a baseline that repeats the state's own frame.
    """
    metrics = {}
    for name, frame in (("_1", 0), ("", -1)):
        dreamed_MEHWC, real_MEHWC = dreamed_MEFHWC[:, :, frame], branches.held_MEFHWC[:, :, frame]
        closest_ME = closest_branches(torch.tensor(dreamed_MEHWC), torch.tensor(real_MEHWC))
        found = counterfactual_metrics(
            Counterfactuals(dreamed_MEHWC, closest_ME, differing(real_MEHWC)), arrows_of(branches.action_names)
        )
        told = {f"steering_accuracy{suffix}{name}": found.get("counterfactual_accuracy")}
        if not suffix:
            told[f"steering_chance{name}"] = found.get("counterfactual_chance")
            last_MEHWC = np.broadcast_to(branches.past_MTHWC[:, -1:], real_MEHWC.shape)
            metrics[f"psnr_steered_copy_last{name}"] = _psnr(last_MEHWC, real_MEHWC)
        metrics[f"psnr_steered{suffix}{name}"] = _psnr(dreamed_MEHWC, real_MEHWC)
        metrics |= {key: value for key, value in told.items() if value is not None}
    return metrics


def _psnr(shown_MEHWC: np.ndarray, real_MEHWC: np.ndarray) -> float:
    return psnr(frame_mse(torch.tensor(shown_MEHWC), torch.tensor(real_MEHWC)))
