"""The video tokenizer: a per-frame convolutional VQ-VAE (Genie, section 2.1; VQ-VAE, arXiv 1711.00937).

Axes: `B` batch, `T` frames, `H W C` pixels, `h w` token grid, `N = h*w` tokens per frame, `D` width, `K` codes.

Frames are encoded independently, so tokens depend only on their frame and a cache of tokens is exact.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from genie.core.frames import GRID_SIZE
from genie.models.config import config_from
from genie.models.convolution import ResidualBlock
from genie.models.quantizer import FSQ, VectorQuantizer, code_statistics

if TYPE_CHECKING:
    from genie.core.params import TokenizerParams


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the tokenizer; `params.yaml` documents each value but the last.

    Attributes:
        image_size: pixels a side of a frame, a multiple of `GRID_SIZE`.
    """

    quantizer: Literal["fsq", "vq"]
    fsq_levels: tuple[int, ...]
    num_codes: int
    code_dim: int
    commitment_weight: float
    ema_decay: float
    width: int
    num_blocks: int
    image_size: int


class Tokenizer(nn.Module):
    """Encodes frames as 16x16 tokens, and decodes tokens to frames.

    Attributes:
        grid: rows and columns of tokens.
        patch: pixels a side of the part of a frame that a token stands for.

    Args:
        config: shape of the model.
    """

    kind, stage = "tokenizer", "train_tokenizer"
    config_class = TokenizerConfig
    fingerprint: str  # set by `load_model`

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        assert config.image_size % GRID_SIZE == 0, "a frame must part into whole patches"
        self.grid = (GRID_SIZE, GRID_SIZE)
        self.patch = config.image_size // GRID_SIZE
        if config.quantizer == "fsq":
            self.quantizer = FSQ(list(config.fsq_levels))
        else:
            self.quantizer = VectorQuantizer(
                config.num_codes, config.code_dim, config.commitment_weight, config.ema_decay
            )
        self.num_codes = self.quantizer.num_codes
        width, patch_dim = config.width, 3 * self.patch**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(self.patch),
            nn.Conv2d(patch_dim, width, 3, padding=1),
            *(ResidualBlock(width) for _ in range(config.num_blocks)),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, self.quantizer.dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(self.quantizer.dim, width, 3, padding=1),
            *(ResidualBlock(width) for _ in range(config.num_blocks)),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, patch_dim, 3, padding=1),
            nn.PixelShuffle(self.patch),
        )
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Reconstruction loss of uint8 frames `(B, T, H, W, 3)`, and metrics: `mse`, `psnr`, codebook health."""
        pixels_BCHW = _to_pixels(frames_BTHWC.flatten(0, 1))
        quantized, codes, quantizer_loss = self._quantize(pixels_BCHW)
        mse = F.mse_loss(self._decode_pixels(quantized), pixels_BCHW)
        metrics = {"mse": mse.detach(), "psnr": -10 * mse.detach().log10()}
        return mse + quantizer_loss, metrics | code_statistics(codes, self.num_codes)

    @torch.no_grad()
    def encode(self, frames_BHWC: torch.Tensor) -> torch.Tensor:
        """Encodes uint8 frames `(B, H, W, 3)` as tokens `(B, N)` int64 in [0, K)."""
        _, codes_Bhw, _ = self._quantize(_to_pixels(frames_BHWC))
        return rearrange(codes_Bhw, "b h w -> b (h w)")

    @torch.no_grad()
    def decode(self, tokens_BN: torch.Tensor) -> torch.Tensor:
        """Decodes tokens `(B, N)` to uint8 frames `(B, H, W, 3)`."""
        h, w = self.grid
        pixels_BCHW = self._decode_pixels(self.quantizer.lookup(rearrange(tokens_BN, "b (h w) -> b h w", h=h, w=w)))
        return rearrange((pixels_BCHW.clamp(0, 1) * 255).round().to(torch.uint8), "b c h w -> b h w c")

    @torch.no_grad()
    def code_patches(self) -> torch.Tensor:
        """Flattened patch `(K, P)`, pixels in [0, 1], that each code decodes to in a frame of that code only."""
        device = next(self.parameters()).device
        patches = []
        for codes in torch.arange(self.num_codes, device=device).split(256):
            frames = self.decode(codes.unsqueeze(1).expand(-1, math.prod(self.grid)))
            middle = slice(self.config.image_size // 2, self.config.image_size // 2 + self.patch)
            patches.append(frames[:, middle, middle].flatten(1))
        return torch.cat(patches).float() / 255

    def _quantize(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.quantizer(rearrange(self.encoder(pixels_BCHW - 0.5), "b d h w -> b h w d"))

    def _decode_pixels(self, quantized_BhwD: torch.Tensor) -> torch.Tensor:
        return self.decoder(rearrange(quantized_BhwD, "b h w d -> b d h w")).float() + 0.5


def _to_pixels(frames_BHWC: torch.Tensor) -> torch.Tensor:
    pixels = rearrange(frames_BHWC, "b h w c -> b c h w").float() / 255
    return pixels.contiguous(memory_format=torch.channels_last)


def build_tokenizer(params: "TokenizerParams", image_size: int) -> Tokenizer:
    """Builds a tokenizer of frames of `image_size` pixels a side, with weights initialised from `params.seed`."""
    torch.manual_seed(params.seed)
    return Tokenizer(config_from(TokenizerConfig, params, image_size=image_size))
