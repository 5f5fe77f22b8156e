"""Counterfactual test of control: does each button do what the real game's action does from the same state?

The real game is branched over its effective actions. From the same past, the model imagines one frame per latent
action, and each imagined frame is compared with the real branches. No frame is compared across states. So a model gains
nothing by drawing well, or by predicting camera motion that happens under any action.

Axes: `M` states, `T` frames of their past, `S = T - 1` transitions, `E` effective true actions, `A` latent actions,
`B` states of a batch, `H W C` pixels (uint8).
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from genie.core.motion import changed_share
from genie.distributed.progress import progress
from genie.evaluation.metrics import frame_mse, mutual_information, normalised_mutual_information
from genie.models.chunks import rows_at_once
from genie.models.lam import LatentActionModel
from genie.models.probe import ActionProbe
from genie.sources.branches import Branches
from genie.world.controls import Button
from genie.world.world_model import WorldModel

# Branches that differ in fewer pixels count as alike: an agent that only turns round at a wall is some 25 of 4096.
DIFFERING_SHARE = 0.01
STATES, CLIPS = 16, 64  # at once on a CPU


@dataclass(frozen=True)
class Counterfactuals:
    """Imagined frames, and the real branch closest to each.

    Attributes:
        imagined_MAHWC: one frame for each latent action.
        closest_MA: the effective action whose real frame is closest, by squared error.
        differs_MEE: whether two real branches differ in more than `DIFFERING_SHARE` of their pixels.
    """

    imagined_MAHWC: np.ndarray
    closest_MA: np.ndarray
    differs_MEE: np.ndarray

    @property
    def counts_M(self) -> np.ndarray:
        """Whether some branches of each state differ; only such states count."""
        return self.differs_MEE.any((1, 2))


def imagine_branches(
    world: WorldModel, branches: Branches, past_actions_MS: np.ndarray, seed: int, batch_size: int | None = None
) -> Counterfactuals:
    """Imagines the frame after each state under every latent action, and finds the closest real branch.

    Args:
        world: the world model.
        branches: the states and their real branches.
        past_actions_MS: the actions between the past's frames, as the world model's own actions.
        seed: seed of sampling; above temperature 0, noise is drawn independently for each frame of a batch.
        batch_size: states per batch; None: as many as suit the device.
    """
    batch_size = batch_size or rows_at_once(world.device, STATES, frames=world.num_actions * world.context_frames)
    imagined, closest = [], []
    for rows, stood in at_states(world, branches, past_actions_MS, seed, batch_size, name="branch"):
        imagined.append(stood.imagine())
        compared = (torch.from_numpy(frames).to(world.device) for frames in (imagined[-1], branches.next_MEHWC[rows]))
        closest.append(closest_branches(*compared))
    found = Counterfactuals(np.concatenate(imagined), np.concatenate(closest), differing(branches.next_MEHWC))
    if not found.counts_M.any():
        say_alike("whether buttons do what they say")
    return found


def say_alike(what: str) -> None:
    """Prints one line to stderr: `what` is not measured because the real branches are alike, and when that happens."""
    alike = f"no two actions lead to pictures that differ in {DIFFERING_SHARE:.0%} of their pixels"
    print(
        f"evaluate: {what} is not measured: {alike}, as where a small agent moves before a still camera",
        file=sys.stderr,
    )


def at_states(
    world: WorldModel, branches: Branches, past_actions_MS: np.ndarray, seed: int, batch_size: int, name: str
) -> Iterator[tuple[slice, WorldModel]]:
    """Yields, for each batch of states, its rows and a world reset to these states.

    Args:
        world: the world model; a fork of it is reset.
        branches: the states.
        past_actions_MS: the actions between the past's frames, as the world model's own actions.
        seed: seed of sampling.
        batch_size: states per batch.
        name: name of the progress bar.
    """
    world, context = world.fork(), world.context_frames
    for first in progress(range(0, len(branches.past_MTHWC), batch_size), name=name, unit="batch"):
        rows = slice(first, first + batch_size)
        known_BS = past_actions_MS[rows, past_actions_MS.shape[1] - (context - 1) :]
        world.reset(branches.past_MTHWC[rows, -context:], actions=known_BS.astype(np.int64), seed=seed + first)
        yield rows, world


def closest_branches(imagined_BAHWC: torch.Tensor, next_BEHWC: torch.Tensor) -> np.ndarray:
    """Returns, for each imagined frame, the index of the real branch with the least squared error: `(B, A)` int64."""
    error_BAE = np.stack(
        [frame_mse(imagined_BAHWC, branch[:, None].expand_as(imagined_BAHWC)) for branch in next_BEHWC.unbind(1)],
        axis=-1,
    )
    return error_BAE.argmin(-1)


def differing(next_MEHWC: np.ndarray) -> np.ndarray:
    """Whether two real branches of a state differ in more than `DIFFERING_SHARE` of their pixels: `(M, E, E)` bool."""
    return np.stack(
        [changed_share(frames_EHWC[:, None], frames_EHWC[None]) > DIFFERING_SHARE for frames_EHWC in next_MEHWC]
    )


def regions(differs_MEE: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Divides the states whose branches differ, `(M,)` bool each, by what their actions can do.

    Args:
        differs_MEE: whether branches differ, as returned by `differing`.
        names: the effective actions.

    Returns:
        `ground`, where the agent can jump, so that a jump differs from standing still, and `air`, where it cannot.
        Empty for a game without jumps.
    """
    if not {"stay", "jump"} <= set(names):
        return {}
    ground_M = differs_MEE[:, names.index("stay"), names.index("jump")]
    return {"ground": ground_M, "air": differs_MEE.any((1, 2)) & ~ground_M}


