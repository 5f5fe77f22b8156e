"""One dream: the state of worlds that are being played, apart from the weights that they share.

Axes: `B` worlds, `T` prompt frames, `S = T - 1` transitions, `H W C` pixels, `E` effective true actions.
"""

from copy import copy
from typing import TYPE_CHECKING

import torch

from genie.models.recent_motion import RecentMotion

if TYPE_CHECKING:
    from genie.world.world_model import WorldModel


class Dream:
    """What B worlds remember, what was pressed in each, and where their randomness comes from.

    Args:
        world: the weights.
        frames_BTHWC: uint8 prompt, T >= 1; the last C frames are used.
        actions_BS: latent actions between them, or None where they are not known.
        seed: of all that is drawn.
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
        """Goes one frame on under latent actions; returns it, uint8 `(B, H, W, 3)`."""
        self._memory, self._pressed_B = world.advance(self._memory, action_B, self._generator), action_B
        self.frame_BHWC = world.decode(self._memory)
        self._motion = self._memory.motion or self._motion.then(self.frame_BHWC)
        return self.frame_BHWC

    def arrows(self, world: "WorldModel") -> torch.Tensor:
        """The latent actions that all arrows press now: int64 `(B, E)`."""
        return world.steering.press(self._motion, self._pressed_B)

    def fork(self) -> "Dream":
        """The same state once more: from now on, each goes its own way."""
        other = copy(self)
        other._generator = self._generator.clone_state()
        return other

    def repeated(self, world: "WorldModel", times: int) -> "Dream":
        """A fork that holds each world so many times in a row."""
        # Read once, rather than by each of the copies, and by `step` of this dream once more.
        self._memory = world.dynamics.read(self._memory)
        other = self.fork()
        other._memory, other._motion = self._memory.repeated(times), self._motion.repeated(times)
        other._pressed_B = self._pressed_B.repeat_interleave(times)
        other.frame_BHWC = self.frame_BHWC.repeat_interleave(times, dim=0)
        return other
