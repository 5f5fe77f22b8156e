"""The dynamics model: a block-causal MaskGIT over tokens (Genie, section 2.1; MaskGIT, arXiv 2202.04200).

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `N` tokens per frame, `P` patches of tokens per frame, `D` width,
`E` width of a patch's embeddings, `K` codes, `A` latent actions, `C` context frames.

Training matches inference: the past is clean, only the frame being predicted is masked, and its queries attend to the
keys and values of the clean past. So the blocks process a window of T frames as T - 1 clean frames and T - 1 masked
frames side by side. At inference the past is a key-value cache, so a MaskGIT step costs one frame. The blocks process
square patches of tokens: with four tokens per patch there are a quarter of the positions, each twice as wide at the
same cost.

With motion compensation, the model also sees at each position the token of the last frame after it is moved by the
predicted displacement. Before training, its logits favour that token (`genie.models.motion_compensation`).
"""

import math
from dataclasses import dataclass
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

UNMASKED = -100  # target of positions that the loss ignores
FORESEEN_GAIN = 4.0  # initial weight of the foreseen token's embedding in the output features


@dataclass(frozen=True)
class DynamicsConfig:
    """Shape of the dynamics model; `params.yaml` documents each value. The fingerprints identify the tokenizer and the
    LAM whose tokens and actions it was trained on."""

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
    """Predicts the next frame's tokens from past tokens and a latent action.

    Args:
        config: shape of the model.
    """

    kind, stage = "dynamics", "train_dynamics"
    config_class = DynamicsConfig
    fingerprint: str  # set by `load_model`

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
            self.compensation = MotionCompensation(config.num_codes, config.num_actions)
            self.foreseen_patch_in = nn.Linear(token_width * config.patch_size**2, config.width, bias=False)
            self.displacement_in = nn.Linear(2, config.width, bias=False)
            self.foreseen_gain = nn.Parameter(torch.full((token_width,), FORESEEN_GAIN))
        nn.init.normal_(self.token_in.weight, std=token_width**-0.5)

    def see_through(self, tokenizer: Tokenizer) -> None:
        """Sets the tokenizer, in eval mode, with which motion compensation decodes and encodes. It must be the one that
        made the tokens, and it is not part of the checkpoint."""
        if self.compensation:
            self.compensation.see_through(tokenizer)

    def foresee_by(self, predictor: MotionPredictor) -> None:
        """Copies the weights of a motion predictor, trained on the same actions, into motion compensation. They stay
        frozen while the rest is trained."""
        if self.compensation:
            self.compensation.foresee_by(predictor)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy at masked tokens. In eval mode, frames are fully masked and the context has no noise.

        Args:
            batch: `tokens_BTN` int64 in [0, K) and `actions_BS` int64 in [0, A), where action t takes frame t to t + 1.

        Returns:
            The loss, and metrics: `cross_entropy` (nats per masked token), which is the loss; in eval mode
            `token_accuracy` at masked tokens; with motion compensation `motion_error`, the distance between the
            predicted and the measured displacement, in pixels.
        """
        tokens_BTN, actions_BS = batch["tokens_BTN"], batch["actions_BS"]
        mask_BSN = self._draw_mask(tokens_BTN[:, 1:])
        # Logits are computed at all positions, not only at masked ones: most are masked, and a number of rows that
        # changes at every step would make each matrix product be prepared anew, which costs time and unbounded memory.
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
        """Initialises each token's embedding, before training, from the pixels that the token decodes to.

        Tokens that decode to similar pixels start with similar embeddings. A scroll by part of a patch is then a sum
        of neighbours, not something to memorise for each of the K codes.

        Args:
            patches_KP: pixels that each code decodes to (`Tokenizer.code_patches`).
        """
        weight_KD = self.token_in.weight[: self.config.num_codes]
        looks_KP = (patches_KP - patches_KP.mean(0)) / patches_KP.std()
        # A fixed random projection preserves distances, whatever the two widths.
        projection_PD = torch.randn(looks_KP.shape[1], weight_KD.shape[1], device=weight_KD.device)
        drawn_KD = looks_KP.to(weight_KD) @ projection_PD
        weight_KD.mul_(0.3).add_(drawn_KD / drawn_KD.std() * weight_KD.shape[1] ** -0.5)

    @torch.no_grad()
    def remember(self, tokens_BTN: torch.Tensor, led_to_BT: torch.Tensor) -> Memory:
        """A memory of clean frames, which are read when the next frame is predicted.

        Args:
            tokens_BTN: tokens of the frames, T >= 1.
            led_to_BT: the action that led to each frame; `no_action` where it is unknown.
        """
        unknown_BN = torch.full_like(tokens_BTN[:, 0], self.mask_token)
        memory = Memory([], unknown_BN, tokens_BTN, led_to_BT, torch.zeros_like(led_to_BT[:, 0]))
        if not self.compensation:
            return memory
        frames_BTHWC = self.compensation.decode(tokens_BTN)
        moved_Bd = F.pad(measure(frames_BTHWC), (0, 0, REMEMBERED, 0))
        # Includes the frame after the last, so that a single frame needs no special case.
        led_from_BT = F.pad(led_to_BT[:, 1:], (0, 1), value=self.no_action)
        foreseen = self.compensation(frames_BTHWC, moved_Bd, led_from_BT).after_nothing(self.mask_token)
        motion = RecentMotion(frames_BTHWC[:, -1], moved_Bd[:, -REMEMBERED:])
        return memory._replace(foreseen=foreseen.frames(slice(-1)), motion=motion)

    @torch.no_grad()
    def expect(self, memory: Memory, action_B: torch.Tensor) -> Memory:
        """The memory that awaits the next frame, given the action that leads to it."""
        assert not memory.is_awaiting, "one frame at a time"
        foreseen = None
        if self.compensation:
            assert memory.motion is not None
            assert memory.foreseen is not None
            frame_BHWC, moved_BRd = memory.motion
            of_next = self.compensation(frame_BHWC.unsqueeze(1), moved_BRd, action_B.unsqueeze(1))
            foreseen = memory.foreseen.then(of_next)
        return memory._replace(led_to_BT=torch.cat([memory.led_to_BT, action_B.unsqueeze(1)], 1), foreseen=foreseen)

    @torch.no_grad()
    def predict(self, tokens_BN: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, Memory]:
        """Predicts the awaited frame from its tokens, some of which may be `mask_token`.

        Returns:
            Logits `(B, N, K)` of the frame, and the memory with all its frames read.
        """
        assert memory.is_awaiting, "call expect first: what is next depends on the action"
        num_past, num_unread = memory.num_past, memory.num_unread
        keep, device = self.config.context_frames, tokens_BN.device
        # The masked frame comes last, so that no clean frame sees it.
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
            memory.num_read_B.unsqueeze(1) + torch.arange(num_unread + 1, device=device),
            mask_TT,
            memory.keys_values or None,
        )
        if num_unread:
            clean = [(k[..., :-1, :], v[..., :-1, :]) for k, v in seen]  # without the masked frame, which comes last
            memory = memory._replace(
                keys_values=[(k[..., -keep:, :], v[..., -keep:, :]) for k, v in clean],
                before_BN=memory.last_BN,
                unread_BTN=memory.unread_BTN[:, :0],
                led_to_BT=memory.led_to_BT[:, -1:],
                num_read_B=memory.num_read_B + num_unread,
                foreseen=memory.foreseen and memory.foreseen.frames(slice(-1, None)),
            )
        of_it = None if foreseen_BTPE is None else foreseen_BTPE[:, -1:]
        return self._token_logits(x_BTPD[:, -1:], of_it)[:, 0].float(), memory

    @torch.no_grad()
    def append(self, tokens_BN: torch.Tensor, memory: Memory) -> Memory:
        """The memory extended by the awaited frame, once it is known."""
        assert memory.is_awaiting, "call expect first: an action leads to each frame"
        motion = None
        if self.compensation:
            assert memory.motion is not None
            motion = memory.motion.then(self.compensation.decode(tokens_BN.unsqueeze(1))[:, 0])
        return memory._replace(unread_BTN=torch.cat([memory.unread_BTN, tokens_BN.unsqueeze(1)], 1), motion=motion)

    def read(self, memory: Memory) -> Memory:
        """The same memory with all its frames read, so that repeated predictions from it do not each read them."""
        hidden_BN = torch.full_like(memory.before_BN, self.mask_token)
        nothing_B = torch.full_like(memory.before_BN[:, 0], self.no_action)
        _, read = self.predict(hidden_BN, self.expect(memory, nothing_B))
        foreseen = read.foreseen and read.foreseen.frames(slice(0))
        return read._replace(led_to_BT=read.led_to_BT[:, :0], foreseen=foreseen)

    def _logits(
        self, mask_BSN: torch.Tensor, tokens_BTN: torch.Tensor, actions_BS: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits `(B, S, N, K)` of frames 1 to S, each masked and processed beside the clean frames; and with motion
        compensation the mean distance between predicted and measured displacements, in pixels."""
        num_steps = actions_BS.shape[1]
        clean_BSN = self._add_noise(tokens_BTN[:, :-1])
        masked_BSN = torch.where(mask_BSN, self.mask_token, tokens_BTN[:, 1:])
        # Action t - 1 led to frame t; the frame and the action before the first frame are unknown.
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
            torch.cat([times_S, times_S + 1]).unsqueeze(0),
            side_by_side_mask(num_steps, self.config.context_frames, actions_BS.device),
            None,
        )
        return self._token_logits(x_BTPD[:, num_steps:], foreseen_BSPE), error

    def _token_logits(self, x_BTPD: torch.Tensor, foreseen_BTPE: torch.Tensor | None) -> torch.Tensor:
        # Tied to the embeddings: a token's logit is its similarity to the features, and copying is learnt first.
        x_BTND = self._split(self.patch_out(x_BTPD))
        if foreseen_BTPE is not None:
            x_BTND = x_BTND + self.foreseen_gain * self._split(foreseen_BTPE)
        return F.linear(self.token_norm(x_BTND), self.token_in.weight[: self.config.num_codes])

    def _transform(
        self,
        x_BTPD: torch.Tensor,
        led_to_BT: torch.Tensor,
        times_BT: torch.Tensor,
        mask_TT: torch.Tensor | None,
        past: list[KeyValue] | None,
    ) -> tuple[torch.Tensor, list[KeyValue]]:
        """Features `(B, T, P, D)` of frames, from their input features and the actions that led to them; and the keys
        and values of the past and of these frames."""
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
        x_BTPD, seen = self.transformer(x_BTPD, times_BT, mask_TT, condition_BTD, past)
        return x_BTPD[:, :, -len(self.place) :], seen

    def _patches(self, tokens_BTN: torch.Tensor) -> torch.Tensor:
        """Concatenated embeddings of the tokens of each patch: `(B, T, P, E)`."""
        return self._merge(self.token_in(tokens_BTN))

    def _enter_foreseen(self, patches_BTPE: torch.Tensor, displacement_BTd: torch.Tensor) -> torch.Tensor:
        """Input features of foreseen frames for the transformer: `(B, T, P, D)`."""
        displacement_BTD = self.displacement_in(displacement_BTd / PIXELS)
        return self.foreseen_patch_in(patches_BTPE) + displacement_BTD.unsqueeze(2)

    def _merge(self, x_BTND: torch.Tensor) -> torch.Tensor:
        (rows, columns), size = self.patch_grid, self.config.patch_size
        return rearrange(x_BTND, "b t (h p w q) d -> b t (h w) (p q d)", h=rows, w=columns, p=size, q=size)

    def _split(self, x_BTPD: torch.Tensor) -> torch.Tensor:
        (rows, columns), size = self.patch_grid, self.config.patch_size
        return rearrange(x_BTPD, "b t (h w) (p q d) -> b t (h p w q) d", h=rows, w=columns, p=size, q=size)

    def _draw_mask(self, targets_BSN: torch.Tensor) -> torch.Tensor:
        """Random mask: each frame at its own rate, U(min_mask_rate, 1), or fully masked, as when sampling starts."""
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
    """Uniform samples in [0, 1) with the shape and device of a tensor whose first axis is this rank's batch."""
    return my_share(torch.rand(num_ranks() * len(like), *like.shape[1:], device=like.device))


def side_by_side(x_BT: torch.Tensor) -> torch.Tensor:
    """Inputs of S + 1 frames, rearranged for clean frames 0 to S - 1 followed by masked frames 1 to S."""
    return torch.cat([x_BT[:, :-1], x_BT[:, 1:]], dim=1)


def side_by_side_mask(num_steps: int, context_frames: int, device: torch.device | str | None = None) -> torch.Tensor:
    """Attention mask of S clean frames (times 0..S-1) and S masked frames (times 1..S): boolean `(2S, 2S)`.

    A clean frame sees itself and the C clean frames before it; a masked frame sees itself and the C clean frames
    before it. No other frame sees a masked frame.
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
    """Builds a dynamics model with weights initialised from `params.seed`.

    Args:
        params: its size and conditioning.
        known: config fields from the caches: `num_codes` and `grid` of the tokenizer, `num_actions` of the LAM, and
            the fingerprints of both.
    """
    torch.manual_seed(params.seed)
    return Dynamics(config_from(DynamicsConfig, params, **known))
