"""Finds the colours of an agent in front of a static camera, without labels.

Of all moving objects, the agent is in every frame and moves least predictably, since somebody decides where it goes:
other objects keep their course, or react to what is in the picture. So the colours of moving pixels are clustered, and
each cluster is tracked as if it were the agent's, with the colours that gather around it. The next displacement of each
track is predicted from the recent motion of all tracks. The agent is the track that the prediction misses most.

Where most of the picture never changes, pixels that equal the median frame are ignored: a score, or the agent's twin
on the start line, may have the agent's colours.

Axes: `C` clips, `T` frames, `S = T - 1` transitions, `M` frames of all clips, `H W` pixels of the measured size, `K`
colours, `d` the two coordinates of a position.
"""

import warnings
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.vq import kmeans2, vq
from sklearn.ensemble import HistGradientBoostingRegressor

from genie.data.episodes import EpisodeStore
from genie.data.windows import read_windows, spread_starts, window_starts
from genie.distributed.progress import progress
from genie.models.backprojection import NUM_COLORS, colors_of, differs_from, locate
from genie.models.measured_size import at_measured_size
from genie.models.tracking_lam import FARTHEST, Agent

NUM_CLIPS, CLIP = 256, 12  # number of clips, frames per clip
CHANGED = 40  # of 255: difference of a channel from the frame before and the frame after that marks a moving pixel
STATIC_SHARE = 0.7  # of the pixels that equal the median frame, from which it is a background
NUM_CLUSTERS, NUM_CLUSTERED = 24, 20_000  # number of clusters, and of moving pixels that are clustered
ROUNDS = 3  # iterations: learn colours around the estimated positions, then locate the agent by them
REACH = 4  # pixels around the agent's position in which its colours are learnt
MIN_PIXELS = 20  # near the agent, for a colour to be the agent's
DEVIATIONS = 3.0  # standard deviations above chance, for a colour to be the agent's
MIN_MASS = 0.5  # of the median frame's likeness, for the agent to be present
MIN_PRESENT = 0.5  # share of the transitions in which the agent is present and moves within FARTHEST
SAME = 1.0  # pixels: median distance of two tracks of the same object
HISTORY = 4  # past displacements that the next one is predicted from
FITTED, HELD_OUT = 0.62, 0.33  # shares of the clips, the first and the last, that predictions are fitted to, tested on
MIN_SURPRISE = 0.2  # pixels: mean error of the prediction of an agent's displacement


class AgentError(ValueError):
    """No moving object can be tracked as the agent; the message names the cause."""


class _Track(NamedTuple):
    likeness_K: torch.Tensor
    min_mass: float
    places_CTd: np.ndarray
    known_CS: np.ndarray  # bool: present in both frames of a transition, and not farther apart than FARTHEST

    @property
    def present(self) -> float:
        return float(self.known_CS.mean())


def find_agent(store: EpisodeStore, device: torch.device | str = "cpu") -> Agent:
    """Finds the agent of a split.

    Raises:
        WindowError: no episode is as long as a clip.
        AgentError: nothing is present in almost every frame and moves unpredictably.
    """
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, CLIP), NUM_CLIPS)
    frames_CTHWC = at_measured_size(torch.from_numpy(read_windows(store, starts, CLIP)).to(device))
    frames_MHWC = frames_CTHWC.flatten(0, 1)
    background_HWC = find_background(frames_MHWC)
    passing_CTHW = _passing(frames_CTHWC)
    colors_PC = frames_CTHWC[passing_CTHW].cpu().numpy().astype(np.float32)
    if len(colors_PC) < len(frames_CTHWC):  # fewer than one pixel per clip
        raise AgentError("nothing moves")
    clusters = _clusters(colors_PC)
    cluster_CTHW = torch.full(passing_CTHW.shape, -1, device=device)
    cluster_CTHW[passing_CTHW] = torch.from_numpy(vq(colors_PC, clusters)[0]).to(device, cluster_CTHW.dtype)

    color_MHW, counts_MHW = colors_of(frames_MHWC), differs_from(frames_MHWC, background_HWC)
    tracks: list[_Track] = []
    for cluster in progress(range(len(clusters)), name="find agent", unit="colour"):
        track = _track((cluster_CTHW == cluster).flatten(0, 1).float(), color_MHW, counts_MHW)
        if track.present >= MIN_PRESENT and not any(_same(track, other) for other in tracks):
            tracks.append(track)
    if not tracks:
        raise AgentError("nothing that moves is in almost every frame")
    surprises = [_surprise(track, tracks) for track in tracks]
    if max(surprises) < MIN_SURPRISE:
        raise AgentError(
            f"the past predicts what moves to {max(surprises):.2f} pixels, and an agent to no better than "
            f"{MIN_SURPRISE} pixels"
        )
    found = tracks[int(np.argmax(surprises))]
    return Agent(found.likeness_K, found.min_mass, background_HWC)


