"""Messages between the page and the server, over one WebSocket.

The page sends JSON, or the raw pixels of a frame to start from. Each message gets one reply, in order. The page asks
for the next frame after it has received the last one, so nothing queues. A reply is binary: a line of JSON, a newline,
and then the raw pixels of RGB frames of the world's size, whose number is in `frames`, or the bytes of the file that it
names. Pixels are raw because a frame is only 12 to 48 KiB: a PNG would be smaller, but would cost both sides
computation.

Legend: `M` frames, `H W C` pixels, uint8 RGB.
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from genie.core.params import Seed, Strict
from genie.world.maskgit import Sampling

MAX_MESSAGE_BYTES = 2**16  # from the page; the largest frame has 48 KiB
MAX_MASKGIT_STEPS = 32  # per frame; clients wait for each other's steps


class MessageError(ValueError):
    """A message of the page is invalid; the error message names the cause and the fix."""


class FromPrompt(Strict):
    """Start from one of the world's prompts, given by its index."""

    kind: Literal["prompt"]
    index: Annotated[int, Field(ge=0)]


class FromLevel(Strict):
    """Start from a held-out level of the real game; with `twin`, the real game continues beside the dream."""

    kind: Literal["level"]
    level: Seed
    twin: bool


class Again(Strict):
    """Restart from the same prompt or level."""

    kind: Literal["reset"]


class Press(Strict):
    """Press a latent action and advance one frame."""

    kind: Literal["press"]
    action: int


class Steer(Strict):
    """Press the latent action that stands for an effective action, and advance one frame."""

    kind: Literal["steer"]
    effect: str


class Settings(Strict):
    """Sampling settings; the seed takes effect at the next start, the others at the next frame."""

    kind: Literal["settings"]
    seed: Seed
    maskgit_steps: Annotated[int, Field(ge=1, le=MAX_MASKGIT_STEPS)]
    temperature: Annotated[float, Field(ge=0, le=100)]
    imagine: bool

    @property
    def sampling(self) -> Sampling:
        return Sampling(maskgit_steps=self.maskgit_steps, temperature=self.temperature)


class Record(Strict):
    """Start recording the frames shown, which discards the previous recording; or stop."""

    kind: Literal["record"]
    on: bool


class Save(Strict):
    """Send the recording as a file."""

    kind: Literal["save"]
    format: Literal["gif", "mp4"]
    frames_per_second: Annotated[int, Field(ge=1, le=60)]


Message = FromPrompt | FromLevel | Again | Press | Steer | Settings | Record | Save
_MESSAGE = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def parse_message(text: str) -> Message:
    """Parses a text message of the page.

    Raises:
        MessageError: it is not JSON, or not a valid message.
    """
    try:
        return _MESSAGE.validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, fault["loc"]))
        raise MessageError(f"{key}: {fault['msg']}" if key else fault["msg"]) from None


def parse_frame(pixels: bytes, frame_shape: tuple[int, int, int]) -> np.ndarray:
    """Parses a frame `(H, W, C)` of a shape that the page sent as raw pixels.

    Raises:
        MessageError: the number of bytes is wrong.
    """
    if len(pixels) != math.prod(frame_shape):
        height, width, _ = frame_shape
        raise MessageError(
            f"a frame of this world is {math.prod(frame_shape)} bytes of {height}x{width} RGB, got {len(pixels)}"
        )
    return np.frombuffer(pixels, np.uint8).reshape(frame_shape)


def reply(kind: str, frames_MHWC: Sequence[np.ndarray] = (), **facts) -> bytes:
    """Encodes a reply that carries frames."""
    return file_reply(kind, b"".join(frame.tobytes() for frame in frames_MHWC), frames=len(frames_MHWC), **facts)


def file_reply(kind: str, content: bytes, **facts) -> bytes:
    """Encodes a reply that carries arbitrary bytes."""
    return json.dumps({"kind": kind, **facts}).encode() + b"\n" + content
