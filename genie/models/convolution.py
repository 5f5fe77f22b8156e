"""Convolutions on a grid of patches, for models that look at pixels.

Axes: `B` batch, `h w` grid, `D` width, `C` channels of a pixel, `P` patch side.

No normalisation: blocks initialised as the identity train without it, and run twice as fast on a CPU.
"""

import torch
import torch.nn.functional as F
from torch import nn


def activation(x: torch.Tensor) -> torch.Tensor:
    """Leaky ReLU: without normalisation, more than half of plain ReLUs die, and their channels with them."""
    return F.leaky_relu(x, 0.1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip connection, initialised as the identity.

    Args:
        width: D.
        condition_dim: width of a vector that scales and shifts the features between the convolutions (FiLM, Perez et
            al. 2018, arXiv 1709.07871); None: no condition.
    """

    def __init__(self, width: int, condition_dim: int | None = None):
        super().__init__()
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(condition_dim, 2 * width) if condition_dim else None
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x_BDhw: torch.Tensor, condition_BD: torch.Tensor | None = None) -> torch.Tensor:
        """Maps `(B, D, h, w)` to the same shape."""
        hidden = self.conv_in(activation(x_BDhw))
        if self.film:
            scale, shift = self.film(condition_BD)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return x_BDhw + self.conv_out(activation(hidden))
