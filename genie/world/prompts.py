"""What a dream starts from: real frames of the test split, or any picture.

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

from genie.core.frames import FRAME_SHAPE

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow hands others to programs it finds
VERSION = 1  # of a file of prompts
MAX_PIXELS = 24 * 10**6  # of a picture that is decoded whole, which then takes up to 300 MB for a moment
ENOUGH = (512, 512)  # pixels from which a frame is scaled well


class PromptError(ValueError):
    """No dream can start from what was given; the message names the cause and the fix."""


@dataclass(frozen=True)
class Prompt:
    """What a dream starts from.

    Attributes:
        frames_THWC: frames in a row.
        actions: `(T - 1,)` int64 latent actions between them, or None where they are not known.
        source: where it comes from, in words.
        level: the seed of its level, where it is of one.
    """

    frames_THWC: np.ndarray
    actions: np.ndarray | None
    source: str
    level: int | None = None


def picture_prompt(path: Path) -> Prompt:
    """One frame, the centre of any picture, cut square and scaled.

    Raises:
        PromptError: it is none that `read_picture` takes.
    """
    return Prompt(read_picture(path, str(path))[None], None, str(path))


def read_picture(file: Path | BinaryIO, name: str) -> np.ndarray:
    """The frame `(H, W, C)` that a picture is to a world: its centre, cut square and scaled.

    Args:
        file: of one of `PICTURE_FORMATS`.
        name: what messages call it.

    Raises:
        PromptError: it is no picture, or so large that it may be meant to exhaust the memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=PICTURE_FORMATS) as picture:
                picture.draft("RGB", ENOUGH)  # a JPEG, and no other, is then decoded no larger than that takes
                if math.prod(picture.size) > MAX_PIXELS:
                    raise Image.DecompressionBombError
                upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PromptError(f"{name}: has more than {MAX_PIXELS / 1e6:.0f} million pixels; scale it down") from None
    except FileNotFoundError:
        raise PromptError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise PromptError(f"{name}: no picture; give a PNG or JPEG") from None
    except Exception as error:  # on a damaged file Pillow's decoders raise whatever they stumble over
        raise PromptError(f"{name}: no picture, or a damaged one ({error}); give a PNG or JPEG") from None
    return np.array(ImageOps.fit(upright, FRAME_SHAPE[:2], Image.Resampling.BOX))


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Writes prompts of levels, equally long and with their actions known, as `.npz`: `frames` uint8
    `(M, T, H, W, C)`, `actions` uint8 `(M, T-1)` and `seeds` int64 `(M,)` of their levels."""
    np.savez_compressed(
        path,
        version=np.int64(VERSION),
        frames=np.stack([prompt.frames_THWC for prompt in prompts]),
        actions=np.stack([prompt.actions for prompt in prompts]).astype(np.uint8),
        seeds=np.array([prompt.level for prompt in prompts], np.int64),
    )


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Reads what `write_prompts` wrote.

    Raises:
        PromptError: it is damaged.
    """
    try:
        # Opened here, since numpy leaves a damaged archive open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            version = int(file["version"])
            frames_MTHWC, actions_MS, seeds_M = file["frames"], file["actions"], file["seeds"]
        assert version == VERSION
        assert frames_MTHWC.dtype == actions_MS.dtype == np.uint8
        assert frames_MTHWC.ndim == 5
        assert frames_MTHWC.shape[2:] == FRAME_SHAPE
        assert seeds_M.shape == frames_MTHWC.shape[:1]
        assert actions_MS.shape == (len(seeds_M), frames_MTHWC.shape[1] - 1)
    except (OSError, ValueError, KeyError, EOFError, AssertionError, BadZipFile, zlib.error):
        raise PromptError(f"{path}: no prompts, or damaged ones; `genie export` writes them") from None
    rows = zip(frames_MTHWC, actions_MS.astype(np.int64), seeds_M.tolist(), strict=True)
    return tuple(Prompt(frames, actions, f"level {seed}", seed) for frames, actions, seed in rows)
