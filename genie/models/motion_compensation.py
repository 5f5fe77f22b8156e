"""Motion compensation: the last frame, moved to where the next is expected to show it, as tokens.

Video codecs code what is left of a frame when the last one, moved, has been subtracted (Jain and Jain 1981,
"Displacement measurement and its application in interframe image coding"). So a dynamics that is shown the tokens of
the last frame moved need not learn how tokens change when a picture scrolls, only what is new in the next. How far it
will move is expected from how far it moved before, from what the frame shows and from the action, by a network that is
trained on displacements measured between frames (`genie.models.registration`). Where the camera stands still, nothing
is moved.

Axes: `B` batch, `T` frames, `M` any number of frames, `N` tokens a frame, `H W C` pixels, `R` displacements
remembered, `d` the two numbers of each.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from genie.models.registration import displacements, warp
from genie.models.tokenizer import PATCH, Tokenizer

REMEMBERED = 4  # past displacements
FRACTIONS = 8  # of a pixel by which a frame is moved, as in video codecs: a rounding error then changes no pixel
PIXELS = 8.0  # displacements are seen in units of so many pixels
HUBER = 0.25  # from so many units on, an error counts by its size, no longer by its square
COARSE = 2  # pixels that are averaged each way in what the network sees of a frame
HIDDEN = 128


class Foreseen(NamedTuple):
    """Frames as far as the ones before them tell.

    Attributes:
        displacement_BTd: how far the picture is expected to have moved, in pixels; with a gradient.
        tokens_BTN: of the frame before, moved so; the mask token where it shows less than half of what a token paints.
    """

    displacement_BTd: torch.Tensor
    tokens_BTN: torch.Tensor

    def after_nothing(self, mask_token: int) -> "Foreseen":
        """The same, and before them the frame that nothing was before."""
        return Foreseen(
            F.pad(self.displacement_BTd, (0, 0, 1, 0)), F.pad(self.tokens_BTN, (0, 0, 1, 0), value=mask_token)
        )

    def frames(self, chosen: slice) -> "Foreseen":
        """The same of some of the frames."""
        return Foreseen(*(part[:, chosen] for part in self))

    def then(self, other: "Foreseen") -> "Foreseen":
        """The same, and of further frames after them."""
        return Foreseen(*(torch.cat(parts, dim=1) for parts in zip(self, other, strict=True)))


class Motion(NamedTuple):
    """How far the picture moved, in pixels.

    Attributes:
        expected_BSd: by the network; with a gradient.
        measured_BSd: between the frames.
    """

    expected_BSd: torch.Tensor
    measured_BSd: torch.Tensor

    def loss(self) -> torch.Tensor:
        """Huber's: what a repeated texture makes of a few measurements does not drown the others."""
        return F.huber_loss(self.expected_BSd / PIXELS, self.measured_BSd / PIXELS, delta=HUBER)

    def error(self) -> torch.Tensor:
        """Mean distance, in pixels."""
        return (self.expected_BSd.detach() - self.measured_BSd).norm(dim=-1).mean()


class MotionCompensation(nn.Module):
    """The last frame and an action to the last frame moved.

    Args:
        grid: rows and columns of tokens.
        num_codes: how many tokens there are, beside the mask token, whose number is this.
        num_actions: how many actions, beside the one that is not known, whose number is this.
    """

    def __init__(self, grid: tuple[int, int], num_codes: int, num_actions: int):
        super().__init__()
        self.mask_token = num_codes
        num_pixels = math.prod(grid) * PATCH**2 // COARSE**2
        self.action_in = nn.Embedding(num_actions + 1, HIDDEN)
        self.past_in = nn.Linear(2 * REMEMBERED + num_pixels, HIDDEN)
        self.layers = nn.Sequential(nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 2))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)
        self._tokenizers: tuple[Tokenizer, ...] = ()  # in a tuple: a module's own modules are trained and saved with it

    def see_through(self, tokenizer: Tokenizer) -> None:
        """Takes a tokenizer, in eval mode, whose tokens the frames are. It is not trained or saved with this."""
        self._tokenizers = (tokenizer,)

    @property
    def tokenizer(self) -> Tokenizer:
        """That which it sees through."""
        assert self._tokenizers, "motion compensation needs the tokenizer: call see_through first"
        return self._tokenizers[0]

    def _apply(self, fn, recurse=True):
        # What moves a module moves its own modules alone.
        for tokenizer in self._tokenizers:
            tokenizer._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def decode(self, tokens_BTN: torch.Tensor) -> torch.Tensor:
        """uint8 frames `(B, T, H, W, 3)` of tokens."""
        return self.tokenizer.decode(tokens_BTN.flatten(0, 1)).unflatten(0, tokens_BTN.shape[:2])

    def forward(self, frames_BTHWC: torch.Tensor, moved_Bd: torch.Tensor, action_BT: torch.Tensor) -> Foreseen:
        """What follows each of T frames in a row.

        Args:
            frames_BTHWC: uint8.
            moved_Bd: displacements `(B, R + T - 1, 2)`, in pixels: the R that led to the first frame, and those between
                the frames.
            action_BT: what leads on from each.
        """
        with torch.autocast(frames_BTHWC.device.type, enabled=False):
            gray_BTHW = frames_BTHWC.float().mean(-1) / 255 - 0.5
            past_BT = torch.cat(
                [moved_Bd.unfold(1, REMEMBERED, 1).flatten(2) / PIXELS, F.avg_pool2d(gray_BTHW, COARSE).flatten(2)],
                dim=-1,
            )
            displacement_BTd = self.layers(self.past_in(past_BT) + self.action_in(action_BT)) * PIXELS
        moved_MN = self._move(frames_BTHWC.flatten(0, 1), displacement_BTd.detach().flatten(0, 1))
        return Foreseen(displacement_BTd, moved_MN.unflatten(0, action_BT.shape))

    @torch.no_grad()
    def _move(self, frames_MHWC: torch.Tensor, displacement_Md: torch.Tensor) -> torch.Tensor:
        """Tokens `(M, N)` of frames moved by displacements, the mask token where most of what it paints is unknown."""
        displacement_Md = (displacement_Md * FRACTIONS).round() / FRACTIONS
        moved_MHWC, known_MHW = warp(frames_MHWC.float(), displacement_Md)
        tokens_MN = self.tokenizer.encode(moved_MHWC.round().to(torch.uint8))
        known_MN = F.avg_pool2d(known_MHW.float(), PATCH).flatten(1)
        return torch.where(known_MN > 0.5, tokens_MN, self.mask_token)


def measure(frames_BTHWC: torch.Tensor) -> torch.Tensor:
    """How far the picture moved from each frame to the next: `(B, T - 1, 2)`, in pixels."""
    if frames_BTHWC.shape[1] < 2:
        return frames_BTHWC.new_zeros((len(frames_BTHWC), 0, 2), dtype=torch.float32)
    return displacements(frames_BTHWC)
