"""Prompts: the frames a dream starts from, taken from the test split or from any picture.

Legend: `T` prompt frames, `S` transitions, `M` clips, `H W C` pixels; frames are uint8 RGB.
"""

import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow opens others with external programs
VERSION = 1  # of the prompt file format
MAX_PIXELS = 24 * 10**6  # of a fully decoded picture, which temporarily takes up to 300 MB
ENOUGH = (512, 512)  # size in pixels that suffices for scaling to a frame


class PromptError(ValueError):
    """A prompt is unusable; the message names the cause and the fix."""


@dataclass(frozen=True)
class Prompt:
    """Frames a dream starts from.

    Attributes:
        frames_THWC: consecutive frames.
        actions: `(T - 1,)` int64 latent actions between them, or None if they are unknown.
        source: description of its origin.
        level: seed of its level, or None if it comes from no level.
    """

    frames_THWC: np.ndarray
    actions: np.ndarray | None
    source: str
    level: int | None = None


def picture_prompt(path: Path, frame_shape: tuple[int, int, int]) -> Prompt:
    """Makes a prompt of one frame of a shape: the centre of a picture, cropped to a square and scaled.

    Raises:
        PromptError: `read_picture` cannot read the picture.
    """
    return Prompt(read_picture(path, str(path), frame_shape)[None], None, str(path))


def read_picture(file: Path | BinaryIO, name: str, frame_shape: tuple[int, int, int]) -> np.ndarray:
    """Reads a picture as a frame `(H, W, C)`: its centre, cropped to a square and scaled.

    Args:
        file: picture in one of `PICTURE_FORMATS`.
        name: name of the picture in error messages.
        frame_shape: H, W and 3.

    Raises:
        PromptError: it is not a picture, or is so large that it could exhaust the memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=PICTURE_FORMATS) as picture:
                picture.draft("RGB", ENOUGH)  # JPEG only: decodes at a reduced size of at least `ENOUGH`
                if math.prod(picture.size) > MAX_PIXELS:
                    raise Image.DecompressionBombError
                upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PromptError(f"{name}: has more than {MAX_PIXELS / 1e6:.0f} million pixels; scale it down") from None
    except FileNotFoundError:
        raise PromptError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise PromptError(f"{name}: no picture; give a PNG or JPEG") from None
    except Exception as error:  # Pillow's decoders raise many exception types on damaged files
        raise PromptError(f"{name}: no picture, or a damaged one ({error}); give a PNG or JPEG") from None
    return np.array(ImageOps.fit(upright, frame_shape[:2], Image.Resampling.BOX))


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Writes prompts of levels or films, of equal length and with known actions, as `.npz`: `frames` uint8
    `(M, T, H, W, C)`, `actions` uint8 `(M, T-1)`, `seeds` of their levels int64 `(M,)`, and `sources` `(M,)`."""
    np.savez_compressed(
        path,
        version=np.int64(VERSION),
        frames=np.stack([prompt.frames_THWC for prompt in prompts]),
        actions=np.stack([prompt.actions for prompt in prompts]).astype(np.uint8),  # pyright: ignore[reportCallIssue, reportArgumentType]
        seeds=np.array([prompt.level for prompt in prompts], np.int64),
        sources=np.array([prompt.source for prompt in prompts]),
    )


def read_prompts(path: Path, frame_shape: tuple[int, int, int]) -> tuple[Prompt, ...]:
    """Reads a file written by `write_prompts`.

    Raises:
        PromptError: the file is missing or damaged, or its frames have another shape.
    """
    try:
        # Opened here, since numpy leaves a damaged archive open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            version = int(file["version"])
            frames_MTHWC, actions_MS, seeds_M = file["frames"], file["actions"], file["seeds"]
            # Files of earlier versions of this code hold only prompts of levels, and not what they are called.
            sources_M = file.get("sources", np.array([f"level {seed}" for seed in seeds_M]))
        assert version == VERSION
        assert frames_MTHWC.dtype == actions_MS.dtype == np.uint8
        assert frames_MTHWC.ndim == 5
        assert seeds_M.shape == frames_MTHWC.shape[:1]
        assert actions_MS.shape == (len(seeds_M), frames_MTHWC.shape[1] - 1)
        assert sources_M.dtype.kind == "U"
        assert sources_M.shape == seeds_M.shape
    except (OSError, ValueError, KeyError, EOFError, AssertionError, BadZipFile, zlib.error):
        raise PromptError(f"{path}: no prompts, or damaged ones; `genie export` writes them") from None
    if frames_MTHWC.shape[2:] != frame_shape:
        raise PromptError(
            f"{path}: prompts of {_size(frames_MTHWC.shape[2:])} pixels for a world of {_size(frame_shape)}; "
            "`genie export` writes both"
        )
    rows = zip(frames_MTHWC, actions_MS.astype(np.int64), sources_M.tolist(), seeds_M.tolist(), strict=True)
    return tuple(Prompt(frames, actions, source, seed) for frames, actions, source, seed in rows)


def _size(frame_shape: tuple[int, ...]) -> str:
    return "x".join(map(str, frame_shape[:2]))
