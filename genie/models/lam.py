"""The latent action model: which of A actions took this frame to the next? (Genie, section 2.1).

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `H W C` pixels, `N` patches a frame, `D` width, `A` latent actions.

The encoder sees each transition, the next frame included, and says one of A codes. The decoder sees past frames and
that code only, and must draw the next frame: what the code does not carry, it cannot know.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from genie.models.quantizer import VectorQuantizer, code_statistics
from genie.models.st_transformer import STTransformer, causal_mask

# A transition in which nothing moves must not weigh without bound; 1e-3 is the change of a small sprite's step.
STILL_CHANGE = 1e-3


@dataclass(frozen=True)
class LamConfig:
    """Shape of the latent action model; the meaning of each value stands in `params.yaml`."""

    num_actions: int = 8
    window: int = 8
    code_dim: int = 32
    commitment_weight: float = 0.25
    ema_decay: float = 0.99
    patch_size: int = 8
    width: int = 128
    num_layers: int = 3
    num_heads: int = 4
    image_size: int = 64


class LatentActionModel(nn.Module):
    """Frames to latent actions, and latent actions to next frames.

    Args:
        config: its shape.
    """

    def __init__(self, config: LamConfig):
        super().__init__()
        self.config = config
        self.num_actions = config.num_actions
        width, patch_dim = config.width, 3 * config.patch_size**2
        num_patches = (config.image_size // config.patch_size) ** 2
        self.encoder_in = nn.Linear(2 * patch_dim, width)
        self.encoder_place = nn.Parameter(torch.randn(num_patches, width) * 0.02)
        self.encoder = STTransformer(width, config.num_layers, config.num_heads)
        self.encoder_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.code_dim))
        self.quantizer = VectorQuantizer(
            config.num_actions, config.code_dim, config.commitment_weight, config.ema_decay
        )
        self.decoder_in = nn.Linear(patch_dim, width)
        self.decoder_place = nn.Parameter(torch.randn(num_patches, width) * 0.02)
        self.action_in = nn.Linear(config.code_dim, width)
        self.decoder = STTransformer(width, config.num_layers, config.num_heads, conditioned=True)
        self.decoder_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, patch_dim))
        nn.init.zeros_(self.decoder_out[1].weight)
        nn.init.zeros_(self.decoder_out[1].bias)

    def forward(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of uint8 frames `(B, T, H, W, 3)`: the error of each drawn next frame as a share of that frame's own
        change, so that a small motion counts as much as a whole scroll; and metrics.
        """
        patches_BTNP = self._patchify(frames_BTHWC)
        code_BSD, codes_BS, commitment_loss = self._encode(patches_BTNP)
        drawn_BSNP = self._decode(patches_BTNP[:, :-1], code_BSD)
        error_BS = (drawn_BSNP - patches_BTNP[:, 1:]).square().mean((-1, -2))
        change_BS = (patches_BTNP[:, 1:] - patches_BTNP[:, :-1]).square().mean((-1, -2))
        loss = (error_BS / (change_BS + STILL_CHANGE)).mean()
        metrics = {
            "relative_error": loss.detach(),
            "psnr": -10 * error_BS.detach().mean().log10(),
            "psnr_copy_last": -10 * change_BS.mean().log10(),
        }
        return loss + commitment_loss, metrics | code_statistics(codes_BS, self.num_actions)

    @torch.no_grad()
    def infer_actions(self, frames_BTHWC: torch.Tensor) -> torch.Tensor:
        """Latent actions `(B, T-1)` int64 in [0, A) of uint8 frames `(B, T, H, W, 3)`."""
        return self._encode(self._patchify(frames_BTHWC))[1]

    @torch.no_grad()
    def predict_next(self, frames_BTHWC: torch.Tensor, actions_BS: torch.Tensor) -> torch.Tensor:
        """Draws frame `t + 1` from the true frames up to `t` and the latent action at `t`.

        Args:
            frames_BTHWC: uint8 frames; with S = T the last frame's successor is drawn too.
            actions_BS: latent actions, S <= T.

        Returns:
            uint8 frames `(B, S, H, W, 3)`, the s-th being the drawn frame s + 1.
        """
        patches_BSNP = self._patchify(frames_BTHWC[:, : actions_BS.shape[1]])
        drawn_BSNP = self._decode(patches_BSNP, self.quantizer.lookup(actions_BS))
        side, patch = self.config.image_size // self.config.patch_size, self.config.patch_size
        pixels = rearrange(drawn_BSNP, "b s (h w) (p q c) -> b s (h p) (w q) c", h=side, p=patch, q=patch)
        return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)

    def _patchify(self, frames_BTHWC: torch.Tensor) -> torch.Tensor:
        patch = self.config.patch_size
        patches = rearrange(frames_BTHWC, "b t (h p) (w q) c -> b t (h w) (p q c)", p=patch, q=patch)
        return patches.float() / 255

    def _encode(self, patches_BTNP: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        before, after = patches_BTNP[:, :-1], patches_BTNP[:, 1:]
        pairs = torch.cat([before + after - 1, 2 * (after - before)], dim=-1)
        x_BSND = self.encoder_in(pairs) + self.encoder_place
        x_BSND, _ = self.encoder(x_BSND, *_times_and_mask(x_BSND))
        return self.quantizer(self.encoder_out(x_BSND.mean(2)))

    def _decode(self, patches_BSNP: torch.Tensor, code_BSD: torch.Tensor) -> torch.Tensor:
        x_BSND = self.decoder_in(patches_BSNP - 0.5) + self.decoder_place
        x_BSND, _ = self.decoder(x_BSND, *_times_and_mask(x_BSND), condition_BTD=self.action_in(code_BSD))
        return patches_BSNP + self.decoder_out(x_BSND).float()


def _times_and_mask(x_BTND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    num_frames = x_BTND.shape[1]
    return torch.arange(num_frames, device=x_BTND.device), causal_mask(num_frames).to(x_BTND.device)
