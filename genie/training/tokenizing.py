"""Tokens of every frame, computed once: training reads them again and again."""

from collections.abc import Iterator

import numpy as np
import torch

from genie.data.episodes import EpisodeStore
from genie.models.tokenizer import Tokenizer
from genie.progress import progress

FRAMES_AT_ONCE = 64  # few, so that they stay in the cache of a CPU


def tokens_of(tokenizer: Tokenizer, store: EpisodeStore, name: str) -> Iterator[np.ndarray]:
    """Tokens of a split in order, `(<= FRAMES_AT_ONCE, N)` uint16 at a time."""
    device = next(tokenizer.parameters()).device
    for start in progress(range(0, store.num_frames, FRAMES_AT_ONCE), name=name, unit="batch"):
        frames = torch.from_numpy(store.read(start, min(start + FRAMES_AT_ONCE, store.num_frames)))
        yield tokenizer.encode(frames.to(device)).cpu().numpy().astype(np.uint16)
