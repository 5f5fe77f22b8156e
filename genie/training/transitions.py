"""Transitions as the latent action model of kind `surprise` knows them, observed once and drawn again and again."""

import numpy as np
import torch

from genie.data.episodes import EpisodeStore
from genie.data.windows import Windows, window_starts
from genie.models.surprise_lam import SurpriseLam
from genie.progress import progress

CHUNK = 1024  # frames observed at once


def observe_split(lam: SurpriseLam, store: EpisodeStore) -> dict[str, np.ndarray]:
    """What `lam.observe` tells of the transition after each frame of a split, as arrays `(num_frames, ...)`.

    The split is read as one clip: what a transition tells is only right where its whole history is in its episode.
    """
    device = next(lam.parameters()).device
    observed, overlap = {}, lam.history - 1
    for first in progress(range(0, store.num_frames - 1, CHUNK), name="measure motion", unit="chunk"):
        start = max(0, first - overlap)
        frames_1THWC = torch.from_numpy(store.read(start, min(first + CHUNK + 1, store.num_frames)))[None].to(device)
        for name, parts_1S in lam.observe(frames_1THWC).items():
            parts_S = parts_1S[0, first - start :].cpu().numpy()
            if name not in observed:
                observed[name] = np.zeros((store.num_frames, *parts_S.shape[1:]), parts_S.dtype)
            observed[name][first : first + len(parts_S)] = parts_S
    return observed


class TransitionWindows(Windows):
    """Batches of transitions whose whole history is known: `dataset[step]` is a batch for the model's `forward`.

    Args:
        lam: that observes them.
        store: a split.
        batch_size: transitions, drawn with replacement.

    Raises:
        WindowError: no episode is as long as a transition and its history.
    """

    def __init__(self, lam: SurpriseLam, store: EpisodeStore, batch_size: int, seed: int, num_batches: int):
        starts = window_starts(store.episode_starts, store.num_frames, lam.history + 1)
        super().__init__(starts, lam.history + 1, batch_size, seed, num_batches)
        self.observed = observe_split(lam, store)

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        transitions_B = self._draw(step) + self.window - 2
        return {name: torch.from_numpy(part[transitions_B]) for name, part in self.observed.items()}
