"""What later stages read again and again is computed once: tokens of every frame, latent actions of every transition."""

from collections.abc import Iterator

import numpy as np
import torch

from genie.data.episodes import NO_ACTION, EpisodeStore
from genie.models.lam import LatentActionModel
from genie.models.tokenizer import Tokenizer
from genie.progress import progress

FRAMES_AT_ONCE = 512


def tokens_of(tokenizer: Tokenizer, store: EpisodeStore, name: str) -> Iterator[np.ndarray]:
    """Tokens of a split in order, `(<= FRAMES_AT_ONCE, N)` uint16 at a time."""
    device = next(tokenizer.parameters()).device
    for start in progress(range(0, store.num_frames, FRAMES_AT_ONCE), name=name, unit="batch"):
        frames = torch.from_numpy(store.read(start, min(start + FRAMES_AT_ONCE, store.num_frames)))
        yield tokenizer.encode(frames.to(device)).cpu().numpy().astype(np.uint16)


def latent_actions_of(
    lam: LatentActionModel, store: EpisodeStore, window: int, name: str
) -> Iterator[np.ndarray]:
    """Latent actions of a split in order, an episode at a time: `(n,)` uint8, the last of them `NO_ACTION`.

    An episode is read in windows of the length that the LAM was trained on, each beginning half a window after the
    one before: the first gives all its transitions an action, each later one those in its second half, so that every
    transition has at least half a window of past, or all there is.
    """
    device = next(lam.parameters()).device
    for episode in progress(store.episode_slices(), name=name, unit="episode"):
        actions = np.full(episode.stop - episode.start, NO_ACTION, np.uint8)
        if len(actions) > 1:
            frames = torch.from_numpy(store.read(episode.start, episode.stop)).to(device)
            actions[:-1] = torch.cat(list(_infer_in_windows(lam, frames, window))).cpu().numpy()
        yield actions


def _infer_in_windows(lam: LatentActionModel, frames_THWC: torch.Tensor, window: int) -> Iterator[torch.Tensor]:
    """Actions of one episode's transitions, in order, a few windows at a time."""
    stride = max(1, window // 2)
    num_whole = max(0, (len(frames_THWC) - window) // stride + 1)
    labelled = 0
    if num_whole:
        windows = frames_THWC.unfold(0, window, stride)  # (M, H, W, C, window)
        actions_MS = lam.infer_actions(windows.movedim(-1, 1))
        yield actions_MS[0]
        yield actions_MS[1:, -stride:].flatten()
        labelled = window - 1 + (num_whole - 1) * stride
    num_left = len(frames_THWC) - 1 - labelled
    if num_left:
        rest = frames_THWC[-min(len(frames_THWC), num_left + window - stride) :]
        yield lam.infer_actions(rest.unsqueeze(0))[0, -num_left:]
