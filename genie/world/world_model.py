"""The playable world: a tokenizer and a dynamics model, prompted with frames and driven by latent actions.

Axes: `B` batch, `T` prompt frames, `S` dreamed frames, `H W C` pixels, `N` tokens per frame, `A` latent actions, `E`
effective actions.
"""

from collections.abc import Hashable, Iterator, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import nn

from genie.models.checkpoint import CheckpointError, load_if_trained, load_model
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
    """A world is played in an invalid way; the message names the cause and the fix."""


class WorldModel(
    nn.Module,
    PyTorchModelHubMixin,
    license="mit",
    library_name="mini-genie",
    tags=["world-model", "genie"],
    paper_url="https://arxiv.org/abs/2402.15391",
    model_card_template=CARD_TEMPLATE,
):
    """A playable world: generates frames from prompt frames and latent actions (Genie, section 2.2).

    Attributes:
        action_names: the effective actions that arrows stand for; empty in a world without arrows.
        frame_shape: H, W and 3 of its frames.

    Args:
        tokenizer: tokenizer in eval mode.
        dynamics: dynamics model in eval mode, trained on that tokenizer's tokens.
        steering: steering in eval mode: which latent action an arrow presses; None if the true actions are unknown, in
            which case there are no arrows.
        sampling: MaskGIT steps and temperature.
        buttons: what each latent action does.
        prompts: prompts to start from, if any; saved with the world.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dynamics: Dynamics,
        steering: Steering | None,
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
        self.action_names = self.buttons[0].names if steering is not None else ()
        self.prompts = tuple(prompts)
        self.frame_shape = (tokenizer.config.image_size, tokenizer.config.image_size, 3)
        self.num_actions = dynamics.config.num_actions
        self.context_frames = dynamics.config.context_frames
        self._card: str | None = None
        self._dream: Dream | None = None
        self._batched = False
        self.eval()

    @classmethod
    def load(cls, models: str | Path, sampling: Sampling, device: torch.device | str = "cpu") -> "WorldModel":
        """Loads a world from a folder with the checkpoints `tokenizer/`, `dynamics/` and `steering/`, and
        `buttons.json`.

        Raises:
            CheckpointError: a checkpoint is missing or damaged, or was trained on output of another tokenizer or LAM.
            ButtonsError: the buttons are missing or damaged.
        """
        tokenizer = load_model(Path(models) / "tokenizer", Tokenizer, device)
        dynamics = load_model(Path(models) / "dynamics", Dynamics, device)
        trained_on, found = dynamics.config.tokenizer_fingerprint, tokenizer.fingerprint
        if trained_on != found:
            raise CheckpointError(
                f"{models}: the dynamics was trained on tokens of tokenizer {trained_on}, "
                f"and this is tokenizer {found}; rebuild both with: dvc repro"
            )
        steering = load_if_trained(Path(models) / "steering", Steering, device)
        known = dynamics.config.lam_fingerprint
        if steering is not None and steering.config.lam_fingerprint != known:
            raise CheckpointError(
                f"{models}: arrows press latent actions of {steering.config.lam_fingerprint}, and the dynamics knows "
                f"those of {known}; rebuild both with: dvc repro"
            )
        return cls(tokenizer, dynamics, steering, sampling, read_buttons(models))

    @classmethod
    def from_pretrained(
        cls, folder_or_hub_id: str | Path | None = None, device: torch.device | str = "cpu", **download
    ) -> "WorldModel":
        """Loads a world written by `save_pretrained` or `genie export`, by default the shipped one.

        Overrides the mixin's method, which would also read pickles.

        Args:
            folder_or_hub_id: folder of the world, or its name on the Hugging Face hub; None: the shipped world.
            device: device of the world.
            download: further options of `huggingface_hub.snapshot_download`, such as `revision`.

        Raises:
            PretrainedError: the world is missing or damaged.
            PromptError: its prompts are damaged, or of another world.
        """
        folder = find_world(folder_or_hub_id, **download)
        world = cls(*read_world(folder, device))
        if (folder / PROMPTS).is_file():
            world.prompts = read_prompts(folder / PROMPTS, world.frame_shape)
        if (folder / CARD).is_file():
            world._card = (folder / CARD).read_text(encoding="utf-8")
        return world

    def save_pretrained(self, save_directory: str | Path, **hub) -> str | None:
        """Writes the world into a folder in half precision, completely or not at all; other files there are kept.

        Args:
            save_directory: the folder; created if necessary.
            hub: further options of the mixin: `push_to_hub`, `repo_id`; and `model_card_kwargs`, additional contents of
                the model card: `made` (a sentence), `halving_cost`, `metrics` (a table).

        Raises:
            OSError: the world cannot be written; the previous files are kept.
        """
        hub.setdefault("repo_id", Path(save_directory).name)
        with replacing_files(save_directory) as partial:
            return super().save_pretrained(partial, **hub)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_world(save_directory, self.tokenizer, self.dynamics, self.steering, self.sampling, self.buttons)
        if self.prompts:
            write_prompts(save_directory / PROMPTS, self.prompts)

    def generate_model_card(self, **details) -> ModelCard:
        """The model card that the world was loaded with; a new card if there is none, or if details are given."""
        if self._card is not None and not details:
            return ModelCard(self._card)
        fingerprints = {model.kind: made_from(model) for model in (self.tokenizer, self.dynamics)}
        return super().generate_model_card(world=self, **fingerprints, **details)

    @property
    def device(self) -> torch.device:
        """Device of the world."""
        return next(self.dynamics.parameters()).device

    def rollout(
        self,
        frames_BTHWC: torch.Tensor,
        actions_BS: torch.Tensor,
        generator: torch.Generator | None = None,
        prompt_actions_BS: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The frames that `stream` yields, stacked: uint8 `(B, S, H, W, 3)`."""
        return torch.stack(list(self.stream(frames_BTHWC, actions_BS, generator, prompt_actions_BS)), dim=1)

    @torch.no_grad()
    def stream(
        self,
        frames_BTHWC: torch.Tensor,
        actions_BS: torch.Tensor,
        generator: torch.Generator | None = None,
        prompt_actions_BS: torch.Tensor | None = None,
    ) -> Iterator[torch.Tensor]:
        """Dreams the frames that follow a prompt, one by one.

        Args:
            frames_BTHWC: uint8 prompt, T >= 1; the last `context_frames` are used.
            actions_BS: latent actions; the first leads from the prompt's last frame to the first dreamed one.
            generator: source of randomness; dreams that start with the same state of it differ only by their actions.
            prompt_actions_BS: `(B, T-1)` latent actions between the prompt's frames, or None if they are unknown.

        Yields:
            S batches of uint8 frames `(B, H, W, 3)`.
        """
        memory = self.remember(frames_BTHWC, prompt_actions_BS)
        for action_B in actions_BS.unbind(1):
            memory = self.advance(memory, action_B, [generator])
            yield self.decode(memory)

    def remember(self, frames_BTHWC: torch.Tensor, actions_BS: torch.Tensor | None) -> Memory:
        """The dynamics model's memory of a prompt.

        Args:
            frames_BTHWC: uint8, T >= 1; the last `context_frames` are used.
            actions_BS: latent actions between them, or None if they are unknown.

        Raises:
            WorldError: the frames are not of the world's size.
        """
        if frames_BTHWC.shape[2:] != self.frame_shape:
            raise self._wrong_prompt(frames_BTHWC)
        num_frames = min(frames_BTHWC.shape[1], self.context_frames)
        batch_size, frames_BTHWC = len(frames_BTHWC), frames_BTHWC[:, -num_frames:]
        tokens_BTN = self.tokenizer.encode(frames_BTHWC.flatten(0, 1)).unflatten(0, (batch_size, num_frames))
        led_to_BT = torch.full((batch_size, num_frames), self.dynamics.no_action, device=tokens_BTN.device)
        if actions_BS is not None and num_frames > 1:
            led_to_BT[:, 1:] = actions_BS[:, -(num_frames - 1) :]
        return self.dynamics.remember(tokens_BTN, led_to_BT)

    def advance(self, memory: Memory, action_B: torch.Tensor, generators: Sequence[torch.Generator | None]) -> Memory:
        """The memory extended by the next frame, sampled given the latent actions that lead to it. Each generator is
        the source of randomness of an equal number of consecutive worlds."""
        steps, temperature = self.sampling.maskgit_steps, self.sampling.temperature
        return sample_frame(self.dynamics, memory, action_B, steps, temperature, generators)

    def decode(self, memory: Memory) -> torch.Tensor:
        """The last frame in memory, uint8 `(B, H, W, 3)`. With motion compensation, it is already decoded."""
        return memory.motion.frame_BHWC if memory.motion else self.tokenizer.decode(memory.last_BN)

    @torch.inference_mode()
    def reset(self, frames: np.ndarray, *, actions: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
        """Starts a dream from a prompt, which `step` then continues.

        Args:
            frames: uint8 `(T, H, W, 3)`, or `(B, T, H, W, 3)` to play B worlds at once; T >= 1, the last
                `context_frames` are used.
            actions: `(T-1,)` or `(B, T-1)` latent actions between them, or None if they are unknown.
            seed: seed of all sampling until the next reset.

        Returns:
            The prompt's last frame, encoded and decoded by the tokenizer: uint8 `(H, W, 3)` or `(B, H, W, 3)`.

        Raises:
            WorldError: the frames or actions have a wrong type, shape or range.
        """
        frames = np.asarray(frames)
        if (
            frames.dtype != np.uint8
            or frames.ndim not in (4, 5)
            or frames.shape[-3:] != self.frame_shape
            or 0 in frames.shape
        ):
            raise self._wrong_prompt(frames)
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
        """Advances the dream by one frame, given a latent action.

        Args:
            action: latent action in [0, A), or `(B,)` of them if B worlds are played.

        Returns:
            The next frame, uint8 `(H, W, 3)` or `(B, H, W, 3)`.

        Raises:
            WorldError: the action is invalid, or `reset` was not called.
        """
        return self.step_batch([self], [action])[0]

    @staticmethod
    @torch.inference_mode()
    def step_batch(worlds: Sequence["WorldModel"], actions: Sequence[int | np.ndarray]) -> list[np.ndarray]:
        """Steps forks of one world, whose `layout` is equal, in one forward pass; each as `step` does, up to rounding.

        Args:
            worlds: the forks, all different.
            actions: the argument of `step` for each.

        Returns:
            What `step` returns, for each.

        Raises:
            WorldError: as `step`; no world is stepped.
        """
        action_M = torch.cat([world.pressed(action) for world, action in zip(worlds, actions, strict=True)])
        together = Dream.joined([world._played() for world in worlds])
        together.step(worlds[0], action_M)
        for world, dream in zip(worlds, together.split(), strict=True):
            world._dream = dream
        return [world._shown(world._played().frame_BHWC) for world in worlds]

    @property
    def layout(self) -> Hashable:
        """Forks of one world can be stepped as a batch if their layouts are equal: if they have the same sampling
        settings, and remember the same number of frames, which is `context_frames` once that many were seen.

        Raises:
            WorldError: `reset` was not called.
        """
        return self.sampling, self._played().layout

    def pressed(self, action: int | np.ndarray) -> torch.Tensor:
        """The latent actions `(B,)` of an argument of `step`.

        Raises:
            WorldError: as `step`.
        """
        shape = (len(self._played()),) if self._batched else ()
        return self._latent_actions(action, shape).reshape(-1)

    def steer(self, effect: int | np.ndarray) -> int | np.ndarray:
        """The latent action that stands for an effective action now; it depends on the past.

        Args:
            effect: index in `action_names`, or `(B,)` of them if B worlds are played.

        Returns:
            The argument for `step`.

        Raises:
            WorldError: the effective action is invalid, the world has no arrows, or `reset` was not called.
        """
        latents = self.arrows()
        if not self.action_names:
            raise WorldError("this world has no arrows, since no true actions were recorded: press a latent action")
        effect = _whole_numbers(effect, latents.shape[:-1], len(self.action_names), "effective actions")
        return latents[np.arange(len(latents)), effect] if self._batched else int(latents[effect])

    @torch.inference_mode()
    def arrows(self) -> np.ndarray:
        """The latent action that each arrow presses now: int64 `(E,)`, or `(B, E)` if B worlds are played; E is 0 in a
        world without arrows.

        Raises:
            WorldError: `reset` was not called.
        """
        return self._shown(self._played().arrows(self))

    @torch.inference_mode()
    def imagine(self) -> np.ndarray:
        """The next frame under each latent action: uint8 `(A, H, W, 3)`, or `(B, A, H, W, 3)` if B worlds are played.

        The state of the dream does not change.

        Raises:
            WorldError: `reset` was not called.
        """
        many = self._played().repeated(self, self.num_actions)
        actions_M = torch.arange(len(many), device=self.device) % self.num_actions
        return self._shown(many.step(self, actions_M).unflatten(0, (-1, self.num_actions)))

    @torch.inference_mode()
    def fork(self, copies: int | None = None) -> "WorldModel":
        """A world that shares the weights and has an independent copy of the state.

        Args:
            copies: repeats each world that is played this many times in a row, as a batch.
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

    def _wrong_prompt(self, frames: np.ndarray | torch.Tensor) -> WorldError:
        shape, found = "{}, {}, {}".format(*self.frame_shape), f"{frames.dtype} {tuple(frames.shape)}"
        return WorldError(
            f"a prompt of this world is uint8 (T, {shape}) or (B, T, {shape}), got {found.removeprefix('torch.')}"
        )

    def _latent_actions(self, actions: int | np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
        actions = _whole_numbers(actions, shape, self.num_actions, "latent actions")
        return torch.tensor(actions, dtype=torch.int64, device=self.device)

    def _shown(self, parts_B: torch.Tensor) -> np.ndarray:
        """Converts to an array, without the batch axis if a single world is played."""
        return parts_B.cpu().numpy() if self._batched else parts_B[0].cpu().numpy()


def _whole_numbers(numbers: int | np.ndarray, shape: tuple[int, ...], count: int, name: str) -> np.ndarray:
    """Converts to an array of integers in [0, count); raises WorldError if their type, shape or range is wrong."""
    numbers = np.asarray(numbers)
    known = np.issubdtype(numbers.dtype, np.integer) and numbers.shape == shape
    if not known or (numbers.size and not 0 <= numbers.min() <= numbers.max() < count):
        raise WorldError(
            f"{numbers.tolist()!r}: {name} are whole numbers from 0 to {count - 1}"
            + (f", here of shape {shape}" if shape else ", here a single one")
        )
    return numbers
