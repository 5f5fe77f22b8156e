"""Windows labelled with true actions, for the probe.

Separate from the other windows, since no other model reads true actions.

Legend: B batch, T frames, S = T - 1 transitions, H W C pixels.
"""

import numpy as np
import torch

from genie.data.episodes import EpisodeStore
from genie.data.windows import Batch, Columns, FrameWindows, frames_of, read_windows, rows_of


def read_labelled_windows(
    store: EpisodeStore, actions: np.ndarray, starts: np.ndarray, length: int
) -> dict[str, torch.Tensor]:
    """Reads the windows at `starts (B,)` with their true actions.

    Args:
        store: provides the frames.
        actions: `(num_frames,)`, all true actions of the store.
        starts: first frames, each `length` frames or more before its episode's end.
        length: T.

    Returns:
        `frames_BTHWC` uint8 and `actions_BS` int64.
    """
    transitions_BS = starts[:, None] + np.arange(length - 1)
    return {
        "frames_BTHWC": torch.from_numpy(read_windows(store, starts, length)),
        "actions_BS": torch.from_numpy(actions[transitions_BS].astype(np.int64)),
    }


class LabelledFrameWindows(FrameWindows):
    """Batches of the windows that `FrameWindows` draws with the same arguments, as from `read_labelled_windows`."""

    def __init__(self, store: EpisodeStore, window: int, batch_size: int, seed: int, num_batches: int):
        super().__init__(store, window, batch_size, seed, num_batches)
        self.actions = store.actions()

    @property
    def num_bytes(self) -> int:
        return super().num_bytes + self.store.num_frames

    def _load(self, device: torch.device) -> Columns:
        return super()._load(device) | {"effects": torch.from_numpy(self.actions)}

    def _gather(self, columns: Columns, starts_B: torch.Tensor) -> Batch:
        frames_BT = frames_of(starts_B, self.window)
        return {
            "frames_BTHWC": rows_of(columns["frames"], frames_BT),
            "actions_BS": rows_of(columns["effects"], frames_BT[:, :-1]).long(),
        }

    def _read(self, starts_B: np.ndarray) -> Batch:
        return read_labelled_windows(self.store, self.actions, starts_B, self.window)
