"""Session of one client: its world, the prompt, the twin and the recording.

Legend: `T` frames, `A` latent actions, `H W C` pixels, uint8 RGB.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch

from genie.core.actions import game_actions
from genie.core.frames import FRAME_SHAPE, psnr
from genie.core.params import CollectParams
from genie.play.messages import (
    MAX_MASKGIT_STEPS,
    Again,
    FromLevel,
    FromPrompt,
    Message,
    MessageError,
    Press,
    Record,
    Save,
    Settings,
    Steer,
    file_reply,
    reply,
)
from genie.play.recording import MAX_FRAMES, Recording
from genie.world.batching import step_together
from genie.world.controls import STILL, key_chords
from genie.world.prompts import Prompt
from genie.world.world_model import WorldModel

if TYPE_CHECKING:
    from genie.sources.twin import RealGame

Result = TypeVar("Result")


class Session:
    """Answers the messages of one client, one at a time; not thread-safe.

    Args:
        world: the session plays a fork of it.
        game: params of the real game.
    """

    def __init__(self, world: WorldModel, game: CollectParams):
        self._world = world.fork()
        self._game = game
        self._settings = Settings(
            kind="settings",
            seed=0,
            maskgit_steps=min(world.sampling.maskgit_steps, MAX_MASKGIT_STEPS),
            temperature=world.sampling.temperature,
            imagine=False,
        )
        self._world.sampling = self._settings.sampling
        # Buttons of which nothing is known but frames are shown by what they make of the first one.
        self._shows_examples = not any(button.names or button.motion for button in world.buttons)
        # A world of the game that the simulator plays has its arrows and frames of its size.
        plays_game = world.action_names == game_actions(game.env_name).names
        self._has_levels = plays_game and world.frame_shape == FRAME_SHAPE
        self._recording = Recording()
        self._prompt: Prompt | None = None
        self._twin: RealGame | None = None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """H, W and 3 of the world's frames."""
        return self._world.frame_shape

    def hello(self) -> bytes:
        """Returns what a page needs in order to play, with the last frame of each prompt.

        `chords` pairs keys that are held together with the index of the arrow that they stand for, or of the button
        that they press in a world without arrows.
        """
        return reply(
            "hello",
            [prompt.frames_THWC[-1] for prompt in self._world.prompts],
            prompts=[prompt.source for prompt in self._world.prompts],
            effects=self._world.action_names,
            chords=[
                [sorted(keys), pressed]
                for keys, pressed in key_chords(self._world.action_names, self._world.buttons).items()
            ],
            buttons=[
                {**asdict(button), "action": button.action, "confidence": button.confidence, "title": button.title}
                for button in self._world.buttons
            ],
            still=STILL,
            settings=self._settings.model_dump(exclude={"kind"}),
            frame_size=self.frame_shape[0],
            record_limit=MAX_FRAMES,
            levels=self._has_levels and _simulator_is_installed(),
            lacks_simulator=self._has_levels and not _simulator_is_installed(),
        )

    def answer(self, message: Message) -> bytes:
        """Executes a message of the page and returns the reply.

        Raises:
            MessageError, WorldError, RecordingError: the message cannot be executed; the session is unchanged.
        """
        match message:
            case FromPrompt(index=index):
                if index >= len(self._world.prompts):
                    raise MessageError(f"there is no prompt {index}: this world has {len(self._world.prompts)}")
                return self.start(self._world.prompts[index])
            case FromLevel(level=level, twin=twin):
                if not self._has_levels:
                    raise MessageError(f"this world has no levels: it was not learnt from {self._game.env_name}")
                return self._start_level(_open_game(self._game, level), twin)
            case Again():
                self._need_start()
                if self._twin:
                    self._twin.again()
                return self._reset()
            case Press() | Steer():
                (answered,) = press_together([self], [message])
                if isinstance(answered, Exception):
                    raise answered
                return answered
            case Settings():
                self._settings, self._world.sampling = message, message.sampling
                return reply("settings")
            case Record(on=on):
                self._recording.turn(on)
                return reply("recording", on=on)
            case Save(format=format, frames_per_second=frames_per_second):
                return file_reply("file", self._recording.encode(format, frames_per_second), name=f"dream.{format}")

    def start(self, prompt: Prompt) -> bytes:
        """Starts a dream from a prompt, without a twin."""
        self.close()
        self._prompt = prompt
        return self._reset()

    def close(self) -> None:
        """Closes the twin, if there is one."""
        if self._twin:
            self._twin.close()
        self._twin = None

    def _start_level(self, game: "RealGame", twin: bool, **facts) -> bytes:
        assert self._world.steering is not None
        frames_THWC, effects = game.begin(self._world.context_frames)
        film_THWC = torch.from_numpy(frames_THWC).to(self._world.device)
        actions = np.array(self._world.steering.press_in_turn(film_THWC, effects), np.int64)
        prompt = Prompt(frames_THWC, actions, f"level {game.level_seed}")
        if game is not self._twin:
            self.close()
        self._prompt = prompt
        if twin:
            self._twin = game
        else:
            game.close()
        return self._reset(**facts)

    def _reset(self, **facts) -> bytes:
        prompt = self._prompt
        assert prompt is not None
        frame_HWC = self._world.reset(prompt.frames_THWC, actions=prompt.actions, seed=self._settings.seed)
        self._step_count = 0
        return self._show(frame_HWC, prompt.frames_THWC[-1] if self._twin else None, pressed=None, **facts)

    def _latent_action(self, message: Press | Steer) -> int:
        """The latent action that a message presses now.

        Raises:
            MessageError, WorldError: it cannot be pressed.
        """
        self._need_start()
        if isinstance(message, Steer):
            return cast(int, self._world.steer(self._effect_of(message)))
        self._world.pressed(message.action)
        return message.action

    def _effect_of(self, message: Steer) -> int:
        """Index of the effective action of an arrow.

        Raises:
            MessageError: the world has no such arrow.
        """
        names = self._world.action_names
        if message.effect not in names:
            raise MessageError(f"effect: this world's arrows are {', '.join(names) or 'none'}, got {message.effect!r}")
        return names.index(message.effect)

    def _stepped(self, message: Press | Steer, action: int, frame_HWC: np.ndarray) -> bytes:
        """The reply to a message that pressed a latent action, which led to a frame."""
        self._step_count += 1
        if not self._twin:
            return self._show(frame_HWC, None, pressed=action)
        steered = isinstance(message, Steer)
        effect = self._effect_of(message) if steered else self._world.buttons[action].effect
        real_HWC, ended = self._twin.step(effect)
        if ended:
            return self._start_level(self._twin, twin=True, ended=True)
        return self._show(frame_HWC, real_HWC, pressed=action)

    def _show(self, frame_HWC: np.ndarray, real_HWC: np.ndarray | None, **facts) -> bytes:
        assert self._prompt is not None
        shown = [frame_HWC] if real_HWC is None else [frame_HWC, real_HWC]
        self._recording.show(np.stack(shown))
        imagines = self._settings.imagine or (self._shows_examples and self._step_count == 0)
        imagined = self._world.imagine() if imagines else ()
        return reply(
            "frame",
            [*shown, *imagined],
            source=self._prompt.source,
            step=self._step_count,
            twin=real_HWC is not None,
            steering=self._world.arrows().tolist(),
            psnr=None if real_HWC is None else _likeness(frame_HWC, real_HWC),
            imagined=len(imagined),
            recording=self._recording.is_on,
            recorded=len(self._recording),
            **facts,
        )

    def _need_start(self) -> None:
        if self._prompt is None:
            raise MessageError("nothing is played yet: start from a prompt, a level or a picture")


