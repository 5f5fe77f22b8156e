"""What a dream starts from: real frames of the test split, or any picture.

Legend: `T` prompt frames, `S` transitions, `M` clips, `H W C` pixels; frames are uint8 RGB.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from genie.data.episodes import FRAME_SHAPE, EpisodeStore
from genie.data.motion import is_moving
from genie.data.tokens import CacheFileError, read_latent_actions
from genie.data.windows import read_windows, spread_starts, window_starts

FRAMES = Path("data/frames/test.h5")
LATENT_ACTIONS = Path("data/actions/test.h5")
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow hands others to programs it finds
NUM_CLIPS = 64  # looked at for a lively one


class PromptError(ValueError):
    """No dream can start from what was given; the message names the cause and the fix."""


@dataclass(frozen=True)
class Prompt:
    """What a dream starts from.

    Attributes:
        frames_THWC: frames in a row.
        actions: `(T - 1,)` int64 latent actions between them, or None where they are not known.
        source: where it comes from, in words.
    """

    frames_THWC: np.ndarray
    actions: np.ndarray | None
    source: str


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
        PromptError: it is no picture, or so large that it may be meant to exhaust the memory (Pillow's limit).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=PICTURE_FORMATS) as picture:
                upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise PromptError(f"{name}: has more than {limit}; scale it down") from None
    except FileNotFoundError:
        raise PromptError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise PromptError(f"{name}: no picture; give a PNG or JPEG") from None
    except Exception as error:  # on a damaged file Pillow's decoders raise whatever they stumble over
        raise PromptError(f"{name}: no picture, or a damaged one ({error}); give a PNG or JPEG") from None
    return np.array(ImageOps.fit(upright, FRAME_SHAPE[:2], Image.Resampling.BOX))


def held_out_prompt(frame: int, context: int, lam_fingerprint: str) -> Prompt:
    """The `context` real frames of the test split that end at index `frame`; fewer where an episode starts.

    The latent actions between them are known if the cache of that LAM's actions is there.

    Raises:
        PromptError: there is no such frame.
        EpisodeFileError: there is no test split.
    """
    store = EpisodeStore(FRAMES)
    if not 0 <= frame < store.num_frames:
        raise PromptError(f"there is no frame {frame}: {FRAMES} holds frames 0 to {store.num_frames - 1}")
    episode_start = int(store.episode_starts[store.episode_starts <= frame][-1])
    start = max(episode_start, frame - context + 1)
    try:
        actions = read_latent_actions(LATENT_ACTIONS, lam_fingerprint)[start:frame].astype(np.int64)
    except CacheFileError:
        actions = None
    return Prompt(store.read(start, frame + 1), actions, f"frame {frame} of {FRAMES}")


def lively_frame(context: int, horizon: int) -> int:
    """The last prompt frame of the test clip, of some spread over the split, in which most transitions move.

    Args:
        context: prompt frames of a clip.
        horizon: frames of a clip after them.

    Raises:
        EpisodeFileError: there is no test split.
        WindowError: no episode holds such a clip.
    """
    store, length = EpisodeStore(FRAMES), context + horizon
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, length), NUM_CLIPS)
    clips_MTHWC = read_windows(store, starts, length)
    moving_MS = is_moving(clips_MTHWC[:, :-1], clips_MTHWC[:, 1:])
    return int(starts[moving_MS.sum(axis=1).argmax()]) + context - 1
