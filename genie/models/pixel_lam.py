"""Latent action model of kind `pixels`, as in Genie (section 2.1): a code lets a decoder draw the next frame.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `H W C` pixels, `h w` grid of 4x4 patches of a frame at the
measured size, `D` width, `A` latent actions, `M` any number of transitions.

The encoder sees each transition, including the next frame, and outputs one of A codes. The decoder must draw the next
frame from past frames and that code alone. Both are convolutional and see `history` frames, including the present one,
because motion is local and velocity shows over a few frames.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import nn

from genie.distributed.collectives import BatchNorm
from genie.models.config import config_from
from genie.models.convolution import ResidualBlock, activation
from genie.models.motion_encoder import PATCH, PATCH_DIM, MotionEncoder, histories, to_patches
from genie.models.quantizer import VectorQuantizer, code_statistics

if TYPE_CHECKING:
    from genie.core.params import PixelLamParams

# Bounds the weight of transitions in which nothing moves; 1e-3 is the change made by one step of a small sprite.
STILL_CHANGE = 1e-3


@dataclass(frozen=True)
class PixelLamConfig:
    """Configuration of the latent action model; `params.yaml` documents each field."""

    num_actions: int
    history: int
    code_dim: int
    commitment_weight: float
    ema_decay: float
    width: int
    num_blocks: int


class PixelLam(nn.Module):
    """Latent action model that infers actions from frames, and draws next frames from actions.

    Args:
        config: the model's configuration.
    """

    kind, stage = "pixel_lam", "train_lam"
    config_class = PixelLamConfig
    fingerprint: str  # set by `load_model`

    def __init__(self, config: PixelLamConfig):
        super().__init__()
        self.config = config
        self.num_actions, self.history = config.num_actions, config.history
        width = config.width
        self.encoder = MotionEncoder(config.history, width, config.num_blocks)
        self.encoder_out = nn.Sequential(
            nn.Linear(self.encoder.dim, config.code_dim, bias=False),
            # Keeps outputs centred at zero: if they drifted together, all would get the same code.
            BatchNorm(config.code_dim, affine=False),
        )
        self.quantizer = VectorQuantizer(
            config.num_actions, config.code_dim, config.commitment_weight, config.ema_decay
        )
        self.decoder_in = nn.Conv2d(config.history * PATCH_DIM, width, 3, padding=1)
        self.decoder = nn.ModuleList(ResidualBlock(width, config.code_dim) for _ in range(config.num_blocks))
        self.decoder_out = nn.Conv2d(width, PATCH_DIM, 3, padding=1)
        nn.init.zeros_(self.decoder_out.weight)
        nn.init.zeros_(self.decoder_out.bias)  # pyright: ignore[reportArgumentType]
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes the loss of uint8 frames `(B, T, H, W, 3)`, T > history, and metrics.

        The loss is the error of each drawn next frame relative to that frame's change, so that a small motion counts as
        much as a scroll of the whole view. Only transitions with their whole history in the window count: padding the
        history at a window's start would show a standstill that did not happen.
        """
        patches_BTPhw = to_patches(frames_BTHWC)
        first = self.history - 1
        after_MPhw = patches_BTPhw[:, first + 1 :].flatten(0, 1)
        before_MPhw = patches_BTPhw[:, first:-1].flatten(0, 1)
        history_MPhw = histories(patches_BTPhw, self.history)[:, first:-1].flatten(0, 1)
        code_MD, codes_M, commitment_loss = self._encode(history_MPhw, after_MPhw - before_MPhw)
        drawn_MPhw = self._decode(history_MPhw, before_MPhw, code_MD)
        error_M = (drawn_MPhw - after_MPhw).square().mean((1, 2, 3))
        change_M = (after_MPhw - before_MPhw).square().mean((1, 2, 3))
        loss = (error_M / (change_M + STILL_CHANGE)).mean()
        metrics = {
            "relative_error": loss.detach(),
            "psnr": -10 * error_M.detach().mean().log10(),
            "psnr_copy_last": -10 * change_M.mean().log10(),
        }
        return loss + commitment_loss, metrics | code_statistics(codes_M, self.num_actions)

    @torch.no_grad()
    def infer_actions(self, frames_BTHWC: torch.Tensor) -> torch.Tensor:
        """Infers latent actions `(B, T-1)` int64 in [0, A) from uint8 frames `(B, T, H, W, 3)`.

        Each depends on its two frames and the `history - 1` frames before them. The motion before the first frame is
        taken as zero.
        """
        patches_BTPhw = to_patches(frames_BTHWC)
        history_MPhw = histories(patches_BTPhw, self.history)[:, :-1].flatten(0, 1)
        change_MPhw = patches_BTPhw.diff(dim=1).flatten(0, 1)
        _, codes_M, _ = self._encode(history_MPhw, change_MPhw)
        return codes_M.unflatten(0, (len(frames_BTHWC), -1))

    @torch.no_grad()
    def predict_next(self, frames_BTHWC: torch.Tensor, actions_BS: torch.Tensor) -> torch.Tensor:
        """Draws frame `t + 1` from the true frames up to `t` and the latent action at `t`.

        Args:
            frames_BTHWC: uint8 frames, T >= S; only the first S are used.
            actions_BS: latent actions.

        Returns:
            uint8 frames `(B, S, 64, 64, 3)`, at the measured size; the s-th is the drawn frame s + 1.
        """
        patches_BSPhw = to_patches(frames_BTHWC[:, : actions_BS.shape[1]])
        history_MPhw = histories(patches_BSPhw, self.history).flatten(0, 1)
        code_MD = self.quantizer.lookup(actions_BS).flatten(0, 1)
        drawn_MPhw = self._decode(history_MPhw, patches_BSPhw.flatten(0, 1), code_MD)
        pixels = rearrange(drawn_MPhw, "(b s) (c p q) h w -> b s (h p) (w q) c", b=len(actions_BS), p=PATCH, q=PATCH)
        return ((pixels + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)

    def _encode(self, history_MPhw: torch.Tensor, change_MPhw: torch.Tensor):
        return self.quantizer(self.encoder_out(self.encoder(history_MPhw, change_MPhw)))

    def _decode(self, history_MPhw: torch.Tensor, last_MPhw: torch.Tensor, code_MD: torch.Tensor) -> torch.Tensor:
        x_MDhw = self.decoder_in(history_MPhw.contiguous(memory_format=torch.channels_last))
        for block in self.decoder:
            x_MDhw = block(x_MDhw, code_MD)
        return last_MPhw + self.decoder_out(activation(x_MDhw)).float()


def build_pixel_lam(params: "PixelLamParams") -> PixelLam:
    """Builds a latent action model, initialised from `params.seed`."""
    torch.manual_seed(params.seed)
    return PixelLam(config_from(PixelLamConfig, params))
