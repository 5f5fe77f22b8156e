"""The action of every transition, computed once: training reads it again and again."""

from collections.abc import Iterator

import numpy as np
import torch

from genie.core.actions import EFFECTIVE_ACTIONS, NO_ACTION, effective_action
from genie.data.episodes import EpisodeStore
from genie.distributed.progress import progress
from genie.models.lam import LatentActionModel
from genie.world.controls import Button, name_buttons


def latent_actions_of(lam: LatentActionModel, store: EpisodeStore, name: str) -> Iterator[np.ndarray]:
    """Latent actions of a split in order, an episode at a time: `(n,)` uint8, the last of them `NO_ACTION`."""
    device = next(lam.parameters()).device
    for episode in progress(store.episode_slices(), name=name, unit="episode"):
        actions = np.full(episode.stop - episode.start, NO_ACTION, np.uint8)
        if len(actions) > 1:
            frames_THWC = torch.from_numpy(store.read(episode.start, episode.stop)).to(device)
            actions[:-1] = lam.infer_actions(frames_THWC.unsqueeze(0))[0].cpu().numpy()
        yield actions


def count_buttons(store: EpisodeStore, latent_actions: np.ndarray, num_actions: int) -> tuple[Button, ...]:
    """Names latent actions by how often each meets each true one.

    Args:
        store: a split of N frames, with the true actions.
        latent_actions: `(N,)` those inferred from it, `NO_ACTION` at an episode's last frame.
        num_actions: A.
    """
    actions = store.actions()
    taken = actions != NO_ACTION
    assert NO_ACTION not in latent_actions[taken], "latent actions of other episodes"
    met_AE = np.zeros((num_actions, len(EFFECTIVE_ACTIONS)), int)
    np.add.at(met_AE, (latent_actions[taken], effective_action(actions[taken])), 1)
    return name_buttons(met_AE)
