"""Motion encoder: features of transitions, for the latent action model and for the probe that evaluates it.

Axes: `B` batch, `T` frames, `H W C` pixels, `h w` grid of 4x4 patches of a frame at the measured size, `P` pixels of a
patch, `D` width, `M` any number of transitions.
"""

import torch
from einops import rearrange
from torch import nn

from genie.models.convolution import ResidualBlock
from genie.models.measured_size import at_measured_size

PATCH = 4  # side in pixels of the measured size
PATCH_DIM = 3 * PATCH**2


class MotionEncoder(nn.Module):
    """Encodes a transition and its history as one vector of size `dim` for each of `cells ** 2` parts of the picture.

    Args:
        history: number of frames before the change, including the present one.
        width: channels on the grid of patches; `dim` is twice that.
        num_blocks: number of residual blocks.
        cells: parts per side, each average-pooled; with one, small objects are lost among the rest.
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
        """Vectors `(M, dim * cells ** 2)`, ordered by channel, of the histories returned by `histories` and of the
        changes that follow them."""
        stacked = torch.cat([history_MPhw, change_MPhw], dim=1)
        return self.layers(stacked.contiguous(memory_format=torch.channels_last))


def to_patches(frames_BTHWC: torch.Tensor) -> torch.Tensor:
    """Converts uint8 frames, averaged to the measured size, to `(B, T, P, h, w)` in [-0.5, 0.5], with the pixels of a
    patch as channels.

    Raises:
        FrameSizeError: the frames have an unsupported size.
    """
    patches = rearrange(at_measured_size(frames_BTHWC), "b t (h p) (w q) c -> b t (c p q) h w", p=PATCH, q=PATCH)
    return patches.float() / 255 - 0.5


def histories(patches_BTPhw: torch.Tensor, length: int) -> torch.Tensor:
    """Each frame and the `length - 1` frame differences that led to it, as channels: `(B, T, length * P, h, w)`.

    Differences before the first frame are 0.
    """
    changes = torch.cat([torch.zeros_like(patches_BTPhw[:, :1]), patches_BTPhw.diff(dim=1)], dim=1)
    parts = [patches_BTPhw]
    for age in range(length - 1):
        shifted = torch.zeros_like(changes)
        shifted[:, age:] = changes[:, : changes.shape[1] - age]
        parts.append(shifted)
    return torch.cat(parts, dim=2)
