"""What moved in a transition: the encoder that the latent action model shares with the probe it is judged by.

Axes: `B` batch, `T` frames, `H W C` pixels, `h w` grid of 4x4 patches, `P` pixels of a patch, `D` width, `M` any number
of transitions.
"""

import torch
from einops import rearrange
from torch import nn

from genie.core.frames import PATCH
from genie.models.convolution import ResidualBlock

PATCH_DIM = 3 * PATCH**2


class MotionEncoder(nn.Module):
    """Transitions, each with its history, to one vector of `dim` numbers for each of `cells ** 2` parts of the picture.

    Args:
        history: frames seen before the change, the present one included.
        width: channels at the grid of patches; `dim` is twice that.
        num_blocks: residual blocks.
        cells: parts a side, each of which is averaged; with one, whatever is small is lost among the rest.
    """

    def __init__(self, history: int, width: int, num_blocks: int, cells: int = 1):
        super().__init__()
        self.dim = 2 * width
        self.num_cells = cells**2
        self.layers = nn.Sequential(
            nn.Conv2d((history + 1) * PATCH_DIM, width, 3, padding=1),
            ResidualBlock(width),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            *(ResidualBlock(2 * width) for _ in range(num_blocks - 1)),
            nn.LeakyReLU(0.1),
            nn.AdaptiveAvgPool2d(cells),
            nn.Flatten(),
        )

    def forward(self, history_MPhw: torch.Tensor, change_MPhw: torch.Tensor) -> torch.Tensor:
        """Vectors `(M, dim * cells ** 2)`, channel by channel, of histories, as `histories` makes them, and of the
        changes that came next."""
        stacked = torch.cat([history_MPhw, change_MPhw], dim=1)
        return self.layers(stacked.contiguous(memory_format=torch.channels_last))


def to_patches(frames_BTHWC: torch.Tensor) -> torch.Tensor:
    """uint8 frames to `(B, T, P, h, w)` in [-0.5, 0.5], the pixels of a patch as channels."""
    patches = rearrange(frames_BTHWC, "b t (h p) (w q) c -> b t (c p q) h w", p=PATCH, q=PATCH)
    return patches.float() / 255 - 0.5


def histories(patches_BTPhw: torch.Tensor, length: int) -> torch.Tensor:
    """Each frame beside the `length - 1` differences that led to it, as channels: `(B, T, length * P, h, w)`.

    Before the first frame, the world stood still.
    """
    changes = torch.cat([torch.zeros_like(patches_BTPhw[:, :1]), patches_BTPhw.diff(dim=1)], dim=1)
    parts = [patches_BTPhw]
    for age in range(length - 1):
        shifted = torch.zeros_like(changes)
        shifted[:, age:] = changes[:, : changes.shape[1] - age]
        parts.append(shifted)
    return torch.cat(parts, dim=2)
