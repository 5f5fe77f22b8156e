"""Spatio-temporal transformer blocks (Genie, section 2, figure 4; Xu et al. 2020, arXiv 2001.02908).

Axes: `B` batch, `T` frames, `N` tokens per frame, `D` width, `H` heads, `P` past frames in a cache.

A block attends over the N tokens of each frame, then over the frames at each token position, then mixes channels.
Information flows between frames only in temporal attention, so one (T, T) mask determines causality.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

MAX_ROWS = 65535  # CUDA grid limit on the batch of the fused kernels; temporal attention has B N rows

KeyValue = tuple[torch.Tensor, torch.Tensor]


def causal_mask(num_frames: int, max_past: int | None = None, device: torch.device | str | None = None) -> torch.Tensor:
    """Boolean mask `(T, T)`, True where a query frame (row) may attend to a key frame (column): itself and the past, of
    which at most the last `max_past` frames."""
    times_T = torch.arange(num_frames, device=device)
    age_TT = times_T.unsqueeze(1) - times_T
    mask_TT = age_TT >= 0
    return mask_TT if max_past is None else mask_TT & (age_TT <= max_past)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Scaled dot-product attention of `(M, H, L, D/H)` tensors; `mask` is True where a query (row) attends to a key."""
    if q.device.type != "cpu":
        return fused_attention(q, k, v, mask)
    # On CPU the fused kernel is slower than the plain formula: up to ten times in the bf16 backward over few frames.
    bias = q.new_zeros(1) if mask is None else torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    num_heads = q.shape[1]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return (scores.softmax(-1).to(v.dtype) @ v).unflatten(0, (-1, num_heads))


