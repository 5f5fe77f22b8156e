"""Dreams beside what really happened, and beside what costs nothing: another action, no change at all.

Legend: `M` clips, `B` clips of a batch, `S` dreamed frames (the horizon), `T` frames of a clip (context + S),
`A` latent actions. An action's index is its first frame's: those between T frames are T - 1.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from genie.core.frames import psnr
from genie.core.motion import is_moving
from genie.data.episodes import EpisodeStore
from genie.data.windows import WindowError, read_windows, spread_starts, window_starts
from genie.distributed.progress import progress
from genie.evaluation.metrics import frame_mse, frame_ssim
from genie.models.chunks import rows_at_once
from genie.world.world_model import WorldModel

# What is compared with the truth, and what its metrics are called: `psnr`, `psnr_random_action` and so on.
SERIES = {
    "imagined": "",
    "random_action": "_random_action",
    "copy_last": "_copy_last",
    "tokenizer": "_tokenizer",
}
MEASURES = ("psnr", "ssim")
REAL = "real"  # the series, for watchers, of what really happened

# Told of each batch of clips: a series or `REAL`, and its frames `(B, T, H, W, C)` uint8, the context first.
Watcher = Callable[[str, torch.Tensor], None]

CLIPS, TOKENIZER_FRAMES = 16, 64  # at once on a CPU; in larger batches they cost more


@dataclass(frozen=True)
class Rollouts:
    """What was measured on M clips.

    Attributes:
        starts: `(M,)` int64, each clip's first frame in the store.
        mse: for each of `SERIES` the errors `(M, S)`, pixels in [0, 1].
        ssim: for each of `SERIES` the structural similarities `(M, S)`.
        moving_MS: whether the true frame differs from the prompt's last one, which is what `copy_last` shows.
    """

    starts: np.ndarray
    mse: dict[str, np.ndarray]
    ssim: dict[str, np.ndarray]
    moving_MS: np.ndarray


def read_clips(
    store: EpisodeStore, latent_actions: np.ndarray, starts: np.ndarray, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames `(B, T, H, W, C)` uint8 of clips, and the latent actions `(B, T - 1)` int64 between them."""
    actions = latent_actions[starts[:, None] + np.arange(length - 1)]
    return torch.from_numpy(read_windows(store, starts, length)), torch.from_numpy(actions.astype(np.int64))


def dream(world: WorldModel, frames_BTHWC: torch.Tensor, actions: torch.Tensor, seed: int) -> torch.Tensor:
    """Dreams `(B, S, H, W, C)` uint8 what follows the context of clips, under latent actions `(B, T - 1)`.

    The same seed draws the same noise, whatever the actions: two dreams differ by their actions alone.
    """
    context = world.context_frames
    return world.rollout(
        frames_BTHWC[:, :context],
        actions[:, context - 1 :],
        torch.Generator(world.device).manual_seed(seed),
        prompt_actions_BS=actions[:, : context - 1],
    )


def dream_held(world: WorldModel, frames_THWC: torch.Tensor, actions: torch.Tensor, seed: int) -> torch.Tensor:
    """Dreams `(A, S, H, W, C)` uint8 what follows the context of one clip if each latent action is held."""
    actions_AS = actions.repeat(world.num_actions, 1)
    actions_AS[:, world.context_frames - 1 :] = torch.arange(world.num_actions, device=actions.device)[:, None]
    return dream(world, frames_THWC.expand(world.num_actions, *frames_THWC.shape), actions_AS, seed)


def measure_rollouts(
    world: WorldModel,
    store: EpisodeStore,
    latent_actions: np.ndarray,
    *,
    horizon: int,
    num_clips: int,
    seed: int,
    batch_size: int | None = None,
    watchers: Sequence[Watcher] = (),
) -> Rollouts:
    """Dreams clips of a split under the latent actions inferred from them, and under random ones.

    Args:
        latent_actions: `(N,)`, those of the whole split.
        horizon: frames dreamed; fewer, with one line on stderr, where no episode is as long.
        num_clips: at most this many.
        seed: of the random actions, uniform over all A (the inferred one included), and of sampling.
        batch_size: clips per batch; None: as many as suit the device.
        watchers: see each batch's frames, which nobody keeps.

    Raises:
        WindowError: no episode is longer than the context.
    """
    context = world.context_frames
    horizon = _fitting_horizon(store, context, horizon)
    length = context + horizon
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, length), num_clips)
    batch_size = batch_size or rows_at_once(world.device, CLIPS, frames=length)
    random_MS = np.random.default_rng(seed).integers(world.num_actions, size=(len(starts), horizon))
    mse, ssim, moving = {name: [] for name in SERIES}, {name: [] for name in SERIES}, []
    for first in progress(range(0, len(starts), batch_size), name="roll out", unit="batch"):
        rows = slice(first, first + batch_size)
        frames_BTHWC, actions = (x.to(world.device) for x in read_clips(store, latent_actions, starts[rows], length))
        truth_BSHWC, last_B1HWC = frames_BTHWC[:, context:], frames_BTHWC[:, context - 1 : context]
        random_actions = torch.cat(
            [actions[:, : context - 1], torch.from_numpy(random_MS[rows]).to(world.device)], dim=1
        )
        through_tokens = [
            world.tokenizer.decode(world.tokenizer.encode(frames_BHWC))
            for frames_BHWC in truth_BSHWC.flatten(0, 1).split(rows_at_once(world.device, TOKENIZER_FRAMES))
        ]
        shown = {
            "imagined": dream(world, frames_BTHWC, actions, seed + first),
            "random_action": dream(world, frames_BTHWC, random_actions, seed + first),
            "copy_last": last_B1HWC.expand_as(truth_BSHWC),
            "tokenizer": torch.cat(through_tokens).view_as(truth_BSHWC),
        }
        for name, frames_BSHWC in shown.items():
            mse[name].append(frame_mse(frames_BSHWC, truth_BSHWC))
            ssim[name].append(frame_ssim(frames_BSHWC, truth_BSHWC))
        for watch in watchers:
            for name, frames_BSHWC in {REAL: truth_BSHWC, **shown}.items():
                watch(name, torch.cat([frames_BTHWC[:, :context], frames_BSHWC], dim=1))
        moving.append(is_moving(last_B1HWC.cpu().numpy(), truth_BSHWC.cpu().numpy(), store.moving_share))
    return Rollouts(
        starts=starts,
        mse={name: np.concatenate(errors) for name, errors in mse.items()},
        ssim={name: np.concatenate(values) for name, values in ssim.items()},
        moving_MS=np.concatenate(moving),
    )


