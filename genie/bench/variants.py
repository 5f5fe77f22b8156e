"""Variants of the dynamics' attention and loss, which give the same result in other time and memory.

Axes: `M` rows, `H` heads, `L` queries, `S` clean frames, `D` width of a head; `R` predicted tokens, `E` width of a
token's features, `K` codes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from genie.bench.timing import clock_of, take_turns, wait_for
from genie.core.params import Params
from genie.models.dynamics import UNMASKED, side_by_side_mask
from genie.models.st_transformer import fused_attention
from genie.training.costs import TOKENS_A_FRAME

ROUNDS, CALLS = 5, 4  # timed rounds, and calls per round
CHUNKS = 8  # parts of the logits
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of the largest value

Variant = Callable[..., torch.Tensor]
Case = tuple[dict[str, Variant], list[torch.Tensor]]


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention as two matrix products and a softmax: `(M, H, L, D)`; `mask` as of `genie.models.st_transformer`."""
    scale, num_heads = q.shape[-1] ** -0.5, q.shape[1]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    bias = q.new_zeros(1) if mask is None else torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    return (scores.softmax(-1).to(v.dtype) @ v).unflatten(0, (-1, num_heads))


def side_by_side_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention under `side_by_side_mask`: no frame but a masked one sees a masked frame, and that only itself. So all
    queries meet only the S clean keys, and a masked frame's own key adds one score."""
    num_clean, num_heads, scale = q.shape[-2] // 2, q.shape[1], q.shape[-1] ** -0.5
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    clean = slice(None, num_clean)
    bias = torch.zeros_like(mask[:, clean], dtype=q.dtype).masked_fill(~mask[:, clean], -torch.inf)
    scores = torch.baddbmm(bias, q, k[:, clean].transpose(1, 2), alpha=scale)
    own = (q[:, num_clean:] * k[:, num_clean:]).sum(-1, keepdim=True) * scale
    own = F.pad(own.to(scores.dtype), (0, 0, num_clean, 0), value=-torch.inf)
    shares = torch.cat([scores, own], dim=-1).softmax(-1).to(v.dtype)
    # The last column is zero for clean frames.
    of_own = shares[:, num_clean:, -1:] * v[:, num_clean:]
    attended = shares[..., :-1] @ v[:, clean]
    return (attended + F.pad(of_own.to(attended.dtype), (0, 0, num_clean, 0))).unflatten(0, (-1, num_heads))


def whole_loss(features_RE: torch.Tensor, codes_KE: torch.Tensor, targets_R: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of all logits at once."""
    return F.cross_entropy(F.linear(features_RE, codes_KE), targets_R, ignore_index=UNMASKED)


def chunked_loss(features_RE: torch.Tensor, codes_KE: torch.Tensor, targets_R: torch.Tensor) -> torch.Tensor:
    """The same by parts, whose logits are computed again in the backward pass: no more than one part's are kept."""

    def summed(features_RE: torch.Tensor, targets_R: torch.Tensor) -> torch.Tensor:
        logits_RK = F.linear(features_RE, codes_KE)
        return F.cross_entropy(logits_RK, targets_R, ignore_index=UNMASKED, reduction="sum")

    parts = zip(features_RE.chunk(CHUNKS), targets_R.chunk(CHUNKS), strict=True)
    losses = [checkpoint(summed, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(losses).sum() / (targets_R != UNMASKED).sum()  # pyright: ignore[reportArgumentType]


def attention_cases(params: Params, device: torch.device) -> dict[str, Case]:
    """The two attentions of the dynamics, `spatial` and `temporal`: their variants by name, and random q, k and v."""
    sizes = params.dynamics
    num_steps, head_dim = sizes.window - 1, sizes.width // sizes.num_heads
    places = TOKENS_A_FRAME // sizes.patch_size**2 + (sizes.action_injection == "prepend")
    mask = side_by_side_mask(num_steps, sizes.context_frames, device)

    def inputs(rows: int, length: int) -> list[torch.Tensor]:
        shape = (rows, sizes.num_heads, length, head_dim)
        return [torch.randn(shape, device=device, requires_grad=True) for _ in range(3)]

    fused: Variant = fused_attention
    spatial = {"fused": partial(fused, mask=None), "plain": partial(plain_attention, mask=None)}
    temporal = {
        "fused": partial(fused, mask=mask),
        "plain": partial(plain_attention, mask=mask),
        "side_by_side": partial(side_by_side_attention, mask=mask),
    }
    return {
        "spatial": (spatial, inputs(sizes.batch_size * 2 * num_steps, places)),
        "temporal": (temporal, inputs(sizes.batch_size * places, 2 * num_steps)),
    }


def loss_case(params: Params, device: torch.device) -> Case:
    """The loss of the dynamics: its variants, and random features, codes and targets, a tenth of them ignored."""
    sizes = params.dynamics
    num_codes = params.tokenizer.num_codes
    rows, width = sizes.batch_size * (sizes.window - 1) * TOKENS_A_FRAME, sizes.width // sizes.patch_size
    features_RE = torch.randn(rows, width, device=device, requires_grad=True)
    codes_KE = (torch.randn(num_codes, width, device=device) * width**-0.5).requires_grad_()
    targets_R = torch.randint(num_codes, (rows,), device=device)
    targets_R[torch.rand(rows, device=device) < 0.1] = UNMASKED
    return {"whole": whole_loss, "chunked": chunked_loss}, [features_RE, codes_KE, targets_R]


def compare(case: Case, mixed_precision: str, *, compiled: bool = False) -> dict[str, dict[str, float]]:
    """Checks that the variants agree, in values and gradients, and measures forward and backward of each.

    Returns:
        By variant: `ms`; on a card `peak_mib` of memory beyond the inputs.

    Raises:
        AssertionError: variants differ.
    """
    variants, inputs = case
    device = inputs[0].device
    dtype = torch.bfloat16 if mixed_precision == "bf16" else torch.float32
    learnt = [tensor for tensor in inputs if tensor.requires_grad]
    if compiled:
        variants = {name: torch.compile(variant) for name, variant in variants.items()}

    def forward(variant: Variant) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return variant(*inputs)

    shape = forward(next(iter(variants.values()))).shape
    weights = torch.linspace(-1, 1, shape.numel(), device=device).view(shape)

    def both_ways(variant: Variant) -> list[torch.Tensor]:
        result = forward(variant)
        return [result, *torch.autograd.grad(result, learnt, weights.to(result.dtype))]

    check_agreement({name: both_ways(variant) for name, variant in variants.items()}, TOLERANCE[dtype])

    def several(variant: Variant) -> None:
        for _ in range(CALLS):
            both_ways(variant)

    seconds = take_turns(
        {name: partial(several, variant) for name, variant in variants.items()}, ROUNDS, clock_of(device)
    )
    measured = {name: {"ms": 1000 * taken / CALLS} for name, taken in seconds.items()}
    if device.type == "cuda":
        for name, variant in variants.items():
            wait_for(device)
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            both_ways(variant)
            measured[name]["peak_mib"] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    return measured


def check_agreement(results: Mapping[str, Sequence[torch.Tensor]], tolerance: float) -> None:
    """Raises AssertionError if a variant's tensors differ from the first one's by more than a share of their largest
    value."""
    (first, expected), *others = results.items()
    for name, found in others:
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            difference = float((one - other).detach().abs().max() / one.detach().abs().max())
            assert difference <= tolerance, f"{name} differs from {first} by {difference:.2g} in tensor {index}"
