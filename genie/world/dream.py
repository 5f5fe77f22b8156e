"""A dream: the state of the worlds being played, separate from the weights that they share.

Axes: `B` worlds, `T` prompt frames, `S = T - 1` transitions, `H W C` pixels, `E` effective actions.
"""

from copy import copy
from typing import TYPE_CHECKING

import torch

from genie.models.recent_motion import RecentMotion

if TYPE_CHECKING:
    from genie.world.world_model import WorldModel


class Dream:
    """State of B worlds: their memory, the latent action last pressed in each, and the random generator.

    Args:
        world: world that provides the weights.
        frames_BTHWC: uint8 prompt, T >= 1; the last `context_frames` are used.
        actions_BS: latent actions between them, or None if they are unknown.
        seed: seed of all sampling.
    """

    def __init__(self, world: "WorldModel", frames_BTHWC: torch.Tensor, actions_BS: torch.Tensor | None, seed: int):
        self._generator = torch.Generator(frames_BTHWC.device).manual_seed(seed)
        self._memory = world.remember(frames_BTHWC, actions_BS)
        self.frame_BHWC = world.decode(self._memory)
        unknown_B = torch.full((len(frames_BTHWC),), world.steering.unknown, device=frames_BTHWC.device)
        self._pressed_B = unknown_B if actions_BS is None or not actions_BS.shape[1] else actions_BS[:, -1]
        seen = RecentMotion.of(frames_BTHWC)
        self._motion = self._memory.motion or seen._replace(frame_BHWC=self.frame_BHWC)

    def __len__(self) -> int:
        return len(self._pressed_B)

    def step(self, world: "WorldModel", action_B: torch.Tensor) -> torch.Tensor:
        """Advances by one frame, given latent actions, and returns it: uint8 `(B, H, W, 3)`."""
        self._memory, self._pressed_B = world.advance(self._memory, action_B, self._generator), action_B
        self.frame_BHWC = world.decode(self._memory)
        self._motion = self._memory.motion or self._motion.then(self.frame_BHWC)
        return self.frame_BHWC

    def arrows(self, world: "WorldModel") -> torch.Tensor:
        """The latent action that each arrow presses now: int64 `(B, E)`."""
        return world.steering.press(self._motion, self._pressed_B)

    def fork(self) -> "Dream":
        """An independent copy of the state."""
        other = copy(self)
        other._generator = self._generator.clone_state()
        return other

    def repeated(self, world: "WorldModel", times: int) -> "Dream":
        """A fork with each world repeated `times` times in a row."""
        # Frames are read once here, so that neither each copy nor the next `step` of this dream reads them again.
        self._memory = world.dynamics.read(self._memory)
        other = self.fork()
        other._memory, other._motion = self._memory.repeated(times), self._motion.repeated(times)
        other._pressed_B = self._pressed_B.repeat_interleave(times)
        other.frame_BHWC = self.frame_BHWC.repeat_interleave(times, dim=0)
        return other
