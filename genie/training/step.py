"""One training step: forward, backward, gradient clipping, update."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import nn

from genie.core.params import TrainingParams
from genie.distributed.fsdp import whole
from genie.training.muon import Muon


class TrainingStep:
    """Callable that trains a model on one batch.

    Args:
        model: on its device, or sharded.
        params: learning rate, weight decay and so on.
        accelerator: device, precision, processes.

    Attributes:
        optimizers: optimizers by name.
        schedulers: learning rate schedulers by the same names.
    """

    def __init__(self, model: nn.Module, params: TrainingParams, accelerator: Accelerator):
        self._accelerator, self._grad_clip = accelerator, params.grad_clip
        self.optimizers = make_optimizers(model, params, accelerator.mixed_precision)
        self.schedulers = {
            name: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, params))
            for name, optimizer in self.optimizers.items()
        }
        is_sharded = accelerator.torch_device_mesh is not None
        self._wrapped = accelerator.prepare_model(model, evaluation_mode=is_sharded)  # only skips DDP
        self._updates = [accelerator.prepare_optimizer(optimizer) for optimizer in self.optimizers.values()]
        self._wrapped.train()

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self.schedulers["muon"].get_last_lr()[0])

    def __call__(
        self,
        batch: torch.Tensor | dict[str, torch.Tensor],
        timed: Callable[[str], AbstractContextManager] = nullcontext,
    ) -> dict[str, torch.Tensor]:
        """Trains on a batch that is on the model's device.

        Args:
            batch: input of the model's `forward`.
            timed: makes the context entered around each phase, from its name: `forward`, `backward`, `optimizer`.

        Returns:
            `loss`, `grad_norm` before clipping, and the model's metrics: scalar tensors.
        """
        with timed("forward"):
            loss, metrics = self._wrapped(batch)
        with timed("backward"):
            self._accelerator.backward(loss)
        with timed("optimizer"):
            grad_norm = whole(self._accelerator.clip_grad_norm_(self._wrapped.parameters(), self._grad_clip))  # pyright: ignore[reportArgumentType]
            for optimizer, scheduler in zip(self._updates, self.schedulers.values(), strict=True):
                optimizer.step()
                scheduler.step()
            self._wrapped.zero_grad()
        return {"loss": loss.detach(), "grad_norm": grad_norm, **metrics}


def make_optimizers(
    model: nn.Module, params: TrainingParams, mixed_precision: str = "no"
) -> dict[str, torch.optim.Optimizer]:
    """Makes `muon` for layer weights and `adamw` for all other parameters: embeddings, biases, gains.

    Args:
        model: the model whose parameters they update.
        params: learning rate and weight decay.
        mixed_precision: the accelerator's; `bf16` implies that bfloat16 is fast on this device.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    weights = [layer.weight for layer in layers]
    known = {id(weight) for weight in weights}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    dtype = torch.bfloat16 if mixed_precision == "bf16" else torch.float32
    return {
        "muon": Muon(weights, lr=params.lr, weight_decay=params.weight_decay, dtype=dtype),
        "adamw": torch.optim.AdamW(others, lr=params.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    }


def lr_factor(step: int, params: TrainingParams) -> float:
    """Fraction of the peak learning rate after `step` steps: linear warm-up, then cosine decay to 0."""
    if step < params.warmup_steps:
        return (step + 1) / params.warmup_steps
    done = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
