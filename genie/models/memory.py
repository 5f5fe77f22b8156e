"""Memory of the dynamics model while a world is played: the key-value cache, and the frames not yet read into it.

Axes: `B` worlds, `T` frames, `N` tokens per frame, `C` context frames.
"""

from dataclasses import dataclass, replace

import torch

from genie.models.motion_compensation import Foreseen
from genie.models.recent_motion import RecentMotion
from genie.models.st_transformer import KeyValue


@dataclass(frozen=True)
class Memory:
    """The past as the dynamics model sees it; made by `Dynamics.remember`.

    Sliding window: a frame's keys and values are computed once, when the frame is read, from the C frames before it.
    They are dropped when C further frames have been read. Frames are read in the same pass as the first MaskGIT step
    of the frame that follows them, so a frame costs one pass per MaskGIT step.

    Attributes:
        keys_values: keys and values of the last C frames read, per layer; empty at the beginning.
        before_BN: tokens of the last frame read; mask tokens at the beginning.
        unread_BTN: tokens of the frames not yet read.
        led_to_BT: the action that led to each unread frame, and to the next frame if it is awaited.
        num_read: total number of frames read, which is the time of the first unread frame.
        foreseen: with motion compensation, the prediction of each of these frames from the frame before it.
        motion: with motion compensation, the recent motion from which the next frame is predicted.
    """

    keys_values: list[KeyValue]
    before_BN: torch.Tensor
    unread_BTN: torch.Tensor
    led_to_BT: torch.Tensor
    num_read: int = 0
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

    def repeated(self, times: int) -> "Memory":
        """The memory with each world repeated `times` times in a row."""

        def many(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.repeat_interleave(times, dim=0)

        return replace(
            self,
            keys_values=[(many(k), many(v)) for k, v in self.keys_values],
            before_BN=many(self.before_BN),
            unread_BTN=many(self.unread_BTN),
            led_to_BT=many(self.led_to_BT),
            foreseen=self.foreseen and Foreseen(*map(many, self.foreseen)),
            motion=self.motion and self.motion.repeated(times),
        )
