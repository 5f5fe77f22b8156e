"""Dreams beside what really happened, and beside what costs nothing: another action, no change at all.

Legend: `M` clips, `B` clips of a batch, `S` dreamed frames (the horizon), `T` frames of a clip (context + S),
`A` latent actions. An action's index is its first frame's: those between T frames are T - 1.
"""

from dataclasses import dataclass

import numpy as np
import torch

from genie.data.episodes import EpisodeStore
from genie.data.motion import is_moving
from genie.data.windows import read_windows, spread_starts, window_starts
from genie.evaluation.metrics import frame_mse, frame_ssim, psnr
from genie.progress import progress
from genie.world import WorldModel

# What is compared with the truth, and what its metrics are called: `psnr`, `psnr_random_action` and so on.
SERIES = {
    "imagined": "",
    "random_action": "_random_action",
    "copy_last": "_copy_last",
    "tokenizer": "_tokenizer",
}


@dataclass(frozen=True)
class Rollouts:
    """What was measured on M clips.

    Attributes:
        starts: `(M,)` int64, each clip's first frame in the store.
        mse: for each of `SERIES` the errors `(M, S)`, pixels in [0, 1].
        ssim: for each of `SERIES` the similarities `(M,)` of the first dreamed frame.
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
    batch_size: int = 64,
) -> Rollouts:
    """Dreams clips of a split under the latent actions inferred from them, and under random ones.

    Args:
        latent_actions: `(N,)`, those of the whole split.
        horizon: frames dreamed.
        num_clips: at most this many.
        seed: of the random actions, uniform over all A (the inferred one included), and of sampling.

    Raises:
        WindowError: no episode is as long as context and horizon together.
    """
    context, length = world.context_frames, world.context_frames + horizon
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, length), num_clips)
    random_MS = np.random.default_rng(seed).integers(world.num_actions, size=(len(starts), horizon))
    mse, ssim, moving = {name: [] for name in SERIES}, {name: [] for name in SERIES}, []
    for first in progress(range(0, len(starts), batch_size), name="roll out", unit="batch"):
        rows = slice(first, first + batch_size)
        frames_BTHWC, actions = (x.to(world.device) for x in read_clips(store, latent_actions, starts[rows], length))
        truth_BSHWC, last_B1HWC = frames_BTHWC[:, context:], frames_BTHWC[:, context - 1 : context]
        random_actions = torch.cat(
            [actions[:, : context - 1], torch.from_numpy(random_MS[rows]).to(world.device)], dim=1
        )
        through_tokens = world.tokenizer.decode(world.tokenizer.encode(truth_BSHWC.flatten(0, 1)))
        shown = {
            "imagined": dream(world, frames_BTHWC, actions, seed + first),
            "random_action": dream(world, frames_BTHWC, random_actions, seed + first),
            "copy_last": last_B1HWC.expand_as(truth_BSHWC),
            "tokenizer": through_tokens.view_as(truth_BSHWC),
        }
        for name, frames_BSHWC in shown.items():
            mse[name].append(frame_mse(frames_BSHWC, truth_BSHWC))
            ssim[name].append(frame_ssim(frames_BSHWC[:, 0], truth_BSHWC[:, 0]))
        moving.append(is_moving(last_B1HWC.cpu().numpy(), truth_BSHWC.cpu().numpy()))
    return Rollouts(
        starts=starts,
        mse={name: np.concatenate(errors) for name, errors in mse.items()},
        ssim={name: np.concatenate(values) for name, values in ssim.items()},
        moving_MS=np.concatenate(moving),
    )


def rollout_metrics(rollouts: Rollouts) -> dict[str, float]:
    """The headline numbers, of the first dreamed frame unless the name says otherwise.

    `psnr` of the dream beside `psnr_random_action`, `psnr_copy_last` and `psnr_tokenizer` (the ceiling);
    `ssim` likewise; `psnr_<S>` and `psnr_copy_last_<S>` at the horizon; `delta_psnr_t`, what the inferred
    action is worth over a random one after t frames (Genie, section 3). Each also as `..._moving`, of moving
    frames only. All in dB but `ssim`.

    Raises:
        ValueError: no frame moves.
    """
    everything_MS = np.ones_like(rollouts.moving_MS)
    moving = _metrics_of(rollouts, rollouts.moving_MS)
    return _metrics_of(rollouts, everything_MS) | {f"{name}_moving": value for name, value in moving.items()}


def _metrics_of(rollouts: Rollouts, chosen_MS: np.ndarray) -> dict[str, float]:
    def psnr_at(series: str, t: int) -> float:
        return psnr(rollouts.mse[series][chosen_MS[:, t - 1], t - 1])

    metrics, horizon = {}, chosen_MS.shape[1]
    for series, suffix in SERIES.items():
        metrics[f"psnr{suffix}"] = psnr_at(series, 1)
        metrics[f"ssim{suffix}"] = float(np.mean(rollouts.ssim[series][chosen_MS[:, 0]]))
    for series in ("imagined", "copy_last"):
        metrics[f"psnr{SERIES[series]}_{horizon}"] = psnr_at(series, horizon)
    for t in (1, 4):
        metrics[f"delta_psnr_{t}"] = psnr_at("imagined", t) - psnr_at("random_action", t)
    return metrics


def horizon_table(rollouts: Rollouts, moving: bool) -> list[dict[str, float]]:
    """PSNR against horizon: a row for each of 1..S, `horizon` and the PSNR (dB) of each of `SERIES`.

    Args:
        moving: of moving frames only; a horizon at which nothing moves has no row then.
    """
    chosen_MS = rollouts.moving_MS if moving else np.ones_like(rollouts.moving_MS)
    return [
        {"horizon": t + 1} | {series: psnr(mse_MS[chosen_MS[:, t], t]) for series, mse_MS in rollouts.mse.items()}
        for t in range(chosen_MS.shape[1])
        if chosen_MS[:, t].any()
    ]


def liveliest(rollouts: Rollouts, count: int) -> np.ndarray:
    """First frames `(<= count,)` of the clips in which most frames move: the ones worth showing."""
    return rollouts.starts[np.argsort(-rollouts.moving_MS.sum(axis=1), kind="stable")[:count]]
