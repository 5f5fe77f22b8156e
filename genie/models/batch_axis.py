"""Repeats, joins and splits the state of worlds along its first axis, the worlds of a batch.

A state is a tensor whose first axis is the batch, None, or a list, tuple or named tuple of states.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

State = TypeVar("State")


def repeated(state: State, times: int) -> State:
    """The state with each world repeated `times` times in a row."""
    return _combine(lambda tensors: tensors[0].repeat_interleave(times, dim=0), [state])


def joined(states: Sequence[State]) -> State:
    """One state of the worlds of several, whose tensors have equal shapes but for the first axis."""
    return _combine(torch.cat, states)


def split(state: State, num_parts: int) -> list[State]:
    """The inverse of `joined`: states of equally many worlds, in order."""

    def part(tensor: torch.Tensor, index: int) -> torch.Tensor:
        # A copy, since a view would keep the state of all worlds in memory as long as its own.
        return tensor.unflatten(0, (num_parts, -1))[index].clone()

    return [_combine(lambda tensors, index=index: part(tensors[0], index), [state]) for index in range(num_parts)]


def _combine(combine: Callable[[list[torch.Tensor]], torch.Tensor], states: Sequence) -> Any:
    """The state whose every tensor is combined from the corresponding tensors of the given states."""
    first = states[0]
    if first is None:
        return None
    if isinstance(first, torch.Tensor):
        return combine(list(states))
    parts = [_combine(combine, of_part) for of_part in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
