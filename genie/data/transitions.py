"""Batches of transitions for models that measure motion.

These are the latent action model of kind `surprise`, the motion predictor and the steering. Each transition is observed
once and drawn many times.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch

from genie.data.episodes import EpisodeStore
from genie.data.read_ahead import read_ahead
from genie.data.windows import Columns, WindowError, Windows, rows_of, window_starts
from genie.distributed.progress import progress
from genie.models.chunks import rows_at_once

CHUNK = 1024  # frames observed at once on a CPU


class Observer(Protocol):
    """A module that observes transitions one by one, each from the `history` frames before its last frame."""

    history: int

    def observe(self, frames_BTHWC: torch.Tensor) -> dict[str, torch.Tensor]: ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...


def observe_split(model: Observer, store: EpisodeStore) -> dict[str, np.ndarray]:
    """Outputs of `model.observe` for the transition after each frame of a split, as arrays `(num_frames, ...)`.

    The split is read as one clip: the outputs are valid only for transitions whose whole history is in their episode.
    """
    device = next(model.parameters()).device
    observed, size = {}, rows_at_once(device, CHUNK)
    firsts = range(0, store.num_frames - 1, size)
    spans = [(max(0, first - (model.history - 1)), min(first + size + 1, store.num_frames)) for first in firsts]
    chunks = zip(firsts, spans, read_ahead(store.read, spans, device), strict=True)
    for first, (start, _), frames_THWC in progress(chunks, name="measure motion", total=len(spans), unit="chunk"):
        for name, parts_1S in model.observe(frames_THWC[None]).items():
            parts_S = parts_1S[0, first - start :].cpu().numpy()
            if name not in observed:
                observed[name] = np.zeros((store.num_frames, *parts_S.shape[1:]), parts_S.dtype)
            observed[name][first : first + len(parts_S)] = parts_S
    return observed


class TransitionWindows(Windows[dict[str, torch.Tensor]]):
    """Batches of transitions whose whole history is known: `dataset[step]` is a batch for the model's `forward`.

    Args:
        model: observes the transitions.
        store: a split.
        batch_size: transitions, drawn with replacement.
        labels: further entries of the batches, by name: `(num_frames,)` integers, returned as int64.

    Raises:
        WindowError: no episode is as long as a transition and its history, or a label's length is not `num_frames`.
    """

    def __init__(
        self,
        model: Observer,
        store: EpisodeStore,
        batch_size: int,
        seed: int,
        num_batches: int,
        labels: Mapping[str, np.ndarray] | None = None,
    ):
        labels = labels or {}
        for name, label in labels.items():
            if len(label) != store.num_frames:
                raise WindowError(f"{store.num_frames} frames but {len(label)} labels {name}; run `dvc repro`")
        starts = window_starts(store.episode_starts, store.num_frames, model.history + 1)
        super().__init__(starts, model.history + 1, batch_size, seed, num_batches)
        observed = observe_split(model, store) | {name: label.astype(np.int64) for name, label in labels.items()}
        self.observed = {name: torch.from_numpy(column) for name, column in observed.items()}

    @property
    def num_bytes(self) -> int:
        return sum(column.nbytes for column in self.observed.values())

    def _load(self, device: torch.device) -> Columns:
        return self.observed

    def _gather(self, columns: Columns, starts_B: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: rows_of(column, starts_B + self.window - 2) for name, column in columns.items()}

    def _read(self, starts_B: np.ndarray) -> dict[str, torch.Tensor]:
        return self._gather(self.observed, torch.from_numpy(starts_B))
