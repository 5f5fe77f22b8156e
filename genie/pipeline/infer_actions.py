"""Computes the latent action of every transition once, since training reads it repeatedly.

Axes: `B` episodes of a chunk, `T` frames, `H W C` pixels, `A` latent actions, `E` effective actions.
"""

from collections.abc import Iterator

import numpy as np
import torch

from genie.core.actions import NO_ACTION
from genie.data.episodes import EpisodeStore
from genie.data.read_ahead import read_ahead
from genie.data.transitions import observe_split
from genie.distributed.progress import progress
from genie.models.chunks import GPU_FRAMES
from genie.models.lam import LatentActionModel, SurpriseLam
from genie.world.controls import Button, name_buttons


def latent_actions_of(lam: LatentActionModel, store: EpisodeStore, name: str) -> Iterator[np.ndarray]:
    """Yields the latent actions of a split in order, `(M,)` uint8 of M frames at a time: `NO_ACTION` at an episode's
    last frame."""
    device = next(lam.parameters()).device
    return by_episode(lam, store, name) if device.type == "cpu" else by_chunk(lam, store, name)


def by_episode(lam: LatentActionModel, store: EpisodeStore, name: str) -> Iterator[np.ndarray]:
    """Infers the latent actions of one episode at a time."""
    device = next(lam.parameters()).device
    for episode in progress(store.episode_slices(), name=name, unit="episode"):
        actions = np.full(episode.stop - episode.start, NO_ACTION, np.uint8)
        if len(actions) > 1:
            frames_THWC = torch.from_numpy(store.read(episode.start, episode.stop)).to(device)
            actions[:-1] = lam.infer_actions(frames_THWC.unsqueeze(0))[0].cpu().numpy()
        yield actions


def by_chunk(
    lam: LatentActionModel, store: EpisodeStore, name: str, chunk_frames: int = GPU_FRAMES
) -> Iterator[np.ndarray]:
    """Infers the same latent actions, of `chunk_frames` frames at a time, which may hold many episodes.

    A chunk is taken as one clip. The first transitions of an episode then have a past in other episodes, so they are
    inferred once more, those of all its episodes as one batch of clips, each from the start of its episode.
    """
    device = next(lam.parameters()).device
    starts, firsts = store.episode_starts, range(0, store.num_frames, chunk_frames)
    is_last = np.isin(np.arange(store.num_frames) + 1, [*starts, store.num_frames])
    # The frames that a chunk's first and last transition depend on are read with it.
    spans = [(max(0, first - lam.history), min(first + chunk_frames + 1, store.num_frames)) for first in firsts]
    chunks = zip(firsts, spans, read_ahead(store.read, spans, device), strict=True)
    for first, (start, stop), frames_THWC in progress(chunks, name=name, total=len(spans), unit="chunk"):
        actions_T = np.full(stop - start, NO_ACTION, np.uint8)
        begun_B = starts[(start <= starts) & (starts < stop - 1)] - start
        if stop - start > 1:
            actions_T[:-1] = lam.infer_actions(frames_THWC[None])[0].cpu().numpy()
        if len(begun_B):
            times_BT = (begun_B[:, None] + np.arange(lam.history + 1)).clip(max=len(frames_THWC) - 1)
            clips_BTHWC = frames_THWC[torch.from_numpy(times_BT).to(device)]
            # A short episode's clip goes on into later ones, whose own clips overwrite it: numpy assigns in order.
            actions_T[times_BT[:, :-1]] = lam.infer_actions(clips_BTHWC).cpu().numpy()
        labelled = slice(first, min(first + chunk_frames, store.num_frames))
        actions = actions_T[first - start : labelled.stop - start]
        actions[is_last[labelled]] = NO_ACTION
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
    met_AE = np.zeros((num_actions, len(store.action_names)), int)
    np.add.at(met_AE, (latent_actions[taken], actions[taken]), 1)
    return name_buttons(met_AE, store.action_names)


def measure_buttons(lam: LatentActionModel, store: EpisodeStore, latent_actions: np.ndarray) -> tuple[Button, ...]:
    """Describes latent actions by the mean displacement of the agent under each, where the LAM measures one.

    Args:
        lam: the latent action model; kind `pixels` measures none.
        store: a split of N frames.
        latent_actions: `(N,)` latent actions inferred from the split, `NO_ACTION` at an episode's last frame.
    """
    if not isinstance(lam, SurpriseLam):
        return (Button(),) * lam.num_actions
    # Negative: the LAM measures the picture, which moves the other way if a camera follows the agent.
    moved_Nd = -observe_split(lam, store)["next_Md"]
    chosen = [moved_Nd[latent_actions == action] for action in range(lam.num_actions)]
    means = [moved.mean(0, dtype=np.float64).round(2).tolist() if len(moved) else None for moved in chosen]
    return tuple(Button(motion=mean and (mean[0], mean[1])) for mean in means)
