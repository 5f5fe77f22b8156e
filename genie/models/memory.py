"""What the dynamics knows of the past while a world is played: the key-value cache, and what is not read into it yet.

Axes: `B` worlds, `T` frames, `N` tokens a frame, `C` context frames, `R` displacements remembered, `d` the two numbers
of each.
"""

from dataclasses import dataclass, replace

import torch

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
        moved_BRd: with motion compensation, the last R displacements up to that frame, in pixels; 0 before the first.
        unread_BTN: tokens of the frames since.
        led_to_BT: the action that led to each of those.
        num_read: how many frames were read in all, which is the time of the first unread one.
    """

    keys_values: list[KeyValue]
    before_BN: torch.Tensor
    moved_BRd: torch.Tensor
    unread_BTN: torch.Tensor
    led_to_BT: torch.Tensor
    num_read: int

    @property
    def last_BN(self) -> torch.Tensor:
        """Tokens of the last frame."""
        return torch.cat([self.before_BN.unsqueeze(1), self.unread_BTN], dim=1)[:, -1]

    def then(self, tokens_BN: torch.Tensor, action_B: torch.Tensor) -> "Memory":
        """This memory and one more frame, to which an action led."""
        unread_BTN = torch.cat([self.unread_BTN, tokens_BN.unsqueeze(1)], dim=1)
        led_to_BT = torch.cat([self.led_to_BT, action_B.unsqueeze(1)], dim=1)
        return replace(self, unread_BTN=unread_BTN, led_to_BT=led_to_BT)

    def repeated(self, times: int) -> "Memory":
        """That of each world so many times in a row, as of so many worlds."""

        def many(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.repeat_interleave(times, dim=0)

        keys_values = [(many(k), many(v)) for k, v in self.keys_values]
        tensors = self.before_BN, self.moved_BRd, self.unread_BTN, self.led_to_BT
        return Memory(keys_values, *map(many, tensors), self.num_read)
