"""The playable world: a tokenizer and a dynamics, prompted with frames and driven by latent actions.

Axes: `B` batch, `T` prompt frames, `S` dreamed frames, `H W C` pixels, `N` tokens a frame.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from genie.data.buttons import Button, read_buttons
from genie.models.dynamics import Dynamics
from genie.models.maskgit import sample_frame
from genie.models.tokenizer import Tokenizer
from genie.params import SamplingParams
from genie.training.checkpoint import CheckpointError, load_model


class WorldModel:
    """Frames in, latent actions pressed, frames out (Genie, section 2.2).

    Args:
        tokenizer: in eval mode.
        dynamics: in eval mode, trained on that tokenizer's tokens.
        sampling: MaskGIT steps and temperature.
        buttons: what each of its latent actions is called.
    """

    def __init__(self, tokenizer: Tokenizer, dynamics: Dynamics, sampling: SamplingParams, buttons: Sequence[Button]):
        self.tokenizer = tokenizer
        self.dynamics = dynamics
        self.sampling = sampling
        self.buttons = buttons
        self.num_actions = dynamics.config.num_actions
        self.context_frames = dynamics.config.context_frames
        self.device = next(dynamics.parameters()).device

    @classmethod
    def load(cls, models: str | Path, sampling: SamplingParams, device: torch.device | str = "cpu") -> "WorldModel":
        """The world of a folder that holds the checkpoints `tokenizer/` and `dynamics/`.

        Raises:
            CheckpointError: one is missing or damaged, or the dynamics was trained on another tokenizer's tokens.
            ButtonsError: the dynamics lacks the names of its actions.
        """
        tokenizer = load_model(Path(models) / "tokenizer", Tokenizer, device)
        dynamics = load_model(Path(models) / "dynamics", Dynamics, device)
        trained_on, found = dynamics.config.tokenizer_fingerprint, tokenizer.fingerprint
        if trained_on != found:
            raise CheckpointError(
                f"{models}: the dynamics was trained on tokens of tokenizer {trained_on}, "
                f"and this is tokenizer {found}; rebuild both with: dvc repro"
            )
        return cls(tokenizer, dynamics, sampling, read_buttons(Path(models) / "dynamics"))

    def rollout(
        self,
        frames_BTHWC: torch.Tensor,
        actions_BS: torch.Tensor,
        generator: torch.Generator | None = None,
        prompt_actions_BS: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """All that `stream` yields, as uint8 frames `(B, S, H, W, 3)`."""
        return torch.stack(list(self.stream(frames_BTHWC, actions_BS, generator, prompt_actions_BS)), dim=1)

    @torch.no_grad()
    def stream(
        self,
        frames_BTHWC: torch.Tensor,
        actions_BS: torch.Tensor,
        generator: torch.Generator | None = None,
        prompt_actions_BS: torch.Tensor | None = None,
    ) -> Iterator[torch.Tensor]:
        """Dreams what follows a prompt, frame by frame.

        Args:
            frames_BTHWC: uint8 prompt, T >= 1; the last C frames are used.
            actions_BS: latent actions, the first leads from the prompt's last frame to the first dreamed one.
            generator: source of randomness; dreams that share its state differ by their actions alone.
            prompt_actions_BS: `(B, T-1)` latent actions between the prompt's frames, where they are known.

        Yields:
            S times uint8 frames `(B, H, W, 3)`.
        """
        dynamics, num_frames = self.dynamics, min(frames_BTHWC.shape[1], self.context_frames)
        batch_size, frames_BTHWC = len(frames_BTHWC), frames_BTHWC[:, -num_frames:]
        tokens_BTN = self.tokenizer.encode(frames_BTHWC.flatten(0, 1)).unflatten(0, (batch_size, num_frames))
        led_to_BT = torch.full((batch_size, num_frames), dynamics.no_action, device=tokens_BTN.device)
        if prompt_actions_BS is not None and num_frames > 1:
            led_to_BT[:, 1:] = prompt_actions_BS[:, -(num_frames - 1) :]
        memory = dynamics.remember(tokens_BTN, led_to_BT)
        steps, temperature = self.sampling.maskgit_steps, self.sampling.temperature
        for action_B in actions_BS.unbind(1):
            tokens_BN = sample_frame(dynamics, memory, action_B, steps, temperature, generator)
            memory = dynamics.remember(tokens_BN.unsqueeze(1), action_B.unsqueeze(1), memory)
            yield self.tokenizer.decode(tokens_BN)
