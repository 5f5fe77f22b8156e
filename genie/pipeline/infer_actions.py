"""Computes the latent action of every transition once, since training reads it repeatedly."""

from collections.abc import Iterator

import numpy as np
import torch

from genie.core.actions import EFFECTIVE_ACTIONS, NO_ACTION, effective_action
from genie.data.episodes import EpisodeStore
from genie.distributed.progress import progress
from genie.models.lam import LatentActionModel
from genie.world.controls import Button, name_buttons


def latent_actions_of(lam: LatentActionModel, store: EpisodeStore, name: str) -> Iterator[np.ndarray]:
    """Yields the latent actions of each episode of a split, in order: `(n,)` uint8, the last of them `NO_ACTION`."""
    device = next(lam.parameters()).device
    for episode in progress(store.episode_slices(), name=name, unit="episode"):
        actions = np.full(episode.stop - episode.start, NO_ACTION, np.uint8)
        if len(actions) > 1:
            frames_THWC = torch.from_numpy(store.read(episode.start, episode.stop)).to(device)
            actions[:-1] = lam.infer_actions(frames_THWC.unsqueeze(0))[0].cpu().numpy()
        yield actions


def count_buttons(store: EpisodeStore, latent_actions: np.ndarray, num_actions: int) -> tuple[Button, ...]:
    """Names latent actions by how often each co-occurs with each true action.

    Args:
        store: a split of N frames, with true actions.
        latent_actions: `(N,)` latent actions inferred from the split, `NO_ACTION` at an episode's last frame.
        num_actions: A.
    """
    actions = store.actions()
    taken = actions != NO_ACTION
    assert NO_ACTION not in latent_actions[taken], "latent actions of other episodes"
    met_AE = np.zeros((num_actions, len(EFFECTIVE_ACTIONS)), int)
    np.add.at(met_AE, (latent_actions[taken], effective_action(actions[taken])), 1)
    return name_buttons(met_AE)
