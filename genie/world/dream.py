"""A dream: the state of the worlds being played, separate from the weights that they share.

Axes: `B` worlds, `T` prompt frames, `S = T - 1` transitions, `H W C` pixels, `E` effective actions.
"""

from collections.abc import Hashable, Sequence
from copy import copy
from typing import TYPE_CHECKING

import torch

from genie.models.batch_axis import joined, repeated, split
from genie.models.memory import Memory
from genie.models.recent_motion import RecentMotion

if TYPE_CHECKING:
    from genie.world.world_model import WorldModel


class Dream:
    """State of B worlds: their memory, the latent action last pressed in each, and the random generators.

    Args:
        world: world that provides the weights.
        frames_BTHWC: uint8 prompt, T >= 1; the last `context_frames` are used.
        actions_BS: latent actions between them, or None if they are unknown.
        seed: seed of all sampling.
    """

    def __init__(self, world: "WorldModel", frames_BTHWC: torch.Tensor, actions_BS: torch.Tensor | None, seed: int):
        self._generators = [torch.Generator(frames_BTHWC.device).manual_seed(seed)]
        self._memory = world.remember(frames_BTHWC, actions_BS)
        unknown_B = torch.full((len(frames_BTHWC),), world.num_actions, device=frames_BTHWC.device)
        self._pressed_B = unknown_B if actions_BS is None or not actions_BS.shape[1] else actions_BS[:, -1]
        seen = RecentMotion.of(frames_BTHWC)
        self._motion = self._memory.motion or seen._replace(frame_BHWC=world.decode(self._memory))

    def __len__(self) -> int:
        return len(self._pressed_B)

    @property
    def frame_BHWC(self) -> torch.Tensor:
        """The last frame, uint8."""
        return self._motion.frame_BHWC

    @property
    def layout(self) -> Hashable:
        """Dreams of one world can be joined if their layouts are equal."""
        return len(self), self._memory.num_past, self._memory.num_unread

    def step(self, world: "WorldModel", action_B: torch.Tensor) -> torch.Tensor:
        """Advances by one frame, given latent actions, and returns it: uint8 `(B, H, W, 3)`."""
        self._memory, self._pressed_B = world.advance(self._memory, action_B, self._generators), action_B
        self._motion = self._memory.motion or self._motion.then(world.decode(self._memory))
        return self.frame_BHWC

    def arrows(self, world: "WorldModel") -> torch.Tensor:
        """The latent action that each arrow presses now: int64 `(B, E)`; E is 0 in a world without arrows."""
        if world.steering is None:
            return self._pressed_B.new_zeros((len(self), 0))
        return world.steering.press(self._motion, self._pressed_B)

    def fork(self) -> "Dream":
        """An independent copy of the state."""
        other = copy(self)
        other._generators = [generator.clone_state() for generator in self._generators]
        return other

    def repeated(self, world: "WorldModel", times: int) -> "Dream":
        """A fork with each world repeated `times` times in a row."""
        # Frames are read once here, so that neither each copy nor the next `step` of this dream reads them again.
        self._memory = world.dynamics.read(self._memory)
        return self.fork()._with(repeated(self._state, times))

    @staticmethod
    def joined(dreams: Sequence["Dream"]) -> "Dream":
        """One dream of the worlds of several, each of which draws from the generator that it had."""
        if len(dreams) == 1:
            return dreams[0]
        assert len({dream.layout for dream in dreams}) == 1
        together = dreams[0]._with(joined([dream._state for dream in dreams]))
        together._generators = [generator for dream in dreams for generator in dream._generators]
        return together

    def split(self) -> list["Dream"]:
        """A dream for each generator: the inverse of `joined`."""
        if len(self._generators) == 1:
            return [self]
        parts = [self._with(state) for state in split(self._state, len(self._generators))]
        for part, generator in zip(parts, self._generators, strict=True):
            part._generators = [generator]
        return parts

    @property
    def _state(self) -> tuple[Memory, RecentMotion, torch.Tensor]:
        return self._memory, self._motion, self._pressed_B

    def _with(self, state: tuple[Memory, RecentMotion, torch.Tensor]) -> "Dream":
        """A copy with another state."""
        other = copy(self)
        other._memory, other._motion, other._pressed_B = state
        return other
