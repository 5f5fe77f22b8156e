"""Motion compensation: the last frame, moved to where the next is expected to show it.

Video codecs code what is left of a frame when the last one, moved, has been subtracted. So a dynamics that is shown the
last frame moved need not learn to scroll pictures, only what is new in them. How far it will move is expected from how
far it moved before, from what it shows and from the action, by a network that is trained on displacements measured
between frames (`genie.models.registration`). Where the camera stands still, nothing is moved.

Axes: `B` batch, `T` frames, `N` tokens a frame, `h w` their grid, `H W C` pixels, `K` codes, `P` pixels that a code
paints, `R` displacements remembered, `d` the two numbers of each.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from genie.models.registration import displacements, warp

REMEMBERED = 4  # past displacements
PIXELS = 8.0  # displacements are seen in units of so many pixels
COARSE = 2  # pixels that are averaged each way in what the network sees of a frame
HIDDEN = 128


class MotionCompensation(nn.Module):
    """Past frames and an action to the last frame moved.

    Args:
        num_codes: K.
        grid: h, w.
        patch_side: pixels a side that a code paints.
        num_actions: actions, beside the one that is not known, whose number is this.
    """

    def __init__(self, num_codes: int, grid: tuple[int, int], patch_side: int, num_actions: int):
        super().__init__()
        self.grid, self.patch_side = grid, patch_side
        # What each code paints, drawn before training; a masked token is black.
        self.register_buffer("looks", torch.zeros(num_codes + 1, 3 * patch_side**2, dtype=torch.uint8))
        num_pixels = math.prod(grid) * patch_side**2 // COARSE**2
        self.action_in = nn.Embedding(num_actions + 1, HIDDEN)
        self.past_in = nn.Linear(2 * REMEMBERED + num_pixels, HIDDEN)
        self.layers = nn.Sequential(nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 2))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    @property
    def features(self) -> int:
        """Numbers a token that `forward` gives of the moved frame."""
        return 4 * self.patch_side**2

    def paint(self, tokens_BTN: torch.Tensor) -> torch.Tensor:
        """uint8 frames `(B, T, H, W, 3)` of tokens, each as it looks among its like."""
        h, side = self.grid[0], self.patch_side
        return rearrange(self.looks[tokens_BTN], "b t (h w) (p q c) -> b t (h p) (w q) c", h=h, p=side, q=side)

    def measure(self, painted_BTHWC: torch.Tensor) -> torch.Tensor:
        """How far the picture moved from each frame to the next: `(B, T - 1, 2)`, in pixels."""
        return displacements(painted_BTHWC)

    def forward(
        self, painted_BTHWC: torch.Tensor, moved_Bd: torch.Tensor, action_BT: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The frames that follow each of T in a row, as far as they are what was there before.

        Args:
            painted_BTHWC: the T frames.
            moved_Bd: displacements `(B, R + T - 1, 2)`: the R that led to the first of them and those between them.
            action_BT: what leads on from each.

        Returns:
            Displacements expected to follow each, `(B, T, 2)` in pixels, with a gradient; and the moved frames, without
            one, as `(B, T, N, features)`: the pixels of each token in [-0.5, 0.5], 0 where nothing is known, and
            whether it is.
        """
        with torch.autocast(painted_BTHWC.device.type, enabled=False):
            remembered_BTR = moved_Bd.unfold(1, REMEMBERED, 1).flatten(2) / PIXELS
            gray_BTHW = painted_BTHWC.float().mean(-1) / 255 - 0.5
            coarse_BT = F.avg_pool2d(gray_BTHW, COARSE).flatten(2)
            hidden = self.past_in(torch.cat([remembered_BTR, coarse_BT], dim=-1)) + self.action_in(action_BT)
            expected_BTd = self.layers(hidden) * PIXELS
            pixels_MHWC = painted_BTHWC.flatten(0, 1).float() / 255 - 0.5
            warped_MHWC, known_MHW = warp(pixels_MHWC, expected_BTd.detach().flatten(0, 1))
            known_MHW1 = known_MHW.unsqueeze(-1)
            seen_MHWC = torch.cat([warped_MHWC * known_MHW1, known_MHW1], dim=-1)
        side = self.patch_side
        seen_MNF = rearrange(seen_MHWC, "m (h p) (w q) c -> m (h w) (p q c)", p=side, q=side)
        return expected_BTd, seen_MNF.unflatten(0, action_BT.shape)
