"""The dynamics: a block-causal MaskGIT over tokens (Genie, section 2.1; MaskGIT, arXiv 2202.04200).

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `N` tokens a frame, `P` patches of tokens a frame, `D` width,
`E` width of a patch's embeddings, `K` codes, `A` latent actions, `C` context frames.

Trained as it is played: the past is clean, only the frame being predicted is masked, and its queries read the clean
past's keys and values. So a window of T frames goes through the blocks as T - 1 clean frames and T - 1 masked ones
side by side, and at play the past is a cache: a MaskGIT step costs one frame. Tokens go through the blocks in square
patches: four to a place is a quarter of the places, each twice as wide at the same cost.

With motion compensation it also sees, at each place, the token that the last frame has there once it is moved as the
next is expected to be, and its logits begin as that token's (`genie.models.motion_compensation`).
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from genie.distributed.collectives import my_share, num_ranks, share_of_ranks
from genie.models.config import config_from
from genie.models.memory import Memory
from genie.models.motion_compensation import MotionCompensation
from genie.models.motion_predictor import MotionPredictor
from genie.models.recent_motion import PIXELS, REMEMBERED, RecentMotion, measure
from genie.models.st_transformer import KeyValue, STTransformer, causal_mask
from genie.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from genie.core.params import DynamicsParams

UNMASKED = -100  # a target that is not asked for
FORESEEN_GAIN = 4.0  # of the foreseen token in what is told, before training


@dataclass(frozen=True)
class DynamicsConfig:
    """Shape of the dynamics; the meaning of each value stands in `params.yaml`. The fingerprints tell which
    tokenizer's tokens and which LAM's actions it was trained on."""

    num_codes: int
    grid: tuple[int, int]
    num_actions: int
    context_frames: int
    action_injection: Literal["prepend", "adaln", "add"]
    motion_compensation: bool
    context_noise: float
    min_mask_rate: float
    full_mask_share: float
    patch_size: int
    width: int
    num_layers: int
    num_heads: int
    tokenizer_fingerprint: str = ""
    lam_fingerprint: str = ""


class Dynamics(nn.Module):
    """Past tokens and a latent action to the next frame's tokens.

    Args:
        config: its shape.
    """

    kind, stage = "dynamics", "train_dynamics"
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
        self.last_patch_in = nn.Linear(token_width * config.patch_size**2, config.width, bias=False)
        self.patch_grid = tuple(side // config.patch_size for side in config.grid)
        self.place = nn.Parameter(torch.randn(math.prod(self.patch_grid), config.width) * 0.02)
        self.action_in = nn.Embedding(config.num_actions + 1, config.width)
        self.transformer = STTransformer(
            config.width, config.num_layers, config.num_heads, conditioned=config.action_injection == "adaln"
        )
        self.patch_out = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, token_width * config.patch_size**2)
        )
        self.token_norm = nn.LayerNorm(token_width)
        self.compensation = None
        if config.motion_compensation:
            self.compensation = MotionCompensation(config.grid, config.num_codes, config.num_actions)
            self.foreseen_patch_in = nn.Linear(token_width * config.patch_size**2, config.width, bias=False)
            self.displacement_in = nn.Linear(2, config.width, bias=False)
            self.foreseen_gain = nn.Parameter(torch.full((token_width,), FORESEEN_GAIN))
        nn.init.normal_(self.token_in.weight, std=token_width**-0.5)

    def see_through(self, tokenizer: Tokenizer) -> None:
        """Takes the tokenizer whose tokens these are, in eval mode, by which motion compensation decodes and encodes.
        It is no part of the checkpoint."""
        if self.compensation:
            self.compensation.see_through(tokenizer)

    def foresee_by(self, predictor: MotionPredictor) -> None:
        """Takes over the weights of a motion predictor, learnt of the same actions, for motion compensation. They are
        kept as they are while the rest is trained."""
        if self.compensation:
            self.compensation.foresee_by(predictor)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy at masked tokens; in eval mode of wholly masked frames after a context without noise.

        Args:
            batch: `tokens_BTN` int64 in [0, K) and `actions_BS` int64 in [0, A), where action t takes frame t to t + 1.

        Returns:
            The loss, and metrics: `cross_entropy` (nats a masked token), which is the loss, and in eval mode
            `token_accuracy` at masked tokens; with motion compensation `motion_error`, how far the predicted
            displacement is from the measured, in pixels.
        """
        tokens_BTN, actions_BS = batch["tokens_BTN"], batch["actions_BS"]
        mask_BSN = self._draw_mask(tokens_BTN[:, 1:])
        # Of all places, not of the masked ones alone: most are masked, and a number of rows that is another at every
        # step would have each matrix product prepared anew, which costs more time, and memory without end.
        logits_BSNK, error = self._logits(mask_BSN, tokens_BTN, actions_BS)
        targets_BSN = tokens_BTN[:, 1:].masked_fill(~mask_BSN, UNMASKED)
        loss = F.cross_entropy(logits_BSNK.flatten(0, 2), targets_BSN.flatten(), ignore_index=UNMASKED)
        if self.training:
            loss = loss * share_of_ranks(mask_BSN.sum())
        metrics = {"cross_entropy": loss.detach()}
        if not self.training:
            metrics["token_accuracy"] = (logits_BSNK.argmax(-1) == targets_BSN)[mask_BSN].float().mean()
        if error is not None:
            metrics["motion_error"] = error
        return loss, metrics

    @torch.no_grad()
    def draw_embeddings(self, patches_KP: torch.Tensor) -> None:
        """Gives each token, before training, an embedding of what it looks like.

        Tokens that paint alike begin alike, and a scroll by part of a patch is a sum of neighbours rather than
        something to be learnt by heart for each of the K codes.

        Args:
            patches_KP: pixels that each code paints (`Tokenizer.code_patches`).
        """
        weight_KD = self.token_in.weight[: self.config.num_codes]
        looks_KP = (patches_KP - patches_KP.mean(0)) / patches_KP.std()
        # A fixed random projection keeps distances, whatever the two widths.
        projection_PD = torch.randn(looks_KP.shape[1], weight_KD.shape[1], device=weight_KD.device)
        drawn_KD = looks_KP.to(weight_KD) @ projection_PD
        weight_KD.mul_(0.3).add_(drawn_KD / drawn_KD.std() * weight_KD.shape[1] ** -0.5)

    @torch.no_grad()
    def remember(self, tokens_BTN: torch.Tensor, led_to_BT: torch.Tensor) -> Memory:
        """A memory of clean frames; they are read when the next is predicted.

        Args:
            tokens_BTN: the frames, T >= 1.
            led_to_BT: the action that led to each of them; `no_action` where none is known.
        """
        memory = Memory([], torch.full_like(tokens_BTN[:, 0], self.mask_token), tokens_BTN, led_to_BT)
        if not self.compensation:
            return memory
        frames_BTHWC = self.compensation.decode(tokens_BTN)
        moved_Bd = F.pad(measure(frames_BTHWC), (0, 0, REMEMBERED, 0))
        # Also of the frame after the last, so that one frame alone is no case of its own.
        led_from_BT = F.pad(led_to_BT[:, 1:], (0, 1), value=self.no_action)
        foreseen = self.compensation(frames_BTHWC, moved_Bd, led_from_BT).after_nothing(self.mask_token)
        motion = RecentMotion(frames_BTHWC[:, -1], moved_Bd[:, -REMEMBERED:])
        return replace(memory, foreseen=foreseen.frames(slice(-1)), motion=motion)

    @torch.no_grad()
    def expect(self, memory: Memory, action_B: torch.Tensor) -> Memory:
        """The memory that awaits the next frame, to which an action leads."""
        assert not memory.is_awaiting, "one frame at a time"
        foreseen = None
        if self.compensation:
            frame_BHWC, moved_BRd = memory.motion
            of_next = self.compensation(frame_BHWC.unsqueeze(1), moved_BRd, action_B.unsqueeze(1))
            foreseen = memory.foreseen.then(of_next)
        return replace(memory, led_to_BT=torch.cat([memory.led_to_BT, action_B.unsqueeze(1)], 1), foreseen=foreseen)

    @torch.no_grad()
    def predict(self, tokens_BN: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, Memory]:
        """What the awaited frame may be, some of whose tokens may be `mask_token`.

        Returns:
            Its logits `(B, N, K)`, and the memory of the same frames, all of them read.
        """
        assert memory.is_awaiting, "call expect first: what is next depends on the action"
        num_unread = memory.unread_BTN.shape[1]
        num_past = memory.keys_values[0][0].shape[-2] if memory.keys_values else 0
        keep, device = self.config.context_frames, tokens_BN.device
        # The masked frame is the last, so that no clean one sees it.
        mask_TT = causal_mask(num_past + num_unread + 1, keep, device)[num_past:]
        frames_BTN = torch.cat([memory.before_BN.unsqueeze(1), memory.unread_BTN, tokens_BN.unsqueeze(1)], dim=1)
        patches_BTPE = self._patches(frames_BTN)
        x_BTPD = self.patch_in(patches_BTPE[:, 1:]) + self.last_patch_in(patches_BTPE[:, :-1])
        foreseen_BTPE = None
        if memory.foreseen:
            foreseen_BTPE = self._patches(memory.foreseen.tokens_BTN)
            x_BTPD = x_BTPD + self._enter_foreseen(foreseen_BTPE, memory.foreseen.displacement_BTd)
        x_BTPD, seen = self._transform(
            x_BTPD,
            memory.led_to_BT,
            torch.arange(memory.num_read, memory.num_read + num_unread + 1, device=device),
            mask_TT,
            memory.keys_values or None,
        )
        if num_unread:
            clean = [(k[..., :-1, :], v[..., :-1, :]) for k, v in seen]  # the masked frame's come last
            memory = replace(
                memory,
                keys_values=[(k[..., -keep:, :], v[..., -keep:, :]) for k, v in clean],
                before_BN=memory.last_BN,
                unread_BTN=memory.unread_BTN[:, :0],
                led_to_BT=memory.led_to_BT[:, -1:],
                num_read=memory.num_read + num_unread,
                foreseen=memory.foreseen and memory.foreseen.frames(slice(-1, None)),
            )
        of_it = None if foreseen_BTPE is None else foreseen_BTPE[:, -1:]
        return self._token_logits(x_BTPD[:, -1:], of_it)[:, 0].float(), memory

    @torch.no_grad()
    def append(self, tokens_BN: torch.Tensor, memory: Memory) -> Memory:
        """The memory that holds the awaited frame too, now that it is known."""
        assert memory.is_awaiting, "call expect first: an action leads to each frame"
        motion = None
        if self.compensation:
            motion = memory.motion.then(self.compensation.decode(tokens_BN.unsqueeze(1))[:, 0])
        return replace(memory, unread_BTN=torch.cat([memory.unread_BTN, tokens_BN.unsqueeze(1)], 1), motion=motion)

    def read(self, memory: Memory) -> Memory:
        """The same memory with all its frames read, so that many predictions from it need not each read them."""
        hidden_BN = torch.full_like(memory.before_BN, self.mask_token)
        nothing_B = torch.full_like(memory.before_BN[:, 0], self.no_action)
        _, read = self.predict(hidden_BN, self.expect(memory, nothing_B))
        foreseen = read.foreseen and read.foreseen.frames(slice(0))
        return replace(read, led_to_BT=read.led_to_BT[:, :0], foreseen=foreseen)

    def _logits(
        self, mask_BSN: torch.Tensor, tokens_BTN: torch.Tensor, actions_BS: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits `(B, S, N, K)` of frames 1 to S, each masked and beside clean ones; and with motion compensation how
        far the displacements that led to them are from those predicted, in pixels."""
        num_steps = actions_BS.shape[1]
        clean_BSN = self._add_noise(tokens_BTN[:, :-1])
        masked_BSN = torch.where(mask_BSN, self.mask_token, tokens_BTN[:, 1:])
        # Frame t was led to by action t - 1; nothing is known of what was before the first.
        unknown_B1N = torch.full_like(clean_BSN[:, :1], self.mask_token)
        unknown_B1 = torch.full_like(actions_BS[:, :1], self.no_action)
        patches_BTPE = self._patches(torch.cat([unknown_B1N, clean_BSN, masked_BSN], dim=1))
        x_BTPD = self.patch_in(patches_BTPE[:, 1:])
        x_BTPD = x_BTPD + side_by_side(self.last_patch_in(patches_BTPE[:, : num_steps + 1]))
        foreseen_BSPE, error = None, None
        if self.compensation:
            frames_BTHWC = self.compensation.decode(torch.cat([clean_BSN, tokens_BTN[:, -1:]], dim=1))
            moved_BSd = measure(frames_BTHWC)
            past_Bd = F.pad(moved_BSd[:, :-1], (0, 0, REMEMBERED, 0))
            foreseen = self.compensation(frames_BTHWC[:, :-1], past_Bd, actions_BS)
            error = (foreseen.displacement_BTd - moved_BSd).norm(dim=-1).mean()
            of_all = foreseen.after_nothing(self.mask_token)
            of_all_BTPE = self._patches(of_all.tokens_BTN)
            x_BTPD = x_BTPD + side_by_side(self._enter_foreseen(of_all_BTPE, of_all.displacement_BTd))
            foreseen_BSPE = of_all_BTPE[:, 1:]
        times_S = torch.arange(num_steps, device=actions_BS.device)
        x_BTPD, _ = self._transform(
            x_BTPD,
            torch.cat([unknown_B1, actions_BS[:, :-1], actions_BS], dim=1),
            torch.cat([times_S, times_S + 1]),
            side_by_side_mask(num_steps, self.config.context_frames, actions_BS.device),
            None,
        )
        return self._token_logits(x_BTPD[:, num_steps:], foreseen_BSPE), error

    def _token_logits(self, x_BTPD: torch.Tensor, foreseen_BTPE: torch.Tensor | None) -> torch.Tensor:
        # Tied to the embeddings: a token is told by what it is like, and copying is learnt first.
        x_BTND = self._split(self.patch_out(x_BTPD))
        if foreseen_BTPE is not None:
            x_BTND = x_BTND + self.foreseen_gain * self._split(foreseen_BTPE)
        return F.linear(self.token_norm(x_BTND), self.token_in.weight[: self.config.num_codes])

    def _transform(
        self,
        x_BTPD: torch.Tensor,
        led_to_BT: torch.Tensor,
        times_T: torch.Tensor,
        mask_TT: torch.Tensor | None,
        past: list[KeyValue] | None,
    ) -> tuple[torch.Tensor, list[KeyValue]]:
        """Features `(B, T, P, D)` of frames, from what is shown of them and the actions that led to them; and the keys
        and values of the past and of them."""
        x_BTPD = x_BTPD + self.place
        action_BTD = self.action_in(led_to_BT)
        action_BT1D = action_BTD.unsqueeze(2)
        condition_BTD = None
        if self.config.action_injection == "adaln":
            condition_BTD = action_BTD
        elif self.config.action_injection == "add":
            x_BTPD = x_BTPD + action_BT1D
        else:
            x_BTPD = torch.cat([action_BT1D, x_BTPD], dim=2)
        x_BTPD, seen = self.transformer(x_BTPD, times_T, mask_TT, condition_BTD, past)
        return x_BTPD[:, :, -len(self.place) :], seen

    def _patches(self, tokens_BTN: torch.Tensor) -> torch.Tensor:
        """Embeddings of the tokens of each patch, side by side: `(B, T, P, E)`."""
        return self._merge(self.token_in(tokens_BTN))

    def _enter_foreseen(self, patches_BTPE: torch.Tensor, displacement_BTd: torch.Tensor) -> torch.Tensor:
        """What is foreseen of frames, as it enters the transformer: `(B, T, P, D)`."""
        displacement_BTD = self.displacement_in(displacement_BTd / PIXELS)
        return self.foreseen_patch_in(patches_BTPE) + displacement_BTD.unsqueeze(2)

    def _merge(self, x_BTND: torch.Tensor) -> torch.Tensor:
        (rows, columns), size = self.patch_grid, self.config.patch_size
        return rearrange(x_BTND, "b t (h p w q) d -> b t (h w) (p q d)", h=rows, w=columns, p=size, q=size)

    def _split(self, x_BTPD: torch.Tensor) -> torch.Tensor:
        (rows, columns), size = self.patch_grid, self.config.patch_size
        return rearrange(x_BTPD, "b t (h w) (p q d) -> b t (h p w q) d", h=rows, w=columns, p=size, q=size)

    def _draw_mask(self, targets_BSN: torch.Tensor) -> torch.Tensor:
        """Where to mask: each frame at its own rate, U(min_mask_rate, 1), or wholly, as sampling begins."""
        if not self.training:
            return torch.ones_like(targets_BSN, dtype=torch.bool)
        draw_BS1, whole_BS1 = _uniform(targets_BSN[..., :1]), _uniform(targets_BSN[..., :1])
        rate_BS1 = self.config.min_mask_rate + (1 - self.config.min_mask_rate) * draw_BS1
        return (_uniform(targets_BSN) < rate_BS1) | (whole_BS1 < self.config.full_mask_share)

    def _add_noise(self, tokens_BSN: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return tokens_BSN
        noisy_BSN = _uniform(tokens_BSN) < self.config.context_noise
        shape = (num_ranks() * len(tokens_BSN), *tokens_BSN.shape[1:])
        tokens = torch.randint(self.config.num_codes, shape, device=tokens_BSN.device)
        return torch.where(noisy_BSN, my_share(tokens), tokens_BSN)


def _uniform(like: torch.Tensor) -> torch.Tensor:
    """Drawn from [0, 1), of the shape and on the device of another tensor whose first axis is this rank's batch."""
    return my_share(torch.rand(num_ranks() * len(like), *like.shape[1:], device=like.device))


def side_by_side(x_BT: torch.Tensor) -> torch.Tensor:
    """What is known before each of S + 1 frames, as frames 0 to S - 1, clean, and 1 to S, masked, are told it."""
    return torch.cat([x_BT[:, :-1], x_BT[:, 1:]], dim=1)


def side_by_side_mask(num_steps: int, context_frames: int, device: torch.device | str | None = None) -> torch.Tensor:
    """Who sees whom among S clean frames (times 0..S-1) and S masked ones (times 1..S): boolean `(2S, 2S)`.

    A clean frame sees itself and the C clean ones before it; a masked frame sees itself and the C clean ones before
    it. Nobody else sees a masked frame.
    """
    clean_sees_clean = causal_mask(num_steps, context_frames, device)
    masked_sees_clean = causal_mask(num_steps, context_frames - 1, device)
    masked_sees_masked = torch.eye(num_steps, dtype=torch.bool, device=device)
    nothing = torch.zeros_like(masked_sees_masked)
    return torch.cat(
        [
            torch.cat([clean_sees_clean, nothing], dim=1),
            torch.cat([masked_sees_clean, masked_sees_masked], dim=1),
        ]
    )


def build_dynamics(params: "DynamicsParams", **known) -> Dynamics:
    """A dynamics with the weights that `params.seed` draws.

    Args:
        params: its size and conditioning.
        known: what the caches tell: `num_codes` and `grid` of the tokenizer, `num_actions` of the LAM, and the
            fingerprints of both.
    """
    torch.manual_seed(params.seed)
    return Dynamics(config_from(DynamicsConfig, params, **known))
