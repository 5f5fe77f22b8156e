"""Finds the colours of an agent in front of a static camera, without labels.

Of all moving objects, only the agent is in every frame and changes direction at almost every step: other objects keep
their direction, or appear only for a while. So the colours of moving pixels are clustered, and each cluster is tracked
as if it were the agent's, with the colours that gather around it. The agent is the cluster that is never lost and
changes direction most often.

Axes: `C` clips, `T` frames, `M` frames of all clips, `H W` pixels, `K` colours, `d` the two coordinates of a position.
"""

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2, vq

from genie.data.episodes import EpisodeStore
from genie.data.windows import read_windows, spread_starts, window_starts
from genie.distributed.progress import progress
from genie.models.backprojection import NUM_COLORS, colors_of, locate

NUM_CLIPS, CLIP = 256, 10  # number of clips, frames per clip
CHANGED = 40  # of 255: difference of a channel from the frame before and the frame after that marks a moving pixel
NUM_CLUSTERS, NUM_CLUSTERED = 24, 20_000  # number of clusters, and of moving pixels that are clustered
ROUNDS = 3  # iterations: learn colours around the estimated positions, then locate the agent by them
REACH = 4  # pixels around the agent's position in which its colours are learnt
MIN_PIXELS = 20  # near the agent, for a colour to be the agent's
DEVIATIONS = 3.0  # standard deviations above chance, for a colour to be the agent's
MIN_MASS = 0.5  # of the median frame's likeness, for the agent to be present
NEAR, TURNED = 12.0, 1.5  # pixels: largest displacement of an agent; smallest change of it that counts as a turn
MIN_TRACKED = 0.3  # share of pairs of transitions in which the agent moves within NEAR and turns


class AgentError(ValueError):
    """No moving object can be tracked as the agent; the message names the cause."""


def find_colors(store: EpisodeStore, device: torch.device | str = "cpu") -> torch.Tensor:
    """Likeness `(K,)` in [0, 1] of each colour to the agent's, as `genie.models.backprojection` takes it.

    Raises:
        WindowError: no episode is as long as a clip.
        AgentError: nothing is present in almost every frame and changes direction often enough.
    """
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, CLIP), NUM_CLIPS)
    frames_CTHWC = torch.from_numpy(read_windows(store, starts, CLIP)).to(device)
    passing_CTHW = _passing(frames_CTHWC)
    colors_PC = frames_CTHWC[passing_CTHW].cpu().numpy().astype(np.float32)
    if len(colors_PC) < len(frames_CTHWC):  # fewer than one pixel per clip
        raise AgentError("nothing moves")
    clusters = _clusters(colors_PC)
    cluster_CTHW = torch.full(passing_CTHW.shape, -1, device=device)
    cluster_CTHW[passing_CTHW] = torch.from_numpy(vq(colors_PC, clusters)[0]).to(device, cluster_CTHW.dtype)

    color_MHW = colors_of(frames_CTHWC.flatten(0, 1))
    best, tracked = torch.zeros(NUM_COLORS), 0.0
    for cluster in progress(range(len(clusters)), name="find agent", unit="colour"):
        likeness_K, share = _track((cluster_CTHW == cluster).flatten(0, 1).float(), color_MHW)
        if share > tracked:
            best, tracked = likeness_K, share
    if tracked < MIN_TRACKED:
        raise AgentError(
            f"what is tracked best goes another way in {tracked:.0%} of the transitions, of at least {MIN_TRACKED:.0%}"
        )
    return best


def _passing(frames_CTHWC: torch.Tensor) -> torch.Tensor:
    """Pixels that differ from those before and after: bool `(C, T, H, W)`, False in a clip's first and last frame."""
    changed = (frames_CTHWC[:, 1:].int() - frames_CTHWC[:, :-1].int()).abs().amax(-1) > CHANGED
    passing = torch.zeros(frames_CTHWC.shape[:-1], dtype=torch.bool, device=frames_CTHWC.device)
    passing[:, 1:-1] = changed[:, :-1] & changed[:, 1:]
    return passing


def _clusters(colors_PC: np.ndarray) -> np.ndarray:
    """Cluster centres `(at most NUM_CLUSTERS, 3)` of k-means on colours `(P, 3)`."""
    drawn = np.random.default_rng(0).choice(len(colors_PC), min(len(colors_PC), NUM_CLUSTERED), replace=False)
    seen = colors_PC[drawn]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")  # such a cluster tracks nothing
        return kmeans2(seen, min(NUM_CLUSTERS, len(np.unique(seen, axis=0))), minit="++", seed=0)[0]  # pyright: ignore[reportCallIssue]


def _track(likeness_MHW: torch.Tensor, color_MHW: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Colours that gather where likeness does, and the share of pairs of transitions in which they move as an agent."""
    places_Md, mass_M = locate(likeness_MHW)
    there_M = mass_M >= 2  # pixels
    for _ in range(ROUNDS):
        likeness_K = _likeness(color_MHW[there_M], places_Md[there_M])
        places_Md, mass_M = locate(likeness_K[color_MHW])
        there_M = (mass_M > 0) & (mass_M >= MIN_MASS * mass_M.median())
    places_CTd, there_CT = places_Md.unflatten(0, (-1, CLIP)), there_M.unflatten(0, (-1, CLIP))
    moved_CSd = places_CTd.diff(dim=1)
    near_CS = (moved_CSd.norm(dim=-1) <= NEAR) & there_CT[:, 1:] & there_CT[:, :-1]
    turned_CS = moved_CSd.diff(dim=1).norm(dim=-1) >= TURNED
    return likeness_K, float((turned_CS & near_CS[:, 1:] & near_CS[:, :-1]).float().mean())


def _likeness(color_MHW: torch.Tensor, places_Md: torch.Tensor) -> torch.Tensor:
    """Share `(K,)` of each colour's pixels that lie within `REACH` of the positions, beyond chance and noise."""
    _, height, width = color_MHW.shape
    x_M, y_M = places_Md.T
    columns_MW = (torch.arange(width, device=x_M.device) - x_M[:, None]).abs() <= REACH
    rows_MH = (torch.arange(height, device=x_M.device) - y_M[:, None]).abs() <= REACH
    near_K = torch.bincount(color_MHW[rows_MH[:, :, None] & columns_MW[:, None, :]], minlength=NUM_COLORS).float()
    all_K = torch.bincount(color_MHW.flatten(), minlength=NUM_COLORS).float()
    far_K = all_K - near_K
    chance_K = far_K * (near_K.sum() / far_K.sum().clamp_min(1))
    more_K = (near_K - chance_K - DEVIATIONS * chance_K.sqrt()).clamp_min(0)
    return torch.where(near_K >= MIN_PIXELS, more_K / all_K.clamp_min(1), 0.0)
