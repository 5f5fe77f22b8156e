"""The action of every transition, computed once: training reads it again and again."""

from collections.abc import Iterator

import numpy as np
import torch

from genie.data.episodes import NO_ACTION, EpisodeStore
from genie.models.lam import LatentActionModel
from genie.progress import progress


def latent_actions_of(lam: LatentActionModel, store: EpisodeStore, name: str) -> Iterator[np.ndarray]:
    """Latent actions of a split in order, an episode at a time: `(n,)` uint8, the last of them `NO_ACTION`."""
    device = next(lam.parameters()).device
    for episode in progress(store.episode_slices(), name=name, unit="episode"):
        actions = np.full(episode.stop - episode.start, NO_ACTION, np.uint8)
        if len(actions) > 1:
            frames_THWC = torch.from_numpy(store.read(episode.start, episode.stop)).to(device)
            actions[:-1] = lam.infer_actions(frames_THWC.unsqueeze(0))[0].cpu().numpy()
        yield actions
