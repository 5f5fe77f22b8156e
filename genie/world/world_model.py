"""The playable world: a tokenizer and a dynamics, prompted with frames and driven by latent actions.

Axes: `B` batch, `T` prompt frames, `S` dreamed frames, `H W C` pixels, `N` tokens a frame.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import nn

from genie.core.actions import EFFECTIVE_ACTIONS
from genie.core.frames import FRAME_SHAPE
from genie.models.checkpoint import CheckpointError, load_model
from genie.models.dynamics import Dynamics
from genie.models.memory import Memory
from genie.models.steering import Steering
from genie.models.tokenizer import Tokenizer
from genie.world.controls import Button, read_buttons
from genie.world.dream import Dream
from genie.world.maskgit import Sampling, sample_frame
from genie.world.pretrained import (
    CARD,
    CARD_TEMPLATE,
    PROMPTS,
    find_world,
    made_from,
    read_world,
    replacing_files,
    write_world,
)
from genie.world.prompts import Prompt, read_prompts, write_prompts


class WorldError(ValueError):
    """The world was played as it cannot be; the message names the cause and the fix."""


class WorldModel(
    nn.Module,
    PyTorchModelHubMixin,
    license="mit",
    library_name="mini-genie",
    tags=["world-model", "genie", "procgen", "coinrun"],
    paper_url="https://arxiv.org/abs/2402.15391",
    model_card_template=CARD_TEMPLATE,
):
    """Frames in, latent actions pressed, frames out (Genie, section 2.2).

    Args:
        tokenizer: in eval mode.
        dynamics: in eval mode, trained on that tokenizer's tokens.
        steering: in eval mode, what an arrow presses.
        sampling: MaskGIT steps and temperature.
        buttons: what its latent actions stand for.
        prompts: what it may start from, where that is known; kept when it is saved.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dynamics: Dynamics,
        steering: Steering,
        sampling: Sampling,
        buttons: Sequence[Button],
        prompts: Sequence[Prompt] = (),
    ):
        super().__init__()
        self.tokenizer = tokenizer
        self.dynamics = dynamics
        dynamics.see_through(tokenizer)
        self.steering = steering
        self.sampling = sampling
        self.buttons = tuple(buttons)
        self.prompts = tuple(prompts)
        self.num_actions = dynamics.config.num_actions
        self.context_frames = dynamics.config.context_frames
        self._card: str | None = None
        self._dream: Dream | None = None
        self._batched = False
        self.eval()

    @classmethod
    def load(cls, models: str | Path, sampling: Sampling, device: torch.device | str = "cpu") -> "WorldModel":
        """The world of a folder that holds the checkpoints `tokenizer/`, `dynamics/` and `steering/`, and
        `buttons.json`.

        Raises:
            CheckpointError: one is missing or damaged, or was trained on what another tokenizer or LAM made.
            ButtonsError: they lack their buttons.
        """
        tokenizer = load_model(Path(models) / "tokenizer", Tokenizer, device)
        dynamics = load_model(Path(models) / "dynamics", Dynamics, device)
        trained_on, found = dynamics.config.tokenizer_fingerprint, tokenizer.fingerprint
        if trained_on != found:
            raise CheckpointError(
                f"{models}: the dynamics was trained on tokens of tokenizer {trained_on}, "
                f"and this is tokenizer {found}; rebuild both with: dvc repro"
            )
        steering = load_model(Path(models) / "steering", Steering, device)
        pressed, known = steering.config.lam_fingerprint, dynamics.config.lam_fingerprint
        if pressed != known:
            raise CheckpointError(
                f"{models}: arrows press latent actions of {pressed}, and the dynamics knows those of {known}; "
                "rebuild both with: dvc repro"
            )
        return cls(tokenizer, dynamics, steering, sampling, read_buttons(models))

    @classmethod
    def from_pretrained(
        cls, folder_or_hub_id: str | Path | None = None, device: torch.device | str = "cpu", **download
    ) -> "WorldModel":
        """The world that `save_pretrained` wrote, or `genie export`; without a name, the one that is shipped.

        In place of the mixin's, which would also read pickles.

        Args:
            folder_or_hub_id: its folder, or its name on the Hugging Face hub.
            device: where to put it.
            download: further options of `huggingface_hub.snapshot_download`, such as `revision`.

        Raises:
            PretrainedError: there is none, or a damaged one.
            PromptError: its prompts are damaged.
        """
        folder = find_world(folder_or_hub_id, **download)
        world = cls(*read_world(folder, device))
        if (folder / PROMPTS).is_file():
            world.prompts = read_prompts(folder / PROMPTS)
        if (folder / CARD).is_file():
            world._card = (folder / CARD).read_text(encoding="utf-8")
        return world

    def save_pretrained(self, save_directory: str | Path, **hub) -> str | None:
        """Writes it, in half precision, into a folder: whole, or not at all; other files in there stay.

        Args:
            save_directory: the folder; made if need be.
            hub: further options of the mixin: `push_to_hub`, `repo_id`; and `model_card_kwargs`, what else the card is
                to tell: `made` (a sentence), `halving_cost`, `metrics` (a table).

        Raises:
            OSError: it cannot be written; what was there before stays.
        """
        hub.setdefault("repo_id", Path(save_directory).name)
        with replacing_files(save_directory) as partial:
            return super().save_pretrained(partial, **hub)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_world(save_directory, self.tokenizer, self.dynamics, self.steering, self.sampling, self.buttons)
        if self.prompts:
            write_prompts(save_directory / PROMPTS, self.prompts)

    def generate_model_card(self, **details) -> ModelCard:
        """The card that it was loaded with, unless there are details to tell."""
        if self._card is not None and not details:
            return ModelCard(self._card)
        fingerprints = {model.kind: made_from(model) for model in (self.tokenizer, self.dynamics)}
        return super().generate_model_card(world=self, **fingerprints, **details)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.dynamics.parameters()).device

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
        memory = self.remember(frames_BTHWC, prompt_actions_BS)
        for action_B in actions_BS.unbind(1):
            memory = self.advance(memory, action_B, generator)
            yield self.decode(memory)

    def remember(self, frames_BTHWC: torch.Tensor, actions_BS: torch.Tensor | None) -> Memory:
        """What the dynamics knows of a prompt.

        Args:
            frames_BTHWC: uint8, T >= 1; the last C frames are used.
            actions_BS: latent actions between them, or None where they are not known.
        """
        num_frames = min(frames_BTHWC.shape[1], self.context_frames)
        batch_size, frames_BTHWC = len(frames_BTHWC), frames_BTHWC[:, -num_frames:]
        tokens_BTN = self.tokenizer.encode(frames_BTHWC.flatten(0, 1)).unflatten(0, (batch_size, num_frames))
        led_to_BT = torch.full((batch_size, num_frames), self.dynamics.no_action, device=tokens_BTN.device)
        if actions_BS is not None and num_frames > 1:
            led_to_BT[:, 1:] = actions_BS[:, -(num_frames - 1) :]
        return self.dynamics.remember(tokens_BTN, led_to_BT)

    def advance(self, memory: Memory, action_B: torch.Tensor, generator: torch.Generator | None) -> Memory:
        """The memory that holds the next frame too, to which latent actions lead."""
        steps, temperature = self.sampling.maskgit_steps, self.sampling.temperature
        return sample_frame(self.dynamics, memory, action_B, steps, temperature, generator)

    def decode(self, memory: Memory) -> torch.Tensor:
        """The last frame in memory, uint8 `(B, H, W, 3)`; motion compensation has decoded it already."""
        return memory.motion.frame_BHWC if memory.motion else self.tokenizer.decode(memory.last_BN)

    @torch.inference_mode()
    def reset(self, frames: np.ndarray, *, actions: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
        """Begins to play from a prompt; the world is then in the state that `step` goes on from.

        Args:
            frames: uint8 `(T, H, W, 3)`, or `(B, T, H, W, 3)` to play B worlds at once; T >= 1, the last C are used.
            actions: `(T-1,)` or `(B, T-1)` latent actions between them, where they are known.
            seed: of all that is drawn until the next reset.

        Returns:
            The prompt's last frame as the world sees it, through its tokens: uint8 `(H, W, 3)` or `(B, H, W, 3)`.

        Raises:
            WorldError: these are no such frames or actions.
        """
        frames = np.asarray(frames)
        if (
            frames.dtype != np.uint8
            or frames.ndim not in (4, 5)
            or frames.shape[-3:] != FRAME_SHAPE
            or 0 in frames.shape
        ):
            raise WorldError(
                f"a prompt is uint8 (T, 64, 64, 3) or (B, T, 64, 64, 3), got {frames.dtype} {frames.shape}"
            )
        batched = frames.ndim == 5
        frames_BTHWC = torch.tensor(frames if batched else frames[None], device=self.device)
        actions_BS = None
        if actions is not None:
            actions_BS = self._latent_actions(actions, (*frames.shape[: frames.ndim - 4], frames.shape[-4] - 1))
            actions_BS = actions_BS.reshape(len(frames_BTHWC), -1)
        self._dream, self._batched = Dream(self, frames_BTHWC, actions_BS, seed), batched
        return self._shown(self._dream.frame_BHWC)

    @torch.inference_mode()
    def step(self, action: int | np.ndarray) -> np.ndarray:
        """Presses a latent action, and goes one frame on.

        Args:
            action: in [0, A); `(B,)` of them where B worlds are played.

        Returns:
            The next frame, uint8 `(H, W, 3)` or `(B, H, W, 3)`.

        Raises:
            WorldError: there is no such action, or nothing to go on from.
        """
        dream = self._played()
        action_B = self._latent_actions(action, (len(dream),) if self._batched else ()).reshape(-1)
        return self._shown(dream.step(self, action_B))

    def steer(self, effect: int | np.ndarray) -> int | np.ndarray:
        """The latent action to press now for an effective true one, which depends on the past.

        Args:
            effect: index in `EFFECTIVE_ACTIONS`; `(B,)` of them where B worlds are played.

        Returns:
            What `step` is to be told.

        Raises:
            WorldError: there is no such action, or nothing to go on from.
        """
        latents = self.arrows()
        effect = _whole_numbers(effect, latents.shape[:-1], len(EFFECTIVE_ACTIONS), "effective actions")
        return latents[np.arange(len(latents)), effect] if self._batched else int(latents[effect])

    @torch.inference_mode()
    def arrows(self) -> np.ndarray:
        """The latent actions that all arrows press now: int64 `(E,)`, or `(B, E)` where B worlds are played.

        Raises:
            WorldError: there is nothing to go on from.
        """
        return self._shown(self._played().arrows(self))

    @torch.inference_mode()
    def imagine(self) -> np.ndarray:
        """What each latent action would lead to, uint8 `(A, H, W, 3)`, or `(B, A, H, W, 3)` where B worlds are played;
        the world stays where it is.

        Raises:
            WorldError: there is nothing to go on from.
        """
        many = self._played().repeated(self, self.num_actions)
        actions_M = torch.arange(len(many), device=self.device) % self.num_actions
        return self._shown(many.step(self, actions_M).unflatten(0, (-1, self.num_actions)))

    @torch.inference_mode()
    def fork(self, copies: int | None = None) -> "WorldModel":
        """Another world of the same weights in the same state: from now on, each goes its own way.

        Args:
            copies: each world that is played so many times in a row, as a batch.
        """
        other = copy(self)
        if copies is not None:
            other._dream, other._batched = self._played().repeated(self, copies), True
        elif self._dream is not None:
            other._dream = self._dream.fork()
        return other

    def _played(self) -> Dream:
        if self._dream is None:
            raise WorldError("nothing to go on from: call reset(frames) with a prompt first")
        return self._dream

    def _latent_actions(self, actions: int | np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
        actions = _whole_numbers(actions, shape, self.num_actions, "latent actions")
        return torch.tensor(actions, dtype=torch.int64, device=self.device)

    def _shown(self, parts_B: torch.Tensor) -> np.ndarray:
        """An array of all worlds, or of the only one."""
        return parts_B.cpu().numpy() if self._batched else parts_B[0].cpu().numpy()


def _whole_numbers(numbers: int | np.ndarray, shape: tuple[int, ...], count: int, name: str) -> np.ndarray:
    """Numbers in [0, count) as an array of that shape; raises WorldError if they are none."""
    numbers = np.asarray(numbers)
    known = np.issubdtype(numbers.dtype, np.integer) and numbers.shape == shape
    if not known or (numbers.size and not 0 <= numbers.min() <= numbers.max() < count):
        raise WorldError(
            f"{numbers.tolist()!r}: {name} are whole numbers from 0 to {count - 1}"
            + (f", here of shape {shape}" if shape else ", here a single one")
        )
    return numbers