def press_together(
    sessions: Sequence[Session], messages: Sequence[Press | Steer], num_threads: int = 1
) -> list[bytes | Exception]:
    """Answers one press of each of many sessions of one world, whose dreams are stepped as a batch.

    Args:
        sessions: the sessions, all different.
        messages: the press of each.
        num_threads: threads that step the dreams.

    Returns:
        The reply to each, or the error that it ended in. An error of one leaves the others as they are.
    """
    pressed = [_attempt(session._latent_action, message) for session, message in zip(sessions, messages, strict=True)]
    actions = {index: action for index, action in enumerate(pressed) if isinstance(action, int)}
    frames = step_together([sessions[index]._world for index in actions], list(actions.values()), num_threads)
    answers = {
        index: _attempt(sessions[index]._stepped, messages[index], action, frame_HWC)
        for (index, action), frame_HWC in zip(actions.items(), frames, strict=True)
    }
    return [answers.get(index, fault) for index, fault in enumerate(pressed)]  # pyright: ignore[reportReturnType]


def _attempt(call: Callable[..., Result], *arguments) -> Result | Exception:
    try:
        return call(*arguments)
    except Exception as fault:
        return fault


def _simulator_is_installed() -> bool:
    return any(find_spec(name) for name in ("procgen", "procgen_gym"))


def _open_game(params: CollectParams, level: int) -> "RealGame":
    """Opens a level of the real game.

    Raises:
        MessageError: no simulator is installed, or it cannot be loaded.
    """
    if not _simulator_is_installed():
        raise MessageError("levels need the simulator: pip install 'mini-genie[train]'")
    # Imported here, since playing a world does not need the simulator.
    from genie.sources.engines import EngineError
    from genie.sources.twin import RealGame

    try:
        return RealGame(params, level)
    except EngineError as fault:
        raise MessageError(str(fault)) from None


def _likeness(frame_HWC: np.ndarray, real_HWC: np.ndarray) -> float:
    """PSNR between a dreamed frame and the real one, in dB."""
    return round(psnr(np.square(frame_HWC.astype(np.float32) - real_HWC).mean() / 255**2), 2)