def _fitting_horizon(store: EpisodeStore, context: int, horizon: int) -> int:
    longest = int(np.diff(store.episode_starts, append=store.num_frames).max())
    if longest <= context:
        raise WindowError(f"no episode is longer than {context} frames of context: lower dynamics.context_frames")
    if longest < context + horizon:
        print(
            f"the longest episode has {longest} frames: {longest - context} frames are dreamed in place of {horizon}",
            file=sys.stderr,
        )
    return min(horizon, longest - context)


def rollout_metrics(rollouts: Rollouts) -> dict[str, float]:
    """The headline numbers, of the first dreamed frame unless the name says otherwise.

    `psnr` of the dream beside `psnr_random_action`, `psnr_copy_last` and `psnr_tokenizer` (the ceiling);
    `ssim` likewise; `psnr_<S>` and `psnr_copy_last_<S>` at the horizon; `delta_psnr_t`, what the inferred
    action is worth over a random one after t frames (Genie, section 3). Each also as `..._moving`, of moving
    frames only; left out where none moves. All in dB but `ssim`.
    """
    return _all_and_moving(rollouts, _headline)


def drift_metrics(rollouts: Rollouts) -> dict[str, float]:
    """How far dreams have drifted at the horizon: `psnr_<S>` (dB) and `ssim_<S>`, each also of the baselines, as in
    `psnr_copy_last_<S>`, and each also as `..._moving`, of moving frames only; left out where none moves.
    """
    horizon = rollouts.moving_MS.shape[1]
    return _all_and_moving(rollouts, partial(_metrics_at, t=horizon, ending=f"_{horizon}"))


def horizon_table(rollouts: Rollouts, moving: bool) -> list[dict[str, float]]:
    """What is left against horizon: a row for each of 1..S, `horizon` and, for each of `SERIES`, `psnr_<series>` (dB)
    and `ssim_<series>`.

    Args:
        moving: of moving frames only; a horizon at which nothing moves has no row then.
    """
    chosen_MS = rollouts.moving_MS if moving else np.ones_like(rollouts.moving_MS)
    table = []
    for t in (1 + np.flatnonzero(chosen_MS.any(axis=0))).tolist():
        scores = {series: _scores(rollouts, series, chosen_MS, t) for series in SERIES}
        row = {f"{measure}_{series}": scores[series][measure] for measure in MEASURES for series in SERIES}
        table.append({"horizon": t, **row})
    return table


def _scores(rollouts: Rollouts, series: str, chosen_MS: np.ndarray, t: int) -> dict[str, float]:
    """Each of `MEASURES`, of the chosen among the clips' dreamed frames t, counted from 1; nothing where none is."""
    chosen_M = chosen_MS[:, t - 1]
    if not chosen_M.any():
        return {}
    return {
        "psnr": psnr(rollouts.mse[series][chosen_M, t - 1]),
        "ssim": float(np.mean(rollouts.ssim[series][chosen_M, t - 1])),
    }


def _headline(rollouts: Rollouts, chosen_MS: np.ndarray) -> dict[str, float]:
    def psnr_at(series: str, t: int) -> float:
        return _scores(rollouts, series, chosen_MS, t)["psnr"]

    metrics, horizon = _metrics_at(rollouts, chosen_MS, t=1, ending=""), chosen_MS.shape[1]
    if chosen_MS[:, horizon - 1].any():
        metrics |= {f"psnr{SERIES[series]}_{horizon}": psnr_at(series, horizon) for series in ("imagined", "copy_last")}
    told = [t for t in (1, 4) if t <= horizon and chosen_MS[:, t - 1].any()]
    return metrics | {f"delta_psnr_{t}": psnr_at("imagined", t) - psnr_at("random_action", t) for t in told}


def _metrics_at(rollouts: Rollouts, chosen_MS: np.ndarray, *, t: int, ending: str) -> dict[str, float]:
    return {
        f"{measure}{suffix}{ending}": value
        for series, suffix in SERIES.items()
        for measure, value in _scores(rollouts, series, chosen_MS, t).items()
    }


def _all_and_moving(rollouts: Rollouts, measure: Callable[[Rollouts, np.ndarray], dict[str, float]]):
    """What is measured on all frames, and as `..._moving` on the moving ones."""
    everything, moving = measure(rollouts, np.ones_like(rollouts.moving_MS)), measure(rollouts, rollouts.moving_MS)
    return everything | {f"{name}_moving": value for name, value in moving.items()}


def liveliest(rollouts: Rollouts, count: int) -> np.ndarray:
    """First frames `(<= count,)` of the clips in which most frames move: the ones worth showing."""
    return rollouts.starts[np.argsort(-rollouts.moving_MS.sum(axis=1), kind="stable")[:count]]
