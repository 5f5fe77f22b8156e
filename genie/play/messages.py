"""What the page and the server say to each other, over one WebSocket.

The page sends JSON, or the raw pixels of a frame to start from. To each message comes one reply, in order, and the page
asks for the next frame when it has the last: so nothing ever queues. A reply is binary: a line of JSON, a newline, and
then the raw pixels of as many 64x64 RGB frames as its `frames` says, or of the file that it names. Raw, since a frame
is 12 KiB: a PNG would be smaller and cost both sides work.

Legend: `M` frames, `H W C` pixels, uint8 RGB.
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from genie.core.actions import EFFECTIVE_ACTIONS
from genie.core.frames import FRAME_SHAPE
from genie.core.params import Seed, Strict
from genie.world.maskgit import Sampling

MAX_MESSAGE_BYTES = 2**16  # of the page's: a frame is 12 KiB
MAX_MASKGIT_STEPS = 32  # a frame; all clients wait for each other's
Effect = Literal[EFFECTIVE_ACTIONS]


class MessageError(ValueError):
    """The page said what it cannot; the message names the cause and the fix."""


class FromPrompt(Strict):
    """Start from a prompt of the world's, known by its index."""

    kind: Literal["prompt"]
    index: Annotated[int, Field(ge=0)]


class FromLevel(Strict):
    """Start from a held-out level of the real game; with `twin`, it is played on beside the dream."""

    kind: Literal["level"]
    level: Seed
    twin: bool


class Again(Strict):
    """Start from the same once more."""

    kind: Literal["reset"]


class Press(Strict):
    """Press a latent action, and go a frame on."""

    kind: Literal["press"]
    action: int


class Steer(Strict):
    """Press what stands for an effective action, and go a frame on."""

    kind: Literal["steer"]
    effect: Effect  # pyright: ignore[reportInvalidTypeForm]


class Settings(Strict):
    """How frames are drawn; the seed counts from the next start on, all else from the next frame on."""

    kind: Literal["settings"]
    seed: Seed
    maskgit_steps: Annotated[int, Field(ge=1, le=MAX_MASKGIT_STEPS)]
    temperature: Annotated[float, Field(ge=0, le=100)]
    imagine: bool

    @property
    def sampling(self) -> Sampling:
        return Sampling(maskgit_steps=self.maskgit_steps, temperature=self.temperature)


class Record(Strict):
    """Begin to keep the frames shown, those kept before are forgotten; or stop."""

    kind: Literal["record"]
    on: bool


class Save(Strict):
    """Send what was recorded, as a file."""

    kind: Literal["save"]
    format: Literal["gif", "mp4"]
    frames_per_second: Annotated[int, Field(ge=1, le=60)]


Message = FromPrompt | FromLevel | Again | Press | Steer | Settings | Record | Save
_MESSAGE = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def parse_message(text: str) -> Message:
    """Reads what the page sent as text.

    Raises:
        MessageError: it is not JSON, or says something other than it must.
    """
    try:
        return _MESSAGE.validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, fault["loc"]))
        raise MessageError(f"{key}: {fault['msg']}" if key else fault["msg"]) from None


def parse_frame(pixels: bytes) -> np.ndarray:
    """The frame `(H, W, C)` that the page sent as raw pixels.

    Raises:
        MessageError: their number is another.
    """
    if len(pixels) != math.prod(FRAME_SHAPE):
        raise MessageError(f"a frame is {math.prod(FRAME_SHAPE)} bytes of 64x64 RGB, got {len(pixels)}")
    return np.frombuffer(pixels, np.uint8).reshape(FRAME_SHAPE)


def reply(kind: str, frames_MHWC: Sequence[np.ndarray] = (), **facts) -> bytes:
    """A reply that carries frames."""
    return file_reply(kind, b"".join(frame.tobytes() for frame in frames_MHWC), frames=len(frames_MHWC), **facts)


def file_reply(kind: str, content: bytes, **facts) -> bytes:
    """A reply that carries any bytes."""
    return json.dumps({"kind": kind, **facts}).encode() + b"\n" + content