@torch.no_grad()
def infer_actions(
    model: LatentActionModel | ActionProbe, frames_MTHWC: np.ndarray, batch_size: int | None = None, **options
) -> np.ndarray:
    """Infers a model's action labels `(M, T - 1)` of the transitions between frames.

    Args:
        model: the model.
        frames_MTHWC: the frames.
        batch_size: clips per batch; None: as many as suit the device.
        options: passed to the model's own `infer_actions`.
    """
    device = next(model.parameters()).device
    batch_size = batch_size or rows_at_once(device, CLIPS, frames=frames_MTHWC.shape[1])
    batches = (frames_BTHWC.to(device) for frames_BTHWC in torch.from_numpy(frames_MTHWC).split(batch_size))
    return np.concatenate([model.infer_actions(frames_BTHWC, **options).cpu().numpy() for frames_BTHWC in batches])


def past_actions_of(lam: LatentActionModel | None, branches: Branches) -> np.ndarray:
    """Returns the actions `(M, S)` between the past's frames: inferred by the LAM, or those taken if it is None."""
    return branches.taken_MS if lam is None else infer_actions(lam, branches.past_MTHWC)


def branch_metrics(
    model: LatentActionModel | ActionProbe, branches: Branches, differs_MEE: np.ndarray
) -> dict[str, float]:
    """Measures the information that a model's labels of the real branches give about the actions that led there.

    All actions are equally frequent.

    Args:
        model: the model.
        branches: the real branches.
        differs_MEE: whether branches differ, as returned by `differing`.

    Returns:
        `action_nmi_ground`, over all actions, and `action_nmi_air`, over those that remain where a jump does nothing;
        `action_nmi_branches`, over all actions, for a game without jumps. `action_bits_...`, the mutual information
        itself, in bits, over all states, for which a label must mean the same in all states. `action_bits_..._within`,
        its mean within a state, for which it is enough that labels distinguish branches. Each is present only if there
        are such states.
    """
    # Actions are equally frequent among branches; the probe must correct for the policy's frequencies that it learnt.
    options = {"equally_frequent": True} if isinstance(model, ActionProbe) else {}
    before_MTHWC = branches.past_MTHWC[:, -model.history :]
    led_ME = np.stack(
        [
            infer_actions(model, np.concatenate([before_MTHWC, next_M1HWC], axis=1), **options)[:, -1]
            for next_M1HWC in np.split(branches.next_MEHWC, len(branches.action_names), axis=1)
        ],
        axis=1,
    )
    effect_E = np.arange(len(branches.action_names))
    along_E = np.unique([_along(name) for name in branches.action_names], return_inverse=True)[1]
    metrics = {}
    everywhere = {"branches": differs_MEE.any((1, 2))}
    for where, chosen_M in (regions(differs_MEE, branches.action_names) or everywhere).items():
        label_ME = np.broadcast_to(along_E if where == "air" else effect_E, led_ME.shape)
        if chosen_M.any():
            led, label = led_ME[chosen_M], label_ME[chosen_M]
            within = [mutual_information(*state) for state in zip(led, label, strict=True)]
            metrics[f"action_nmi_{where}"] = normalised_mutual_information(led.ravel(), label.ravel())
            metrics[f"action_bits_{where}"] = mutual_information(led.ravel(), label.ravel())
            metrics[f"action_bits_{where}_within"] = float(np.mean(within))
    return metrics