def find_background(frames_MHWC: torch.Tensor) -> torch.Tensor | None:
    """The median frame, if most pixels equal it in a typical frame; else None."""
    median_HWC = frames_MHWC.flatten(1).median(dim=0).values.view(frames_MHWC.shape[1:])
    static = (~differs_from(frames_MHWC, median_HWC)).float().mean((1, 2)).median()
    return median_HWC if static >= STATIC_SHARE else None


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


def _track(likeness_MHW: torch.Tensor, color_MHW: torch.Tensor, counts_MHW: torch.Tensor) -> _Track:
    """Tracks the colours that gather where likeness does.

    Args:
        likeness_MHW: where the tracked thing is at first.
        color_MHW: colour of each pixel.
        counts_MHW: bool, pixels that are not background.
    """
    places_Md, mass_M = locate(likeness_MHW)
    there_M = mass_M >= 2  # pixels
    likeness_K, min_mass = torch.zeros(NUM_COLORS, device=color_MHW.device), 0.0
    for _ in range(ROUNDS):
        likeness_K = _likeness(color_MHW[there_M], counts_MHW[there_M], places_Md[there_M])
        places_Md, mass_M = locate(likeness_K[color_MHW] * counts_MHW)
        min_mass = max(MIN_MASS * float(mass_M.median()), 1e-6)
        there_M = mass_M >= min_mass
    places_CTd, there_CT = places_Md.unflatten(0, (-1, CLIP)), there_M.unflatten(0, (-1, CLIP))
    near_CS = places_CTd.diff(dim=1).norm(dim=-1) <= FARTHEST
    return _Track(
        likeness_K, min_mass, places_CTd.cpu().numpy(), (near_CS & there_CT[:, 1:] & there_CT[:, :-1]).cpu().numpy()
    )


def _likeness(color_MHW: torch.Tensor, counts_MHW: torch.Tensor, places_Md: torch.Tensor) -> torch.Tensor:
    """Share `(K,)` of each colour's pixels that lie within `REACH` of the positions, beyond chance and noise."""
    _, height, width = color_MHW.shape
    x_M, y_M = places_Md.T
    columns_MW = (torch.arange(width, device=x_M.device) - x_M[:, None]).abs() <= REACH
    rows_MH = (torch.arange(height, device=x_M.device) - y_M[:, None]).abs() <= REACH
    near_MHW = rows_MH[:, :, None] & columns_MW[:, None, :] & counts_MHW
    near_K = torch.bincount(color_MHW[near_MHW], minlength=NUM_COLORS).float()
    all_K = torch.bincount(color_MHW[counts_MHW], minlength=NUM_COLORS).float()
    far_K = all_K - near_K
    chance_K = far_K * (near_K.sum() / far_K.sum().clamp_min(1))
    more_K = (near_K - chance_K - DEVIATIONS * chance_K.sqrt()).clamp_min(0)
    return torch.where(near_K >= MIN_PIXELS, more_K / all_K.clamp_min(1), 0.0)


def _same(track: _Track, other: _Track) -> bool:
    return bool(np.median(np.linalg.norm(track.places_CTd - other.places_CTd, axis=-1)) < SAME)


def _surprise(track: _Track, tracks: list[_Track]) -> float:
    """Mean error, in pixels, of predictions of a track's displacements on clips that they were not fitted to."""
    whole_CS = np.lib.stride_tricks.sliding_window_view(track.known_CS, HISTORY + 1, axis=1).all(-1)
    clips, firsts = np.nonzero(whole_CS)
    others = [other for other in tracks if other is not track]
    pasts = [_past(each, clips, firsts) for each in (track, *others)]
    # Where the others are, as seen from the tracked thing: it may follow or avoid them.
    offsets = [past[:, :2] - pasts[0][:, :2] for past in pasts[1:]]
    seen_MD = np.concatenate([*pasts, *offsets], axis=1)
    moved_Md = track.places_CTd[clips, firsts + HISTORY + 1] - track.places_CTd[clips, firsts + HISTORY]
    # Apart in time, since the clips of a short film overlap.
    num_clips = len(track.known_CS)
    fitted, left_out = clips < FITTED * num_clips, clips >= (1 - HELD_OUT) * num_clips
    if min(fitted.sum(), left_out.sum()) < 2:
        return 0.0
    error_Md = np.stack(
        [
            HistGradientBoostingRegressor(random_state=0).fit(seen_MD[fitted], moved[fitted]).predict(seen_MD[left_out])
            - moved[left_out]
            for moved in moved_Md.T
        ],
        axis=1,
    )
    return float(np.linalg.norm(error_Md, axis=1).mean())


def _past(track: _Track, clips: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Position and past displacements `(M, 2 + 2 * HISTORY)` before each transition."""
    steps = [track.places_CTd[clips, firsts + HISTORY - age] for age in range(HISTORY + 1)]
    return np.concatenate([steps[0], *(later - before for later, before in pairwise(steps))], axis=1)
