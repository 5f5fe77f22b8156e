"""Memory of the dynamics model while a world is played: the key-value cache, and the frames not yet read into it.

Axes: `B` worlds, `T` frames, `N` tokens per frame, `C` context frames.
"""

from typing import NamedTuple

import torch

from genie.models.motion_compensation import Foreseen
from genie.models.recent_motion import RecentMotion
from genie.models.st_transformer import KeyValue


class Memory(NamedTuple):
    """The past as the dynamics model sees it; made by `Dynamics.remember`.

    Sliding window: a frame's keys and values are computed once, when the frame is read, from the C frames before it.
    They are dropped when C further frames have been read. Frames are read in the same pass as the first MaskGIT step
    of the frame that follows them, so a frame costs one pass per MaskGIT step.

    Attributes:
        keys_values: keys and values of the last C frames read, per layer; empty at the beginning.
        before_BN: tokens of the last frame read; mask tokens at the beginning.
        unread_BTN: tokens of the frames not yet read.
        led_to_BT: the action that led to each unread frame, and to the next frame if it is awaited.
        num_read_B: total number of frames read, which is the time of the first unread frame. The worlds of a batch may
            have started at different times.
        foreseen: with motion compensation, the prediction of each of these frames from the frame before it.
        motion: with motion compensation, the recent motion from which the next frame is predicted.
    """

    keys_values: list[KeyValue]
    before_BN: torch.Tensor
    unread_BTN: torch.Tensor
    led_to_BT: torch.Tensor
    num_read_B: torch.Tensor
    foreseen: Foreseen | None = None
    motion: RecentMotion | None = None

    @property
    def last_BN(self) -> torch.Tensor:
        """Tokens of the last frame."""
        return torch.cat([self.before_BN.unsqueeze(1), self.unread_BTN], dim=1)[:, -1]

    @property
    def is_awaiting(self) -> bool:
        """Whether the next frame is awaited: the action that leads to it is known."""
        return self.led_to_BT.shape[1] > self.unread_BTN.shape[1]

    @property
    def num_past(self) -> int:
        """Number of frames whose keys and values are kept."""
        return self.keys_values[0][0].shape[-2] if self.keys_values else 0

    @property
    def num_unread(self) -> int:
        """Number of frames not yet read."""
        return self.unread_BTN.shape[1]