def _along(action: str) -> str:
    """What remains of an action where a jump does nothing: stay, left or right."""
    return action.removeprefix("jump").removeprefix("_") or "stay"


def label_metrics(
    lam: LatentActionModel, probe: ActionProbe, branches: Branches, differs_MEE: np.ndarray
) -> dict[str, float]:
    """Computes `branch_metrics` of the LAM, of the probe, and their ratio.

    Returns:
        The LAM's metrics; the probe's as `..._ceiling`; and `action_bits_share_...`, the LAM's bits divided by the
        probe's.
    """
    metrics, ceiling = (branch_metrics(model, branches, differs_MEE) for model in (lam, probe))
    shares = {
        f"action_bits_share_{where}": metrics[f"action_bits_{where}"] / ceiling[f"action_bits_{where}"]
        for where in ("ground", "air", "branches")
        if ceiling.get(f"action_bits_{where}")
    }
    return metrics | {f"{name}_ceiling": value for name, value in ceiling.items()} | shares


def counterfactual_metrics(found: Counterfactuals, buttons: Sequence[Button]) -> dict[str, float]:
    """Measures how often a button has the effect that it is named for.

    A latent action scores in a state if its imagined frame is closest to the real frame of the action it stands for, or
    to a branch that does not differ from that frame. Only states with branches that differ count. All buttons weigh the
    same.

    Returns:
        `counterfactual_accuracy`; `counterfactual_chance`, the chance level under random assignment of the same frames
        to buttons; both also as `..._ground` and `..._air`, over the states of these `regions`.
        `counterfactual_states`, the number of states that count, and `counterfactual_same_share`, the share of states
        left out; only these two if no state counts.
    """
    counts_M = found.counts_M
    where = regions(found.differs_MEE, buttons[0].names)
    hit_MA, lot_MA = _score(found, buttons)
    metrics = {
        "counterfactual_states": int(counts_M.sum()),
        "counterfactual_same_share": float(1 - counts_M.mean()),
    }
    for suffix, chosen_M in {"": counts_M, **{f"_{name}": chosen_M for name, chosen_M in where.items()}}.items():
        if chosen_M.any():
            metrics[f"counterfactual_accuracy{suffix}"] = float(hit_MA[chosen_M].mean())
            metrics[f"counterfactual_chance{suffix}"] = float(lot_MA[chosen_M].mean())
    return metrics


def confusion(found: Counterfactuals, buttons: Sequence[Button]) -> np.ndarray:
    """Confusion matrix of requested (rows) and resulting (columns) actions, over states whose branches differ.

    A frame that scores counts as the requested action. All buttons weigh the same.

    Returns:
        Counts `(E, E)` float64.
    """
    counts_EE = np.zeros((len(buttons[0].names),) * 2)
    hit_MA, _ = _score(found, buttons)
    for latent, button in enumerate(buttons):
        came_M = np.where(hit_MA[:, latent], button.effect, found.closest_MA[:, latent])[found.counts_M]
        np.add.at(counts_EE[button.effect], came_M, 1)
    return counts_EE


def _score(found: Counterfactuals, buttons: Sequence[Button]) -> tuple[np.ndarray, np.ndarray]:
    """Hits of each button, `(M, A)` bool, and its probability of a hit with a random button's frame, `(M, A)`."""
    asked_A = np.array([button.effect for button in buttons])
    states = np.arange(len(found.closest_MA))[:, None, None]
    # [m, a, b]: whether the frame of button b counts as a hit for button a.
    passes_MAA = ~found.differs_MEE[states, asked_A[:, None], found.closest_MA[:, None, :]]
    return np.diagonal(passes_MAA, axis1=1, axis2=2), passes_MAA.mean(-1)
