"""The dynamics: a block-causal MaskGIT over tokens (Genie, section 2.1; MaskGIT, arXiv 2202.04200).

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `N` tokens a frame, `P` patches of tokens a frame, `D` width,
`K` codes, `A` latent actions, `C` context frames.

Trained as it is played: the past is clean, only the frame being predicted is masked, and its queries read the clean
past's keys and values. So a window of T frames goes through the blocks as T - 1 clean frames and T - 1 masked ones
side by side, and at play the past is a cache: a MaskGIT step costs one frame. Tokens go through the blocks in square
patches: four to a place is a quarter of the places, each four times as wide at the same cost.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from genie.models.config import config_from
from genie.models.st_transformer import KeyValue, STTransformer, causal_mask
from genie.params import DynamicsParams


@dataclass(frozen=True)
class DynamicsConfig:
    """Shape of the dynamics; the meaning of each value stands in `params.yaml`. The fingerprints tell which
    tokenizer's tokens and which LAM's actions it was trained on."""

    num_codes: int = 1000
    grid: tuple[int, int] = (16, 16)
    num_actions: int = 8
    context_frames: int = 4
    action_injection: Literal["prepend", "adaln", "add"] = "adaln"
    context_noise: float = 0.02
    min_mask_rate: float = 0.5
    full_mask_share: float = 0.5
    patch_size: int = 2
    width: int = 256
    num_layers: int = 6
    num_heads: int = 4
    tokenizer_fingerprint: str = ""
    lam_fingerprint: str = ""


class Dynamics(nn.Module):
    """Past tokens and a latent action to the next frame's tokens.

    Args:
        config: its shape.
    """

    kind = "dynamics"
    config_class = DynamicsConfig

    def __init__(self, config: DynamicsConfig):
        super().__init__()
        self.config = config
        self.mask_token = config.num_codes
        self.no_action = config.num_actions
        self.num_tokens = math.prod(config.grid)
        assert all(side % config.patch_size == 0 for side in config.grid), "a grid must part into whole patches"
        token_width = config.width // config.patch_size
        self.token_in = nn.Embedding(config.num_codes + 1, token_width)
        self.patch_in = nn.Linear(token_width * config.patch_size**2, config.width)
        self.patch_grid = tuple(side // config.patch_size for side in config.grid)
        self.place = nn.Parameter(torch.randn(math.prod(self.patch_grid), config.width) * 0.02)
        self.action_in = nn.Embedding(config.num_actions + 1, config.width)
        self.transformer = STTransformer(
            config.width, config.num_layers, config.num_heads, conditioned=config.action_injection == "adaln"
        )
        self.patch_out = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, token_width * config.patch_size**2)
        )
        self.token_out = nn.Sequential(nn.LayerNorm(token_width), nn.Linear(token_width, config.num_codes))

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy at masked tokens; in eval mode of wholly masked frames after a context without noise.

        Args:
            batch: `tokens_BTN` int64 in [0, K) and `actions_BS` int64 in [0, A), where action t takes frame t to t + 1.

        Returns:
            The loss (nats a masked token), and metrics: `cross_entropy`, `token_accuracy` at masked tokens.
        """
        tokens_BTN, actions_BS = batch["tokens_BTN"], batch["actions_BS"]
        targets_BSN = tokens_BTN[:, 1:]
        mask_BSN = self._draw_mask(targets_BSN)
        logits_MK = self._logits_at(mask_BSN, self._add_noise(tokens_BTN[:, :-1]), targets_BSN, actions_BS)
        masked_M = targets_BSN[mask_BSN]
        loss = F.cross_entropy(logits_MK.float(), masked_M)
        accuracy = (logits_MK.argmax(-1) == masked_M).float().mean()
        return loss, {"cross_entropy": loss.detach(), "token_accuracy": accuracy}

    @torch.no_grad()
    def remember(
        self,
        tokens_BTN: torch.Tensor,
        actions_BT: torch.Tensor,
        first_time: int = 0,
        past: list[KeyValue] | None = None,
    ) -> list[KeyValue]:
        """Keys and values of clean frames, the memory that `predict` reads.

        Args:
            tokens_BTN: clean frames.
            actions_BT: the action that led to each of them; `no_action` where none is known.
            first_time: when the first of them is.
            past: the memory of the frames just before, at most C of them; all are seen.

        Returns:
            The memory of the last C frames.
        """
        num_frames, num_past = tokens_BTN.shape[1], past[0][0].shape[-2] if past else 0
        age = causal_mask(num_past + num_frames, self.config.context_frames)[num_past:]
        times_T = first_time + torch.arange(num_frames, device=tokens_BTN.device)
        _, own = self._transform(tokens_BTN, actions_BT, times_T, age.to(tokens_BTN.device), past)
        if past:
            own = [
                (torch.cat([past_k, k], dim=-2), torch.cat([past_v, v], dim=-2))
                for (past_k, past_v), (k, v) in zip(past, own, strict=True)
            ]
        keep = self.config.context_frames
        return [(k[..., -keep:, :], v[..., -keep:, :]) for k, v in own]

    @torch.no_grad()
    def predict(self, tokens_BN: torch.Tensor, action_B: torch.Tensor, time: int, past: list[KeyValue]) -> torch.Tensor:
        """Logits `(B, N, K)` of the frame at `time`, some of whose tokens may be `mask_token`."""
        times_T = torch.tensor([time], device=tokens_BN.device)
        x_BTND, _ = self._transform(tokens_BN.unsqueeze(1), action_B.unsqueeze(1), times_T, None, past)
        return self.token_out(x_BTND[:, 0]).float()

    def _logits_at(
        self,
        where_BSN: torch.Tensor,
        clean_BSN: torch.Tensor,
        targets_BSN: torch.Tensor,
        actions_BS: torch.Tensor,
    ) -> torch.Tensor:
        """Logits `(M, K)` at the M masked places, clean and masked frames having gone side by side."""
        num_steps = clean_BSN.shape[1]
        masked_BSN = torch.where(where_BSN, self.mask_token, targets_BSN)
        # Frame t was led to by action t - 1; nothing is known of what led to the first.
        unknown_B1 = torch.full_like(actions_BS[:, :1], self.no_action)
        led_to_clean_BS = torch.cat([unknown_B1, actions_BS[:, :-1]], dim=1)
        x_BTND, _ = self._transform(
            torch.cat([clean_BSN, masked_BSN], dim=1),
            torch.cat([led_to_clean_BS, actions_BS], dim=1),
            torch.arange(num_steps, device=actions_BS.device).repeat(2)
            + torch.arange(2, device=actions_BS.device).repeat_interleave(num_steps),
            side_by_side_mask(num_steps, self.config.context_frames).to(actions_BS.device),
            None,
        )
        return self.token_out(x_BTND[:, num_steps:][where_BSN])

    def _transform(
        self,
        tokens_BTN: torch.Tensor,
        led_by_BT: torch.Tensor,
        times_T: torch.Tensor,
        mask_TT: torch.Tensor | None,
        past: list[KeyValue] | None,
    ) -> tuple[torch.Tensor, list[KeyValue]]:
        rows, columns, size = *self.patch_grid, self.config.patch_size
        x_BTND = self.token_in(tokens_BTN)
        x_BTPD = rearrange(x_BTND, "b t (h p w q) d -> b t (h w) (p q d)", h=rows, w=columns, p=size, q=size)
        x_BTPD = self.patch_in(x_BTPD) + self.place
        action_BTD = self.action_in(led_by_BT)
        action_BT1D = action_BTD.unsqueeze(2)
        condition_BTD = None
        if self.config.action_injection == "adaln":
            condition_BTD = action_BTD
        elif self.config.action_injection == "add":
            x_BTPD = x_BTPD + action_BT1D
        else:
            x_BTPD = torch.cat([action_BT1D, x_BTPD], dim=2)
        x_BTPD, own = self.transformer(x_BTPD, times_T, mask_TT, condition_BTD, past)
        x_BTPD = self.patch_out(x_BTPD[:, :, -rows * columns :])
        x_BTND = rearrange(x_BTPD, "b t (h w) (p q d) -> b t (h p w q) d", h=rows, w=columns, p=size, q=size)
        return x_BTND, own

    def _draw_mask(self, targets_BSN: torch.Tensor) -> torch.Tensor:
        """Where to mask: each frame at its own rate, U(min_mask_rate, 1), or wholly, as sampling begins."""
        if not self.training:
            return torch.ones_like(targets_BSN, dtype=torch.bool)
        rate_BS1 = torch.empty_like(targets_BSN[..., :1], dtype=torch.float32).uniform_(self.config.min_mask_rate, 1)
        whole_BS1 = torch.rand_like(rate_BS1) < self.config.full_mask_share
        return (torch.rand_like(targets_BSN, dtype=torch.float32) < rate_BS1) | whole_BS1

    def _add_noise(self, tokens_BSN: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return tokens_BSN
        noisy_BSN = torch.rand_like(tokens_BSN, dtype=torch.float32) < self.config.context_noise
        return torch.where(noisy_BSN, torch.randint_like(tokens_BSN, self.config.num_codes), tokens_BSN)


def side_by_side_mask(num_steps: int, context_frames: int) -> torch.Tensor:
    """Who sees whom among S clean frames (times 0..S-1) and S masked ones (times 1..S): boolean `(2S, 2S)`.

    A clean frame sees itself and the C clean ones before it; a masked frame sees itself and the C clean ones before
    it. Nobody else sees a masked frame.
    """
    clean_sees_clean = causal_mask(num_steps, context_frames)
    masked_sees_clean = causal_mask(num_steps, context_frames - 1)
    masked_sees_masked = torch.eye(num_steps, dtype=torch.bool)
    nothing = torch.zeros_like(masked_sees_masked)
    return torch.cat(
        [
            torch.cat([clean_sees_clean, nothing], dim=1),
            torch.cat([masked_sees_clean, masked_sees_masked], dim=1),
        ]
    )


def build_dynamics(params: DynamicsParams, **known) -> Dynamics:
    """A dynamics with the weights that `params.seed` draws.

    Args:
        params: its size and conditioning.
        known: what the caches tell: `num_codes` and `grid` of the tokenizer, `num_actions` of the LAM, and the
            fingerprints of both.
    """
    torch.manual_seed(params.seed)
    return Dynamics(config_from(DynamicsConfig, params, **known))
