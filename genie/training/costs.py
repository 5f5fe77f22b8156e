"""Counts the operations and memory of a training step by running it on fake tensors, which have shapes but no values.

The models and optimizers are those used in training, so a change to either changes the count. Nothing of their size is
allocated: a step of any scale is counted on any machine, in seconds.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from genie.core.actions import game_actions
from genie.core.frames import GRID_SIZE
from genie.core.params import Params, SurpriseLamParams, TrainingParams
from genie.models.dynamics import build_dynamics
from genie.models.measured_size import MEASURED_SIZE
from genie.models.motion_predictor import build_motion_predictor
from genie.models.pixel_lam import build_pixel_lam
from genie.models.probe import build_probe
from genie.models.registration import Box
from genie.models.steering import build_steering
from genie.models.surprise_lam import build_surprise_lam
from genie.models.tokenizer import build_tokenizer
from genie.training.step import make_optimizers

Model = Literal["tokenizer", "probe", "lam", "motion", "steering", "dynamics"]
A_SPRITE = Box(27, 28, 10, 8)  # CoinRun's; the cost of a step depends on its size, not on its position
TOKENS_A_FRAME = GRID_SIZE**2


@dataclass(frozen=True)
class StepCosts:
    """Costs of one training step on one device.

    Attributes:
        parameters: number of the model's parameters.
        samples: windows or transitions in the batch, or frames if the model takes them one by one.
        frames: frames in the batch; a transition has two.
        model_flops: FLOPs of forward and backward; a multiply-add counts as 2. Only matrix products and convolutions
            are counted; everything else is memory-bound.
        optimizer_flops: FLOPs of the update, independent of the batch.
        weight_bytes: parameters in float32 and, with bf16, their bfloat16 copies.
        gradient_bytes: gradients in float32.
        optimizer_bytes: optimizer state kept between steps.
        activation_bytes: tensors saved by forward for backward, except attention scores.
        score_bytes: attention scores, which the CPU saves and a GPU's fused kernels recompute.
    """

    parameters: int
    samples: int
    frames: int
    model_flops: int
    optimizer_flops: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    score_bytes: int


def step_costs(name: Model, params: Params, bf16: bool = False) -> StepCosts:
    """Counts a step of one model at its batch size; the global random state is unchanged.

    Args:
        name: the model.
        params: determine its size and batch.
        bf16: whether to use mixed precision, by the CPU's autocast rules; a GPU's keep a few more tensors in float32.

    Raises:
        ValueError: the batch is too small to train on.
    """
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            model = build(name, params)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")  # the CPU's operators; meta tensors lack some of them
            return count_step(model, blank_batch(name, params), training_params(name, params), bf16)


def training_params(name: Model, params: Params) -> TrainingParams:
    """Training parameters of a model."""
    return params.lam.of_kind() if name == "lam" else getattr(params, name)


def section_of(name: Model, params: Params) -> str:
    """Section of `params.yaml` that sets the size of a model and its batch."""
    return f"lam.{params.lam.kind}" if name == "lam" else name


def build(name: Model, params: Params) -> nn.Module:
    """Builds a model as its stage does."""
    if name == "tokenizer":
        return build_tokenizer(params.tokenizer, params.collect.frame_size)
    if name == "lam":
        settings = params.lam.of_kind()
        if isinstance(settings, SurpriseLamParams):
            return build_surprise_lam(settings, A_SPRITE, MEASURED_SIZE)
        return build_pixel_lam(settings)
    num_effects = len(game_actions(params.collect.env_name).names)
    if name == "probe":
        return build_probe(params.probe, num_classes=num_effects)
    num_actions = num_effects if params.dynamics.actions is True else params.lam.num_actions
    if name == "motion":
        return build_motion_predictor(params.motion, num_actions=num_actions)
    if name == "steering":
        return build_steering(params.steering, num_effects=num_effects, num_actions=num_actions)
    tokenizer = build_tokenizer(params.tokenizer, params.collect.frame_size)
    dynamics = build_dynamics(
        params.dynamics, num_codes=tokenizer.num_codes, grid=tokenizer.grid, num_actions=num_actions
    )
    dynamics.see_through(tokenizer.eval())
    return dynamics


def blank_batch(name: Model, params: Params) -> torch.Tensor | dict[str, torch.Tensor]:
    """An all-zero batch with the shapes that a model's windows produce."""
    settings = training_params(name, params)
    batch_size, window = settings.batch_size, getattr(settings, "window", 1)
    actions_BS = torch.zeros(batch_size, window - 1, dtype=torch.int64)
    if name == "dynamics":
        tokens_BTN = torch.zeros(batch_size, window, TOKENS_A_FRAME, dtype=torch.int64)
        return {"tokens_BTN": tokens_BTN, "actions_BS": actions_BS}
    if name in ("motion", "steering") or (name == "lam" and params.lam.kind == "surprise"):
        pair_1THWC = torch.zeros(1, 2, *params.collect.frame_shape, dtype=torch.uint8)
        observed = build(name, params).observe(pair_1THWC)  # pyright: ignore[reportCallIssue]
        observed = {key: part[0].expand(batch_size, *part.shape[2:]) for key, part in observed.items()}
        told = {"motion": ("actions_M",), "steering": ("effects_M", "before_M", "actions_M")}.get(name, ())
        return observed | dict.fromkeys(told, actions_BS.new_zeros(batch_size))
    frames_BTHWC = torch.zeros(batch_size, window, *params.collect.frame_shape, dtype=torch.uint8)
    return {"frames_BTHWC": frames_BTHWC, "actions_BS": actions_BS} if name == "probe" else frames_BTHWC


