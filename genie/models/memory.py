"""What the dynamics knows of the past while a world is played: the key-value cache, and what is not read into it yet.

Axes: `B` worlds, `T` frames, `N` tokens a frame, `C` context frames.
"""

from dataclasses import dataclass, replace

import torch

from genie.models.motion_compensation import Foreseen
from genie.models.recent_motion import RecentMotion
from genie.models.st_transformer import KeyValue


@dataclass(frozen=True)
class Memory:
    """What the dynamics knows of the past; made by `Dynamics.remember`.

    The rule by which the window slides: a frame's keys and values are computed once, when it is read, from the C
    frames before it; it leaves when C others have been read after it. Frames are read in the same pass as the first
    MaskGIT step of the frame that follows them, so that a frame at play costs one pass a MaskGIT step.

    Attributes:
        keys_values: of each layer, those of the last C frames that were read; empty at the beginning.
        before_BN: tokens of the last frame that was read; mask tokens at the beginning.
        unread_BTN: tokens of the frames since.
        led_to_BT: the action that led to each of those, and to the next frame if that is awaited.
        num_read: how many frames were read in all, which is the time of the first unread one.
        foreseen: with motion compensation, what the frame before each of them told of it.
        motion: with motion compensation, what the next is expected from.
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
        """That of each world so many times in a row, as of so many worlds."""

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