def fused_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Same as `attend`, by torch's fused kernels, in chunks of at most `MAX_ROWS` along the first axis."""
    parts = zip(*(x.split(MAX_ROWS) for x in (q, k, v)), strict=True)
    attended = [F.scaled_dot_product_attention(*part, attn_mask=mask) for part in parts]
    return attended[0] if len(attended) == 1 else torch.cat(attended)


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys (QK-norm, as in Genie, appendix C)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = nn.LayerNorm(width // num_heads, bias=False)
        self.key_norm = nn.LayerNorm(width // num_heads, bias=False)

    def heads(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values `(..., H, L, D/H)` of `x (..., L, D)`."""
        # As one matrix: with positions before frames, a linear layer without gradients would copy its weights for each.
        qkv = self.qkv(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        q, k, v = rearrange(qkv, "... l (three h d) -> three ... h l d", three=3, h=self.num_heads)
        return self.query_norm(q), self.key_norm(k), v

    def merge(self, heads: torch.Tensor) -> torch.Tensor:
        """Merges the heads of the attended values and projects them to the width."""
        return self.out(rearrange(heads, "... h l d -> ... l (h d)"))


class SpatialAttention(Attention):
    """Attention of every token of a frame over all tokens of that frame."""

    def forward(self, x_BTND: torch.Tensor) -> torch.Tensor:
        frames = rearrange(x_BTND, "b t n d -> (b t) n d")
        attended = attend(*self.heads(frames))
        return rearrange(self.merge(attended), "(b t) n d -> b t n d", b=len(x_BTND))


class TemporalAttention(Attention):
    """Attention over frames at each token position, with rotary time embeddings (arXiv 2104.09864)."""

    frequencies: torch.Tensor

    def __init__(self, width: int, num_heads: int):
        super().__init__(width, num_heads)
        head_dim = width // num_heads
        frequencies = 100.0 ** -(torch.arange(0, head_dim, 2) / head_dim)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(
        self, x_BTND: torch.Tensor, times_BT: torch.Tensor, mask_TT: torch.Tensor | None, past: KeyValue | None
    ) -> tuple[torch.Tensor, KeyValue]:
        """Returns the output and all keys and values, those of the past first, each `(B, N, H, P+T, D/H)`."""
        q, k, v = self.heads(rearrange(x_BTND, "b t n d -> b n t d"))
        angles = times_BT[:, None, None, :, None].float() * self.frequencies
        cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=-2), torch.cat([past[1], v], dim=-2)
        seen = (k, v)
        num_places = q.shape[1]
        q, k, v = (rearrange(t, "b n h t d -> (b n) h t d") for t in (q, k, v))
        attended = attend(q, k, v, mask_TT)
        attended = rearrange(attended, "(b n) h t d -> b n h t d", n=num_places)
        return rearrange(self.merge(attended), "b n t d -> b t n d"), seen


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Modulation(nn.Module):
    """Adaptive layer norm (DiT, arXiv 2212.09748, section 3.2): a condition scales and shifts each sublayer's input
    and gates its output; initialised to the plain pre-norm residual."""

    def __init__(self, width: int, num_sublayers: int):
        super().__init__()
        self.num_sublayers = num_sublayers
        self.linear = nn.Linear(width, 3 * num_sublayers * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition_BTD: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Returns shift, scale and gate, each `(B, T, 1, D)`, for every sublayer."""
        parts = self.linear(F.silu(condition_BTD)).unsqueeze(2).chunk(3 * self.num_sublayers, dim=-1)
        return [(parts[i], 1 + parts[i + 1], 1 + parts[i + 2]) for i in range(0, len(parts), 3)]


class STBlock(nn.Module):
    """ST block: spatial attention, temporal attention and channel mixing, each a pre-norm residual sublayer.

    Args:
        width: D, a multiple of twice `num_heads`.
        num_heads: number of heads of both attention layers.
        conditioned: whether every sublayer is modulated by a condition (AdaLN).
    """

    def __init__(self, width: int, num_heads: int, conditioned: bool = False):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=not conditioned) for _ in range(3))
        self.spatial = SpatialAttention(width, num_heads)
        self.temporal = TemporalAttention(width, num_heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = Modulation(width, 3) if conditioned else None

    def forward(
        self,
        x_BTND: torch.Tensor,
        times_BT: torch.Tensor,
        mask_TT: torch.Tensor | None = None,
        condition_BTD: torch.Tensor | None = None,
        past: KeyValue | None = None,
    ) -> tuple[torch.Tensor, KeyValue]:
        """Transforms `x (B, T, N, D)` of frames at integer `times_BT`.

        Args:
            x_BTND: tokens.
            times_BT: time index of each frame, `(B, T)`, or `(1, T)` if it is that of all; only differences matter.
            mask_TT: True where a frame (row) attends to a frame (column); None: no masking. With `past`, the columns
                are the P past frames followed by the T given frames.
            condition_BTD: condition of conditioned blocks, one vector per frame.
            past: keys and values of P earlier frames, `(B, N, H, P, D/H)` each.

        Returns:
            The output, and the temporal keys and values of the P past and T given frames.
        """
        sublayers = self.modulation(condition_BTD) if self.modulation else [None] * 3
        attended = self.spatial(self._enter(x_BTND, 0, sublayers))
        x_BTND = self._leave(x_BTND, attended, sublayers[0])
        attended, seen = self.temporal(self._enter(x_BTND, 1, sublayers), times_BT, mask_TT, past)
        x_BTND = self._leave(x_BTND, attended, sublayers[1])
        mixed = self.mlp(self._enter(x_BTND, 2, sublayers))
        return self._leave(x_BTND, mixed, sublayers[2]), seen

    def _enter(self, x_BTND: torch.Tensor, index: int, sublayers: list) -> torch.Tensor:
        normed = self.norms[index](x_BTND)
        if sublayers[index] is None:
            return normed
        shift, scale, _ = sublayers[index]
        return normed * scale + shift

    @staticmethod
    def _leave(x_BTND: torch.Tensor, update_BTND: torch.Tensor, modulation: tuple | None) -> torch.Tensor:
        return x_BTND + update_BTND if modulation is None else x_BTND + modulation[2] * update_BTND


class STTransformer(nn.Module):
    """A stack of ST blocks."""

    def __init__(self, width: int, num_layers: int, num_heads: int, conditioned: bool = False):
        super().__init__()
        self.blocks = nn.ModuleList(STBlock(width, num_heads, conditioned) for _ in range(num_layers))

    def forward(
        self,
        x_BTND: torch.Tensor,
        times_BT: torch.Tensor,
        mask_TT: torch.Tensor | None = None,
        condition_BTD: torch.Tensor | None = None,
        past: list[KeyValue] | None = None,
    ) -> tuple[torch.Tensor, list[KeyValue]]:
        """Same as `STBlock.forward`, with one entry per layer in `past` and in the returned keys and values."""
        seen = []
        for index, block in enumerate(self.blocks):
            x_BTND, key_value = block(x_BTND, times_BT, mask_TT, condition_BTD, past[index] if past else None)
            seen.append(key_value)
        return x_BTND, seen