def count_step(
    model: nn.Module, batch: torch.Tensor | dict[str, torch.Tensor], params: TrainingParams, bf16: bool
) -> StepCosts:
    """Trains a model for one step on a batch, both real or fake, and counts its costs."""
    parameters = list(model.parameters())
    optimizers = make_optimizers(model, params, "bf16" if bf16 else "no")
    memory = _Memory(parameters)
    with FlopCounterMode(display=False) as of_model, memory:
        with memory.keeping(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, _ = model.train()(batch)
        loss.backward()
    with FlopCounterMode(display=False) as of_optimizers:
        for optimizer in optimizers.values():
            optimizer.step()
    frames = batch if isinstance(batch, torch.Tensor) else next(iter(batch.values()))
    kept = [state.values() for optimizer in optimizers.values() for state in optimizer.state.values()]
    return StepCosts(
        parameters=sum(parameter.numel() for parameter in parameters),
        samples=frames.shape[0],
        frames=frames.shape[0] * frames.shape[1],
        model_flops=of_model.get_total_flops(),
        optimizer_flops=of_optimizers.get_total_flops(),
        weight_bytes=_bytes(parameters) + memory.weight_copies,
        gradient_bytes=_bytes(parameter.grad for parameter in parameters if parameter.grad is not None),
        optimizer_bytes=sum(_bytes(values) for values in kept),
        activation_bytes=memory.activations,
        score_bytes=memory.scores,
    )


def si(value: float, unit: str = "") -> str:
    """Formats a number to three significant digits with an SI prefix: `1.25 GB`."""
    value = float(f"{value:.3g}")
    power = max(0, min(6, math.floor(math.log10(value) / 3))) if value else 0
    return f"{three_digits(value / 1000**power)} {'kMGTPE'[power - 1] if power else ''}{unit}".rstrip()


def three_digits(value: float) -> str:
    """Formats a number to three significant digits, with thousands separators."""
    return f"{float(f'{value:.3g}'):,.10g}"


class _Memory(TorchDispatchMode):
    """Records the tensors that a forward pass saves for the backward pass, counting each storage once.

    Attributes:
        weight_copies: bytes of cast copies of the weights.
        activations: bytes of all saved tensors but weights, their copies and attention scores.
        scores: bytes of attention scores.
    """

    def __init__(self, parameters: Iterable[torch.Tensor]):
        super().__init__()
        self._weights = {_storage(parameter) for parameter in parameters}
        self._copies, self._scores = {}, {}
        self._kept = {}

    @property
    def weight_copies(self) -> int:
        return sum(storage.nbytes() for storage in self._copies.values())

    @property
    def activations(self) -> int:
        known = self._weights | self._copies.keys() | self._scores.keys()
        return sum(storage.nbytes() for key, storage in self._kept.items() if key not in known)

    @property
    def scores(self) -> int:
        return sum(storage.nbytes() for key, storage in self._kept.items() if key in self._scores)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Context in which tensors saved for backward are recorded."""

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            self._kept[_storage(tensor)] = tensor.untyped_storage()  # a reference, so that its address is not reused
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._softmax.default:
            self._scores[_storage(result)] = result.untyped_storage()
        if function is torch.ops.aten._to_copy.default:
            for known, copies in ((self._weights, self._copies), (self._scores, self._scores)):
                if _storage(args[0]) in known:
                    copies[_storage(result)] = result.untyped_storage()
        return result


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
